//! The first paragraph is the summary that users read.
use ops::{Op, Reply};

/// A reply.
#[derive(Reply)]
struct Answer {}

#[derive(Op)]
#[op(name = "X", handler = "X::X_Handler", access = AuthUser, runs = Session, effect = Reads, reply = Answer)]
struct Ask {}

fn main() {}
