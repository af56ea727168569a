//! Attributes of a request are ignored, so no parameter can be one.
use ops::Fragment;

/// A group.
#[derive(Fragment)]
#[fragment(request)]
struct Group {
    /// A number.
    #[field(attribute)]
    number: u64,
}

fn main() {}
