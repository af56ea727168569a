//! A default makes a parameter always present.
use ops::{Op, Reply};

/// A reply.
#[derive(Reply)]
struct Answer {}

/// An operation.
#[derive(Op)]
#[op(name = "X", handler = "X::X_Handler", access = AuthUser, runs = Session, effect = Reads, reply = Answer)]
struct Ask {
    /// A count.
    #[field(default = "1")]
    count: Option<u64>,
}

fn main() {}
