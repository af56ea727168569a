//! A misspelt key.
use ops::Reply;

/// A reply.
#[derive(Reply)]
struct Answer {
    /// A value.
    #[field(nam = "x")]
    value: u64,
}

fn main() {}
