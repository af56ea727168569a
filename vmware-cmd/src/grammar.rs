//! The command line, word by word.
//!
//! ```text
//!   vmware-cmd [options] <cfg> <action> [arguments]
//!   vmware-cmd -s [options] <server-action> [arguments]
//!   vmware-cmd [options] -l
//!   vmware-cmd [options] exec|ops|watch|task|doctor ...
//! ```
//!
//! Read by hand, because the old grammar decides and not a library: the first word that is no option
//! is a path, whatever it looks like. One of the new words counts only where no file of that name
//! exists; `./watch` is always a file.
//!
//! Behind an action `-q`, `-v` and `--json` are options too, as scripts put `-q` there, unless they
//! are needed as arguments: in `setconfig annotation -q` the value is `-q`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::actions::{Action, MACHINE, SERVER};
use crate::failure::Failure;

/// Longest time-out that may be asked for, in seconds.
const MAX_TIMEOUT: u64 = 86_400;

/// What was asked for in options. Not to be printed: there is a password in it.
#[derive(Default)]
pub(crate) struct Options {
    /// `-H`: the server's machine; none is this one.
    pub host: Option<String>,
    /// `-O`: its port; 0 is the usual one.
    pub port: u16,
    /// `-U`
    pub user: Option<String>,
    /// `-P`
    pub password: Option<Zeroizing<String>>,
    /// `--password-file`
    pub password_file: Option<PathBuf>,
    /// `--root`: the instance below this directory.
    pub root: Option<PathBuf>,
    /// `--timeout`
    pub timeout: Option<Duration>,
    /// `-q`
    pub quiet: bool,
    /// `-v`
    pub verbose: bool,
    /// `--json`
    pub json: bool,
    /// `-l`
    pub list: bool,
    /// `--long`
    pub long: bool,
    /// `-s`
    pub server: bool,
    /// `-h`
    pub help: bool,
    /// `--version`
    pub version: bool,
    /// Options of the new words, by name without dashes.
    pub special: Vec<&'static str>,
}

impl Options {
    /// Whether an option of a new word was given.
    pub fn has(&self, name: &str) -> bool {
        self.special.contains(&name)
    }
}

/// The new words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum New {
    /// `exec`
    Exec,
    /// `ops`
    Ops,
    /// `watch`
    Watch,
    /// `task`
    Task,
    /// `doctor`
    Doctor,
}

/// The new words and the options that only they have.
pub(crate) const NEW: &[(&str, New, &[&str])] = &[
    ("exec", New::Exec, &[]),
    ("ops", New::Ops, &["names"]),
    ("watch", New::Watch, &[]),
    ("task", New::Task, &["all", "stop", "delete", "no-wait", "no-progress"]),
    ("doctor", New::Doctor, &[]),
];

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Command {
    /// Show the help.
    Help,
    /// Show the version.
    Version,
    /// List the machines.
    List,
    /// An action on the server.
    Server {
        /// Which.
        action: &'static Action,
        /// Its arguments, as typed.
        arguments: Vec<String>,
    },
    /// An action on a machine.
    Machine {
        /// The path, as typed.
        config: String,
        /// Which.
        action: &'static Action,
        /// Its arguments, as typed.
        arguments: Vec<String>,
    },
    /// One of the new words.
    New(New, Vec<String>),
}

/// A command line that makes sense.
pub(crate) struct Line {
    /// Its options.
    pub options: Options,
    /// What is to be done.
    pub command: Command,
}

/// Reads the words behind the program's name. `exists` tells whether there is such a file.
///
/// # Errors
/// [`Failure::Usage`].
pub(crate) fn parse(
    words: impl IntoIterator<Item = OsString>,
    exists: &dyn Fn(&str) -> bool,
) -> Result<Line, Failure> {
    let text = |word: OsString| {
        let shown = word.to_string_lossy().into_owned();
        word.into_string().map_err(|_| Failure::usage(format!("not UTF-8: {shown}")))
    };
    let words = words.into_iter().map(text).collect::<Result<Vec<String>, Failure>>()?;
    let mut reader =
        Reader { words: words.into_iter().peekable(), options: Options::default(), ended: false };
    let first = reader.word()?;
    let command = reader.command(first, exists);
    let options = reader.options;
    // Asked for help, nothing else matters; but what was not understood before it was an error.
    if options.help {
        return Ok(Line { options, command: Command::Help });
    }
    if options.version {
        return Ok(Line { options, command: Command::Version });
    }
    let command = command?;
    check(&options, &command)?;
    Ok(Line { options, command })
}

