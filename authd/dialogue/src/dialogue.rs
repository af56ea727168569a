//! What a caller may say before the hand-over, and what is answered: a state machine without I/O.
//!
//! ```text
//!             USER                    PASS ok / LOCAL ok
//!  accept ──▶ NEW ──────────▶ NAMED ───────────────────▶ IN ──GLOBAL──▶ handed over
//!              ▲  ╲             │                         ▲
//!              │   ╲──LOCAL ok──┼─────────────────────────╯
//!              ╰──────530───────╯                 QUIT in any state: 221, close
//! ```
//!
//! The driver feeds received bytes, asks for the [`Step`] to take, and gives back the answers of the
//! monitor. Time is a parameter too: a [`Duration`] since the connection was accepted. So the whole
//! conversation before the login can be tested and fuzzed in virtual time.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::line::{self, Command, LineBuffer, Taken};
use crate::reply;

/// Longest user name that can log in, in bytes after unescaping.
pub const MAX_NAME: usize = 256;
/// Longest password, likewise.
pub const MAX_PASSWORD: usize = 1024;

/// Longest path of a machine, in bytes after unescaping.
pub const MAX_PATH: usize = 4095;

/// Limits and facts that are the same for all connections of a listener.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The banner of the listener.
    pub banner: &'static [u8],
    /// Longest line, its end excluded.
    pub line_max: usize,
    /// From accept to login, TLS included; restarted by each `530 Login incorrect.`
    pub login_deadline: Duration,
    /// Silence allowed between login and hand-over.
    pub idle: Duration,
    /// SHA-1 of the console certificate, as `THUMBPRINT` shows it.
    pub thumbprint: String,
    /// The path in the 511 line.
    pub serverd_path: String,
}

/// A question for the monitor. The driver asks it and passes the answer to the matching method.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    /// Is this password right? Answer: [`Dialogue::login_answer`].
    Password {
        /// User name, unescaped.
        name: Vec<u8>,
        /// Password, unescaped; `None` when it cannot be right (empty, or something over a limit),
        /// so that no PAM is asked but the failure takes as long as any other.
        password: Option<Zeroizing<Vec<u8>>>,
    },
    /// Who owns the other end? Answer: [`Dialogue::login_answer`].
    Local,
    /// Is it still the same owner? Answer: [`Dialogue::confirm_answer`].
    Confirm,
    /// May the session go to the server? Answer: [`Dialogue::reserve_answer`].
    Reserve,
    /// May it go to the server as a connection to one machine? Answer: [`Dialogue::reserve_answer`].
    Connect {
        /// Path of the .vmx, unescaped.
        config: String,
        /// `mks`: the screen; otherwise `control`.
        console: bool,
    },
}

/// What the driver does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Write this, then ask for the next step.
    Reply(Vec<u8>),
    /// Write this, then close.
    Close(Vec<u8>, Reason),
    /// Ask the monitor.
    Ask(Question),
    /// Write the reply, then hand the connection over.
    HandOver {
        /// `200 Connected …` or `200 Connect <path>`.
        reply: Vec<u8>,
        /// What the caller sent early.
        early: Vec<u8>,
    },
    /// Read more bytes.
    Read,
}

/// Why a connection was closed, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `QUIT`; not logged.
    Quit,
    /// The login deadline or the silence after the login.
    TimeOut,
    /// A line over the limit.
    LineTooLong,
    /// A local caller whose proof did not hold; the monitor has logged it.
    NotProven,
    /// The daemon stops.
    Stopping,
}

impl Reason {
    /// The words of the log line; `None` where there is none.
    #[must_use]
    pub fn words(self) -> Option<&'static str> {
        match self {
            Reason::TimeOut => Some("time-out"),
            Reason::LineTooLong => Some("line too long"),
            Reason::Quit | Reason::NotProven | Reason::Stopping => None,
        }
    }
}

#[derive(Debug)]
enum State {
    New,
    Named {
        /// As given, unescaped; may be longer than [`MAX_NAME`].
        name: Vec<u8>,
    },
    In {
        /// The login was `LOCAL` over TCP, and its proof must be repeated before the first command.
        unconfirmed: bool,
    },
}

