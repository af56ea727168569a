//! Small texts for people: times, durations, sizes, and names that cannot harm a terminal.

use jiff::Timestamp;
use vmcontrol_client::Element;

/// The text of a child, nothing when there is none.
pub(crate) fn field<'a>(element: &'a Element, name: &str) -> &'a str {
    element.text(name).unwrap_or_default()
}

/// Unix seconds as `2026-11-22T09:21:10Z`.
pub(crate) fn time(seconds: &str) -> String {
    let parsed = seconds.trim().parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    parsed.map_or_else(|| seconds.to_owned(), |time| time.to_string())
}

/// Seconds as `3d 04:05:06` or `04:05:06`; `-` for none.
pub(crate) fn duration(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    match (seconds, days) {
        (0, _) => "-".to_owned(),
        (_, 0) => clock,
        _ => format!("{days}d {clock}"),
    }
}

/// Bytes as `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{bytes} {name}") } else { format!("{value:.1} {name}") }
}

/// A text that somebody else chose, without what a terminal would act upon: for tables and tables
/// only, the old grammar prints what there is.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_them() {
        assert_eq!(time("0"), "1970-01-01T00:00:00Z");
        assert_eq!(time("soon"), "soon");
        for (seconds, text) in [(0, "-"), (1, "00:00:01"), (86_399, "23:59:59"), (273_906, "3d 04:05:06")] {
            assert_eq!(duration(seconds), text);
        }
        for (bytes, text) in
            [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (u64::MAX, "16777216.0 TiB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(harmless("a\x1b[2Jb\n\u{9b}"), "a?[2Jb??");
    }
}
