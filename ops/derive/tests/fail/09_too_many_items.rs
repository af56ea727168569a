//! No list of a request holds more than the protocol allows.
use ops::{Op, Reply};

/// A reply.
#[derive(Reply)]
struct Answer {}

/// An operation.
#[derive(Op)]
#[op(name = "X", handler = "X::X_Handler", access = AuthUser, runs = Session, effect = Reads, reply = Answer)]
struct Ask {
    /// Files.
    #[field(list = "files/file", max_items = 1000)]
    files: Vec<String>,
}

fn main() {}
