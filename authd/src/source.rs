//! Where a caller comes from, as far as limits and delays are concerned.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use rustix::net::UCred;

/// The unit that limits and delays count by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The /64 of an IPv6 address: one subscriber, usually.
    V6([u8; 8]),
    /// The user at the other end of a unix socket. Not an identity, only a counter.
    User(u32),
}

/// The two ends of a TCP connection, IPv4-mapped addresses turned into IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The caller's.
    pub peer: SocketAddr,
    /// Ours.
    pub own: SocketAddr,
}

impl Source {
    /// The source of an address.
    #[must_use]
    pub fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Source::V4(v4),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Source::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::V4(address) => address.fmt(f),
            Source::V6(prefix) => {
                let prefix = u128::from(u64::from_be_bytes(*prefix)) << 64;
                write!(f, "{}/64", std::net::Ipv6Addr::from(prefix))
            }
            Source::User(uid) => write!(f, "uid {uid}"),
        }
    }
}

/// The other end of a connected socket, as the kernel knows it.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// TCP.
    Tcp(Ends),
    /// Unix socket: who *connected*.
    Unix(UCred),
}

impl End {
    /// Asks the kernel. `None` when the caller has gone.
    #[must_use]
    pub fn of_socket(socket: impl AsFd) -> Option<Self> {
        let domain = rustix::net::sockopt::socket_domain(&socket).ok()?;
        if domain == rustix::net::AddressFamily::UNIX {
            return rustix::net::sockopt::socket_peercred(&socket).ok().map(End::Unix);
        }
        let address = |any: rustix::net::SocketAddrAny| SocketAddr::try_from(any).ok();
        let peer = address(rustix::net::getpeername(&socket).ok()??)?;
        let own = address(rustix::net::getsockname(&socket).ok()?)?;
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Some(End::Tcp(Ends { peer: canonical(peer), own: canonical(own) }))
    }

    /// What limits and delays count by.
    #[must_use]
    pub fn source(&self) -> Source {
        match self {
            End::Tcp(ends) => Source::of_address(ends.peer.ip()),
            End::Unix(peer) => Source::User(peer.uid.as_raw()),
        }
    }

    /// The caller's TCP port, or the process that connected to the unix socket.
    #[must_use]
    pub fn origin(&self) -> u32 {
        match self {
            End::Tcp(ends) => ends.peer.port().into(),
            End::Unix(peer) => peer.pid.as_raw_nonzero().get().unsigned_abs(),
        }
    }
}

/// The caller's address as logs and PAM show it: numeric, or `unix`.
impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Tcp(ends) => ends.peer.ip().fmt(f),
            End::Unix(_) => f.write_str("unix"),
        }
    }
}

/// As [`End`] is shown; `?` when the caller has gone.
#[must_use]
pub fn shown(socket: impl AsFd) -> String {
    End::of_socket(socket).map_or_else(|| "?".to_owned(), |end| end.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_ipv4_and_ipv6_counts_by_its_prefix() {
        let of = |text: &str| Source::of_address(text.parse().unwrap());
        assert_eq!(of("::ffff:127.0.0.1"), of("127.0.0.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }

    #[test]
    fn the_kernel_knows_both_kinds_of_socket() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        let end = End::of_socket(&a).unwrap();
        assert_eq!(end.source(), Source::User(rustix::process::getuid().as_raw()));
        assert_eq!((shown(&a).as_str(), end.origin()), ("unix", std::process::id()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let end = End::of_socket(&server).unwrap();
        assert!(matches!(end, End::Tcp(ends) if ends.peer == client.local_addr().unwrap()));
        assert_eq!(end.source(), Source::of_address("127.0.0.1".parse().unwrap()));
        assert_eq!(shown(&server), "127.0.0.1");
        assert_eq!(end.origin(), u32::from(client.local_addr().unwrap().port()));
        drop((client, server));
        let nobody =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
        assert!(End::of_socket(nobody.unwrap()).is_none());
    }
}
