//! Where a password comes from, so that it need not stand on the command line, where every user of the
//! machine can read it.
//!
//! ```text
//!   -P  ▶  --password-file  ▶  VMWARE_CMD_PASSWORD  ▶  a prompt without echo, on a terminal
//! ```

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::grammar::Options;

/// The environment variable.
const VARIABLE: &str = "VMWARE_CMD_PASSWORD";

/// Most of a password file that is read, in bytes.
const MAX_FILE: u64 = 4096;

/// The password of the user of `-U`; none without one.
///
/// # Errors
/// When a user is named and there is no way to his password.
pub(crate) fn find(options: &Options) -> Result<Option<Zeroizing<String>>, Failure> {
    let Some(user) = &options.user else { return Ok(None) };
    if let Some(password) = &options.password {
        return Ok(Some(password.clone()));
    }
    if let Some(path) = &options.password_file {
        return from_file(path).map(Some);
    }
    if let Ok(password) = std::env::var(VARIABLE) {
        return Ok(Some(Zeroizing::new(password)));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "-U needs a password: -P, --password-file or {VARIABLE}; without a terminal nobody can be asked"
        )));
    }
    let host = options.host.as_deref().unwrap_or("this machine");
    let asked = ask(&format!("Password of {user} on {host}: "));
    asked.map(Some).map_err(|error| Failure::Said(format!("cannot ask for the password: {error}")))
}

/// Asks on the terminal, which shows nothing of what is typed: what is typed before the question can be
/// seen is thrown away, and so nothing of the answer is ever shown.
fn ask(question: &str) -> io::Result<Zeroizing<String>> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let usual = tcgetattr(&terminal)?;
    let mut silent = usual.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    // A terminal gives a line at a time, and none is longer than this.
    let mut line = Zeroizing::new([0; MAX_FILE as usize]);
    let read = terminal.write_all(question.as_bytes()).and_then(|()| terminal.read(line.as_mut_slice()));
    tcsetattr(&terminal, OptionalActions::Flush, &usual)?;
    match line.get(..read?) {
        None | Some([]) => Err(io::ErrorKind::UnexpectedEof.into()),
        Some(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
            Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
    }
}

/// The first line of a file; `-` is standard input.
fn from_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let unusable = |why: &dyn std::fmt::Display| {
        Failure::Said(format!("cannot use the password file {}: {why}", path.display()))
    };
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE as usize + 1));
    let read = if path == Path::new("-") {
        std::io::stdin().take(MAX_FILE).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
    };
    read.map_err(|error| unusable(&error))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => Err(unusable(&"its first line is empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_file_is_the_password() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        for (contents, password) in
            [("a b\n", Some("a b")), ("x\r\ny\n", Some("x")), ("z", Some("z")), ("", None), ("\nx", None)]
        {
            std::fs::write(&path, contents).unwrap();
            assert_eq!(from_file(&path).ok().as_deref().map(String::as_str), password, "{contents:?}");
        }
        assert!(
            matches!(from_file(&directory.path().join("absent")), Err(Failure::Said(text)) if text.contains("absent"))
        );
    }
}
