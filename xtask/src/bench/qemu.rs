//! The peer of running machines: QEMU with the same accelerator and the same guest.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;
use crate::workspace::installed;

/// The program.
const PROGRAM: &str = "qemu-system-x86_64";

/// Nothing of what it is asked takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the peer cannot run here, if it cannot.
pub fn missing() -> Option<String> {
    (!installed(PROGRAM)).then(|| format!("{PROGRAM} is not installed (package qemu-system-x86)"))
}

/// A QEMU whose first serial port is its standard input and output. It ends when this is dropped.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    qmp: PathBuf,
}

impl Qemu {
    /// Starts one with `arguments` behind those that all have; `scratch` takes its socket.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(scratch: &Path, rom: &Path, megabytes: u32, arguments: &[&str]) -> Result<Self> {
        let said = |error: std::io::Error| format!("{PROGRAM}: {error}");
        let qmp = scratch.join("qmp.sock");
        let _ = std::fs::remove_file(&qmp);
        let mut command = Command::new(PROGRAM);
        command.args(["-accel", "kvm", "-nodefaults", "-display", "none", "-m", &megabytes.to_string()]);
        command.arg("-bios").arg(rom).args(arguments);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", qmp.display()));
        let log = std::fs::File::create(scratch.join("qemu.log")).map_err(said)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(said)?;
        let output = child.stdout.take().ok_or("no standard output")?;
        Ok(Qemu { input: child.stdin.take(), child, output, qmp })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn ended(mut self) -> Result<()> {
        self.child.wait().map(drop).map_err(|error| format!("{PROGRAM}: {error}"))
    }

    /// Waits until the guest has sent so many more bytes.
    ///
    /// # Errors
    /// When it ends instead.
    pub fn wait_sent(&mut self, count: usize) -> Result<()> {
        let read = self.output.read_exact(&mut vec![0; count]);
        read.map_err(|error| format!("{PROGRAM} has ended ({error}); see qemu.log in the scratch directory"))
    }

    /// Sends to the guest.
    ///
    /// # Errors
    /// When it has ended.
    pub fn send(&mut self, text: &str) -> Result<()> {
        let input = self.input.as_mut().ok_or("no standard input")?;
        let sent = input.write_all(text.as_bytes()).and_then(|()| input.flush());
        sent.map_err(|error| format!("{PROGRAM}: {error}"))
    }

    /// Opens a conversation with its monitor, as soon as there is one.
    ///
    /// # Errors
    /// When there is none.
    pub fn monitor(&mut self) -> Result<Monitor> {
        let limit = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(&self.qmp) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > limit || !matches!(self.child.try_wait(), Ok(None)) => {
                    return Err(format!("{PROGRAM}: {error}"));
                }
                Err(_) => std::thread::sleep(Duration::from_micros(500)),
            }
        };
        let said = |error: std::io::Error| format!("{PROGRAM}: {error}");
        stream.set_read_timeout(Some(PATIENCE)).map_err(said)?;
        let mut monitor = Monitor { lines: BufReader::new(stream.try_clone().map_err(said)?), stream };
        monitor.line()?;
        monitor.ask("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The monitor of a QEMU.
#[derive(Debug)]
pub struct Monitor {
    lines: BufReader<UnixStream>,
    stream: UnixStream,
}

impl Monitor {
    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line);
        read.map_err(|error| format!("QMP: {error}"))?;
        serde_json::from_str(&line).map_err(|error| format!("QMP: {error} in {line:?}"))
    }

    /// Asks, and returns the answer; events that come before it are lost.
    ///
    /// # Errors
    /// When it says no.
    pub fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.stream, "{request}").map_err(|error| format!("QMP: {error}"))?;
        loop {
            let mut answer = self.line()?;
            if let Some(error) = answer.get("error") {
                return Err(format!("QMP: {command}: {error}"));
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Asks again and again, until the answer says what is awaited.
    ///
    /// # Errors
    /// When it never does.
    pub fn until(&mut self, command: &str, field: &str, value: &str) -> Result<()> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(command, &json!({}))?;
            if answer.get(field).and_then(Value::as_str) == Some(value) {
                return Ok(());
            }
            if Instant::now() > limit {
                return Err(format!("QMP: {command}: {answer}, never {value}"));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}
