//! Screen, keyboard and serial ports of a machine.

use handlers_derive::handler;
use hypervisor::control::{FromVmx, MAX_CHUNK, ToVmx};
use ops::value::{Encoding, Size, to_base64};
use ops::vm_console::{
    SaveScreenshot, SaveScreenshotReply, SendKeys, SerialRead, SerialReadReply, SerialWrite, SerialWriteReply,
};
use ops::vm_power::ConfigReply;
use ops::{Error, ErrorCode};

use crate::{Ctx, Failure, machine, pieces};

/// Most characters that are typed at once. Ours.
const MAX_KEYS: usize = 4096;

/// The screen as a PNG file.
#[handler]
async fn save_screenshot(ctx: &Ctx, req: SaveScreenshot) -> Result<SaveScreenshotReply, Failure> {
    let machine = machine::operable(ctx, &req.config).await?;
    if !req.format.trim().eq_ignore_ascii_case("png") {
        let why = format!("format {}; PNG is", req.format.trim());
        return Err(Error::with(ErrorCode::NotSupported, why).into());
    }
    machine::facts(ctx, &machine).await?.process("screenshot")?;
    let ask = ToVmx::Screenshot { request: 0 };
    match ctx.core.ask_machine(req.config.as_str(), machine.descriptor()?, ask).await?.pop() {
        Some(FromVmx::Picture { width, height, png, .. }) => Ok(SaveScreenshotReply {
            config: req.config,
            format: "PNG".to_owned(),
            width,
            height,
            encoding: Encoding::Base64,
            contents: to_base64(&png),
        }),
        _ => Err(Failure::internal("asking a machine", "no picture in its answer")),
    }
}

/// Types.
#[handler]
async fn send_keys(ctx: &Ctx, req: SendKeys) -> Result<ConfigReply, Failure> {
    let machine = machine::operable(ctx, &req.config).await?;
    let bytes = req.encoding.decode(req.text).map_err(|why| Error::invalid("text", why))?;
    let text = String::from_utf8(bytes).map_err(|_| Error::invalid("text", "not UTF-8"))?;
    if text.chars().count() > MAX_KEYS {
        return Err(Error::invalid("text", format_args!("more than {MAX_KEYS} characters")).into());
    }
    machine::facts(ctx, &machine).await?.process("sendkeys")?;
    let ask = ToVmx::Keys { request: 0, text };
    ctx.core.ask_machine(req.config.as_str(), machine.descriptor()?, ask).await?;
    Ok(ConfigReply { config: req.config })
}

/// What came out of a serial port, also after power off.
#[handler]
async fn serial_read(ctx: &Ctx, req: SerialRead) -> Result<SerialReadReply, Failure> {
    let machine = machine::operable(ctx, &req.config).await?;
    let facts = machine::facts(ctx, &machine).await?;
    // A machine that is on has the ports of when it was powered on; its process knows.
    if facts.running.is_none() {
        check_port(&machine, req.port)?;
    }
    let ask = ToVmx::SerialRead {
        request: 0,
        port: req.port,
        offset: req.offset.0,
        max: req.max_bytes,
        wait: req.wait.saturating_mul(1000),
    };
    match ctx.core.ask_machine(req.config.as_str(), machine.descriptor()?, ask).await?.pop() {
        Some(FromVmx::Output { port, offset, lost, bytes, .. }) => {
            // The rest of a character that is cut off here comes with the next piece.
            let (encoding, contents, length) = pieces::encode(&bytes, true);
            Ok(SerialReadReply {
                config: req.config,
                port,
                offset: Size(offset),
                next_offset: Size(offset.saturating_add(length as u64)),
                lost: Size(lost),
                encoding,
                contents,
            })
        }
        _ => Err(Failure::internal("asking a machine", "no output in its answer")),
    }
}

/// Sends to a serial port.
#[handler]
async fn serial_write(ctx: &Ctx, req: SerialWrite) -> Result<SerialWriteReply, Failure> {
    let machine = machine::operable(ctx, &req.config).await?;
    let bytes = req.encoding.decode(req.contents).map_err(|why| Error::invalid("contents", why))?;
    if bytes.len() > MAX_CHUNK {
        return Err(Error::invalid("contents", format_args!("more than {MAX_CHUNK} bytes")).into());
    }
    let facts = machine::facts(ctx, &machine).await?;
    if facts.running.is_none() {
        check_port(&machine, req.port)?;
    }
    facts.process("serialwrite")?;
    let ask = ToVmx::SerialWrite { request: 0, port: req.port, bytes };
    match ctx.core.ask_machine(req.config.as_str(), machine.descriptor()?, ask).await?.pop() {
        Some(FromVmx::Written { count, .. }) => {
            Ok(SerialWriteReply { config: req.config, port: req.port, written: count })
        }
        _ => Err(Failure::internal("asking a machine", "no count in its answer")),
    }
}