/// What options mean together.
fn check(options: &Options, command: &Command) -> Result<(), Failure> {
    if options.host.is_some() && options.user.is_none() {
        return Err(Failure::usage("-H needs -U: another machine wants to know who you are"));
    }
    if options.user.is_none() && (options.password.is_some() || options.password_file.is_some()) {
        return Err(Failure::usage("a password needs -U"));
    }
    if options.long && !matches!(command, Command::List) {
        return Err(Failure::usage("--long goes with -l"));
    }
    Ok(())
}

struct Reader<I: Iterator<Item = String>> {
    words: std::iter::Peekable<I>,
    options: Options,
    /// `--` was read: what follows are words.
    ended: bool,
}

impl<I: Iterator<Item = String>> Reader<I> {
    /// The next word that is no option; options on the way are noted.
    fn word(&mut self) -> Result<Option<String>, Failure> {
        while let Some(word) = self.words.next() {
            if self.ended || word == "-" || !word.starts_with('-') {
                return Ok(Some(word));
            }
            match word.strip_prefix("--") {
                Some("") => self.ended = true,
                Some(long) => self.long(long)?,
                None => self.short(word.strip_prefix('-').unwrap_or_default())?,
            }
        }
        Ok(None)
    }

    fn value(&mut self, option: &str, attached: Option<&str>) -> Result<String, Failure> {
        let value = attached.map(str::to_owned).or_else(|| self.words.next());
        value.ok_or_else(|| Failure::usage(format!("{option} needs a value")))
    }

    /// One dash: letters, of which those with a value take the rest of the word or the next one.
    fn short(&mut self, letters: &str) -> Result<(), Failure> {
        for (at, letter) in letters.char_indices() {
            let options = &mut self.options;
            match letter {
                'q' => options.quiet = true,
                'v' => options.verbose = true,
                's' => options.server = true,
                'l' => options.list = true,
                'h' => options.help = true,
                'H' | 'O' | 'U' | 'P' => {
                    let rest = letters.get(at + 1..).filter(|rest| !rest.is_empty());
                    return self.set(letter, rest);
                }
                _ => return Err(Failure::usage(format!("unknown option -{letter}"))),
            }
        }
        Ok(())
    }

    fn set(&mut self, letter: char, attached: Option<&str>) -> Result<(), Failure> {
        let value = self.value(&format!("-{letter}"), attached)?;
        match letter {
            'H' => self.options.host = Some(value).filter(|host| !host.is_empty()),
            'O' => {
                let port = value.parse().ok().filter(|port| *port != 0);
                self.options.port =
                    port.ok_or_else(|| Failure::usage(format!("-O {value}: a port is 1 to 65535")))?;
            }
            'U' => self.options.user = Some(value).filter(|user| !user.is_empty()),
            _ => self.options.password = Some(Zeroizing::new(value)),
        }
        Ok(())
    }

    /// Two dashes.
    fn long(&mut self, word: &str) -> Result<(), Failure> {
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let flag = |attached: Option<&str>| match attached {
            None => Ok(true),
            Some(_) => Err(Failure::usage(format!("--{name} takes no value"))),
        };
        match name {
            "json" => self.options.json = flag(attached)?,
            "long" => self.options.long = flag(attached)?,
            "help" => self.options.help = flag(attached)?,
            "version" => self.options.version = flag(attached)?,
            "password-file" => {
                self.options.password_file = Some(self.value("--password-file", attached)?.into());
            }
            "root" => self.options.root = Some(self.value("--root", attached)?.into()),
            "timeout" => {
                let value = self.value("--timeout", attached)?;
                let seconds = value.parse().ok().filter(|seconds| (1..=MAX_TIMEOUT).contains(seconds));
                let seconds = seconds.ok_or_else(|| {
                    Failure::usage(format!("--timeout {value}: seconds, 1 to {MAX_TIMEOUT}"))
                })?;
                self.options.timeout = Some(Duration::from_secs(seconds));
            }
            _ => {
                let known = NEW.iter().flat_map(|(_, _, own)| own.iter()).find(|known| **known == name);
                let known = known.ok_or_else(|| Failure::usage(format!("unknown option --{name}")))?;
                flag(attached)?;
                self.options.special.push(known);
            }
        }
        Ok(())
    }

