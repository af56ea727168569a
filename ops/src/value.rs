//! Types of single values: how each is read from text, written, and named in the documentation.
//!
//! | type here | `kind` | in | out |
//! | --- | --- | --- | --- |
//! | `bool` | boolean | `0 1 true false yes no`, any case | `0`, `1` |
//! | `i64`, `u64`, `u32` | integer | decimal digits, optional `-` | decimal |
//! | [`Size`] | size | bytes, not negative | bytes |
//! | [`Number`] | number | integer or decimal fraction | shortest decimal |
//! | [`Time`] | time | Unix seconds | Unix seconds |
//! | [`HostPath`] | path | absolute, at most 4095 bytes | as it is |
//! | [`ConfigPath`] | path | the same, without `..` | as it is |
//! | [`Triad`] | rights | any of `r w x -` | `rwx` with `-` in the gaps |
//! | `String` | text | as it is | as it is |
//! | [`words!`](crate::words) | word | one of a set, any case | the word as declared |
//!
//! Booleans, numbers and words lose white space around them, texts and paths do not. No value
//! allocates before it is known to be good, and nothing is sized by a number in the input.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Error;
use crate::guard::{Reason, is_xml_char};
use crate::table::Field;
use crate::writer::Out;

/// Why a text is not a value of its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// The value is wrong; the request is refused and the connection goes on.
    Value(Cow<'static, str>),
    /// The value is over a limit of the stream; the connection is closed.
    Limit(Reason),
}

impl Invalid {
    /// A wrong value.
    #[must_use]
    pub const fn because(reason: &'static str) -> Self {
        Invalid::Value(Cow::Borrowed(reason))
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::Value(reason) => f.write_str(reason),
            Invalid::Limit(reason) => reason.fmt(f),
        }
    }
}

/// A value that is the text of one element.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from the text of an element",
    note = "see the table of types in `ops::value`"
)]
pub trait Scalar: Sized {
    /// Name of the type in the documentation.
    const KIND: &'static str;

    /// Reads the value.
    ///
    /// # Errors
    /// Why the text is no value of this type; the parameter's name is added by the caller.
    fn parse(text: Cow<'_, str>) -> Result<Self, Invalid>;

    /// Writes the value as text.
    fn write(&self, out: &mut Out<'_>);

    /// Whether the text is a value of this type.
    fn accepts(text: &str) -> bool {
        Self::parse(Cow::Borrowed(text)).is_ok()
    }
}

/// Something that can be written as one element: a scalar or a group of fields.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be written as an element",
    note = "see the table of types in `ops::value`, or derive `Fragment` for a group of fields"
)]
pub trait Element {
    /// Name of the type in the documentation.
    const KIND: &'static str;

    /// The fields inside it; empty for a scalar.
    const NESTED: &'static [Field];

