//! The wire form of messages between our own processes.
//!
//! A message is one datagram: a tag byte that names the variant, then its fields in the order of
//! the declaration. Integers are little-endian and of fixed width; byte strings and lists carry a
//! 32-bit count first. A reader never allocates from that count: it first checks that as many bytes
//! really follow. Left-over bytes are an error, so a message has exactly one form.

use crate::identity::{Identity, Proof};

/// Longest message, in bytes, in any direction on any channel.
pub const MAX_MESSAGE: usize = 128 * 1024;

/// Why a datagram was not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field reached past the end of the datagram.
    #[error("message ends inside a field")]
    Short,
    /// Bytes were left after the last field.
    #[error("{0} bytes left over after the last field")]
    Trailing(usize),
    /// No variant has this tag.
    #[error("unknown message tag {0}")]
    Tag(u8),
    /// A field held a value its type does not allow.
    #[error("bad value for {0}")]
    Value(&'static str),
    /// The number of descriptors differs from what the variant declares.
    #[error("{0} descriptors where the message declares {1} to {2}")]
    Descriptors(usize, usize, usize),
}

/// A field type with a wire form.
pub trait Wire: Sized {
    /// Appends the wire form to `out`.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes a value off the front of `input`.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are not a value of this type; `input` is then unspecified.
    fn take(input: &mut &[u8]) -> Result<Self, WireError>;
}

/// A whole message: an enum made by [`messages!`](crate::messages).
pub trait Message: Sized + Send + 'static {
    /// Writes tag and fields.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads one datagram.
    ///
    /// # Errors
    /// [`WireError`] for anything but exactly one message.
    fn decode(datagram: &[u8]) -> Result<Self, WireError>;
    /// How many descriptors travel with this variant: least and most.
    fn descriptors(&self) -> std::ops::RangeInclusive<usize>;
    /// The variant's name, for logs.
    fn name(&self) -> &'static str;
}

/// Splits `n` bytes off the front.
fn split<'a>(input: &mut &'a [u8], n: usize) -> Result<&'a [u8], WireError> {
    let (head, tail) = input.split_at_checked(n).ok_or(WireError::Short)?;
    *input = tail;
    Ok(head)
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl Wire for $ty {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(input: &mut &[u8]) -> Result<Self, WireError> {
                let bytes = split(input, size_of::<$ty>())?;
                bytes.try_into().map(<$ty>::from_le_bytes).map_err(|_| WireError::Short)
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i32, i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        match u8::take(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Value("bool")),
        }
    }
}

/// Writes a count; a count that does not fit cannot occur below [`MAX_MESSAGE`] and saturates, which
/// the reader then refuses.
fn put_count(count: usize, out: &mut Vec<u8>) {
    u32::try_from(count).unwrap_or(u32::MAX).put(out);
}

/// Reads a count of items that take at least `least` bytes each, and refuses one that cannot be true.
fn take_count(input: &mut &[u8], least: usize) -> Result<usize, WireError> {
    let count = u32::take(input)? as usize;
    if count.saturating_mul(least) > input.len() { Err(WireError::Short) } else { Ok(count) }
}

impl Wire for Vec<u8> {
    fn put(&self, out: &mut Vec<u8>) {
        put_count(self.len(), out);
        out.extend_from_slice(self);
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        let count = take_count(input, 1)?;
        Ok(split(input, count)?.to_vec())
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_count(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        String::from_utf8(Vec::take(input)?).map_err(|_| WireError::Value("text"))
    }
}

/// A type that may stand in a list.
pub trait Item: Wire {
    /// Bytes that one item takes at least; not 0.
    const LEAST: usize;
}

impl Item for u32 {
    const LEAST: usize = 4;
}

impl Item for u64 {
    const LEAST: usize = 8;
}

impl Item for String {
    const LEAST: usize = 4;
}

impl<T: Item> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_count(self.len(), out);
        for item in self {
            item.put(out);
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        let count = take_count(input, T::LEAST)?;
        (0..count).map(|_| T::take(input)).collect()
    }
}

/// A message inside a message: a byte string that holds exactly one.
#[derive(Debug, Clone, PartialEq)]
pub struct Inner<M>(pub M);

