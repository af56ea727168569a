//! Who owns the other end of a socket, proven by the kernel.
//!
//! Unix socket: `SO_PEERCRED`, fixed when the caller connected. Loopback TCP: `sock_diag`, under all
//! of the rules below. Reading the uid alone would be a root hole, because for a socket that its
//! owner has closed the kernel answers uid 0:
//!
//! | the caller (uid 1000) | state | uid | inode |
//! | --- | --- | --- | --- |
//! | keeps the socket open | 1 | 1000 | real |
//! | has shut down writing | 5 | 1000 | real |
//! | **has closed** | 5, 6 | **0** | **0** |
//! | made it as root, then became 1000 | 1 | 0 | real |
//!
//! So the answer counts only with state ESTABLISHED and a real inode, and it is asked twice: at
//! `LOCAL`, and again when the first command after it has been read. Row four means that the answer
//! names the *creator* of the socket, which is the strength of an ident answer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_ESTABLISHED};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};

use crate::source::{End, Ends};

/// What was proven about a local caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Unix socket.
    Unix {
        /// Who connected.
        uid: u32,
        /// The process that connected.
        pid: i32,
    },
    /// Loopback TCP.
    Tcp {
        /// Who made the socket.
        uid: u32,
        /// The caller's port, for the log.
        port: u16,
        /// The inode of the caller's socket: the second query must find the same.
        inode: u32,
    },
}

impl Peer {
    /// The proven user id.
    #[must_use]
    pub fn uid(&self) -> u32 {
        match *self {
            Peer::Unix { uid, .. } | Peer::Tcp { uid, .. } => uid,
        }
    }
}

/// The rule that a caller broke; its words stand in the log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// `authd.local.tcp` is off.
    #[error("local logins over TCP are switched off (authd.local.tcp)")]
    SwitchedOff,
    /// Rule 1.
    #[error("both addresses must be loopback")]
    NotLoopback,
    /// The kernel knows no such socket, or could not be asked.
    #[error("the kernel does not know the other end")]
    Unknown,
    /// Rule 3: the kernel answered about another socket.
    #[error("the kernel answered for another socket")]
    OtherSocket,
    /// Rule 4.
    #[error("the other end is not open (state {0})")]
    NotEstablished(u8),
    /// Rule 5.
    #[error("the other end has no owner (inode 0)")]
    NoInode,
    /// Rule 6.
    #[error("the owner changed between login and first command")]
    Changed,
    /// Rule 7: the overflow uid, which stands for users the kernel cannot name.
    #[error("uid {0} cannot log in")]
    Overflow(u32),
    /// Rule 7.
    #[error("uid {0} has no passwd entry")]
    NoAccount(u32),
    /// An ordinary user's instance serves that user only.
    #[error("uid {0} is not the user who runs this instance")]
    OtherUser(u32),
}

/// Proves who owns the other end, as far as the kernel alone can tell (rules 1 to 5, and the overflow
/// uid of rule 7).
///
/// # Errors
/// The first rule that does not hold.
pub fn prove(socket: impl AsFd, tcp_allowed: bool) -> Result<Peer, Broken> {
    let peer = match End::of_socket(&socket).ok_or(Broken::Unknown)? {
        End::Tcp(ends) if tcp_allowed => prove_tcp(ends)?,
        End::Tcp(_) => return Err(Broken::SwitchedOff),
        End::Unix(peer) => Peer::Unix { uid: peer.uid.as_raw(), pid: peer.pid.as_raw_nonzero().get() },
    };
    if peer.uid() == overflow_uid() { Err(Broken::Overflow(peer.uid())) } else { Ok(peer) }
}

/// Rule 6: the same question again.
///
/// # Errors
/// [`Broken::Changed`] when the answer differs, or the rule that no longer holds.
pub fn confirm(socket: impl AsFd, first: Peer) -> Result<(), Broken> {
    match first {
        // Fixed by the kernel when the caller connected.
        Peer::Unix { .. } => Ok(()),
        Peer::Tcp { .. } => {
            let Some(End::Tcp(ends)) = End::of_socket(socket) else { return Err(Broken::Unknown) };
            if prove_tcp(ends)? == first { Ok(()) } else { Err(Broken::Changed) }
        }
    }
}

fn prove_tcp(ends: Ends) -> Result<Peer, Broken> {
    if !ends.peer.ip().is_loopback() || !ends.own.ip().is_loopback() {
        return Err(Broken::NotLoopback);
    }
    let answer = ask(ends).map_err(|_| Broken::Unknown)?.ok_or(Broken::Unknown)?;
    judge(ends, &answer)
}

