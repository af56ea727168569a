//! The self-test operations of package `main`: `inc`, `dec` and `div`.
//!
//! `inc` is the one operation of which request and reply are both known from VMware Server 1.0.3.

use ops_derive::{Op, Reply};

use crate::value::Number;

/// Adds one to a number.
///
/// The first thing to send to a new server: 42 gives 43, as in VMware Server 1.0.3. An integer stays
/// exact in the 64-bit range; a decimal fraction is computed as a double.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "inc", handler = "main::increment", access = AuthUser, runs = Session, effect = Reads, reply = IncReply)]
pub struct Inc {
    /// The number to add one to.
    #[field(historical)]
    pub number: Number,
}

/// The result of `inc`.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct IncReply {
    /// The number plus one.
    #[field(historical)]
    pub number: Number,
}

/// Subtracts one from a number.
///
/// The counterpart of `inc`, with the same rules.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "dec", handler = "main::decrement", access = AuthUser, runs = Session, effect = Reads, reply = DecReply)]
pub struct Dec {
    /// The number to subtract one from.
    pub number: Number,
}

/// The result of `dec`.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct DecReply {
    /// The number minus one.
    pub number: Number,
}

/// Divides one number by another.
///
/// Two integers whose quotient is whole give an integer; otherwise the quotient is computed as a
/// double and written as the shortest decimal. Dividing by zero fails with -999
/// `Illegal division by zero`.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "div", handler = "main::divide", access = AuthUser, runs = Session, effect = Reads, reply = DivReply)]
pub struct Div {
    /// The number to divide.
    #[field(alias = "numerator")]
    pub dividend: Number,
    /// The number to divide by.
    #[field(alias = "denominator")]
    pub divisor: Number,
}

/// The result of `div`.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct DivReply {
    /// The quotient.
    pub number: Number,
}
