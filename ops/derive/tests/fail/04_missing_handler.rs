//! Every operation names its handler.
use ops::{Op, Reply};

/// A reply.
#[derive(Reply)]
struct Answer {}

/// An operation.
#[derive(Op)]
#[op(name = "X", access = AuthUser, runs = Session, effect = Reads, reply = Answer)]
struct Ask {}

fn main() {}