/// Whether the .vmx has the port.
fn check_port(machine: &machine::Machine, port: u32) -> Result<(), Error> {
    if machine.vmx.serial_ports().iter().any(|known| known.number == port) {
        Ok(())
    } else {
        Err(Error::with(ErrorCode::NoProperty, format_args!("serial{port}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{Stage, told};
    use hypervisor::control::State;

    const VMX: &str = "config.version = \"8\"\nserial0.present = \"TRUE\"\n";

    #[tokio::test]
    async fn the_screen_is_a_png() {
        let stage = Stage::new(VMX);
        let shot = |format: &str| SaveScreenshot { config: stage.config.clone(), format: format.into() };
        assert_eq!(told(save_screenshot(&stage.ctx, shot("BMP")).await).code, ErrorCode::NotSupported);
        let error = told(save_screenshot(&stage.ctx, shot("png")).await);
        assert_eq!(error, Error::state_conflict("screenshot", "off"));
        stage.script.run(stage.config.as_str(), State::On);
        stage.script.answer(Ok(vec![FromVmx::Picture {
            request: 1,
            width: 720,
            height: 400,
            png: b"\x89PNG".into(),
        }]));
        let reply = save_screenshot(&stage.ctx, shot("png")).await.unwrap();
        assert_eq!((reply.width, reply.height, reply.format.as_str()), (720, 400, "PNG"));
        assert_eq!(reply.contents, "iVBORw==");
        stage.mode(0o600);
        assert_eq!(told(save_screenshot(&stage.ctx, shot("png")).await), Error::no_access(&stage.config));
    }

    #[tokio::test]
    async fn keys_are_typed() {
        let stage = Stage::new(VMX);
        let keys =
            |encoding, text: &str| SendKeys { config: stage.config.clone(), encoding, text: text.into() };
        let error = told(send_keys(&stage.ctx, keys(Encoding::Text, "ls\n")).await);
        assert_eq!(error, Error::state_conflict("sendkeys", "off"));
        stage.script.run(stage.config.as_str(), State::On);
        send_keys(&stage.ctx, keys(Encoding::Text, "ls\n")).await.unwrap();
        send_keys(&stage.ctx, keys(Encoding::Base64, "Gw==")).await.unwrap();
        let typed = |text: &str| ToVmx::Keys { request: 0, text: text.into() };
        assert_eq!(stage.script.asked(), [typed("ls\n"), typed("\u{1b}")]);
        for (encoding, text) in [
            (Encoding::Base64, "!"),
            (Encoding::Base64, "/w=="),
            (Encoding::Text, &*"x".repeat(MAX_KEYS + 1)),
        ] {
            assert_eq!(told(send_keys(&stage.ctx, keys(encoding, text)).await).code, ErrorCode::InvalidArgs);
        }
    }

    #[tokio::test]
    async fn serial_ports_are_read_and_written() {
        let stage = Stage::new(VMX);
        let read = |port| SerialRead {
            config: stage.config.clone(),
            port,
            offset: Size(10),
            max_bytes: 100,
            wait: 2,
        };
        let write = |contents: &str| SerialWrite {
            config: stage.config.clone(),
            port: 0,
            encoding: Encoding::Text,
            contents: contents.into(),
        };
        assert_eq!(told(serial_read(&stage.ctx, read(1)).await).text, "No such property: serial1");
        let output =
            |bytes: &[u8]| FromVmx::Output { request: 1, port: 0, offset: 12, lost: 2, bytes: bytes.into() };
        stage.script.answer(Ok(vec![output("aé".as_bytes())]));
        let reply = serial_read(&stage.ctx, read(0)).await.unwrap();
        assert_eq!((reply.offset, reply.next_offset, reply.lost), (Size(12), Size(15), Size(2)));
        assert_eq!((reply.encoding, reply.contents.as_str()), (Encoding::Text, "aé"));
        stage.script.answer(Ok(vec![output(b"a\xc3")]));
        let reply = serial_read(&stage.ctx, read(0)).await.unwrap();
        assert_eq!((reply.next_offset, reply.contents.as_str()), (Size(13), "a"));
        stage.script.answer(Ok(vec![output(b"\x1b[")]));
        assert_eq!(serial_read(&stage.ctx, read(0)).await.unwrap().encoding, Encoding::Base64);
        let asked = ToVmx::SerialRead { request: 0, port: 0, offset: 10, max: 100, wait: 2000 };
        assert_eq!(stage.script.asked()[0], asked);

        let error = told(serial_write(&stage.ctx, write("x")).await);
        assert_eq!(error, Error::state_conflict("serialwrite", "off"));
        stage.script.run(stage.config.as_str(), State::On);
        stage.script.answer(Ok(vec![FromVmx::Written { request: 1, count: 1 }]));
        assert_eq!(serial_write(&stage.ctx, write("x")).await.unwrap().written, 1);
        let error = told(serial_write(&stage.ctx, write(&"x".repeat(MAX_CHUNK + 1))).await);
        assert_eq!(error.code, ErrorCode::InvalidArgs);
    }
}
