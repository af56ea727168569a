//! A Vec needs the names of wrapper and item.
use ops::Reply;

/// A reply.
#[derive(Reply)]
struct Answer {
    /// Values.
    values: Vec<u64>,
}

fn main() {}
