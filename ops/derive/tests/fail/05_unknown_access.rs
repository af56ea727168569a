//! The access classes are a fixed set.
use ops::{Op, Reply};

/// A reply.
#[derive(Reply)]
struct Answer {}

/// An operation.
#[derive(Op)]
#[op(name = "X", handler = "X::X_Handler", access = Everybody, runs = Session, effect = Reads, reply = Answer)]
struct Ask {}

fn main() {}
