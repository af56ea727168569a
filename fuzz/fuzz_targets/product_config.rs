//! The product's own files: `key = "value"` settings and the lists of machines. Any bytes are read,
//! nothing that we do not change is lost, and what we write is read again as it was meant.
#![no_main]

use libfuzzer_sys::fuzz_target;
use link::product_config::ProductConfig;
use link::vm_list::{VmList, can_hold};

fuzz_target!(|input: &[u8]| {
    // Two texts: a value, and the file it goes into.
    let cut = input.iter().position(|&byte| byte == 0).unwrap_or(input.len().min(40));
    let (value, file) = input.split_at(cut);
    let (value, text) = (String::from_utf8_lossy(value), String::from_utf8_lossy(file));

    let mut config = ProductConfig::parse(&text);
    assert_eq!(ProductConfig::parse(&config.text()), config);
    let before = config.text();
    config.set("fuzz.key", &value);
    let again = ProductConfig::parse(&config.text());
    assert_eq!(again.get("FUZZ.KEY"), Some(value.as_ref()));
    // One line more, or one line other; never two.
    let lines = |text: &str| text.lines().count();
    assert!(lines(&config.text()) <= lines(&before) + 1);
    let kept = before.lines().filter(|line| !line.to_ascii_lowercase().contains("fuzz.key"));
    let after = config.text();
    let mut after = after.lines();
    for line in kept {
        assert!(after.any(|other| other == line), "a line is lost: {line:?}");
    }

    let mut list = VmList::parse(file);
    let written = list.bytes();
    // Nothing is lost but what is torn; a last line gets its end.
    let mut whole = file[..file.len() - list.torn()].to_vec();
    if whole.last().is_some_and(|&last| last != b'\n') {
        whole.push(b'\n');
    }
    assert_eq!(written, whole);
    assert_eq!(VmList::parse(&written).configs().collect::<Vec<_>>(), list.configs().collect::<Vec<_>>());
    if can_hold(&value) {
        let count = list.configs().filter(|config| *config == value).count();
        list.add(&value);
        let again = VmList::parse(&list.bytes());
        assert_eq!(again.configs().filter(|config| *config == value).count(), count + 1);
        assert_eq!(again.configs().last(), Some(value.as_ref()));
        list.remove(|config| config == value);
        assert!(VmList::parse(&list.bytes()).configs().all(|config| config != value));
    }
});
