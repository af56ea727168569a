//! Users read the doc comment of every field.
use ops::Reply;

/// A reply.
#[derive(Reply)]
struct Answer {
    value: u64,
}

fn main() {}
