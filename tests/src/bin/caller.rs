//! A caller of the gateway that the tests run under another user id.
//!
//! ```text
//!   caller relay unix PATH     connects, then copies standard input to the server and back
//!   caller relay tcp PORT      the same over TCP to 127.0.0.1
//!   caller ask LINE...         standard input *is* the connection: each line and its reply
//!   caller race PORT COUNT SEED DIRECTORY
//!                              logs in as local caller, asks for a directory to be made, and closes
//!                              at a random moment, COUNT times
//! ```

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["relay", "unix", path] => {
            let stream = UnixStream::connect(path).expect("connect");
            let other = stream.try_clone().expect("clone");
            relay(stream, other, |stream| stream.shutdown(Shutdown::Write));
        }
        ["relay", "tcp", port] => {
            let stream = connect(port);
            let other = stream.try_clone().expect("clone");
            relay(stream, other, |stream| stream.shutdown(Shutdown::Write));
        }
        ["ask", lines @ ..] => ask(lines),
        ["race", port, count, seed, directory] => {
            race(port, count.parse().expect("a number"), seed.parse().expect("a number"), directory);
        }
        _ => panic!("usage: see the head of src/bin/caller.rs"),
    }
}

fn connect(port: &str) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port.parse::<u16>().expect("a port"))).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    stream
}

/// Copies in both directions; the end of standard input ends the sending side only.
fn relay<S: Read + Write + Send + 'static>(
    mut from: S,
    mut to: S,
    end: impl FnOnce(&mut S) -> std::io::Result<()> + Send + 'static,
) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut to);
        let _ = end(&mut to);
    });
    let mut output = std::io::stdout().lock();
    let mut buffer = [0; 16384];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        output.write_all(&buffer[..length]).and_then(|()| output.flush()).expect("somebody reads");
    }
}

fn ask(lines: &[&str]) {
    let socket: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().expect("clone");
    let mut stream = BufReader::new(TcpStream::from(socket));
    for line in lines {
        stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("send");
        let mut reply = String::new();
        stream.read_line(&mut reply).expect("a reply");
        println!("{}", reply.trim_end());
    }
}

/// A small generator (xorshift): the moments only have to differ.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn race(port: &str, count: u64, seed: u64, directory: &str) {
    let mut random = Random(seed | 1);
    for number in 0..count {
        let mut stream = connect(port);
        let wait_for_banner = random.below(2) == 0;
        if wait_for_banner {
            let _ = stream.read(&mut [0; 256]);
        }
        let request = format!(
            "<exec><op>FileManager_MakeDir</op><in><directory>{directory}/{seed}-{number}</directory></in></exec>"
        );
        // All in one segment, or in two with a pause between: the close may then fall before the
        // first look at its owner, between the first and the second, or behind both.
        let pause = random.below(3);
        let _ = stream.write_all(b"LOCAL\r\n");
        if pause > 0 {
            busy(random.below(400));
        }
        let _ = stream.write_all(format!("GLOBAL server\r\n{request}").as_bytes());
        match random.below(4) {
            0 => {}
            1 => busy(random.below(2000)),
            2 => {
                let _ = stream.shutdown(Shutdown::Write);
                busy(random.below(1000));
            }
            _ => busy(random.below(300)),
        }
        drop(stream);
    }
}

/// Waits so many microseconds without giving the processor away: sleeping is too coarse here.
fn busy(microseconds: u64) {
    let end = Instant::now() + Duration::from_micros(microseconds);
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}
