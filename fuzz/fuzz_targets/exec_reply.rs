//! Replies: whatever is in them, two readers that others wrote find what was put in, in the order that the
//! operation table declares; and a value, an error and a row of the table come back as they were.
#![no_main]

#[path = "exec_reply/errors.rs"]
mod errors;
#[path = "exec_reply/operations.rs"]
mod operations;
#[path = "exec_reply/pieces.rs"]
mod pieces;
#[path = "exec_reply/readers.rs"]
mod readers;
#[path = "exec_reply/replies.rs"]
mod replies;
#[path = "exec_reply/values.rs"]
mod values;

use fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    match input.byte() % 8 {
        0 => values::values(&pieces::text(input.0)),
        1 => values::bytes(input.0),
        2 => errors::errors(input),
        3 => replies::pen(input),
        4 => replies::tree(input),
        5 => replies::machines(input),
        6 => replies::mixed(input),
        _ => operations::operations(input),
    }
});
