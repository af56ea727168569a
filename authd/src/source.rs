//! Where a caller comes from, as far as limits and delays are concerned.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

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

    /// The source of a connected socket, asked from the kernel. `None` when the caller has gone.
    #[must_use]
    pub fn of_socket(socket: impl AsFd) -> Option<Self> {
        match ends(&socket) {
            Some(ends) => Some(Source::of_address(ends.peer.ip())),
            None => Some(Source::User(unix_peer(&socket)?.uid.as_raw())),
        }
    }
}

/// The addresses of a connected TCP socket; `None` for other sockets.
#[must_use]
pub fn ends(socket: impl AsFd) -> Option<Ends> {
    let address = |any: rustix::net::SocketAddrAny| SocketAddr::try_from(any).ok();
    let peer = address(rustix::net::getpeername(&socket).ok()??)?;
    let own = address(rustix::net::getsockname(&socket).ok()?)?;
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    Some(Ends { peer: canonical(peer), own: canonical(own) })
}

/// `SO_PEERCRED` of a unix socket: who *connected*. `None` for other sockets.
#[must_use]
pub fn unix_peer(socket: impl AsFd) -> Option<rustix::net::UCred> {
    let domain = rustix::net::sockopt::socket_domain(&socket).ok()?;
    (domain == rustix::net::AddressFamily::UNIX)
        .then(|| rustix::net::sockopt::socket_peercred(&socket).ok())?
}

/// The caller's address as logs and PAM show it: numeric, or `unix`.
#[must_use]
pub fn shown(socket: impl AsFd) -> String {
    ends(socket).map_or_else(|| "unix".to_owned(), |ends| ends.peer.ip().to_string())
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
        assert_eq!(Source::of_socket(&a), Some(Source::User(rustix::process::getuid().as_raw())));
        assert_eq!(shown(&a), "unix");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(ends(&server).unwrap().peer, client.local_addr().unwrap());
        assert_eq!(Source::of_socket(&server), Some(Source::of_address("127.0.0.1".parse().unwrap())));
        assert_eq!(shown(&server), "127.0.0.1");
    }
}
