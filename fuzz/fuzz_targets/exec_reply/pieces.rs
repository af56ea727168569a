//! Texts, numbers and paths out of an input.

use fuzz::Input;
use ops::value::{ConfigPath, HostPath};

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The next text of an input.
pub(crate) fn word(input: &mut Input<'_>) -> String {
    let length = usize::from(input.byte() % 48);
    text(input.bytes(length))
}

pub(crate) fn number(input: &mut Input<'_>) -> u64 {
    u64::from(input.word()) << (input.byte() % 64) | u64::from(input.byte())
}

pub(crate) fn path(input: &mut Input<'_>) -> HostPath {
    HostPath::try_from(format!("/{}", word(input).replace('\0', ""))).expect("a path")
}

pub(crate) fn config(input: &mut Input<'_>) -> ConfigPath {
    ConfigPath::try_from(format!("/{}", word(input).replace(['\0', '.'], ""))).expect("a path")
}