    /// Writes `<name>...</name>`.
    fn write_element(&self, name: &str, out: &mut Out<'_>);
}

/// Makes scalars usable as elements. A blanket implementation would exclude the one for groups.
#[macro_export]
#[doc(hidden)]
macro_rules! scalar_elements {
    ($($type:ty),*) => {$(
        impl $crate::value::Element for $type {
            const KIND: &'static str = <$type as $crate::value::Scalar>::KIND;
            const NESTED: &'static [$crate::Field] = &[];

            fn write_element(&self, name: &str, out: &mut $crate::Out<'_>) {
                let mark = out.open(name);
                $crate::value::Scalar::write(self, out);
                out.close(name, mark);
            }
        }

        impl $crate::reader::Item for $type {
            fn take(
                input: &mut $crate::reader::Input<'_>,
                name: &str,
            ) -> Result<Option<Self>, $crate::Fault> {
                input.value(name)
            }

            fn accepts(text: &str) -> bool {
                <$type as $crate::value::Scalar>::accepts(text)
            }
        }
    )*};
}

scalar_elements!(bool, i64, u64, u32, Size, Number, Time, HostPath, ConfigPath, Triad, String);

/// Declares a type whose values are words of a fixed set, matched without regard to case.
///
/// ```
/// ops::words! {
///     /// What a directory entry is.
///     pub enum Kind {
///         /// A regular file.
///         File = "file",
///         /// Anything else.
///         Other = "other",
///     }
/// }
/// assert_eq!(Kind::File.word(), "file");
/// ```
#[macro_export]
macro_rules! words {
    ($(#[$outer:meta])* $vis:vis enum $name:ident { $($(#[$inner:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $($(#[$inner])* $variant),* }

        impl $name {
            /// The word on the wire.
            #[must_use]
            $vis const fn word(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
        }

        impl $crate::value::Scalar for $name {
            const KIND: &'static str = "word";

            fn parse(text: ::std::borrow::Cow<'_, str>) -> Result<Self, $crate::value::Invalid> {
                let text = text.trim_ascii();
                $(if text.eq_ignore_ascii_case($word) { return Ok($name::$variant); })*
                Err($crate::value::Invalid::because(concat!("must be one of:" $(, " ", $word)*)))
            }

            fn write(&self, out: &mut $crate::Out<'_>) {
                out.text(self.word());
            }
        }

        $crate::scalar_elements!($name);
    };
}

impl Scalar for bool {
    const KIND: &'static str = "boolean";

    fn parse(text: Cow<'_, str>) -> Result<Self, Invalid> {
        let text = text.trim_ascii();
        if text == "1" || text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("yes") {
            Ok(true)
        } else if text == "0" || text.eq_ignore_ascii_case("false") || text.eq_ignore_ascii_case("no") {
            Ok(false)
        } else {
            Err(Invalid::because("not a boolean"))
        }
    }

    fn write(&self, out: &mut Out<'_>) {
        out.text(if *self { "1" } else { "0" });
    }
}

const NO_INTEGER: Invalid = Invalid::because("not an integer");
const OUT_OF_RANGE: Invalid = Invalid::because("out of range");

/// Optional `-`, then digits and nothing else; white space around it is ignored.
fn integer(text: &str) -> Result<i64, Invalid> {
    let text = text.trim_ascii();
    match text.parse() {
        // The standard library also takes a `+`.
        Ok(value) if !text.starts_with('+') => Ok(value),
        Err(_) if is_integer(text) => Err(OUT_OF_RANGE),
        _ => Err(NO_INTEGER),
    }
}

/// Whether the text is an integer, whatever its size.
fn is_integer(text: &str) -> bool {
    all_digits(text.strip_prefix('-').unwrap_or(text))
}

/// Whether there are digits and nothing else.
fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

impl Scalar for i64 {
    const KIND: &'static str = "integer";

    fn parse(text: Cow<'_, str>) -> Result<Self, Invalid> {
        integer(&text)
    }

    fn write(&self, out: &mut Out<'_>) {
        out.signed(*self);
    }
}

impl Scalar for u64 {
    const KIND: &'static str = "integer";

    fn parse(text: Cow<'_, str>) -> Result<Self, Invalid> {
        u64::try_from(integer(&text)?).map_err(|_| OUT_OF_RANGE)
    }

    fn write(&self, out: &mut Out<'_>) {
        out.unsigned(*self);
    }
}

impl Scalar for u32 {
    const KIND: &'static str = "integer";

    fn parse(text: Cow<'_, str>) -> Result<Self, Invalid> {
        u32::try_from(integer(&text)?).map_err(|_| OUT_OF_RANGE)
    }

    fn write(&self, out: &mut Out<'_>) {
        out.unsigned(u64::from(*self));
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Size(pub u64);

impl Scalar for Size {
    const KIND: &'static str = "size";

    fn parse(text: Cow<'_, str>) -> Result<Self, Invalid> {
        u64::parse(text).map(Size)
    }

    fn write(&self, out: &mut Out<'_>) {
        out.unsigned(self.0);
    }
}

/// A moment: seconds since 1970 in UTC, negative before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub i64);

impl Scalar for Time {
    const KIND: &'static str = "time";

    fn parse(text: Cow<'_, str>) -> Result<Self, Invalid> {
        integer(&text).map(Time)
    }

    fn write(&self, out: &mut Out<'_>) {
        out.signed(self.0);
    }
}

impl Scalar for String {
    const KIND: &'static str = "text";

    fn parse(text: Cow<'_, str>) -> Result<Self, Invalid> {
        Ok(text.into_owned())
    }

    fn write(&self, out: &mut Out<'_>) {
        out.text(self);
    }
}

/// Longest path in bytes: the kernel's PATH_MAX without its terminating NUL.
pub const MAX_PATH: usize = 4095;

/// A path that a caller named: absolute, valid UTF-8, at most 4095 bytes. Otherwise it is passed to
/// the kernel as it came, with `..`, doubled slashes and line ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPath(String);

impl HostPath {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<Path> for HostPath {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for HostPath {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(Cow::Owned(text))
    }
}

impl Scalar for HostPath {
    const KIND: &'static str = "path";

    fn parse(text: Cow<'_, str>) -> Result<Self, Invalid> {
        if text.len() > MAX_PATH {
            return Err(Invalid::Limit(Reason::PathTooLong));
        }
        if !text.starts_with('/') {
            return Err(Invalid::because("not an absolute path"));
        }
        // XML cannot carry NUL, but a path may also be made from other sources.
        if text.contains('\0') {
            return Err(Invalid::because("contains NUL"));
        }
        Ok(HostPath(text.into_owned()))
    }

    fn write(&self, out: &mut Out<'_>) {
        out.text(&self.0);
    }
}

/// The path of a .vmx, which is the name of a machine: a [`HostPath`] without `..`, so that a machine
/// has no second name that looks like another directory's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigPath(HostPath);

impl ConfigPath {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl AsRef<Path> for ConfigPath {
    fn as_ref(&self) -> &Path {
        self.0.as_ref()
    }
}

impl fmt::Display for ConfigPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for ConfigPath {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(Cow::Owned(text))
    }
}

impl Scalar for ConfigPath {
    const KIND: &'static str = "path";

    fn parse(text: Cow<'_, str>) -> Result<Self, Invalid> {
        let path = HostPath::parse(text)?;
        if path.as_str().split('/').any(|part| part == "..") {
            return Err(Invalid::because("contains `..`"));
        }
        Ok(ConfigPath(path))
    }

    fn write(&self, out: &mut Out<'_>) {
        self.0.write(out);
    }
}

/// The rights of one class of users: the bits r = 4, w = 2, x = 1 of a file mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Triad(u8);

impl Triad {
    /// From the lowest three bits of `bits`.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Triad((bits & 7) as u8)
    }

    /// The bits, 0 to 7.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }
}

impl Scalar for Triad {
    const KIND: &'static str = "rights";

    fn parse(text: Cow<'_, str>) -> Result<Self, Invalid> {
        let mut bits = 0;
        for letter in text.trim_ascii().bytes() {
            bits |= match letter {
                b'r' => 4,
                b'w' => 2,
                b'x' => 1,
                b'-' => 0,
                _ => return Err(Invalid::because("only r, w, x and - are allowed")),
            };
        }
        Ok(Triad(bits))
    }

    fn write(&self, out: &mut Out<'_>) {
        for (bit, letter) in [(4, "r"), (2, "w"), (1, "x")] {
            out.text(if self.0 & bit == 0 { "-" } else { letter });
        }
    }
}

/// The number of the self-test operations: a 64-bit integer, or a decimal fraction computed as a
/// double.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A whole number, exact.
    Integer(i64),
    /// Anything with a decimal point; always finite.
    Decimal(f64),
}

impl Number {
    fn as_f64(self) -> f64 {
        match self {
            Number::Integer(value) => value as f64,
            Number::Decimal(value) => value,
        }
    }

    fn finite(value: f64) -> Option<Self> {
        value.is_finite().then_some(Number::Decimal(value))
    }

    /// This number plus `step`; `None` when the result does not fit.
    #[must_use]
    pub fn checked_add(self, step: i64) -> Option<Self> {
        match self {
            Number::Integer(value) => value.checked_add(step).map(Number::Integer),
            Number::Decimal(value) => Self::finite(value + step as f64),
        }
    }

    /// Whether it is zero.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.as_f64() == 0.0
    }

    /// This number divided by `divisor`, exact when both are integers and the quotient is one.
    /// `None` when the result does not fit; the caller has asked [`Number::is_zero`] before.
    #[must_use]
    pub fn checked_div(self, divisor: Self) -> Option<Self> {
        if let (Number::Integer(a), Number::Integer(b)) = (self, divisor) {
            match a.checked_rem(b) {
                Some(0) => return a.checked_div(b).map(Number::Integer),
                Some(_) => {}
                // The smallest integer divided by -1 does not fit.
                None => return None,
            }
        }
        Self::finite(self.as_f64() / divisor.as_f64())
    }

    /// The error for a result that does not fit.
    #[must_use]
    pub fn overflow(parameter: &str) -> Error {
        Error::invalid(parameter, "out of range")
    }
}

impl Scalar for Number {
    const KIND: &'static str = "number";

    fn parse(text: Cow<'_, str>) -> Result<Self, Invalid> {
        match integer(&text) {
            Err(error) if error == NO_INTEGER => {}
            result => return result.map(Number::Integer),
        }
        let text = text.trim_ascii();
        let (whole, fraction) = text.split_once('.').ok_or(NO_NUMBER)?;
        if !is_integer(whole) || !all_digits(fraction) {
            return Err(NO_NUMBER);
        }
        text.parse().ok().and_then(Self::finite).ok_or(OUT_OF_RANGE)
    }

    fn write(&self, out: &mut Out<'_>) {
        match *self {
            Number::Integer(value) => out.signed(value),
            // Minus zero is a double, but no number that people write.
            Number::Decimal(value) => out.display(if value == 0.0 { 0.0 } else { value }),
        }
    }
}

const NO_NUMBER: Invalid = Invalid::because("not a number");

/// Whether XML 1.0 can carry these bytes as text that reads back the same.
#[must_use]
pub fn as_xml_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.chars().all(is_xml_char))
}

/// Standard base64 with padding.
#[must_use]
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes standard base64; white space inside is ignored.
///
/// # Errors
/// When the text is no base64.
pub fn from_base64(text: &str) -> Result<Vec<u8>, Invalid> {
    let packed: String;
    let text = if text.bytes().any(|b| b.is_ascii_whitespace()) {
        packed = text.split_ascii_whitespace().collect();
        &packed
    } else {
        text
    };
    STANDARD.decode(text).map_err(|_| Invalid::because("not base64"))
}

words! {
    /// How bytes stand in an element.
    pub enum Encoding {
        /// As text.
        Text = "text",
        /// As base64.
        Base64 = "base64",
    }
}

impl Encoding {
    /// The plainest encoding that carries `bytes`, and the text to write.
    #[must_use]
    pub fn of(bytes: &[u8]) -> (Self, String) {
        match as_xml_text(bytes) {
            Some(text) => (Encoding::Text, text.to_owned()),
            None => (Encoding::Base64, to_base64(bytes)),
        }
    }