    fn command(&mut self, first: Option<String>, exists: &dyn Fn(&str) -> bool) -> Result<Command, Failure> {
        let special =
            |options: &Options, own: &[&str]| match options.special.iter().find(|name| !own.contains(name)) {
                None => Ok(()),
                Some(name) => Err(Failure::usage(format!("--{name} does not go with this"))),
            };
        if self.options.list {
            special(&self.options, &[])?;
            return match first {
                None => Ok(Command::List),
                Some(word) => Err(Failure::usage(format!("-l takes no argument, and there is {word}"))),
            };
        }
        let Some(first) = first else {
            return Err(Failure::usage("nothing to do: name a machine's .vmx and an action"));
        };
        if self.options.server {
            special(&self.options, &[])?;
            let (action, arguments) = self.action(&first, SERVER, "server action")?;
            return Ok(Command::Server { action, arguments });
        }
        if let Some((_, new, own)) =
            NEW.iter().find(|(name, _, _)| *name == first).filter(|_| !exists(&first))
        {
            let mut words = Vec::new();
            while let Some(word) = self.word()? {
                words.push(word);
            }
            special(&self.options, own)?;
            return Ok(Command::New(*new, words));
        }
        let Some(name) = self.word()? else {
            return Err(Failure::usage(format!("what to do with {first}? An action is missing")));
        };
        special(&self.options, &[])?;
        let (action, arguments) = self.action(&name, MACHINE, "action")?;
        Ok(Command::Machine { config: first, action, arguments })
    }

