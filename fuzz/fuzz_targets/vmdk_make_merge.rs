//! Disks as we make them: every kind, alone and in chains, written, flushed, cut off, merged, in memory and in
//! real files, beside a model that knows nothing but sectors. What is read is what was written; a power cut
//! takes back only what was not flushed; a merge changes nothing for who reads through the top, whenever it
//! ends; and what cannot be made leaves nothing behind.
#![no_main]

#[path = "vmdk_make_merge/chains.rs"]
mod chains;
#[path = "vmdk_make_merge/composed.rs"]
mod composed;
#[path = "vmdk_make_merge/model.rs"]
mod model;
#[path = "vmdk_make_merge/names.rs"]
mod names;
#[path = "vmdk_make_merge/real_files.rs"]
mod real_files;
#[path = "../../hypervisor/tests/common/stream_parts.rs"]
mod stream_parts;
#[path = "vmdk_make_merge/streams.rs"]
mod streams;

use fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    match input.byte() % 8 {
        0..=2 => chains::in_memory(input),
        3 | 4 => real_files::on_files(input),
        5 => composed::composed(input),
        6 => streams::stream(input),
        _ => names::names(input),
    }
});
