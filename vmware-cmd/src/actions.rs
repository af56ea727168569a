//! The actions of the old grammar, one row each: arguments, operation, value.
//!
//! ```text
//!   action(arguments as typed) = value       without -q
//!   value                                    with -q
//! ```
//!
//! The order of the rows is that of the help, the manual page and the completions.

use std::path::{Component, Path};

use serde_json::json;
use vmcontrol_client::{Element, Error, ErrorCode, Request};

use crate::failure::Failure;
use crate::grammar::Options;
use crate::output::Output;
use crate::server::{self, Server};
use crate::text::field;
use crate::{answer, connected};

/// An action of the old grammar.
#[derive(Debug)]
pub(crate) struct Action {
    /// Its name.
    pub name: &'static str,
    /// Its arguments as the help shows them: `<needed>`, `[not needed]`.
    pub usage: &'static str,
    does: Does,
}

/// How an action is carried out.
#[derive(Debug)]
enum Does {
    /// The operation with the arguments under these names; the value is 1.
    Change(&'static str, &'static [&'static str]),
    /// The same; the value is this element of the answer.
    Value(&'static str, &'static [&'static str], &'static str),
    /// The operation with a power mode; this one when none is given.
    Power(&'static str, &'static str),
    /// The value is this element of what was told at the connect.
    Fact(&'static str),
    /// The operation's value; 0 when the machine does not run.
    Running(&'static str, &'static str),
    /// `VM_GetProductInfo` and one of its elements.
    Product,
    /// The path that was typed.
    Path,
    /// Registering or unregistering the machine of a path.
    Registered(&'static str),
    /// The dialogue of a question.
    Answer,
    /// One line per user.
    Users,
    /// The server has no such operation: -17.
    Reserved,
}

impl Action {
    /// Fewest arguments.
    pub fn least(&self) -> usize {
        self.usage.split_whitespace().filter(|word| word.starts_with('<')).count()
    }

    /// Most arguments.
    pub fn most(&self) -> usize {
        self.usage.split_whitespace().count()
    }
}

const MODES: &str = "[hard|soft|trysoft]";

const fn row(name: &'static str, usage: &'static str, does: Does) -> Action {
    Action { name, usage, does }
}

/// Actions on a machine.
pub(crate) const MACHINE: &[Action] = &[
    row("getstate", "", Does::Value("VM_GetState", &[], "powerState")),
    row("start", MODES, Does::Power("VM_Start", "trysoft")),
    row("stop", MODES, Does::Power("VM_Stop", "soft")),
    row("reset", MODES, Does::Power("VM_Reset", "soft")),
    row("suspend", MODES, Does::Power("VM_Suspend", "soft")),
    row("answer", "", Does::Answer),
    row("getconfig", "<key>", Does::Value("VM_GetConfig", &["key"], "value")),
    row("setconfig", "<key> <value>", Does::Change("VM_SetConfig", &["key", "value"])),
    row("getguestinfo", "<key>", Does::Value("VM_GetGuestInfo", &["key"], "value")),
    row("setguestinfo", "<key> <value>", Does::Change("VM_SetGuestInfo", &["key", "value"])),
    row("getconfigfile", "", Does::Path),
    row("getproductinfo", "<product|platform|build|majorversion|minorversion|revision>", Does::Product),
    row("getpid", "", Does::Fact("pid")),
    row("getid", "", Does::Fact("id")),
    row("getuptime", "", Does::Running("VM_GetUptime", "uptime")),
    row("getheartbeat", "", Does::Running("VM_GetHeartbeat", "heartbeat")),
    row("gettoolslastactive", "", Does::Running("VM_GetToolsLastActive", "toolsLastActive")),
    row("getcapabilities", "", Does::Value("VM_GetCapabilities", &[], "capabilities")),
    row("getrunasuser", "", Does::Value("VM_GetRunAsUser", &[], "user")),
    row("setrunasuser", "<user> <password>", Does::Reserved),
    row("getconnectedusers", "", Does::Users),
    row("getremoteconnections", "", Does::Value("VM_GetRemoteConnections", &[], "remoteConnections")),
    row("connectdevice", "<device>", Does::Change("VM_DeviceConnect", &["device"])),
    row("disconnectdevice", "<device>", Does::Change("VM_DeviceDisconnect", &["device"])),
    row("getresource", "<variable>", Does::Value("VM_GetResource", &["name"], "value")),
    row("setresource", "<variable> <value>", Does::Change("VM_SetResource", &["name", "value"])),
    row("hassnapshot", "", Does::Value("VM_HasSnapshot", &[], "hasSnapshot")),
    row(
        "createsnapshot",
        "[name] [description] [quiesce] [memory]",
        Does::Change("VM_CreateSnapshot", &["name", "description", "quiesce", "memory"]),
    ),
    row("revertsnapshot", "", Does::Change("VM_RevertToSnapshot", &[])),
    row("removesnapshots", "", Does::Change("VM_RemoveAllSnapshots", &[])),
    row("addredo", "<disk>", Does::Reserved),
    row("commit", "<disk> <level> <freeze> <wait>", Does::Reserved),
];

/// Actions on the server.
pub(crate) const SERVER: &[Action] = &[
    row("register", "<cfg>", Does::Registered("VMRegister")),
    row("unregister", "<cfg>", Does::Registered("VMUnRegister")),
    row("getresource", "<variable>", Does::Value("VMServerd_GetResource", &["name"], "value")),
    row("setresource", "<variable> <value>", Does::Reserved),
];

/// A machine that is connected to.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The session.
    pub server: Server,
    /// Its path, as the server has it.
    pub config: String,
    /// What was told at the connect.
    facts: Element,
}

impl Machine {
    /// Connects to the server and to a machine, the path of which is given as typed.
    ///
    /// # Errors
    /// [`Failure::Machine`], also when there is no server; or no password.
    fn connect(options: &Options, typed: &str) -> Result<Self, Failure> {
        let failed = |error| Failure::Machine(typed.to_owned(), error);
        let params = server::params(options)?;
        let config = absolute(options, typed)?;
        let mut server = Server::open(&params, options.verbose).map_err(failed)?;
        let hello = Request::new("VM_INFO").text("config", &config).flag("connect", true);
        let mut told = server.call(&hello).map_err(failed)?;
        let facts = told.children.iter_mut().find(|child| child.name == "vm").map(std::mem::take);
        Ok(Machine { server, config, facts: facts.unwrap_or_default() })
    }

    /// Asks for an operation on this machine.
    ///
    /// # Errors
    /// As the server says it.
    pub fn call(&mut self, operation: &str, more: impl FnOnce(Request) -> Request) -> Result<Element, Error> {
        self.server.call(&more(Request::new(operation).text("config", &self.config)))
    }
}

/// A path as the server wants it. One that is not absolute is meant from here, when the server is here.
fn absolute(options: &Options, typed: &str) -> Result<String, Failure> {
    if typed.starts_with('/') || typed.is_empty() || options.host.is_some() {
        return Ok(typed.to_owned());
    }
    let here = std::env::current_dir();
    let here = here.map_err(|error| Failure::Said(format!("there is no current directory: {error}")))?;
    let parts = Path::new(typed).components().filter(|part| *part != Component::CurDir);
    let path = parts.fold(here, |path, part| path.join(part));
    let shown = path.display().to_string();
    path.into_os_string().into_string().map_err(|_| Failure::Said(format!("not UTF-8: {shown}")))
}

/// The operation's request with the arguments that were given, under their names.
fn with(request: Request, names: &[&str], arguments: &[String]) -> Request {
    names.iter().zip(arguments).fold(request, |request, (name, value)| request.text(name, value))
}

/// What an action leads to.
enum Outcome {
    /// A value for the general rule.
    Value(String),
    /// Lines in a form of their own; with `--json` the document.
    Lines(Vec<String>, serde_json::Value),
}

/// An action on a machine.
pub(crate) fn on_machine(
    options: &Options,
    typed: &str,
    action: &Action,
    arguments: &[String],
    output: &mut Output,
) -> Result<(), Failure> {
    let mut machine = Machine::connect(options, typed)?;
    let done = || Outcome::Value("1".to_owned());
    let outcome = match action.does {
        Does::Change(operation, names) => {
            machine.call(operation, |request| with(request, names, arguments))?;
            done()
        }
        Does::Value(operation, names, value) => {
            let out = machine.call(operation, |request| with(request, names, arguments))?;
            Outcome::Value(out.need(value)?.to_owned())
        }
        Does::Power(operation, usual) => {
            let mode = arguments.first().map_or(usual, String::as_str);
            machine.call(operation, |request| request.text("mode", mode))?;
            done()
        }
        Does::Fact(name) => Outcome::Value(machine.facts.need(name)?.to_owned()),
        Does::Running(operation, name) => Outcome::Value(match machine.call(operation, |request| request) {
            Ok(out) => out.need(name)?.to_owned(),
            Err(error) if error.code == ErrorCode::BadState => "0".to_owned(),
            Err(error) => return Err(error.into()),
        }),
        Does::Product => {
            let name = product(arguments)?;
            let out = machine.call("VM_GetProductInfo", |request| request)?;
            Outcome::Value(out.need(name)?.to_owned())
        }
        Does::Path => Outcome::Value(typed.to_owned()),
        Does::Answer => return answer::run(&mut machine, options, output),
        Does::Users => {
            let (lines, document) = connected::users(&mut machine)?;
            Outcome::Lines(lines, document)
        }
        Does::Registered(_) | Does::Reserved => return Err(not_supported(action)),
    };
    print(options, action, arguments, outcome, output);
    Ok(())
}

/// An action on the server.
pub(crate) fn on_server(
    options: &Options,
    action: &Action,
    arguments: &[String],
    output: &mut Output,
) -> Result<(), Failure> {
    let mut server = Server::of(options)?;
    let value = match action.does {
        Does::Registered(operation) => {
            let typed = arguments.first().map_or("", String::as_str);
            server.call(&Request::new(operation).text("config", &absolute(options, typed)?))?;
            "1".to_owned()
        }
        Does::Value(operation, names, value) => {
            let out = server.call(&with(Request::new(operation), names, arguments))?;
            out.need(value)?.to_owned()
        }
        _ => return Err(not_supported(action)),
    };
    print(options, action, arguments, Outcome::Value(value), output);
    Ok(())
}

/// Prints by the general rule.
fn print(options: &Options, action: &Action, arguments: &[String], outcome: Outcome, output: &mut Output) {
    let name = action.name;
    match outcome {
        Outcome::Value(value) if output.json => {
            output.document(&json!({ "ok": true, "action": name, "arguments": arguments, "value": value }));
        }
        Outcome::Lines(_, document) if output.json => output.document(&document),
        Outcome::Lines(lines, _) => lines.iter().for_each(|line| output.line(line)),
        Outcome::Value(value) if options.quiet => output.line(&value),
        Outcome::Value(value) => output.line(&format!("{name}({}) = {value}", arguments.join(" "))),
    }
}

/// The element of `VM_GetProductInfo` that a word means.
fn product(arguments: &[String]) -> Result<&'static str, Error> {
    let word = arguments.first().map_or("", String::as_str);
    match word.to_ascii_lowercase().as_str() {
        "product" => Ok("productName"),
        "platform" => Ok("platformName"),
        "build" => Ok("build"),
        "majorversion" => Ok("majorVersion"),
        "minorversion" => Ok("minorVersion"),
        "revision" => Ok("revision"),
        _ => Err(Error::invalid(
            "type",
            format_args!("{word} is none of product, platform, build, majorversion, minorversion, revision"),
        )),
    }
}

/// What the original could do and this server cannot.
fn not_supported(action: &Action) -> Failure {
    Failure::Operation(Error::with(ErrorCode::NotSupported, action.name))
}

/// Facts of a machine in a list, for people and programs alike.
pub(crate) fn state(machine: &Element) -> String {
    match (field(machine, "powerState"), field(machine, "paused")) {
        (state, "1") => format!("{state} (paused)"),
        (state, _) => state.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(fields: &'static [ops::Field], name: &str) -> bool {
        let mut found = false;
        ops::table::visit(fields, &mut |field| found |= field.name == name);
        found
    }

    #[test]
    fn every_operation_exists_and_takes_these_arguments() {
        for action in MACHINE.iter().chain(SERVER) {
            let (operation, names, value) = match action.does {
                Does::Change(operation, names) => (operation, names, None),
                Does::Value(operation, names, value) => (operation, names, Some(value)),
                Does::Power(operation, _) => (operation, &["mode"][..], None),
                Does::Running(operation, value) => (operation, &[][..], Some(value)),
                Does::Registered(operation) => (operation, &["config"][..], None),
                _ => continue,
            };
            let row = ops::TABLE.iter().find(|row| row.name == operation);
            let row = row.unwrap_or_else(|| panic!("{}: no operation {operation}", action.name));
            for name in names {
                assert!(has(row.request, name), "{operation} takes no {name}");
            }
            if let Some(value) = value {
                assert!(has(row.reply, value), "{operation} answers no {value}");
            }
        }
    }

    #[test]
    fn relative_paths_are_meant_from_here() {
        let here = std::env::current_dir().unwrap();
        let here = here.display();
        let local = Options::default();
        assert_eq!(absolute(&local, "/a.vmx").unwrap(), "/a.vmx");
        assert_eq!(absolute(&local, "a.vmx").unwrap(), format!("{here}/a.vmx"));
        assert_eq!(absolute(&local, "./b/a.vmx").unwrap(), format!("{here}/b/a.vmx"));
        // The server refuses it, and says so.
        assert_eq!(absolute(&local, "../a.vmx").unwrap(), format!("{here}/../a.vmx"));
        let remote = Options { host: Some("h".into()), ..Options::default() };
        assert_eq!(absolute(&remote, "a.vmx").unwrap(), "a.vmx");
    }
}
