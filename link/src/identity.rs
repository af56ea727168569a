//! Who a caller was proven to be.

/// How the identity was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A password accepted by PAM.
    Pam,
    /// `SO_PEERCRED` of a unix socket: the kernel names the process that connected.
    Unix,
    /// `sock_diag` of a loopback TCP connection: the kernel names the creator of the socket. As
    /// strong as an ident answer.
    Tcp,
}

impl Proof {
    /// The word used in logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Proof::Pam => "pam",
            Proof::Unix => "unix",
            Proof::Tcp => "tcp",
        }
    }
}

/// A proven identity, written by the root half of the gateway and by nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Every group of the user according to the user database, the primary one included; sorted.
    pub groups: Vec<u32>,
    /// Home directory according to the user database.
    pub home: String,
    /// How it was proven.
    pub proof: Proof,
    /// Numeric address of the caller, or `unix`.
    pub peer: String,
    /// The caller's TCP port, or the process that connected to the unix socket.
    pub origin: u32,
    /// Whether the caller speaks through TLS.
    pub tls: bool,
    /// Time of login, Unix seconds.
    pub login_time: u64,
}

/// What the user database knows about a user: the part of an [`Identity`] that is not about the
/// connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All groups, sorted, the primary one included.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

impl Account {
    /// Looks a uid up. May block for as long as the name service takes.
    ///
    /// Returns `None` when the uid has no passwd entry, or its name is not UTF-8.
    #[must_use]
    pub fn by_uid(uid: u32) -> Option<Account> {
        Self::from_user(&uzers::get_user_by_uid(uid)?)
    }

    /// Looks a name up, as [`Account::by_uid`] does.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Account> {
        Self::from_user(&uzers::get_user_by_name(name)?)
    }

    fn from_user(user: &uzers::User) -> Option<Account> {
        use uzers::os::unix::UserExt;
        let name = user.name().to_str()?.to_owned();
        let gid = user.primary_group_id();
        let mut groups: Vec<u32> =
            uzers::get_user_groups(user.name(), gid)?.iter().map(uzers::Group::gid).collect();
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        let home = user.home_dir().to_str().unwrap_or("/").to_owned();
        Some(Account { name, uid: user.uid(), gid, groups, home })
    }

    /// Completes the account with the facts of one connection.
    #[must_use]
    pub fn identity(
        self,
        proof: Proof,
        (peer, origin): (String, u32),
        tls: bool,
        login_time: u64,
    ) -> Identity {
        let Account { name, uid, gid, groups, home } = self;
        Identity { name, uid, gid, groups, home, proof, peer, origin, tls, login_time }
    }
}

/// Writes a name or path so that it cannot break a line of the protocol or of a log: `%`, 0x00-0x1F
/// and 0x7F become `%XX`, everything else stays raw.
#[must_use]
pub fn escape(text: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        if byte == b'%' || byte < 0x20 || byte == 0x7f {
            out.push(b'%');
            out.extend(HEX.get(usize::from(byte >> 4)));
            out.extend(HEX.get(usize::from(byte & 15)));
        } else {
            out.push(byte);
        }
    }
    out
}

/// A name as it may stand in a log line: escaped, cut at 64 bytes, invalid UTF-8 replaced.
#[must_use]
pub fn for_log(name: &[u8]) -> String {
    let mut text = escape(name);
    text.truncate(64);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_with_its_groups() {
        let root = Account::by_uid(0).unwrap();
        assert_eq!((root.name.as_str(), root.gid), ("root", 0));
        assert!(root.groups.contains(&0));
        assert_eq!(Account::by_name("root"), Some(root));
    }

    #[test]
    fn a_name_cannot_forge_a_log_line() {
        assert_eq!(for_log(b"a\nb%\x7f"), "a%0Ab%25%7F");
        assert_eq!(for_log(&[b'x'; 500]).len(), 64);
        assert_eq!(for_log(&[0xff]), "\u{fffd}");
    }
}
