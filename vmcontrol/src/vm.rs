//! The machine object: everything that is about one machine.
//!
//! It has a connection of its own and needs no server object. Registration and rights are checked when
//! it connects, by a `VM_INFO` that also puts the session on the list of who is connected; the same
//! request is sent again when the connection had to be opened anew.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use vmcontrol_client::{Connection, DEFAULT_TIMEOUT, Element, Error, ErrorCode, Params, Request};

use crate::object::Body;
use crate::screenshot;

/// `VMControl_VMGetProductInfo`'s number of ESX, whose snapshots take five arguments.
const PRODUCT_ESX: i32 = 3;

/// A machine, connected or not.
#[derive(Debug)]
pub struct Vm {
    session: Option<Session>,
    timeout: Duration,
}

#[derive(Debug)]
struct Session {
    connection: Connection,
    /// Path of the .vmx, as it was given.
    config: String,
    /// Whether the console was asked for.
    mks: bool,
}

impl Default for Vm {
    fn default() -> Self {
        Self { session: None, timeout: DEFAULT_TIMEOUT }
    }
}

impl Body for Vm {
    fn abandon(&mut self) {
        self.session = None;
    }
}

/// A question of a machine that is stuck.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    /// Its number, for the answer.
    pub id: i32,
    /// What it asks.
    pub text: String,
    /// Possible answers; the first is number 0.
    pub choices: Vec<String>,
    /// Number of the answer that is suggested.
    pub default_choice: i32,
}

/// What `VMCreateSnapshot` gets where the product is ESX.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// A name for people.
    pub name: Option<String>,
    /// More words.
    pub description: Option<String>,
    /// Whether the guest is asked to write its caches first.
    pub quiesce: bool,
    /// Whether the memory belongs to it.
    pub memory: bool,
}

impl Vm {
    /// Logs in, and looks the machine up: it must be registered, and the rights must do.
    pub fn connect(&mut self, params: Params, config: &str, mks: bool) -> Result<(), Error> {
        if self.is_connected() {
            return Err(Error::new(ErrorCode::AlreadyConnected));
        }
        self.session = None;
        let params = Params { timeout: self.timeout, ..params };
        let mut connection = Connection::open(&params)?;
        let hello = Request::new("VM_INFO").text("config", config).flag("connect", true).flag("mks", mks);
        connection.call(&hello)?;
        connection.set_hello(&hello);
        self.session = Some(Session { connection, config: config.to_owned(), mks });
        Ok(())
    }

    /// Closes the connection, if there is one.
    pub fn disconnect(&mut self) {
        self.session = None;
    }