/// Which answer the machine waits for.
#[derive(Debug)]
enum Waiting {
    Nothing,
    Login {
        local: bool,
    },
    Confirm {
        line: Vec<u8>,
    },
    Reserve {
        /// The path of a `CONNECT`; none for `GLOBAL`.
        connect: Option<String>,
    },
}

/// One connection, from the banner to the hand-over.
#[derive(Debug)]
pub struct Dialogue {
    state: State,
    waiting: Waiting,
    lines: LineBuffer,
    /// Whether an empty line now would be the first in a row; only that one is answered.
    empty_is_news: bool,
    /// When the current deadline passes.
    deadline: Duration,
    /// A local login on this kind of connection needs [`Question::Confirm`].
    confirm_local: bool,
}

impl Dialogue {
    /// A connection accepted at time zero. `confirm_local`: whether the proof of `LOCAL` can go stale
    /// (TCP), or is fixed by the kernel (unix socket).
    #[must_use]
    pub fn new(rules: &Rules, confirm_local: bool) -> Self {
        Dialogue {
            state: State::New,
            waiting: Waiting::Nothing,
            lines: LineBuffer::new(rules.line_max),
            empty_is_news: true,
            deadline: rules.login_deadline,
            confirm_local,
        }
    }

    /// Whether somebody has logged in.
    #[must_use]
    pub fn logged_in(&self) -> bool {
        matches!(self.state, State::In { .. })
    }

    /// Adds received bytes at time `now`.
    pub fn received(&mut self, rules: &Rules, now: Duration, bytes: &[u8]) {
        self.lines.push(bytes);
        if self.logged_in() {
            self.deadline = now + rules.idle;
        }
    }

