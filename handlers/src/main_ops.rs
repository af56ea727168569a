//! The self-test operations of package `main`: the first thing that anybody sends to a new server.

use handlers_derive::handler;
use ops::Error;
use ops::main_ops::{Dec, DecReply, Div, DivReply, Inc, IncReply};
use ops::value::Number;

use crate::Ctx;

/// 42 gives 43; the largest integer gives an error, not a smaller number.
#[handler(quick)]
fn increment(_: &Ctx, req: Inc) -> Result<IncReply, Error> {
    let number = req.number.checked_add(1).ok_or_else(|| Number::overflow("number"))?;
    Ok(IncReply { number })
}

/// 42 gives 41, and so on downwards.
#[handler(quick)]
fn decrement(_: &Ctx, req: Dec) -> Result<DecReply, Error> {
    let number = req.number.checked_add(-1).ok_or_else(|| Number::overflow("number"))?;
    Ok(DecReply { number })
}

/// The quotient, whole where it is; division by zero has an error of its own.
#[handler(quick)]
fn divide(_: &Ctx, req: Div) -> Result<DivReply, Error> {
    if req.divisor.is_zero() {
        return Err(Error::division_by_zero());
    }
    let number = req.dividend.checked_div(req.divisor).ok_or_else(|| Number::overflow("dividend"))?;
    Ok(DivReply { number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::ctx;
    use ops::ErrorCode;

    #[test]
    fn counting_stops_at_the_end_of_the_range() {
        let inc = |number| increment(&ctx(), Inc { number }).map(|reply| reply.number);
        assert_eq!(inc(Number::Integer(42)), Ok(Number::Integer(43)));
        assert_eq!(inc(Number::Integer(i64::MAX)).unwrap_err().code, ErrorCode::InvalidArgs);
        assert_eq!(inc(Number::Decimal(0.5)), Ok(Number::Decimal(1.5)));
        let dec = |number| decrement(&ctx(), Dec { number }).map(|reply| reply.number);
        assert_eq!(dec(Number::Integer(42)), Ok(Number::Integer(41)));
        assert_eq!(dec(Number::Integer(i64::MIN)).unwrap_err().code, ErrorCode::InvalidArgs);
    }

    #[test]
    fn division_by_zero_has_the_text_of_the_original_language() {
        let div = |a, b| {
            let request = Div { dividend: Number::Integer(a), divisor: Number::Integer(b) };
            divide(&ctx(), request).map(|reply| reply.number)
        };
        assert_eq!(div(84, 2), Ok(Number::Integer(42)));
        assert_eq!(div(1, 4), Ok(Number::Decimal(0.25)));
        let error = div(1, 0).unwrap_err();
        assert_eq!((error.code.number(), error.text.as_str()), (-999, "Illegal division by zero"));
        assert_eq!(div(i64::MIN, -1).unwrap_err().code, ErrorCode::InvalidArgs);
    }
}
