//! What goes wrong, and the words for it. Scripts look for them, so the first three are fixed.
//!
//! ```text
//!   Operation   VMControl error -8: Invalid operation for virtual machine's current state: ...
//!   Server      vmware-cmd: Could not connect to vmware-authd
//!                 (VMControl error -14: ...)
//!   Machine     vmware-cmd: Could not connect to VM /vm/a.vmx
//!                 (VMControl error -11: ...)
//!   Usage       vmware-cmd: what is wrong, and where help is
//!   Said        a sentence of its own
//! ```

use std::io::Write;
use std::process::ExitCode;

use serde_json::json;
use vmcontrol_client::Error;

use crate::output::Output;

/// Why a command failed. All of them end with status 1.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An operation was refused.
    Operation(Error),
    /// There is no server to talk to.
    Server(Error),
    /// The machine of this path cannot be connected to.
    Machine(String, Error),
    /// The command line makes no sense.
    Usage(String),
    /// Something else, said in a sentence.
    Said(String),
    /// Nobody reads what is printed: nothing to say, and nobody to say it to.
    Unread,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Operation(error)
    }
}

impl Failure {
    /// A wrong command line.
    pub fn usage(text: impl Into<String>) -> Self {
        Failure::Usage(text.into())
    }

    /// The text for standard error, its line end included. `name` is how the program was called.
    fn text(&self, name: &str) -> String {
        let cause = |error: &Error| format!("VMControl error {}: {}", error.code.number(), error.text);
        match self {
            Failure::Operation(error) => format!("{}\n", cause(error)),
            Failure::Server(error) => {
                format!("{name}: Could not connect to vmware-authd\n  ({})\n", cause(error))
            }
            Failure::Machine(config, error) => {
                format!("{name}: Could not connect to VM {config}\n  ({})\n", cause(error))
            }
            Failure::Usage(text) => format!("{name}: {text}\nTry '{name} -h'.\n"),
            Failure::Said(text) => format!("{text}\n"),
            Failure::Unread => String::new(),
        }
    }

    /// Says it on standard error, and with `--json` on standard output as well.
    pub fn report(&self, name: &str, output: &mut Output) -> ExitCode {
        if output.json {
            let (code, text) = match self {
                Failure::Operation(error) | Failure::Server(error) | Failure::Machine(_, error) => {
                    (Some(error.code.number()), error.text.as_str())
                }
                Failure::Usage(text) | Failure::Said(text) => (None, text.as_str()),
                Failure::Unread => (None, ""),
            };
            output.document(&json!({ "ok": false, "error": { "code": code, "text": text } }));
        }
        let status = output.end(ExitCode::FAILURE);
        let _ = std::io::stderr().write_all(self.text(name).as_bytes());
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmcontrol_client::ErrorCode;

    #[test]
    fn the_forms_that_scripts_look_for() {
        let error =
            Error::with(ErrorCode::BadResponse, "511 Error connecting to /usr/sbin/vmware-serverd process.");
        assert_eq!(
            Failure::Server(error.clone()).text("/usr/bin/vmware-cmd"),
            "/usr/bin/vmware-cmd: Could not connect to vmware-authd\n  (VMControl error -14: Unexpected response \
             from vmware-authd: 511 Error connecting to /usr/sbin/vmware-serverd process.)\n"
        );
        let missing = Error::from(ops::Error::not_registered("/vm/a.vmx"));
        assert_eq!(
            Failure::Machine("/vm/a.vmx".into(), missing).text("vmware-cmd"),
            "vmware-cmd: Could not connect to VM /vm/a.vmx\n  (VMControl error -11: No such virtual machine: The \
             config file /vm/a.vmx is not registered.\nPlease register the config file on the server.  For \
             example:\nvmware-cmd -s register \"/vm/a.vmx\")\n"
        );
        let state = Error::from(ops::Error::state_conflict("start", "on"));
        let text = Failure::Operation(state).text("vmware-cmd");
        assert!(
            text.starts_with("VMControl error -8: Invalid operation for virtual machine's current state: ")
        );
        assert!(text.contains("(\"on\")") && text.ends_with(".\n"), "{text}");
    }
}