/// The rules about an answer of the kernel.
fn judge(ends: Ends, answer: &Answer) -> Result<Peer, Broken> {
    if (answer.source, answer.destination) != (ends.peer, ends.own) {
        return Err(Broken::OtherSocket);
    }
    if answer.state != TCP_ESTABLISHED {
        return Err(Broken::NotEstablished(answer.state));
    }
    if answer.inode == 0 {
        return Err(Broken::NoInode);
    }
    Ok(Peer::Tcp { uid: answer.uid, port: ends.peer.port(), inode: answer.inode })
}

/// The facts of a `sock_diag` answer, addresses canonical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    source: SocketAddr,
    destination: SocketAddr,
    state: u8,
    uid: u32,
    inode: u32,
}

impl From<&InetResponse> for Answer {
    fn from(response: &InetResponse) -> Self {
        let header = &response.header;
        let id = &header.socket_id;
        Answer {
            source: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
            destination: SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
            state: header.state,
            uid: header.uid,
            inode: header.inode,
        }
    }
}

/// Asks for the socket with the reversed addresses: the caller's end of our connection.
fn ask(ends: Ends) -> io::Result<Option<Answer>> {
    let socket_id = SocketId {
        source_port: ends.peer.port(),
        destination_port: ends.own.port(),
        source_address: ends.peer.ip(),
        destination_address: ends.own.ip(),
        interface_id: 0,
        // All ones: no cookie, look up by address.
        cookie: [0xff; 8],
    };
    let family = if matches!(ends.peer.ip(), IpAddr::V4(_)) { AF_INET } else { AF_INET6 };
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut packet = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);

    // A socket per question: an answer can then belong to no other question.
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (reply, _) = socket.recv_from_full()?;
    let message = NetlinkMessage::<SockDiagMessage>::deserialize(&reply).map_err(io::Error::other)?;
    match message.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
            Ok(Some(Answer::from(&*response)))
        }
        _ => Ok(None),
    }
}

/// The uid that stands for users the kernel cannot name here; read once.
fn overflow_uid() -> u32 {
    static UID: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *UID.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
        text.trim().parse().unwrap_or(65534)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn connection(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (client, server)
    }

    fn me() -> u32 {
        rustix::process::getuid().as_raw()
    }

    #[test]
    fn an_open_socket_names_its_owner_twice() {
        for address in ["127.0.0.1", "127.4.5.6", "::1"] {
            let Ok(_) = TcpListener::bind((address, 0)) else {
                println!("SKIPPED {address}: no such address here");
                continue;
            };
            let (_client, server) = connection(address);
            let peer = prove(&server, true).unwrap();
            assert!(matches!(peer, Peer::Tcp { uid, inode, .. } if uid == me() && inode != 0));
            assert_eq!(confirm(&server, peer), Ok(()));
        }
    }

    #[test]
    fn a_closed_socket_is_nobody() {
        let (client, server) = connection("127.0.0.1");
        let peer = prove(&server, true).unwrap();
        drop(client);
        assert!(matches!(prove(&server, true), Err(Broken::NotEstablished(_) | Broken::Unknown)));
        assert!(confirm(&server, peer).is_err());
    }

    #[test]
    fn a_half_closed_socket_is_refused() {
        let (client, server) = connection("127.0.0.1");
        client.shutdown(std::net::Shutdown::Write).unwrap();
        // FIN_WAIT1 until our side has acknowledged, FIN_WAIT2 afterwards.
        assert!(matches!(prove(&server, true), Err(Broken::NotEstablished(4 | 5))));
    }

    #[test]
    fn every_rule_about_the_answer_is_checked() {
        let ends = Ends { peer: "127.0.0.1:1000".parse().unwrap(), own: "127.0.0.1:902".parse().unwrap() };
        let good = Answer { source: ends.peer, destination: ends.own, state: 1, uid: 7, inode: 5 };
        assert_eq!(judge(ends, &good), Ok(Peer::Tcp { uid: 7, port: 1000, inode: 5 }));
        // The kernel falls back to a listener when no connection matches.
        let listener = Answer { destination: "0.0.0.0:0".parse().unwrap(), state: 10, ..good };
        assert_eq!(judge(ends, &listener), Err(Broken::OtherSocket));
        assert_eq!(judge(ends, &Answer { state: 5, ..good }), Err(Broken::NotEstablished(5)));
        assert_eq!(judge(ends, &Answer { inode: 0, uid: 0, ..good }), Err(Broken::NoInode));
        let far = Ends { peer: "192.0.2.1:1000".parse().unwrap(), ..ends };
        assert_eq!(prove_tcp(far), Err(Broken::NotLoopback));
    }

    #[test]
    fn switches_and_unix_sockets() {
        let (_client, server) = connection("127.0.0.1");
        assert_eq!(prove(&server, false), Err(Broken::SwitchedOff));
        let (_a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let peer = prove(&b, false).unwrap();
        assert_eq!(peer, Peer::Unix { uid: me(), pid: std::process::id().cast_signed() });
        assert_eq!(confirm(&b, peer), Ok(()));
    }
}
