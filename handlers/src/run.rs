//! The three ways a handler runs, with its types erased.
//!
//! ```text
//!   Quick      read ─▶ handler ─▶ reply, all inline: no allocation beyond the request's own
//!   Blocking   read inline ─▶ Job, for a thread of the blocking pool ─▶ reply
//!   Async      read inline ─▶ Later, a future that asks the core     ─▶ reply
//! ```
//!
//! The request is always read on the spot, because it borrows the connection's buffer; what goes on
//! from there owns its data. Replies leave as finished bytes, so that nobody behind this file needs
//! to know a reply type.

use std::future::Future;
use std::pin::Pin;

use ops::envelope::write_ok;
use ops::reader::Input;
use ops::{Operation, Reply};

use crate::{Ctx, Failure};

/// Work for a thread that may wait. Returns the whole reply document.
pub type Job = Box<dyn FnOnce() -> Result<Vec<u8>, Failure> + Send>;

/// An answer that needs the core. Yields the whole reply document.
pub type Later = Pin<Box<dyn Future<Output = Result<Vec<u8>, Failure>> + Send>>;

/// A handler whose types are erased.
#[derive(Clone, Copy)]
pub enum Run {
    /// Never waits; appends the whole reply document to the bytes it is given.
    Quick(fn(&Ctx, Input<'_>, &mut Vec<u8>) -> Result<(), Failure>),
    /// May wait for the file system.
    Blocking(fn(&Ctx, Input<'_>) -> Result<Job, Failure>),
    /// Asks the core.
    Async(fn(&Ctx, Input<'_>) -> Result<Later, Failure>),
}

/// Runs a quick handler.
///
/// # Errors
/// What reading the request or the handler says.
pub fn quick<O: Operation, E: Into<Failure>, F>(
    ctx: &Ctx,
    input: Input<'_>,
    out: &mut Vec<u8>,
    handler: F,
) -> Result<(), Failure>
where
    F: FnOnce(&Ctx, O) -> Result<O::Reply, E>,
{
    let reply = handler(ctx, O::read(input)?).map_err(Into::into)?;
    write_ok(out, &ctx.product, &reply);
    Ok(())
}

/// Prepares a blocking handler.
///
/// # Errors
/// What reading the request says.
pub fn blocking<O, E, F>(ctx: &Ctx, input: Input<'_>, handler: F) -> Result<Job, Failure>
where
    O: Operation + Send + 'static,
    E: Into<Failure>,
    F: FnOnce(&Ctx, O) -> Result<O::Reply, E> + Send + 'static,
{
    let request = O::read(input)?;
    let ctx = ctx.clone();
    Ok(Box::new(move || {
        let reply = handler(&ctx, request).map_err(Into::into)?;
        Ok(document(&ctx, &reply))
    }))
}

/// Prepares a handler that asks the core.
///
/// # Errors
/// What reading the request says.
pub fn answer<O, E, F>(ctx: &Ctx, input: Input<'_>, handler: F) -> Result<Later, Failure>
where
    O: Operation + Send + 'static,
    E: Into<Failure>,
    F: for<'a> FnOnce(&'a Ctx, O) -> Pin<Box<dyn Future<Output = Result<O::Reply, E>> + Send + 'a>>
        + Send
        + 'static,
{
    let request = O::read(input)?;
    let ctx = ctx.clone();
    Ok(Box::pin(async move {
        let reply = handler(&ctx, request).await.map_err(Into::into)?;
        Ok(document(&ctx, &reply))
    }))
}

fn document<R: Reply>(ctx: &Ctx, reply: &R) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_ok(&mut bytes, &ctx.product, reply);
    bytes
}
