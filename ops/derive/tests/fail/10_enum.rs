//! Words of a fixed set are declared with `ops::words!`.
use ops::Reply;

/// A reply.
#[derive(Reply)]
enum Answer {
    /// Yes.
    Yes,
}

fn main() {}
