//! Error replies.

use fuzz::Input;
use ops::{Error, ErrorCode, Fault, Reason, envelope};

use crate::pieces::text;
use crate::readers::{PRODUCT, finds, frame, leaf};

/// Why documents are refused, with numbers as well as without.
const REASONS: [Reason; 10] = [
    Reason::TooLarge(65_536),
    Reason::LargeTextTooLarge("contents", 1_048_576),
    Reason::TooDeep(16),
    Reason::TooManyAttributes(64),
    Reason::TooManyItems(256),
    Reason::PathTooLong,
    Reason::Encoding,
    Reason::StrayText,
    Reason::Incomplete,
    Reason::Syntax("in a tag"),
];

/// Any error with any text in it.
pub(crate) fn errors(mut input: Input<'_>) {
    let product = &*PRODUCT;
    let (choice, code, system) = (input.byte(), input.byte(), i32::from(input.byte()));
    let code = ErrorCode::ALL[usize::from(code) % ErrorCode::ALL.len()];
    assert_eq!(ErrorCode::from_number(code.number()), Some(code));
    assert!(code.number() < 0 && code.name().bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'));
    let number = -i32::from(input.word());
    assert!(ErrorCode::from_number(number).is_none_or(|code| code.number() == number));
    let reason = REASONS[usize::from(input.byte()) % REASONS.len()];
    let text = text(input.0);
    let (named, base) = match choice % 20 {
        0 => (Error::new(code), Some(code)),
        1 => (Error::with(code, &text), Some(code)),
        2 => (Error::unspecified(text.as_str()), None),
        3 => (Error::unknown_operation(&text), Some(ErrorCode::NotSupported)),
        4 => (Error::admin_required(&text), Some(ErrorCode::NoAccess)),
        5 => (Error::missing(&text), Some(ErrorCode::InvalidArgs)),
        6 => (Error::invalid(&text, "no reason"), Some(ErrorCode::InvalidArgs)),
        7 => (Error::not_registered(&text), Some(ErrorCode::NoSuchVm)),
        8 => (Error::no_such_vm(), Some(ErrorCode::NoSuchVm)),
        9 => (Error::no_access(&text), Some(ErrorCode::NoAccess)),
        10 => (Error::no_such_task(&text), None),
        11 => (Error::internal(&text), None),
        12 => (Error::state_conflict(&text, "on"), Some(ErrorCode::BadState)),
        13 => (Error::tools_not_running(), Some(ErrorCode::BadState)),
        14 => (Error::malformed(reason), Some(ErrorCode::InvalidArgs)),
        15 => (Error::division_by_zero(), None),
        16 => (Error::file(&text, &std::io::Error::other(text.as_str())), None),
        _ => {
            let error = Error::file(&text, &std::io::Error::from_raw_os_error(system % 140));
            assert!(!error.text.contains("os error") || text.contains("os error"), "{error}");
            let code = Some(error.code).filter(|code| *code != ErrorCode::Unspecified);
            (error, code)
        }
    };
    assert_eq!(named.code, base.unwrap_or(ErrorCode::Unspecified));
    assert!(base.is_none_or(|code| named.text.starts_with(code.base_text())));
    assert!(choice % 20 != 3 || named.text.len() < 200, "an echo is bounded");
    assert_eq!(named.to_string(), format!("{} ({})", named.text, named.code.number()));
    let fault = Fault::Refused(named.clone());
    assert!(!fault.closes() && fault.to_string() == named.to_string() && fault.into_error() == named);
    let fault = Fault::Malformed(reason);
    assert!(fault.closes() && fault.to_string() == format!("malformed request: {reason}"));
    assert_eq!(fault.into_error(), Error::malformed(reason));
    let mut bytes = Vec::new();
    envelope::write_error(&mut bytes, product, &named);
    let document = String::from_utf8(bytes).expect("replies are text");
    let mut expected = frame(product, false);
    expected.push(leaf("exec/errors/error@code", named.code.number()));
    expected.push(leaf("exec/errors/error", &named.text));
    expected.push(leaf("exec/out", ""));
    finds(&document, &expected);
}
