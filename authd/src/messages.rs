//! The messages between the gateway's own processes: two enums for the network child, two for the
//! helpers. A connection is named by a number that the network child chose; what is proven about it
//! is kept by the monitor.

use link::identity::Account;
use link::wire::{Wire, WireError};

/// What a listening socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP with the TLS banner.
    Tls = 1,
    /// TCP in clear text.
    Plain = 2,
    /// Unix socket, clear text.
    Unix = 3,
}

impl Kind {
    /// The word in logs and in the status for the service manager.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Tls => "tls",
            Kind::Plain => "plain",
            Kind::Unix => "unix",
        }
    }

    /// From its number on the wire.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Kind::Tls, Kind::Plain, Kind::Unix].into_iter().find(|kind| *kind as u8 == number)
    }
}

link::messages! {
    /// From the network child to the monitor.
    pub enum ToMonitor {
        /// The sandbox is closed and the listeners are served.
        1 = Ready {},
        /// Is this password right? The descriptor is the caller's socket, whose address the monitor
        /// asks the kernel for, and to which the identity will be bound.
        2 = Password {
            /// Number of the connection.
            connection: u32,
            /// User name as given.
            name: Vec<u8>,
            /// Password as given.
            password: Vec<u8>,
            /// False when it cannot be right: answer as for a wrong one, without asking PAM.
            usable: bool,
            /// The caller speaks through TLS, so the session will be relayed.
            tls: bool,
        } with 1..=1,
        /// Who owns the other end of this socket?
        3 = Local {
            /// Number of the connection.
            connection: u32,
            /// As above.
            tls: bool,
        } with 1..=1,
        /// The first command after `LOCAL` has been read: does the proof still hold?
        4 = Confirm {
            /// Number of the connection.
            connection: u32,
        },
        /// May this connection go to the server?
        5 = Reserve {
            /// Number of the connection.
            connection: u32,
        },
        /// May this connection go to the server as one to this machine? Answered by `Reserved`.
        9 = Connect {
            /// Number of the connection.
            connection: u32,
            /// Path of the .vmx.
            config: String,
            /// `mks`, not `control`.
            console: bool,
        },
        /// The caller has been told; pass the connection on. A TLS connection brings the end of the
        /// relay's socket pair; for a plain one the monitor passes the socket it proved.
        6 = HandOver {
            /// Number of the connection.
            connection: u32,
            /// Bytes the caller sent early.
            early: Vec<u8>,
        } with 0..=1,
        /// The connection is closed.
        7 = Forget {
            /// Number of the connection.
            connection: u32,
        },
        /// After `Stop`: nobody is left who wants anything of the monitor. The child ends with its last relay.
        10 = Drained {
            /// Relays that go on.
            relays: u32,
        },
        /// A later `Config` was read; once for each of them, in order.
        8 = Configured {
            /// Why the old one stays in force; absent when the new one is.
            error: Option<String>,
        },
    }
}

link::messages! {
    /// From the monitor to the network child.
    pub enum FromMonitor {
        /// Everything the child works with. First message, and again after a reload. The descriptors
        /// are the listeners in the order of `kinds`, then the log, then the page in which the child
        /// publishes what it counts.
        1 = Config {
            /// One [`Kind`] number per listener.
            kinds: Vec<u8>,
            /// Certificate chain, PEM.
            certificate: Vec<u8>,
            /// Private key, PEM.
            key: Vec<u8>,
            /// What `THUMBPRINT` answers.
            thumbprint: String,
            /// Value of `serverd.fullpath`.
            serverd_path: String,
            /// Bytes.
            line_max: u32,
            /// Seconds.
            login_deadline: u32,
            /// Seconds.
            idle: u32,
            /// Unauthenticated connections from one address.
            per_address: u32,
            /// The same in all.
            connections: u32,
        } with 2..=16,
        /// Answer to `Password` and `Local`.
        2 = Verdict {
            /// Number of the connection.
            connection: u32,
            /// Login name of the proven user; absent for a refusal.
            user: Option<String>,
        },
        /// Answer to `Confirm`.
        3 = Confirmed {
            /// Number of the connection.
            connection: u32,
            /// The proof holds.
            same: bool,
        },
        /// Answer to `Reserve` and `Connect`.
        4 = Reserved {
            /// Number of the connection.
            connection: u32,
            /// 0 granted, 1 server unreachable, 2 refused by the server; others are the numbers of
            /// [`link::gateway::Declined`].
            outcome: u8,
        },
        /// Stop: close the listeners, hand over who is in the middle of a login, tell the others, let relays end.
        5 = Stop {},
        /// A TCP connection that a super-server has accepted: to be served like one of the listeners'.
        6 = Caller {
            /// Its [`Kind`] number.
            kind: u8,
        } with 1..=1,
    }
}

link::messages! {
    /// From a gateway that a super-server started ([`crate::inetd`]) to the monitor.
    pub enum FromInetd {
        /// Here is the caller.
        1 = Caller {} with 1..=1,
    }
}

link::messages! {
    /// From the monitor to such a gateway. A channel that ends without it says: not taken.
    pub enum ToInetd {
        /// The caller is served.
        1 = Taken {},
    }
}

link::messages! {
    /// From the monitor to a helper.
    pub enum ToHelper {
        /// Check a password by PAM (stacks `auth` and `account`), then look the user up.
        1 = Check {
            /// PAM service.
            service: String,
            /// User name.
            name: Vec<u8>,
            /// Password.
            password: Vec<u8>,
            /// Numeric address of the caller, for `PAM_RHOST`.
            remote_host: String,
        },
        /// Look a uid up.
        2 = Lookup {
            /// The user.
            uid: u32,
        },
    }
}

link::messages! {
    /// From a helper to the monitor.
    pub enum FromHelper {
        /// The user, or nothing: wrong password, or no passwd entry.
        1 = Answer {
            /// The account.
            account: Option<WireAccount>,
            /// For the log of the daemon, never for the caller.
            note: String,
        },
    }
}

/// [`Account`] in its wire form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireAccount(pub Account);

impl Wire for WireAccount {
    fn put(&self, out: &mut Vec<u8>) {
        let Account { name, uid, gid, groups, home } = &self.0;
        name.put(out);
        uid.put(out);
        gid.put(out);
        groups.put(out);
        home.put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        Ok(WireAccount(Account {
            name: String::take(input)?,
            uid: u32::take(input)?,
            gid: u32::take(input)?,
            groups: Vec::take(input)?,
            home: String::take(input)?,
        }))
    }
}