    /// When the connection is given up, or `None` while an answer of the monitor is awaited: that time
    /// does not count against the caller.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        matches!(self.waiting, Waiting::Nothing).then_some(self.deadline)
    }

    /// The step to take when the deadline has passed.
    #[must_use]
    pub fn expired(&self) -> Step {
        let reply = if self.logged_in() { reply::SESSION_TIMEOUT } else { reply::LOGIN_TIMEOUT };
        Step::Close(reply.to_vec(), Reason::TimeOut)
    }

    /// The next step, from what has been received.
    pub fn next(&mut self, rules: &Rules) -> Step {
        loop {
            match self.lines.take() {
                Taken::NeedMore => return Step::Read,
                Taken::TooLong => {
                    return Step::Close(reply::LINE_TOO_LONG.to_vec(), Reason::LineTooLong);
                }
                Taken::Malformed => {
                    self.empty_is_news = true;
                    return Step::Reply(reply::MALFORMED_LINE.to_vec());
                }
                Taken::Line(line) if line.is_empty() => {
                    let news = std::mem::replace(&mut self.empty_is_news, false);
                    if news && !self.logged_in() {
                        return Step::Reply(reply::PLEASE_LOGIN.to_vec());
                    }
                }
                Taken::Line(line) => {
                    self.empty_is_news = true;
                    if matches!(self.state, State::In { unconfirmed: true }) {
                        self.waiting = Waiting::Confirm { line };
                        return Step::Ask(Question::Confirm);
                    }
                    return self.obey(rules, &line);
                }
            }
        }
    }

    /// The monitor's answer to [`Question::Password`] or [`Question::Local`]: the name of the user, or
    /// `None` for a refusal.
    pub fn login_answer(&mut self, rules: &Rules, now: Duration, user: Option<&[u8]>) -> Step {
        let waiting = std::mem::replace(&mut self.waiting, Waiting::Nothing);
        let Waiting::Login { local } = waiting else {
            return Step::Read;
        };
        match user {
            Some(name) => {
                self.state = State::In { unconfirmed: local && self.confirm_local };
                self.deadline = now + rules.idle;
                Step::Reply(reply::logged_in(name))
            }
            None => {
                self.state = State::New;
                self.deadline = now + rules.login_deadline;
                let reply = if local { reply::LOCAL_REFUSED } else { reply::LOGIN_INCORRECT };
                Step::Reply(reply.to_vec())
            }
        }
    }

    /// The monitor's answer to [`Question::Confirm`].
    pub fn confirm_answer(&mut self, rules: &Rules, now: Duration, same: bool) -> Step {
        let waiting = std::mem::replace(&mut self.waiting, Waiting::Nothing);
        let Waiting::Confirm { line } = waiting else {
            return Step::Read;
        };
        if !same {
            return Step::Close(reply::LOCAL_REFUSED.to_vec(), Reason::NotProven);
        }
        self.state = State::In { unconfirmed: false };
        self.deadline = now + rules.idle;
        self.obey(rules, &line)
    }

    /// The monitor's answer to [`Question::Reserve`] or [`Question::Connect`].
    pub fn reserve_answer(&mut self, rules: &Rules, now: Duration, answer: Reservation) -> Step {
        let waiting = std::mem::replace(&mut self.waiting, Waiting::Nothing);
        let Waiting::Reserve { connect } = waiting else {
            return Step::Read;
        };
        self.deadline = now + rules.idle;
        let path = connect.as_deref().map(str::as_bytes);
        match (answer, path) {
            (Reservation::Granted, path) => Step::HandOver {
                reply: path.map_or_else(|| reply::CONNECTED.to_vec(), reply::connected_to),
                early: self.lines.into_rest(),
            },
            (Reservation::Unreachable, _) => Step::Reply(reply::unreachable(&rules.serverd_path)),
            (Reservation::NotRunning, Some(path)) => Step::Reply(reply::not_running(path)),
            (Reservation::Denied, Some(path)) => Step::Reply(reply::denied(path)),
            (Reservation::NotRegistered, Some(path)) => Step::Reply(reply::not_registered(path)),
            (Reservation::Busy, Some(path)) => Step::Reply(reply::busy(path)),
            // Nothing of a machine can be wrong with a session that has none.
            (_, _) => Step::Reply(reply::REFUSED.to_vec()),
        }
    }

    fn obey(&mut self, rules: &Rules, line: &[u8]) -> Step {
        let Command { word, argument } = line::split(line);
        match (word.as_slice(), &self.state) {
            (b"QUIT", _) if argument.is_empty() => Step::Close(reply::GOODBYE.to_vec(), Reason::Quit),
            (b"BANNER", _) if argument.is_empty() => Step::Reply(rules.banner.to_vec()),
            (b"QUIT" | b"BANNER", _) => bad_argument(),
            (b"USER" | b"PASS" | b"LOCAL", State::In { .. }) => Step::Reply(reply::ALREADY_IN.to_vec()),
            (b"USER", _) => self.user(argument),
            (b"PASS", State::New) => Step::Reply(reply::USER_FIRST.to_vec()),
            (b"PASS", State::Named { .. }) => self.pass(argument),
            (b"LOCAL", _) if argument.is_empty() => {
                self.waiting = Waiting::Login { local: true };
                Step::Ask(Question::Local)
            }
            (b"LOCAL", _) => bad_argument(),
            (_, State::New | State::Named { .. }) => Step::Reply(reply::PLEASE_LOGIN.to_vec()),
            (b"GLOBAL", State::In { .. }) if line::unescape(argument).as_deref() == Some(b"server") => {
                self.waiting = Waiting::Reserve { connect: None };
                Step::Ask(Question::Reserve)
            }
            (b"GLOBAL", State::In { .. }) => bad_argument(),
            (b"THUMBPRINT", State::In { .. }) => thumbprint(rules, argument),
            (b"CONNECT", State::In { .. }) => self.connect(argument),
            (_, State::In { .. }) => Step::Reply(reply::UNKNOWN_COMMAND.to_vec()),
        }
    }

    fn user(&mut self, argument: &[u8]) -> Step {
        let trailing = argument.iter().rev().take_while(|&&byte| byte == b' ').count();
        let trimmed = argument.get(..argument.len() - trailing).unwrap_or_default();
        match line::unescape(trimmed) {
            Some(name) if !name.is_empty() => {
                let reply = reply::password_required(&name);
                self.state = State::Named { name };
                Step::Reply(reply)
            }
            _ => bad_argument(),
        }
    }

    fn pass(&mut self, argument: &[u8]) -> Step {
        let Some(password) = line::unescape(argument).map(Zeroizing::new) else {
            return bad_argument();
        };
        let State::Named { name } = std::mem::replace(&mut self.state, State::New) else {
            return Step::Reply(reply::USER_FIRST.to_vec());
        };
        let usable = !password.is_empty() && password.len() <= MAX_PASSWORD && name.len() <= MAX_NAME;
        let name = name.get(..MAX_NAME).map_or(name.clone(), <[u8]>::to_vec);
        self.waiting = Waiting::Login { local: false };
        Step::Ask(Question::Password { name, password: usable.then_some(password) })
    }

    /// `CONNECT <config file> <mode>`: the last word is the mode, everything before it the path.
    fn connect(&mut self, argument: &[u8]) -> Step {
        let mut words = argument.rsplitn(2, |&byte| byte == b' ');
        let mode = words.next().unwrap_or_default();
        let path = words.next().and_then(line::unescape);
        let (Some(path), b"mks" | b"control") = (path, mode) else {
            return bad_argument();
        };
        if path.first() != Some(&b'/') {
            return bad_argument();
        }
        match String::from_utf8(path) {
            Ok(config) if config.len() <= MAX_PATH => {
                self.waiting = Waiting::Reserve { connect: Some(config.clone()) };
                Step::Ask(Question::Connect { config, console: mode == b"mks" })
            }
            // Nothing of such a name can be registered.
            Ok(config) => Step::Reply(reply::not_registered(config.as_bytes())),
            Err(error) => Step::Reply(reply::not_registered(error.as_bytes())),
        }
    }
}