    /// Whether there is a connection, as far as is known without asking.
    pub fn is_connected(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.connection.is_connected())
    }

    /// Sets the longest time of one call, also of the next connect.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
        if let Some(session) = &mut self.session {
            session.connection.set_timeout(timeout);
        }
    }

    fn session(&mut self) -> Result<&mut Session, Error> {
        self.session.as_mut().ok_or_else(|| Error::new(ErrorCode::NotConnected))
    }

    /// Asks for an operation on this machine.
    fn ask(&mut self, operation: &str) -> Result<Element, Error> {
        self.ask_with(operation, |request| request)
    }

    fn ask_with(
        &mut self,
        operation: &str,
        arguments: impl FnOnce(Request) -> Request,
    ) -> Result<Element, Error> {
        let session = self.session()?;
        let request = Request::new(operation).text("config", &session.config);
        session.connection.call(&arguments(request))
    }

    /// A figure of a machine that runs; one that does not has 0.
    fn figure<N: std::str::FromStr + Default>(&mut self, operation: &str, name: &str) -> Result<N, Error> {
        match self.ask(operation) {
            Ok(out) => out.number(name),
            Err(error) if error.code == ErrorCode::BadState => Ok(N::default()),
            Err(error) => Err(error),
        }
    }

    /// The path that was given to connect.
    pub fn config_file_name(&mut self) -> Result<String, Error> {
        self.session().map(|session| session.config.clone())
    }

    /// 1 on, 2 off, 3 suspended, 4 stuck, 5 unknown.
    pub fn execution_state(&mut self) -> Result<i32, Error> {
        self.ask("VM_GetState")?.number("state")
    }

    /// One of the six numbers of the product; see the header.
    pub fn product_info(&mut self, kind: i32) -> Result<i32, Error> {
        let name = match kind {
            1 => "product",
            2 => "platform",
            3 => "build",
            4 => "majorVersion",
            5 => "minorVersion",
            6 => "revision",
            _ => return Err(Error::invalid("type", format_args!("there is no product information {kind}"))),
        };
        self.ask("VM_GetProductInfo")?.number(name)
    }

    /// Rights of the connected user: read 4, write 2, execute 1.
    pub fn capabilities(&mut self) -> Result<u32, Error> {
        self.ask("VM_GetCapabilities")?.number("capabilities")
    }

    /// Seconds since power on.
    pub fn uptime(&mut self) -> Result<u32, Error> {
        self.figure("VM_GetUptime", "uptime")
    }

    /// A running counter from the guest's Tools.
    pub fn heartbeat(&mut self) -> Result<u32, Error> {
        self.figure("VM_GetHeartbeat", "heartbeat")
    }

    /// 0 no Tools, 1 normal, 5 intermittent, 100 no heartbeat.
    pub fn tools_last_active(&mut self) -> Result<i32, Error> {
        self.figure("VM_GetToolsLastActive", "toolsLastActive")
    }

    /// Consoles that are connected.
    pub fn remote_connections(&mut self) -> Result<u32, Error> {
        self.figure("VM_GetRemoteConnections", "remoteConnections")
    }

    /// Process id of the machine.
    pub fn pid(&mut self) -> Result<u32, Error> {
        self.info("pid")
    }

    /// Number of the running machine.
    pub fn id(&mut self) -> Result<u32, Error> {
        self.info("id")
    }

    fn info(&mut self, name: &str) -> Result<u32, Error> {
        let out = self.ask("VM_INFO")?;
        let vm = out.child("vm").ok_or_else(|| Error::new(ErrorCode::Garbage))?;
        vm.number(name)
    }

    /// The user that the machine runs as.
    pub fn run_as_user(&mut self) -> Result<String, Error> {
        self.ask("VM_GetRunAsUser")?.need("user").map(str::to_owned)
    }

    /// A value of the .vmx.
    pub fn config(&mut self, key: &str) -> Result<String, Error> {
        self.ask_with("VM_GetConfig", |request| request.text("key", key))?.need("value").map(str::to_owned)
    }

    /// Sets a value of the .vmx.
    pub fn set_config(&mut self, key: &str, value: &str) -> Result<(), Error> {
        self.ask_with("VM_SetConfig", |request| request.text("key", key).text("value", value)).map(drop)
    }

    /// A variable of the guest.
    pub fn guest_info(&mut self, key: &str) -> Result<String, Error> {
        self.ask_with("VM_GetGuestInfo", |request| request.text("key", key))?.need("value").map(str::to_owned)
    }

    /// Sets a variable of the guest.
    pub fn set_guest_info(&mut self, key: &str, value: &str) -> Result<(), Error> {
        self.ask_with("VM_SetGuestInfo", |request| request.text("key", key).text("value", value)).map(drop)
    }

    /// A figure of the machine.
    pub fn resource(&mut self, name: &str) -> Result<String, Error> {
        self.ask_with("VM_GetResource", |request| request.text("name", name))?
            .need("value")
            .map(str::to_owned)
    }

    /// Sets a figure of the machine.
    pub fn set_resource(&mut self, name: &str, value: &str) -> Result<(), Error> {
        self.ask_with("VM_SetResource", |request| request.text("name", name).text("value", value)).map(drop)
    }

    fn power(&mut self, operation: &str, mode: i32) -> Result<(), Error> {
        if !(1..=3).contains(&mode) {
            return Err(Error::invalid("mode", format_args!("there is no power mode {mode}")));
        }
        self.ask_with(operation, |request| request.number("mode", mode.into())).map(drop)
    }

    /// Powers on, or lets a suspended machine go on.
    pub fn start(&mut self, mode: i32) -> Result<(), Error> {
        self.power("VM_Start", mode)
    }

    /// Powers off, or resets.
    pub fn stop_or_reset(&mut self, stop: bool, mode: i32) -> Result<(), Error> {
        self.power(if stop { "VM_Stop" } else { "VM_Reset" }, mode)
    }

    /// Suspends to a file.
    pub fn suspend(&mut self, mode: i32) -> Result<(), Error> {
        self.power("VM_Suspend", mode)
    }

    /// Whether there is a snapshot.
    pub fn has_snapshot(&mut self) -> Result<bool, Error> {
        self.ask("VM_HasSnapshot")?.flag("hasSnapshot")
    }

    /// Takes a snapshot. `arguments` is asked only where the product is ESX: nobody else passes any.
    pub fn create_snapshot(
        &mut self,
        arguments: impl FnOnce() -> Result<Snapshot, Error>,
    ) -> Result<(), Error> {
        if self.product_info(1)? != PRODUCT_ESX {
            return self.ask("VM_CreateSnapshot").map(drop);
        }
        let snapshot = arguments()?;
        let with = |request: Request| {
            let request = request.flag("quiesce", snapshot.quiesce).flag("memory", snapshot.memory);
            let name = snapshot.name.iter().fold(request, |request, name| request.text("name", name));
            snapshot.description.iter().fold(name, |request, text| request.text("description", text))
        };
        self.ask_with("VM_CreateSnapshot", with).map(drop)
    }

    /// Goes back to the newest snapshot.
    pub fn revert_to_snapshot(&mut self) -> Result<(), Error> {
        self.ask("VM_RevertToSnapshot").map(drop)
    }

    /// Removes all snapshots; the machine stays as it is.
    pub fn remove_all_snapshots(&mut self) -> Result<(), Error> {
        self.ask("VM_RemoveAllSnapshots").map(drop)
    }

    /// Plugs a device in or out.
    pub fn plug(&mut self, device: &str, connect: bool) -> Result<(), Error> {
        let operation = if connect { "VM_DeviceConnect" } else { "VM_DeviceDisconnect" };
        self.ask_with(operation, |request| request.text("device", device)).map(drop)
    }

    /// Whether a device is plugged in.
    pub fn is_plugged(&mut self, device: &str) -> Result<bool, Error> {
        self.ask_with("VM_DeviceIsConnected", |request| request.text("device", device))?.flag("connected")
    }

    /// Writes a picture of the screen into a file on this machine.
    pub fn save_screenshot(&mut self, path: &Path, format: &str) -> Result<(), Error> {
        if format != "PNG" {
            return Err(Error::invalid("format", format_args!("{format} is not PNG")));
        }
        if !self.session()?.mks {
            let detail = "connect with mks = 1 to take screenshots";
            return Err(Error::with(ErrorCode::NotConnected, detail));
        }
        let out = self.ask_with("VM_SaveScreenshot", |request| request.text("format", format))?;
        let image = STANDARD.decode(out.need("contents")?.trim());
        let image = image.map_err(|error| Error::garbage(format_args!("the image: {error}")))?;
        screenshot::write(path, &image)
    }

    /// What the machine wants to know, if anything.
    pub fn question(&mut self) -> Result<Option<Question>, Error> {
        let out = self.ask("VM_GetQuestion")?;
        let Some(question) = out.child("question") else { return Ok(None) };
        Ok(Some(Question {
            id: question.number("id")?,
            text: question.need("text")?.to_owned(),
            choices: question.list("choices", "choice").map(|choice| choice.content.clone()).collect(),
            default_choice: question.number("defaultChoice")?,
        }))
    }

    /// Answers a question; the machine goes on.
    pub fn answer(&mut self, id: i32, choice: i32) -> Result<(), Error> {
        let with = |request: Request| request.number("id", id.into()).number("choice", choice.into());
        self.ask_with("VM_AnswerQuestion", with).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_connection_everything_says_so() {
        let mut vm = Vm::default();
        assert_eq!(vm.execution_state().unwrap_err().code, ErrorCode::NotConnected);
        assert_eq!(vm.config_file_name().unwrap_err().code, ErrorCode::NotConnected);
        assert_eq!(
            vm.create_snapshot(|| panic!("rubbish is not looked at")).unwrap_err().code,
            ErrorCode::NotConnected
        );
        let screenshot = vm.save_screenshot(Path::new("/x.png"), "PNG");
        assert_eq!(screenshot.unwrap_err().code, ErrorCode::NotConnected);
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused_before_anything_is_sent() {
        let mut vm = Vm::default();
        for kind in [i32::MIN, -1, 0, 7, i32::MAX] {
            assert_eq!(vm.product_info(kind).unwrap_err().code, ErrorCode::InvalidArgs);
        }
        for mode in [i32::MIN, 0, 4] {
            assert_eq!(vm.start(mode).unwrap_err().code, ErrorCode::InvalidArgs);
            assert_eq!(vm.stop_or_reset(true, mode).unwrap_err().code, ErrorCode::InvalidArgs);
        }
        assert_eq!(vm.save_screenshot(Path::new("/x"), "png").unwrap_err().code, ErrorCode::InvalidArgs);
    }

    /// Every operation that is asked for exists, with those arguments.
    #[test]
    fn the_operations_are_in_the_table() {
        let text = concat!(include_str!("vm.rs"), include_str!("server.rs"));
        let words = text.split('"').filter(|word| word.starts_with("VM") && !word.contains(' '));
        let names: Vec<&str> = words.filter(|word| *word != "VM" && !word.contains(')')).collect();
        assert!(names.len() > 25, "{names:?}");
        for name in names {
            // Reserved: the server answers -17.
            assert!(ops::lookup(name).is_some() || name == "VMServerd_SetResource", "{name}");
        }
    }
}
