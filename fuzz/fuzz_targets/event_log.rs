//! The reader of event logs, over a real file of any bytes: it gives the last events that reading the file
//! from its beginning would give, the newest first, and an event that is appended is the last one.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hypervisor::event_log::{self, Event, EventKind, LogRights};
use libfuzzer_sys::fuzz_target;

const CONFIG: &str = "/vm/a machine/a.vmx";

fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("fuzz-event-log-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for the log");
        path
    })
}

fuzz_target!(|input: &[u8]| {
    let Some((&count, mut input)) = input.split_first() else {
        return;
    };
    // A log that is rotated, or longer than any search, would need another model.
    input = &input[..input.len().min(60_000)];
    let (directory, config, count) = (directory(), Path::new(CONFIG), usize::from(count));
    let name = event_log::file_name(config);
    assert_eq!(event_log::config_of(&name).as_deref(), Some(config));
    let log = directory.join(name);
    std::fs::write(&log, input).expect("the log is written");

    let lines = input.split(|&byte| byte == b'\n').rev();
    let expected: Vec<Event> = lines.filter_map(Event::parse_line).take(count).collect();
    assert_eq!(event_log::last(directory, config, count).expect("the log is read"), expected);

    let rights = LogRights {
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        mode: 0o600,
    };
    let subject: String = String::from_utf8_lossy(input)
        .chars()
        .filter(|one| (' '..'\u{fff0}').contains(one))
        .take(50)
        .collect();
    let event = Event::new(EventKind::Warning, 7, subject);
    event_log::append(directory, config, rights, &event).expect("the event is appended");
    assert_eq!(event_log::last(directory, config, 1).expect("the log is read"), [event]);
    let written = std::fs::read(&log).expect("the log is there");
    assert!(written.starts_with(input) && written.ends_with(b"</event>\n"), "nothing else has changed");
    let _ = std::fs::remove_file(log);
});
