//! Just enough of HTTP/1.1: one request per connection, `GET` or `HEAD` of `/metrics`.
//!
//! ```text
//!   at most 8 KiB, within 5 s ─▶ httparse ─▶ one reply with its length ─▶ close
//! ```
//!
//! What is not that gets a status of its own and no other help. Nothing that the caller sends is kept, or
//! appears in a reply. A request body is not read.

use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Longest request head, in bytes.
pub const MAX_HEAD: usize = 8 * 1024;

/// Most header lines.
const MAX_HEADERS: usize = 64;

/// How long the head may take.
pub const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// How long the reply may take to be read.
const REPLY_WITHIN: Duration = Duration::from_secs(10);

/// What a caller sent beyond the head is thrown away for so long and so many bytes, so that its end does
/// not take the reply along.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 64 * 1024;

/// Which names of this server a request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosts {
    /// Any: the socket is no network socket.
    Any,
    /// Those of this machine. A web page may make a browser ask here under a name of its own.
    Local,
}

/// What a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The text; without it for `HEAD`.
    Text { head: bool },
    /// A status line's number and reason.
    Refused(u16, &'static str),
}

const BAD_REQUEST: Verdict = Verdict::Refused(400, "Bad Request");
const TIMEOUT: Verdict = Verdict::Refused(408, "Request Timeout");
const TOO_LARGE: Verdict = Verdict::Refused(431, "Request Header Fields Too Large");

/// Answers one request, whose head must be there within a time, with `text`, which is made when it is
/// needed.
pub async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    hosts: Hosts,
    head_within: Duration,
    text: impl FnOnce() -> String,
) {
    let verdict = match timeout(head_within, read_head(&mut stream, hosts)).await {
        Ok(Some(verdict)) => verdict,
        // Nobody is there any more.
        Ok(None) => return,
        Err(_) => TIMEOUT,
    };
    let reply = reply(verdict, text);
    let sent = timeout(REPLY_WITHIN, async {
        stream.write_all(&reply).await?;
        stream.shutdown().await
    });
    if matches!(sent.await, Ok(Ok(()))) {
        let _ = timeout(LINGER, drain(&mut stream)).await;
    }
}

/// Reads up to the end of the head; `None` when the caller left before.
async fn read_head(stream: &mut (impl AsyncRead + Unpin), hosts: Hosts) -> Option<Verdict> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        head.extend_from_slice(piece.get(..count)?);
        if let Some(verdict) = judge(&head, hosts) {
            return Some(verdict);
        }
        if head.len() > MAX_HEAD {
            return Some(TOO_LARGE);
        }
    }
}

/// What a head gets; `None` while it is not whole.
fn judge(head: &[u8], hosts: Hosts) -> Option<Verdict> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Some(TOO_LARGE),
        Err(_) => return Some(BAD_REQUEST),
    }
    let mut names = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let host = names.next().map(|header| header.value);
    if names.next().is_some() || (host.is_none() && request.version == Some(1)) {
        return Some(BAD_REQUEST);
    }
    if hosts == Hosts::Local && host.is_some_and(|host| !is_local(host)) {
        return Some(Verdict::Refused(421, "Misdirected Request"));
    }
    let head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Some(Verdict::Refused(405, "Method Not Allowed")),
    };
    let path = request.path.unwrap_or_default();
    match path.split_once('?').map_or(path, |(path, _)| path) {
        "/metrics" => Some(Verdict::Text { head }),
        _ => Some(Verdict::Refused(404, "Not Found")),
    }
}

/// Whether a `Host` is this machine, by number or as `localhost`.
fn is_local(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn reply(verdict: Verdict, text: impl FnOnce() -> String) -> Vec<u8> {
    let (status, reason, kind, body, head) = match verdict {
        Verdict::Text { head } => (200, "OK", handlers::metrics::CONTENT_TYPE, text(), head),
        Verdict::Refused(status, reason) => {
            (status, reason, "text/plain; charset=utf-8", format!("{reason}\n"), false)
        }
    };
    let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let mut reply = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if !head {
        reply.push_str(&body);
    }
    reply.into_bytes()
}

async fn drain(stream: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = [0; 4096];
    let mut left = LINGER_BYTES;
    while let Ok(count) = stream.read(&mut buffer).await {
        left = left.saturating_sub(count);
        if count == 0 || left == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &str) -> Option<u16> {
        judge(head.as_bytes(), Hosts::Local).map(|verdict| match verdict {
            Verdict::Text { .. } => 200,
            Verdict::Refused(status, _) => status,
        })
    }

    #[test]
    fn what_a_head_gets() {
        for (head, wanted) in [
            ("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", Some(200)),
            ("HEAD /metrics?x=1 HTTP/1.1\r\nhost: 127.0.0.1:9902\r\n\r\n", Some(200)),
            ("GET /metrics HTTP/1.1\r\nHost: [::1]:9902\r\n\r\n", Some(200)),
            ("GET /metrics HTTP/1.0\r\n\r\n", Some(200)),
            ("GET /metrics HTTP/1.1\r\n\r\n", Some(400)),
            ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", Some(400)),
            ("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", Some(421)),
            ("GET /metrics HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n", Some(421)),
            ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", Some(404)),
            ("GET /metrics/../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", Some(404)),
            ("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n", Some(405)),
            ("GET /metrics HTTP/1.1\r\nHost: loc", None),
            ("220 VMware Authentication Daemon\r\n", Some(400)),
            ("\u{16}\u{3}\u{1}", Some(400)),
            ("GET /metrics HTTP/2.0\r\n\r\n", Some(400)),
        ] {
            assert_eq!(status(head), wanted, "{head:?}");
        }
        let many: String = (0..=MAX_HEADERS).map(|number| format!("a{number}: b\r\n")).collect();
        assert_eq!(status(&format!("GET /metrics HTTP/1.1\r\n{many}\r\n")), Some(431));
    }

    /// What a caller reads who sends these pieces.
    async fn converse(pieces: &[&[u8]]) -> String {
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        let served = serve(theirs, Hosts::Any, Duration::from_millis(200), || "figures\n".to_owned());
        let talk = async move {
            for piece in pieces {
                // One who is not read any more has his answer already.
                let _ = ours.write_all(piece).await;
            }
            let mut text = String::new();
            ours.read_to_string(&mut text).await.unwrap();
            text
        };
        tokio::join!(served, talk).1
    }

    #[tokio::test]
    async fn one_request_one_reply() {
        let text = converse(&[b"GET /met", b"rics HTTP/1.1\r\nHost: x\r\n", b"\r\n"]).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nfigures\n"), "{text}");
        assert!(text.contains("Content-Length: 8\r\n"), "{text}");
        assert!(
            text.contains("Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
            "{text}"
        );
        let text = converse(&[b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n"]).await;
        assert!(text.contains("Content-Length: 8\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        let text = converse(&[&[b'x'; 100_000]]).await;
        assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
        // One who says nothing more is answered when the time is over.
        let text = converse(&[b"GET "]).await;
        assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    }
}