    /// An action with the rest of the words.
    fn action(
        &mut self,
        name: &str,
        all: &'static [Action],
        kind: &str,
    ) -> Result<(&'static Action, Vec<String>), Failure> {
        let found = all.iter().find(|action| action.name == name);
        let mut words: Vec<String> = self.words.by_ref().collect();
        // Help is wanted about an action that may be misspelt.
        if words.iter().any(|word| word == "-h" || word == "--help") && found.is_none() {
            self.options.help = true;
        }
        let action = found.ok_or_else(|| Failure::usage(format!("there is no {kind} {name}")))?;
        for at in (0..words.len()).rev().filter(|_| !self.ended) {
            if words.len() <= action.least() {
                break;
            }
            let option = match words.get(at).map(String::as_str) {
                Some("-q") => &mut self.options.quiet,
                Some("-v") => &mut self.options.verbose,
                Some("--json") => &mut self.options.json,
                _ => continue,
            };
            *option = true;
            words.remove(at);
        }
        if words.len() < action.least() || words.len() > action.most() {
            return Err(Failure::usage(format!("use: {} {}", action.name, action.usage).trim_end()));
        }
        Ok((action, words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &str) -> Result<Line, String> {
        let words = words.split(' ').filter(|word| !word.is_empty()).map(OsString::from);
        parse(words, &|path| path == "task").map_err(|failure| match failure {
            Failure::Usage(text) => text,
            other => format!("{other:?}"),
        })
    }

    /// What a line means: command and arguments, then the options that are set.
    fn meaning(words: &str) -> String {
        let line = match line(words) {
            Ok(line) => line,
            Err(text) => return format!("error {text}"),
        };
        let command = match line.command {
            Command::Machine { config, action, arguments } => {
                format!("{config} {} {arguments:?}", action.name)
            }
            Command::Server { action, arguments } => format!("server {} {arguments:?}", action.name),
            other => format!("{other:?}"),
        };
        let options = line.options;
        let set = [(options.quiet, " quiet"), (options.verbose, " verbose"), (options.json, " json")];
        let set: String = set.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
        format!("{command}{set}")
    }

    #[test]
    fn the_old_grammar() {
        for (words, expected) in [
            ("/a.vmx getstate", "/a.vmx getstate []"),
            ("-q /a.vmx getstate", "/a.vmx getstate [] quiet"),
            ("/a.vmx -q getstate", "/a.vmx getstate [] quiet"),
            ("/a.vmx getstate -q", "/a.vmx getstate [] quiet"),
            ("/a.vmx start trysoft -q", "/a.vmx start [\"trysoft\"] quiet"),
            ("/a.vmx start -q trysoft", "/a.vmx start [\"trysoft\"] quiet"),
            ("-v -q /a.vmx stop hard", "/a.vmx stop [\"hard\"] quiet verbose"),
            ("-qv /a.vmx stop", "/a.vmx stop [] quiet verbose"),
            ("-s register /a.vmx", "server register [\"/a.vmx\"]"),
            ("-q -s register /a.vmx", "server register [\"/a.vmx\"] quiet"),
            ("-s register /a.vmx -q", "server register [\"/a.vmx\"] quiet"),
            ("-s -q unregister /a.vmx", "server unregister [\"/a.vmx\"] quiet"),
            ("-l", "List"),
            ("-l -q", "List quiet"),
            ("-lq", "List quiet"),
            ("-h", "Help"),
            ("/a.vmx getstate --json", "/a.vmx getstate [] json"),
        ] {
            assert_eq!(meaning(words), expected, "{words}");
        }
    }

    #[test]
    fn what_is_needed_as_an_argument_is_no_option() {
        for (words, expected) in [
            ("/a.vmx setconfig annotation -q", "/a.vmx setconfig [\"annotation\", \"-q\"]"),
            ("/a.vmx setconfig annotation -q -q", "/a.vmx setconfig [\"annotation\", \"-q\"] quiet"),
            ("/a.vmx setconfig -q annotation x", "/a.vmx setconfig [\"annotation\", \"x\"] quiet"),
            ("/a.vmx setguestinfo k --json", "/a.vmx setguestinfo [\"k\", \"--json\"]"),
            ("/a.vmx setguestinfo k -5", "/a.vmx setguestinfo [\"k\", \"-5\"]"),
            ("/a.vmx getconfig -h", "/a.vmx getconfig [\"-h\"]"),
            ("-- -a.vmx start -q", "-a.vmx start [\"-q\"]"),
        ] {
            assert_eq!(meaning(words), expected, "{words}");
        }
    }

    #[test]
    fn the_first_word_is_a_path_wherever_it_can_be_one() {
        assert_eq!(meaning("watch"), "New(Watch, [])");
        assert_eq!(meaning("exec -"), "New(Exec, [\"-\"])");
        assert_eq!(meaning("ops inc --json"), "New(Ops, [\"inc\"]) json");
        // There is a file of that name.
        assert_eq!(meaning("task getstate"), "task getstate []");
        assert_eq!(meaning("task"), "error what to do with task? An action is missing");
        assert_eq!(meaning("./watch getstate"), "./watch getstate []");
        assert_eq!(meaning("getstate start"), "getstate start []");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (words, expected) in [
            ("", "nothing to do"),
            ("/a.vmx", "An action is missing"),
            ("/a.vmx fly", "there is no action fly"),
            ("/a.vmx register", "there is no action register"),
            ("-s getstate", "there is no server action getstate"),
            ("/a.vmx getconfig", "use: getconfig <key>"),
            ("/a.vmx getstate x", "use: getstate"),
            ("-x", "unknown option -x"),
            ("--frob", "unknown option --frob"),
            ("--json=1 -l", "--json takes no value"),
            ("-l /a.vmx", "-l takes no argument"),
            ("-O 0 -l", "a port is 1 to 65535"),
            ("-O 70000 -l", "a port is 1 to 65535"),
            ("-H", "-H needs a value"),
            ("-H host -l", "-H needs -U"),
            ("-P x -l", "a password needs -U"),
            ("--long /a.vmx getstate", "--long goes with -l"),
            ("watch --stop", "--stop does not go with this"),
            ("--timeout 0 -l", "seconds, 1 to 86400"),
        ] {
            let error = line(words).err().unwrap_or_else(|| panic!("{words}"));
            assert!(error.contains(expected), "{words}: {error}");
        }
    }

    #[test]
    fn options_with_values() {
        let line = line("-H host -O 9902 -Ualice -P pass word getstate").unwrap();
        let options = line.options;
        assert_eq!((options.host.as_deref(), options.port), (Some("host"), 9902));
        assert_eq!(options.user.as_deref(), Some("alice"));
        assert_eq!(options.password.as_deref().map(String::as_str), Some("pass"));
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(words in proptest::collection::vec("[-a-zA-Z/=. ]{0,8}", 0..6)) {
            let _ = parse(words.into_iter().map(OsString::from), &|_| false);
        }

        /// Values pass through whatever they look like.
        #[test]
        fn two_arguments_stay_as_they_are(key in "\\PC{1,12}", value in "\\PC{0,12}") {
            let words = ["/a.vmx", "setconfig", &key, &value].map(OsString::from);
            match parse(words, &|_| false).unwrap().command {
                Command::Machine { arguments, .. } => proptest::prop_assert_eq!(arguments, [key, value]),
                other => panic!("{other:?}"),
            }
        }
    }
}