impl<M: Message> Wire for Inner<M> {
    fn put(&self, out: &mut Vec<u8>) {
        // The count is not known before the message is written.
        let at = out.len();
        put_count(0, out);
        let start = out.len();
        self.0.encode(out);
        let count = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
        if let Some(place) = out.get_mut(at..start) {
            place.copy_from_slice(&count.to_le_bytes());
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        let count = take_count(input, 1)?;
        M::decode(split(input, count)?).map(Inner)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        Ok(if bool::take(input)? { Some(T::take(input)?) } else { None })
    }
}

impl Wire for Proof {
    fn put(&self, out: &mut Vec<u8>) {
        // Far-apart numbers: one flipped bit never turns one proof into another.
        out.push(match self {
            Proof::Pam => 0x1b,
            Proof::Unix => 0x72,
            Proof::Tcp => 0xc5,
        });
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        match u8::take(input)? {
            0x1b => Ok(Proof::Pam),
            0x72 => Ok(Proof::Unix),
            0xc5 => Ok(Proof::Tcp),
            _ => Err(WireError::Value("proof")),
        }
    }
}

impl Wire for Identity {
    fn put(&self, out: &mut Vec<u8>) {
        self.name.put(out);
        self.uid.put(out);
        self.gid.put(out);
        self.groups.put(out);
        self.home.put(out);
        self.proof.put(out);
        self.peer.put(out);
        self.origin.put(out);
        self.tls.put(out);
        self.login_time.put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        Ok(Identity {
            name: String::take(input)?,
            uid: u32::take(input)?,
            gid: u32::take(input)?,
            groups: Vec::take(input)?,
            home: String::take(input)?,
            proof: Proof::take(input)?,
            peer: String::take(input)?,
            origin: u32::take(input)?,
            tls: bool::take(input)?,
            login_time: u64::take(input)?,
        })
    }
}

/// Declares the messages of one direction of a channel.
///
/// ```
/// link::messages! {
///     /// What the helper says.
///     pub enum FromHelper {
///         /// The name is known.
///         1 = Known { /// Its number.
///                     uid: u32 },
///         /// Here is a file.
///         2 = File {} with 1..=1,
///     }
/// }
/// use link::wire::Message;
/// let mut bytes = Vec::new();
/// FromHelper::Known { uid: 7 }.encode(&mut bytes);
/// assert_eq!(bytes, [1, 7, 0, 0, 0]);
/// ```
#[macro_export]
macro_rules! messages {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $( $(#[$vmeta:meta])* $tag:literal = $variant:ident {
            $( $(#[$fmeta:meta])* $field:ident : $ty:ty ),* $(,)?
        } $(with $fds:expr)? ),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "messages live for one send or receive")]
        $vis enum $name {
            $( $(#[$vmeta])* $variant { $( $(#[$fmeta])* $field: $ty ),* } ),*
        }
        impl $crate::wire::Message for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $( $name::$variant { $($field),* } => {
                        out.push($tag);
                        $( $crate::wire::Wire::put($field, out); )*
                    } ),*
                }
            }
            fn decode(mut datagram: &[u8]) -> Result<Self, $crate::wire::WireError> {
                let input = &mut datagram;
                let message = match <u8 as $crate::wire::Wire>::take(input)? {
                    $( $tag => $name::$variant { $( $field: <$ty as $crate::wire::Wire>::take(input)? ),* }, )*
                    other => return Err($crate::wire::WireError::Tag(other)),
                };
                if input.is_empty() { Ok(message) } else { Err($crate::wire::WireError::Trailing(input.len())) }
            }
            #[allow(unused_assignments, unused_mut)]
            fn descriptors(&self) -> ::std::ops::RangeInclusive<usize> {
                match self {
                    $( $name::$variant { .. } => {
                        let mut range = 0..=0;
                        $( range = $fds; )?
                        range
                    } ),*
                }
            }
            fn name(&self) -> &'static str {
                match self { $( $name::$variant { .. } => stringify!($variant) ),* }
            }
        }
    };
}

/// Gives a struct a wire form: its fields, one after the other.
#[macro_export]
macro_rules! wire_fields {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $( $crate::wire::Wire::put(&self.$field, out); )*
            }
            fn take(input: &mut &[u8]) -> Result<Self, $crate::wire::WireError> {
                Ok($name { $( $field: $crate::wire::Wire::take(input)? ),* })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    crate::messages! {
        /// Every field type once.
        enum Sample {
            /// All.
            7 = All { a: u8, b: u16, c: u32, d: u64, e: i64, f: bool, g: Vec<u8>, h: String,
                      i: Vec<u32>, j: Vec<String>, k: Option<u32>, l: Identity },
            /// With descriptors.
            9 = Files {} with 1..=3,
        }
    }

    fn identity() -> Identity {
        Identity {
            name: "alice".into(),
            uid: 1000,
            gid: 1000,
            groups: vec![4, 1000],
            home: "/home/alice".into(),
            proof: Proof::Tcp,
            peer: "127.0.0.1".into(),
            origin: 40_112,
            tls: true,
            login_time: 1_795_000_000,
        }
    }

    crate::messages! {
        /// A message that carries another one.
        enum Outer {
            /// Carries it.
            1 = Carries { number: u64, inner: Inner<Sample>, list: Vec<u64> },
        }
    }

    #[test]
    fn a_message_inside_a_message() {
        let message = Outer::Carries { number: 5, inner: Inner(Sample::Files {}), list: vec![1, u64::MAX] };
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(Outer::decode(&bytes), Ok(message));
        // A byte more inside, and one that the count does not cover.
        bytes[9] = 2;
        assert!(Outer::decode(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn round_trip(a: u8, b: u16, c: u32, d: u64, e: i64, f: bool, g: Vec<u8>, h: String, i: Vec<u32>,
                      j: Vec<String>, k: Option<u32>) {
            let message = Sample::All { a, b, c, d, e, f, g, h, i, j, k, l: identity() };
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            prop_assert_eq!(Sample::decode(&bytes), Ok(message));
            // Every proper prefix is refused, and so is one byte too many.
            prop_assert!(Sample::decode(&bytes[..bytes.len() - 1]).is_err());
            bytes.push(0);
            prop_assert_eq!(Sample::decode(&bytes), Err(WireError::Trailing(1)));
        }

        #[test]
        fn any_bytes_are_refused_or_read_without_panic(bytes: Vec<u8>) {
            let _ = Sample::decode(&bytes);
        }
    }

    #[test]
    fn a_count_beyond_the_datagram_allocates_nothing() {
        let mut input: &[u8] = &[0xff, 0xff, 0xff, 0xff, 1, 2];
        assert_eq!(Vec::<u8>::take(&mut input), Err(WireError::Short));
        let mut input: &[u8] = &[0xff, 0xff, 0xff, 0x3f, 1, 2, 3, 4];
        assert_eq!(Vec::<u32>::take(&mut input), Err(WireError::Short));
    }

    #[test]
    fn descriptor_ranges_come_from_the_declaration() {
        assert_eq!(Sample::Files {}.descriptors(), 1..=3);
        assert_eq!(Sample::Files {}.name(), "Files");
    }
}
