//! One element name, one meaning.
use ops::{Op, Reply};

/// A reply.
#[derive(Reply)]
struct Answer {}

/// An operation.
#[derive(Op)]
#[op(name = "X", handler = "X::X_Handler", access = AuthUser, runs = Session, effect = Reads, reply = Answer)]
struct Ask {
    /// A path.
    #[field(alias = "path")]
    file: String,
    /// Another path.
    path: String,
}

fn main() {}
