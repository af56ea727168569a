//! Log lines in the product's form, from any process of the server into one file.
//!
//! ```text
//!   core:     tracing event ─▶ Lines ─▶ vmware-serverd.log    Nov 21 10:00:00: app| text
//!   session:  tracing event ─▶ Lines ─▶ ToCore::Log ─▶ core ─▶ the same file
//! ```
//!
//! A session process does not hold the file itself: it runs as the caller, who could then truncate or
//! forge the log. What it has to say goes through the core, which cuts, escapes and rations it.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Environment variable that names the most talkative level: `error`, `warn`, `info` (the default),
/// `debug` or `trace`.
pub const LEVEL_VARIABLE: &str = "VMSERVERD_LOG";

/// Longest text of one line, in bytes.
pub const MAX_TEXT: usize = 4096;

/// The level that [`LEVEL_VARIABLE`] asks for.
#[must_use]
pub fn level_from_environment() -> Level {
    std::env::var(LEVEL_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(Level::INFO)
}

/// A level as it travels between processes: 0 for error to 4 for trace.
#[must_use]
pub fn level_number(level: Level) -> u8 {
    match level {
        Level::ERROR => 0,
        Level::WARN => 1,
        Level::INFO => 2,
        Level::DEBUG => 3,
        Level::TRACE => 4,
    }
}

/// The reverse of [`level_number`]; what is out of range is the nearest level.
#[must_use]
pub fn level_of(number: u8) -> Level {
    match number {
        0 => Level::ERROR,
        1 => Level::WARN,
        2 => Level::INFO,
        3 => Level::DEBUG,
        _ => Level::TRACE,
    }
}

/// Sends every event up to `level` to `sink`, for the whole process. Does nothing when the process
/// already logs.
pub fn install(level: Level, sink: impl Fn(Level, &str) + Send + Sync + 'static) {
    let lines = Lines { sink }.with_filter(LevelFilter::from_level(level));
    // Only the tests of one program install twice; the first sink stays.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

/// Writes one line to the log file. A line that cannot be written is lost: the log never holds up
/// the work it tells of.
pub fn write(file: &File, level: Level, text: &str) {
    let mut line = link::logfile::timestamp(SystemTime::now());
    line.push_str(": app| ");
    line.push_str(match level {
        Level::ERROR => "error: ",
        Level::WARN => "warning: ",
        _ => "",
    });
    escape(text, &mut line);
    line.push('\n');
    let mut file = file;
    let _ = file.write_all(line.as_bytes());
}

/// The first [`MAX_TEXT`] bytes of a text, or a little less where a character would be split.
#[must_use]
pub fn cut(text: &str) -> &str {
    (0..=MAX_TEXT.min(text.len())).rev().find_map(|end| text.get(..end)).unwrap_or(text)
}

/// Appends a text so that it stays one line and of bounded length, whoever wrote it.
fn escape(text: &str, line: &mut String) {
    let short = cut(text);
    for c in short.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    if short.len() < text.len() {
        line.push_str("...");
    }
}

/// The layer that turns events into lines.
struct Lines<F> {
    sink: F,
}

impl<S: Subscriber, F: Fn(Level, &str) + 'static> Layer<S> for Lines<F> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        (self.sink)(*event.metadata().level(), &text.0);
    }
}

/// Collects the message, then the fields as ` name=value`.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = if field.name() == "message" {
            write!(self.0, "{value:?}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn a_text_cannot_break_its_line() {
        let mut file = tempfile::tempfile().unwrap();
        write(&file, Level::INFO, "one\nNov 21 10:00:00: app| forged\u{7f}");
        write(&file, Level::WARN, &"x".repeat(10_000));
        use std::io::{Read, Seek};
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].ends_with(": app| one\\nNov 21 10:00:00: app| forged\\u{7f}"), "{}", lines[0]);
        assert!(lines[1].contains(": app| warning: xxx") && lines[1].len() < MAX_TEXT + 60);
    }

    #[test]
    fn events_become_lines_with_their_fields() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = {
            let seen = Arc::clone(&seen);
            move |level, text: &str| seen.lock().unwrap().push((level, text.to_owned()))
        };
        let lines = Lines { sink }.with_filter(LevelFilter::INFO);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::info!(pid = 7, "session process started");
            tracing::debug!("not this one");
        });
        assert_eq!(*seen.lock().unwrap(), [(Level::INFO, "session process started pid=7".to_owned())]);
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("short"), "short");
        let long = "\u{20ac}".repeat(MAX_TEXT);
        assert_eq!(cut(&long).len(), MAX_TEXT / 3 * 3);
    }

    #[test]
    fn levels_survive_the_journey() {
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
            assert_eq!(level_of(level_number(level)), level);
        }
    }
}
