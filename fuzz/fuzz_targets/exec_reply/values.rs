//! Single values: text into a type, and back.

use std::borrow::Cow;

use ops::disk::DiskType;
use ops::file_manager::{Entry, EntryType, Modes};
use ops::machine::PowerState;
use ops::task_manager::TaskState;
use ops::value::{
    ConfigPath, Element, Encoding, HostPath, Number, Scalar, Size, Time, Triad, as_xml_text, from_base64,
    to_base64,
};
use ops::vm_power::PowerMode;
use ops::{Error, ErrorCode, Out};

use crate::readers::{by_quick_xml, by_roxmltree, carried, finds, leaf};

/// A text as one type: what is read from it is written, and read again as the same.
fn value<T: Scalar + Element + PartialEq + std::fmt::Debug>(text: &str) -> Option<T> {
    let parsed = T::parse(Cow::Borrowed(text));
    assert_eq!(T::accepts(text), parsed.is_ok());
    let value = match parsed {
        Ok(value) => value,
        Err(why) => {
            assert!(!why.to_string().is_empty());
            return None;
        }
    };
    let (mut written, mut element) = (Vec::new(), Vec::new());
    value.write(&mut Out::new(&mut written));
    value.write_element("v", &mut Out::new(&mut element));
    let element = String::from_utf8(element).expect("text");
    let leaves = by_roxmltree(&element);
    assert_eq!(leaves, by_quick_xml(&element));
    // Nothing but texts and paths has markup, or characters that XML lacks.
    if matches!(<T as Scalar>::KIND, "text" | "path") {
        assert_eq!(leaves[0].1, carried(text));
        if leaves[0].1 != text {
            return Some(value);
        }
    } else {
        assert_eq!(leaves[0].1.as_bytes(), written);
    }
    assert_eq!((<T as Element>::KIND == <T as Scalar>::KIND, T::NESTED.len()), (true, 0));
    match T::parse(Cow::Borrowed(&leaves[0].1)) {
        // A decimal fraction that is a whole number is written as one, and may be too large for one.
        Ok(again) if <T as Scalar>::KIND == "number" => {
            let mut once_more = Vec::new();
            again.write(&mut Out::new(&mut once_more));
            assert_eq!(once_more, written);
        }
        Ok(again) => assert_eq!(again, value),
        Err(_) => assert_eq!(<T as Scalar>::KIND, "number"),
    }
    Some(value)
}

pub(crate) fn values(text: &str) {
    let _ = (value::<bool>(text), value::<u32>(text), value::<Size>(text), value::<Time>(text));
    let _ = (
        value::<EntryType>(text),
        value::<PowerState>(text),
        value::<DiskType>(text),
        value::<Encoding>(text),
    );
    let _ = (value::<TaskState>(text), value::<PowerMode>(text), value::<String>(text));
    if let Some(integer) = value::<i64>(text) {
        assert_eq!(value::<u64>(text), u64::try_from(integer).ok());
        assert_eq!(value::<Number>(text), Some(Number::Integer(integer)));
    }
    if let Some(triad) = value::<Triad>(text) {
        assert_eq!(Triad::from_bits(triad.bits() | 0o770), triad);
    }
    if let Some(host) = value::<HostPath>(text) {
        assert!(host.as_str() == text && host.to_string() == text && host.as_ref().is_absolute());
        let dots = text.split('/').any(|part| part == "..");
        assert_eq!(value::<ConfigPath>(text).is_none(), dots);
    }
    if let Some(config) = value::<ConfigPath>(text) {
        assert!(config.as_str() == text && config.to_string() == text && config.as_ref().is_absolute());
    }
    if let Some((a, b)) = text.split_once('/')
        && let (Some(a), Some(b)) = (value::<Number>(a), value::<Number>(b))
    {
        arithmetic(a, b);
    }
    // Not base64, or bytes.
    if let Ok(bytes) = from_base64(text) {
        let packed: String = text.split_ascii_whitespace().collect();
        assert_eq!(to_base64(&bytes), packed);
    }
}

fn arithmetic(a: Number, b: Number) {
    for step in [-1, 1] {
        if let Number::Integer(a) = a {
            assert_eq!(Number::Integer(a).checked_add(step), a.checked_add(step).map(Number::Integer));
        } else if let Some(Number::Decimal(sum)) = a.checked_add(step) {
            assert!(sum.is_finite());
        }
    }
    if b.is_zero() {
        assert_eq!(Error::division_by_zero().code, ErrorCode::Unspecified);
        return;
    }
    match (a, b, a.checked_div(b)) {
        (Number::Integer(a), Number::Integer(b), Some(Number::Integer(quotient))) => {
            assert_eq!(i128::from(quotient) * i128::from(b), i128::from(a));
        }
        (_, _, Some(Number::Decimal(quotient))) => assert!(quotient.is_finite()),
        (Number::Integer(i64::MIN), Number::Integer(-1), None) => {
            assert_eq!(Number::overflow("n").code, ErrorCode::InvalidArgs);
        }
        (Number::Integer(_), Number::Integer(_), None) => panic!("{a:?} divided by {b:?}"),
        (_, _, other) => assert!(other.is_none()),
    }
}

/// Any bytes travel in an element, and a file mode in three words.
pub(crate) fn bytes(input: &[u8]) {
    let (encoding, text) = Encoding::of(input);
    let mut element = Vec::new();
    text.write_element("contents", &mut Out::new(&mut element));
    let element = String::from_utf8(element).expect("text");
    finds(&element, &[leaf("contents", &text)]);
    assert_eq!(encoding.decode(by_roxmltree(&element).remove(0).1), Ok(input.to_vec()));
    assert_eq!(as_xml_text(input).is_some(), encoding == Encoding::Text);
    let wrapped: String = to_base64(input).chars().flat_map(|c| [c, '\n']).collect();
    assert_eq!(Encoding::Base64.decode(wrapped), Ok(input.to_vec()));
    if let [a, b, ..] = input {
        let mode = u32::from_le_bytes([*a, *b, 0, 0]) & 0o7777;
        let all = Modes::from_mode(mode);
        assert_eq!(all.apply(0o7000), 0o7000 | mode & 0o777);
        let group = Modes { owner_mode: None, other_mode: None, ..all };
        assert_eq!(group.apply(0o707), 0o707 | mode & 0o070);
        let (encoding, name, _) = Entry::names(input, b"/x");
        let name = encoding.unwrap_or(Encoding::Text).decode(name);
        assert_eq!(name.as_deref(), Ok(input));
    }
}
