//! `xtask run`, behind `make run`: an instance to play with.
//!
//! Starts an instance in `./instance`, asks it the first question of the API page as a local caller,
//! shows question and answer, says how to go on by hand, and stays until Ctrl-C.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;

use crate::instance::{Instance, Ports};
use crate::workspace::{self, Binaries};
use crate::{Result, supervise};

/// The first exec of the API page.
const FIRST_EXEC: &str = "<exec><op>inc</op><in><number>42</number></in></exec>";
/// How long the instance may take to answer it.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Arguments of `xtask run`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Directory of the instance [default: instance in the repository]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// TCP port on 127.0.0.1 for TLS callers; 0 is off
    #[arg(long, value_name = "N", default_value_t = 9902)]
    tls_port: u16,
    /// TCP port on 127.0.0.1 for plain callers; 0 is off
    #[arg(long, value_name = "M", default_value_t = 9903)]
    plain_port: u16,
}

/// Runs the command.
pub fn main(arguments: &Arguments) -> Result<()> {
    let root = arguments.root.clone().unwrap_or_else(|| workspace::root().join("instance"));
    let ports = Ports { tls: arguments.tls_port, plain: arguments.plain_port };
    let instance = Instance::claim(&root, ports)?;
    instance.configure(&[])?;
    eprintln!("building the gateway and the server (release; the first time takes a few minutes) ...");
    let binaries = Binaries::build()?;
    supervise::run(&instance, &binaries, async |instance| {
        let socket = instance.layout.authd_socket();
        let reply = tokio::time::timeout(ANSWER_LIMIT, first_exec(&socket)).await;
        let reply = reply.map_err(|_| format!("no answer within {ANSWER_LIMIT:?}"))??;
        println!("\nready {} socket={}\n", instance.ports.describe(), socket.display());
        println!("request  {FIRST_EXEC}");
        println!("reply    {}", reply.trim_end());
        print!("{}", how_to_talk(instance, &binaries));
        Ok(())
    })
}

/// Logs in as the local user, asks for the server, and sends the first exec. Returns the reply.
async fn first_exec(socket: &Path) -> Result<String> {
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|error| format!("cannot connect to {}: {error}", socket.display()))?;
    let mut stream = BufStream::new(stream);
    expect(&mut stream, "220 ").await?;
    for (command, code) in [("LOCAL\r\n", "230 "), ("GLOBAL server\r\n", "200 ")] {
        send(&mut stream, command).await?;
        expect(&mut stream, code).await?;
    }
    send(&mut stream, FIRST_EXEC).await?;
    expect(&mut stream, "<exec>").await
}

async fn send(stream: &mut BufStream<UnixStream>, text: &str) -> Result<()> {
    let sent = async {
        stream.write_all(text.as_bytes()).await?;
        stream.flush().await
    };
    sent.await.map_err(|error| format!("cannot send to the instance: {error}"))
}

/// Reads one line, which must start as given.
async fn expect(stream: &mut BufStream<UnixStream>, start: &str) -> Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await.map_err(|error| format!("cannot read from the instance: {error}"))?;
    if line.starts_with(start) {
        Ok(line)
    } else {
        Err(format!("the instance answered {:?} where {start:?} was expected", line.trim_end()))
    }
}

/// What a newcomer types next.
fn how_to_talk(instance: &Instance, binaries: &Binaries) -> String {
    let root = instance.layout.root().display();
    let socket = instance.layout.authd_socket();
    let Ports { tls, plain } = instance.ports;
    let mut text = String::from("\nTalk to it yourself. Open a connection with one of\n\n");
    if plain != 0 {
        text += &format!("    nc 127.0.0.1 {plain}   # plain TCP\n");
    }
    if tls != 0 {
        let command = "openssl s_client -quiet -starttls ftp -connect 127.0.0.1";
        text += &format!("    {command}:{tls}   # TLS\n");
    }
    text += &format!("    nc -U {}   # local socket\n", socket.display());
    text += "\nthen type LOCAL (no password: the kernel says who you are), or";
    text += if instance.layout.privileged { " USER and PASS of an account:\n\n" } else { ":\n\n" };
    text += "    LOCAL\n    GLOBAL server\n";
    text += "    <exec><op>VMServerd_GetOperationTable</op></exec>\n";
    if let Some(command) = binaries.vmware_cmd(instance.layout.root()) {
        text += "\nor let vmware-cmd do it:\n\n";
        for words in ["-h", "exec inc number=42", "ops", "doctor"] {
            text += &format!("    {command} {words}\n");
        }
    }
    text += &format!("\nLogs: {root}/var/log/vmware    Stop: Ctrl-C\n");
    text
}
