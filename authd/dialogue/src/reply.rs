//! The complete list of what the gateway says. Three digits, a space, text, CR LF; one write each.

use link::identity::escape;

/// Longest reply, its line end included. Old clients read with small buffers.
pub const MAX_REPLY: usize = 1023;

/// The banner of a listener on which TLS starts right behind it.
pub const BANNER_TLS: &[u8] =
    b"220 VMware Authentication Daemon Version 1.10: SSL Required, MKSDisplayProtocol:VNC \r\n";
/// The banner of a plain listener and of the unix socket.
pub const BANNER_PLAIN: &[u8] = b"220 VMware Authentication Daemon Version 1.00\r\n";

/// `AUTH TLS` in front of the handshake; see `authd/src/net/connection.rs`.
pub const BEGIN_TLS: &[u8] = b"234 Begin TLS.\r\n";
/// Any command before the login.
pub const PLEASE_LOGIN: &[u8] = b"530 Please login with USER and PASS.\r\n";
/// Wrong name or password.
pub const LOGIN_INCORRECT: &[u8] = b"530 Login incorrect.\r\n";
/// `LOCAL` not proven.
pub const LOCAL_REFUSED: &[u8] = b"530 Local login refused.\r\n";
/// `PASS` without `USER`.
pub const USER_FIRST: &[u8] = b"503 Login with USER first.\r\n";
/// A second login.
pub const ALREADY_IN: &[u8] = b"503 Already logged in.\r\n";
/// Unknown word after the login.
pub const UNKNOWN_COMMAND: &[u8] = b"500 Unknown command.\r\n";
/// Argument missing, malformed or not allowed.
pub const BAD_ARGUMENT: &[u8] = b"501 Bad argument.\r\n";
/// NUL or a lone CR.
pub const MALFORMED_LINE: &[u8] = b"502 Malformed line.\r\n";
/// Over the limit; the connection is closed.
pub const LINE_TOO_LONG: &[u8] = b"502 Line too long.\r\n";
/// `QUIT`.
pub const GOODBYE: &[u8] = b"221 Goodbye.\r\n";
/// `GLOBAL server` succeeded.
pub const CONNECTED: &[u8] = b"200 Connected to vmware-serverd.\r\n";
/// The server takes no more sessions.
pub const REFUSED: &[u8] = b"512 The server daemon refused the session.\r\n";
/// The login deadline passed.
pub const LOGIN_TIMEOUT: &[u8] = b"421 Login timed out.\r\n";
/// Silence after the login.
pub const SESSION_TIMEOUT: &[u8] = b"421 Session timed out.\r\n";
/// Instead of the banner.
pub const TOO_MANY: &[u8] = b"421 Too many connections.\r\n";
/// The daemon stops.
pub const SHUTTING_DOWN: &[u8] = b"421 Shutting down.\r\n";
/// Instead of the banner: started by a super-server, while there is no gateway to hand the caller to.
pub const NOT_AVAILABLE: &[u8] = b"421 Service not available.\r\n";

/// `331 Password required for <name>.`
#[must_use]
pub fn password_required(name: &[u8]) -> Vec<u8> {
    // 256 bytes of name, escaped, always fit; a longer name is cut and marked.
    let cut = name.get(..256).unwrap_or(name);
    let mut shown = escape(cut);
    if cut.len() < name.len() {
        shown.extend_from_slice(b"...");
    }
    line(b"331 Password required for ", &shown, b".")
}

/// `230 User <name> logged in.`
#[must_use]
pub fn logged_in(name: &[u8]) -> Vec<u8> {
    line(b"230 User ", &escape(name), b" logged in.")
}

/// `200 <thumbprint>`
#[must_use]
pub fn thumbprint(value: &str) -> Vec<u8> {
    line(b"200 ", value.as_bytes(), b"")
}

/// `511 Error connecting to <path> process.`
#[must_use]
pub fn unreachable(serverd_path: &str) -> Vec<u8> {
    line(b"511 Error connecting to ", &escape(serverd_path.as_bytes()), b" process.")
}

/// `200 Connect <path>`
#[must_use]
pub fn connected_to(path: &[u8]) -> Vec<u8> {
    line(b"200 Connect ", &escape(path), b"")
}

/// `514 Virtual machine <path> is not running.`
#[must_use]
pub fn not_running(path: &[u8]) -> Vec<u8> {
    line(b"514 Virtual machine ", &escape(path), b" is not running.")
}

/// `550 You need execute access …`
#[must_use]
pub fn denied(path: &[u8]) -> Vec<u8> {
    let head = b"550 You need execute access in order to connect with the VMware console. \
        Access denied for config file ";
    line(head, &escape(path), b".")
}

/// `552 Virtual machine <path> is busy.`
#[must_use]
pub fn busy(path: &[u8]) -> Vec<u8> {
    line(b"552 Virtual machine ", &escape(path), b" is busy.")
}

/// `551 The config file <path> is not registered.`
#[must_use]
pub fn not_registered(path: &[u8]) -> Vec<u8> {
    line(b"551 The config file ", &escape(path), b" is not registered.")
}

/// Puts a line together; an over-long middle is cut and ends in `...`.
fn line(head: &[u8], middle: &[u8], tail: &[u8]) -> Vec<u8> {
    let room = MAX_REPLY - head.len() - tail.len() - 2;
    let mut out = Vec::with_capacity(MAX_REPLY.min(head.len() + middle.len() + tail.len() + 2));
    out.extend_from_slice(head);
    if middle.len() <= room {
        out.extend_from_slice(middle);
    } else {
        out.extend_from_slice(middle.get(..room - 3).unwrap_or_default());
        out.extend_from_slice(b"...");
    }
    out.extend_from_slice(tail);
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banners_have_their_recorded_lengths() {
        assert_eq!((BANNER_TLS.len(), BANNER_PLAIN.len()), (86, 47));
    }

    #[test]
    fn names_are_escaped_and_cut() {
        assert_eq!(password_required(b"bob"), b"331 Password required for bob.\r\n");
        assert_eq!(password_required(b"a%\x01"), b"331 Password required for a%25%01.\r\n");
        assert_eq!(password_required(&[b'A'; 256]).len(), 26 + 256 + 3);
        assert!(password_required(&[b'A'; 257]).ends_with(b"A....\r\n"));
        assert!(password_required(&[1; 4000]).len() <= MAX_REPLY);
    }

    #[test]
    fn long_paths_are_cut() {
        let reply = not_registered(&[b'/'; 4000]);
        assert_eq!(reply.len(), MAX_REPLY);
        assert!(reply.ends_with(b"/... is not registered.\r\n"));
    }
}