    /// The bytes behind `text`.
    ///
    /// # Errors
    /// When the text is no base64 but should be.
    pub fn decode(self, text: String) -> Result<Vec<u8>, Invalid> {
        match self {
            Encoding::Text => Ok(text.into_bytes()),
            Encoding::Base64 => from_base64(&text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T: Scalar>(text: &str) -> Result<T, Invalid> {
        T::parse(Cow::Borrowed(text))
    }

    fn written<T: Scalar>(value: &T) -> String {
        let mut bytes = Vec::new();
        value.write(&mut Out::new(&mut bytes));
        String::from_utf8(bytes).unwrap()
    }

    fn reason<T: Scalar + std::fmt::Debug>(text: &str) -> String {
        parse::<T>(text).unwrap_err().to_string()
    }

    #[test]
    fn booleans() {
        for text in ["1", "true", "TRUE", "Yes", " 1\n"] {
            assert_eq!(parse(text), Ok(true), "{text}");
        }
        for text in ["0", "false", "NO", "\t0 "] {
            assert_eq!(parse(text), Ok(false), "{text}");
        }
        for text in ["", "2", "on", "01", "y", "t rue"] {
            assert_eq!(reason::<bool>(text), "not a boolean", "{text}");
        }
        assert_eq!((written(&true), written(&false)), ("1".into(), "0".into()));
    }

    #[test]
    fn integers_take_digits_and_a_minus_only() {
        for (text, value) in [
            ("0", 0),
            ("-0", 0),
            ("-1", -1),
            ("007", 7),
            (" 42\r\n", 42),
            ("2147483648", 1 << 31),
            ("999999999999999999", 999_999_999_999_999_999),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("0000000000000000000000000000042", 42),
        ] {
            assert_eq!(parse::<i64>(text), Ok(value), "{text}");
        }
        for text in ["", " ", "-", "+1", "1e9", "0x10", "1 2", "1.0", "--1", "1-", "٣", "1_000", "NaN"] {
            assert_eq!(reason::<i64>(text), "not an integer", "{text}");
        }
        for text in ["9223372036854775808", "-9223372036854775809", "18446744073709551616"] {
            assert_eq!(reason::<i64>(text), "out of range", "{text}");
        }
        assert_eq!(reason::<i64>(&"9".repeat(60_000)), "out of range");
    }

    #[test]
    fn sizes_are_not_negative() {
        assert_eq!(parse("4294967296"), Ok(Size(1 << 32)));
        assert_eq!(reason::<Size>("-1"), "out of range");
        assert_eq!(reason::<u64>("-1"), "out of range");
        assert_eq!(reason::<u32>("4294967296"), "out of range");
        assert_eq!(parse("4294967295"), Ok(u32::MAX));
    }

    #[test]
    fn numbers_are_integers_or_decimal_fractions() {
        assert_eq!(parse("42"), Ok(Number::Integer(42)));
        assert_eq!(parse(" -1.5 "), Ok(Number::Decimal(-1.5)));
        for text in ["", ".", "1.", ".5", "1.5.5", "1.5e3", "-", "inf", "0x1.0", "1,5", "1.-5"] {
            assert_eq!(reason::<Number>(text), "not a number", "{text}");
        }
        assert_eq!(reason::<Number>("9223372036854775808"), "out of range");
        assert_eq!(reason::<Number>(&format!("{}.0", "9".repeat(400))), "out of range");
        assert_eq!(written(&Number::Decimal(0.1)), "0.1");
        assert_eq!(written(&Number::Decimal(42.0)), "42");
        assert_eq!(written(&Number::Decimal(-0.0)), "0");
        assert_eq!(written(&Number::Decimal(1e21)), "1000000000000000000000", "no exponent");
    }

    #[test]
    fn sums_and_quotients() {
        use Number::{Decimal, Integer};
        assert_eq!(Integer(42).checked_add(1), Some(Integer(43)));
        assert_eq!(Integer(i64::MAX).checked_add(1), None);
        assert_eq!(Integer(i64::MIN).checked_add(-1), None);
        assert_eq!(Decimal(0.5).checked_add(1), Some(Decimal(1.5)));
        assert_eq!(Decimal(f64::MAX).checked_add(1), Some(Decimal(f64::MAX)));
        assert_eq!(Integer(84).checked_div(Integer(2)), Some(Integer(42)));
        assert_eq!(Integer(1).checked_div(Integer(4)), Some(Decimal(0.25)));
        assert_eq!(Integer(i64::MIN).checked_div(Integer(-1)), None);
        assert_eq!(Decimal(1.0).checked_div(Integer(4)), Some(Decimal(0.25)));
        assert_eq!(Decimal(f64::MAX).checked_div(Decimal(0.5)), None, "an overflow is no number");
        assert!(Integer(0).is_zero() && Decimal(0.0).is_zero() && Decimal(-0.0).is_zero());
        assert!(!Decimal(f64::MIN_POSITIVE).is_zero());
    }

    #[test]
    fn paths_are_absolute_and_bounded() {
        for text in ["/", "/a/../b", "//a//b/", "/a\nb", "/ä", " ".repeat(3).as_str()] {
            let path = parse::<HostPath>(text);
            assert_eq!(path.is_ok(), text.starts_with('/'), "{text}");
        }
        for length in [4094, 4095] {
            assert!(parse::<HostPath>(&format!("/{}", "p".repeat(length - 1))).is_ok());
        }
        for length in [4096, 4097, 60_000] {
            let path = format!("/{}", "p".repeat(length - 1));
            assert_eq!(parse::<HostPath>(&path), Err(Invalid::Limit(Reason::PathTooLong)));
        }
        for text in ["", "a", "./a", r"C:\a", "~", " /a"] {
            assert_eq!(reason::<HostPath>(text), "not an absolute path", "{text}");
        }
        assert_eq!(reason::<HostPath>("/a\0b"), "contains NUL");
    }

    #[test]
    fn a_machine_is_named_without_steps_upwards() {
        for text in ["/vm/a.vmx", "/vm/..a/a.vmx", "/vm//a...vmx", "/vm/./a.vmx"] {
            assert_eq!(written(&parse::<ConfigPath>(text).unwrap()), text);
        }
        for text in ["/vm/../a.vmx", "/..", "/vm/.."] {
            assert_eq!(reason::<ConfigPath>(text), "contains `..`", "{text}");
        }
        assert_eq!(reason::<ConfigPath>("a.vmx"), "not an absolute path");
    }

    #[test]
    fn rights_in_any_order() {
        for (text, bits, out) in [
            ("rwx", 7, "rwx"),
            ("xr", 5, "r-x"),
            ("", 0, "---"),
            ("---", 0, "---"),
            ("ww-", 2, "-w-"),
            (" r ", 4, "r--"),
        ] {
            let triad: Triad = parse(text).unwrap();
            assert_eq!((triad.bits(), written(&triad).as_str()), (bits, out), "{text}");
        }
        for text in ["R", "rws", "7", "r w"] {
            assert_eq!(reason::<Triad>(text), "only r, w, x and - are allowed", "{text}");
        }
        assert_eq!(Triad::from_bits(0o755).bits(), 5, "only the lowest three bits count");
    }

    #[test]
    fn words_ignore_case() {
        assert_eq!(parse(" BASE64\n"), Ok(Encoding::Base64));
        assert_eq!(reason::<Encoding>("base32"), "must be one of: text base64");
        assert_eq!(written(&Encoding::Text), "text");
    }

    #[test]
    fn bytes_travel_as_text_or_base64() {
        for (bytes, encoding, text) in [
            (&b"abc\n"[..], Encoding::Text, "abc\n"),
            ("ä".as_bytes(), Encoding::Text, "ä"),
            (b"", Encoding::Text, ""),
            (b"a\0", Encoding::Base64, "YQA="),
            (b"\xFF", Encoding::Base64, "/w=="),
            ("\u{FFFE}".as_bytes(), Encoding::Base64, "77++"),
        ] {
            assert_eq!(Encoding::of(bytes), (encoding, text.to_owned()));
            assert_eq!(encoding.decode(text.to_owned()).unwrap(), bytes);
        }
        assert_eq!(from_base64("YQ\r\n A=").unwrap(), b"a\0");
        for text in ["YQA", "YQA=x", "ä", "YQ=A", "_w=="] {
            assert_eq!(from_base64(text).unwrap_err().to_string(), "not base64", "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn integers_come_back(value: i64) {
            proptest::prop_assert_eq!(parse::<i64>(&written(&value)), Ok(value));
        }

        #[test]
        fn decimals_come_back(value in proptest::num::f64::NORMAL) {
            let text = written(&Number::Decimal(value));
            let again = parse::<Number>(&text);
            if text.contains('.') {
                proptest::prop_assert_eq!(again, Ok(Number::Decimal(value)));
            } else {
                proptest::prop_assert!(matches!(again, Ok(Number::Integer(_)) | Err(Invalid::Value(_))));
            }
        }

        #[test]
        fn no_text_makes_a_value_panic(text: String) {
            let _ = parse::<bool>(&text);
            let _ = parse::<i64>(&text);
            let _ = parse::<Size>(&text);
            let _ = parse::<Number>(&text);
            let _ = parse::<HostPath>(&text);
            let _ = parse::<Triad>(&text);
            let _ = from_base64(&text);
        }
    }
}
