//! What goes wrong between a caller and the server, as number and text.

use std::fmt;
use std::io;

use ops::ErrorCode;

/// A failure: of the exchange, or of the operation that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Which kind; [`ErrorCode::number`] is what C programs see.
    pub code: ErrorCode,
    /// The whole text: base text, then `: ` and a detail where there is one.
    pub text: String,
}

impl Error {
    /// The bare base text of `code`.
    #[must_use]
    pub fn new(code: ErrorCode) -> Self {
        Self { code, text: code.base_text().to_owned() }
    }

    /// The base text of `code`, a colon, and `detail`.
    #[must_use]
    pub fn with(code: ErrorCode, detail: impl fmt::Display) -> Self {
        Self { code, text: format!("{}: {detail}", code.base_text()) }
    }

    /// An argument is wrong: -3 with the argument's name and the reason.
    #[must_use]
    pub fn invalid(name: &str, reason: impl fmt::Display) -> Self {
        Self::with(ErrorCode::InvalidArgs, format_args!("{name}: {reason}"))
    }

    /// A reply that cannot be used: -15.
    #[must_use]
    pub fn garbage(detail: impl fmt::Display) -> Self {
        Self::with(ErrorCode::Garbage, detail)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

impl From<ops::Error> for Error {
    fn from(error: ops::Error) -> Self {
        Error { code: error.code, text: error.text }
    }
}

/// The system's own words for an error, without the number that the standard library adds.
pub(crate) fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text.get(..at).unwrap_or_default().to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_the_shape_that_scripts_know() {
        assert_eq!(Error::new(ErrorCode::NoSuchVm).text, "No such virtual machine");
        assert_eq!(
            Error::invalid("port", "not in 1 to 65535").text,
            "Invalid argument: port: not in 1 to 65535"
        );
        assert_eq!(system_text(&io::Error::from_raw_os_error(2)), "No such file or directory");
        assert_eq!(system_text(&io::Error::other("x")), "x");
    }
}