/// The monitor's answer to a reservation. The last four only come to a [`Question::Connect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reservation {
    /// The server takes the session.
    Granted,
    /// There is no server, or it does not answer.
    Unreachable,
    /// The server takes no more sessions.
    Refused,
    /// The machine has no process, or none of the wanted kind.
    NotRunning,
    /// The caller may read the .vmx, but not execute it.
    Denied,
    /// The machine is not registered, or the caller may not read its .vmx.
    NotRegistered,
    /// The machine takes no further connection.
    Busy,
}

fn bad_argument() -> Step {
    Step::Reply(reply::BAD_ARGUMENT.to_vec())
}

fn thumbprint(rules: &Rules, argument: &[u8]) -> Step {
    let printable = argument.iter().all(|byte| (0x21..0x7f).contains(byte));
    if printable && (1..=64).contains(&argument.len()) {
        Step::Reply(reply::thumbprint(&rules.thumbprint))
    } else {
        bad_argument()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            banner: reply::BANNER_PLAIN,
            line_max: 4096,
            login_deadline: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            thumbprint: "AA:BB".into(),
            serverd_path: "/usr/sbin/vmware-serverd".into(),
        }
    }

    const NOW: Duration = Duration::from_secs(1);

    struct Talk {
        rules: Rules,
        dialogue: Dialogue,
    }

    impl Talk {
        fn new() -> Self {
            let rules = rules();
            let dialogue = Dialogue::new(&rules, true);
            Talk { rules, dialogue }
        }

        fn logged_in() -> Self {
            let mut talk = Talk::new();
            talk.say(b"USER bob\n");
            talk.say(b"PASS x\n");
            talk.dialogue.login_answer(&talk.rules, NOW, Some(b"bob"));
            talk
        }

        fn say(&mut self, bytes: &[u8]) -> Step {
            self.dialogue.received(&self.rules, NOW, bytes);
            self.dialogue.next(&self.rules)
        }

        fn expect(&mut self, say: &[u8], reply: &str) {
            match self.say(say) {
                Step::Reply(text) => assert_eq!(String::from_utf8_lossy(&text), format!("{reply}\r\n")),
                other => panic!("{} gave {other:?}", String::from_utf8_lossy(say)),
            }
        }
    }

    #[test]
    fn a_machine_is_connected_to_or_the_answer_says_why_not() {
        let mut talk = Talk::logged_in();
        let ask = Question::Connect { config: "/a b.vmx".into(), console: false };
        for (answer, reply) in [
            (Reservation::Unreachable, "511 Error connecting to /usr/sbin/vmware-serverd process."),
            (Reservation::Refused, "512 The server daemon refused the session."),
            (Reservation::NotRunning, "514 Virtual machine /a b.vmx is not running."),
            (
                Reservation::Denied,
                "550 You need execute access in order to connect with the VMware console. \
                 Access denied for config file /a b.vmx.",
            ),
            (Reservation::NotRegistered, "551 The config file /a b.vmx is not registered."),
            (Reservation::Busy, "552 Virtual machine /a b.vmx is busy."),
        ] {
            assert_eq!(talk.say(b"CONNECT /a b.vmx control\n"), Step::Ask(ask_again(&ask)));
            assert_eq!(talk.dialogue.deadline(), None, "a question stops the clock");
            let step = talk.dialogue.reserve_answer(&talk.rules, NOW, answer);
            assert_eq!(step, Step::Reply(format!("{reply}\r\n").into_bytes()));
        }
        let mks = Question::Connect { config: "/a.vmx".into(), console: true };
        assert_eq!(talk.say(b"CONNECT /a%2evmx mks\nearly"), Step::Ask(mks));
        let step = talk.dialogue.reserve_answer(&talk.rules, NOW, Reservation::Granted);
        let reply = b"200 Connect /a.vmx\r\n".to_vec();
        assert_eq!(step, Step::HandOver { reply, early: b"early".to_vec() });
    }

    fn ask_again(question: &Question) -> Question {
        match question {
            Question::Connect { config, console } => {
                Question::Connect { config: config.clone(), console: *console }
            }
            _ => Question::Reserve,
        }
    }

    #[test]
    fn before_login() {
        let mut talk = Talk::new();
        talk.expect(b"PASS x\r\n", "503 Login with USER first.");
        talk.expect(b"GLOBAL server\r\n", "530 Please login with USER and PASS.");
        talk.expect(b"HELP\r\n", "530 Please login with USER and PASS.");
        talk.expect(b"USER \r\n", "501 Bad argument.");
        talk.expect(b"user bob  \r\n", "331 Password required for bob.");
        talk.expect(b"BANNER\r\n", "220 VMware Authentication Daemon Version 1.00");
        talk.expect(b"USER %0a\r\n", "501 Bad argument.");
        let question = talk.say(b"PASS  a%41 \r\n");
        let password = Some(Zeroizing::new(b" aA ".to_vec()));
        assert_eq!(question, Step::Ask(Question::Password { name: b"bob".to_vec(), password }));
        assert_eq!(
            talk.dialogue.login_answer(&rules(), NOW, None),
            Step::Reply(reply::LOGIN_INCORRECT.to_vec())
        );
        talk.expect(b"PASS x\r\n", "503 Login with USER first.");
    }

    #[test]
    fn after_login() {
        let mut talk = Talk::logged_in();
        talk.expect(b"USER x\n", "503 Already logged in.");
        talk.expect(b"PASS x\n", "503 Already logged in.");
        talk.expect(b"LOCAL\n", "503 Already logged in.");
        talk.expect(b"NOOP\n", "500 Unknown command.");
        talk.expect(b"GLOBAL\n", "501 Bad argument.");
        talk.expect(b"GLOBAL servers\n", "501 Bad argument.");
        talk.expect(b"THUMBPRINT abc\n", "200 AA:BB");
        talk.expect(b"THUMBPRINT a c\n", "501 Bad argument.");
        let long = [b"CONNECT /".as_slice(), &[b'x'; 4070], b" control\n"].concat();
        assert!(matches!(talk.say(&long), Step::Ask(Question::Connect { console: false, .. })));
        talk.dialogue.reserve_answer(&talk.rules, NOW, Reservation::Unreachable);
        // A name that no list can hold is not asked about.
        talk.expect(b"CONNECT /%ff mks\n", "551 The config file /\u{fffd} is not registered.");
        talk.expect(b"CONNECT a.vmx mks\n", "501 Bad argument.");
        talk.expect(b"CONNECT /a.vmx vnc\n", "501 Bad argument.");
        talk.expect(b"CONNECT mks\n", "501 Bad argument.");
        assert_eq!(talk.say(b"\n\n"), Step::Read);
        assert_eq!(talk.say(b"GLOBAL server\nearly"), Step::Ask(Question::Reserve));
        assert_eq!(talk.dialogue.deadline(), None);
        let step = talk.dialogue.reserve_answer(&rules(), NOW, Reservation::Granted);
        assert_eq!(step, Step::HandOver { reply: reply::CONNECTED.to_vec(), early: b"early".to_vec() });
    }

    #[test]
    fn a_failed_hand_over_leaves_the_session_in() {
        let mut talk = Talk::logged_in();
        talk.say(b"GLOBAL server\n");
        let step = talk.dialogue.reserve_answer(&rules(), NOW, Reservation::Unreachable);
        let text = b"511 Error connecting to /usr/sbin/vmware-serverd process.\r\n".to_vec();
        assert_eq!(step, Step::Reply(text));
        talk.expect(b"NOOP\n", "500 Unknown command.");
    }

    #[test]
    fn empty_lines_are_answered_once_in_a_row_before_login() {
        let mut talk = Talk::new();
        talk.expect(b"\r\n\r\n", "530 Please login with USER and PASS.");
        assert_eq!(talk.dialogue.next(&talk.rules), Step::Read);
        talk.expect(b"TEST\r\n\r\n", "530 Please login with USER and PASS.");
        assert_eq!(talk.dialogue.next(&talk.rules), Step::Reply(reply::PLEASE_LOGIN.to_vec()));
        assert_eq!(talk.say(b"\r\n"), Step::Read);
    }

    #[test]
    fn a_local_login_over_tcp_is_confirmed_before_the_first_command() {
        for (same, expected) in [
            (true, Step::Close(reply::GOODBYE.to_vec(), Reason::Quit)),
            (false, Step::Close(reply::LOCAL_REFUSED.to_vec(), Reason::NotProven)),
        ] {
            let mut talk = Talk::new();
            assert_eq!(talk.say(b"LOCAL\nQUIT\n"), Step::Ask(Question::Local));
            let reply = talk.dialogue.login_answer(&rules(), NOW, Some(b"bob"));
            assert_eq!(reply, Step::Reply(b"230 User bob logged in.\r\n".to_vec()));
            assert_eq!(talk.dialogue.next(&talk.rules), Step::Ask(Question::Confirm));
            assert_eq!(talk.dialogue.confirm_answer(&rules(), NOW, same), expected);
        }
    }

    #[test]
    fn passwords_that_cannot_be_right_are_failures_like_any_other() {
        for (user, pass) in
            [("bob", String::new()), ("bob", "x".repeat(1025)), (&"n".repeat(257), "x".into())]
        {
            let mut talk = Talk::new();
            talk.say(format!("USER {user}\n").as_bytes());
            match talk.say(format!("PASS {pass}\n").as_bytes()) {
                Step::Ask(Question::Password { password: None, .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        let mut talk = Talk::new();
        talk.say(b"USER bob\n");
        assert!(matches!(talk.say(b"PASS\n"), Step::Ask(Question::Password { password: None, .. })));
    }

    #[test]
    fn the_deadline_restarts_with_a_failed_login_and_becomes_the_idle_time() {
        let mut talk = Talk::new();
        assert_eq!(talk.dialogue.deadline(), Some(Duration::from_secs(30)));
        talk.say(b"USER bob\n");
        assert_eq!(talk.dialogue.deadline(), Some(Duration::from_secs(30)));
        talk.say(b"PASS x\n");
        assert_eq!(talk.dialogue.deadline(), None);
        talk.dialogue.login_answer(&rules(), Duration::from_secs(20), None);
        assert_eq!(talk.dialogue.deadline(), Some(Duration::from_secs(50)));
        assert_eq!(talk.dialogue.expired(), Step::Close(reply::LOGIN_TIMEOUT.to_vec(), Reason::TimeOut));
        let talk = Talk::logged_in();
        assert_eq!(talk.dialogue.deadline(), Some(Duration::from_secs(301)));
        assert_eq!(talk.dialogue.expired(), Step::Close(reply::SESSION_TIMEOUT.to_vec(), Reason::TimeOut));
    }
}
