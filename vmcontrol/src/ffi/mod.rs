//! Where C and Rust meet: pointers in, values and `malloc`ed memory out, and no panic across.
//!
//! # What the caller promises
//! The header says it, and every SAFETY remark below means these five points:
//! 1. An object is NULL, or came from the matching `New` function and has not been destroyed. Other
//!    calls on it may be running in other threads, and a destroy may wait for them.
//! 2. A string is NULL, or readable up to its NUL, and stays so during the call.
//! 3. A place for a result is NULL, or writable for its type. A `Bool` is one byte.
//! 4. Parameters are NULL, or came from `VMControl_ConnectParamsNew` and have not been destroyed; the
//!    four fields may have been exchanged for others of the same kind.
//! 5. What a function returns is released with `free` and not otherwise.
//!
//! `Bool` is a C `char`, never a Rust `bool`: any byte may come in.

mod ext;
mod params;
mod server;
mod vm;

use std::ffi::{CStr, c_char, c_int};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr;
use std::sync::{Arc, Once};

use vmcontrol_client::{Error, ErrorCode};

use crate::object::{Body, Object};

/// The C type `Bool`.
type Bool = c_char;

/// Success, exactly this value: one binding returns the byte as a number.
const TRUE: Bool = 1;
/// Failure.
const FALSE: Bool = 0;

/// What a C function returns when Rust fails.
trait Failure {
    /// 0 or NULL.
    const FAILED: Self;
}

impl Failure for Bool {
    const FAILED: Self = FALSE;
}

impl<T> Failure for *mut T {
    const FAILED: Self = ptr::null_mut();
}

impl Failure for c_int {
    const FAILED: Self = -999;
}

impl Failure for () {
    const FAILED: Self = ();
}

/// The last fence: nothing that panics gets out, whatever it was.
fn fence<R: Failure>(body: impl FnOnce() -> R) -> R {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result,
        Err(payload) => {
            std::mem::forget(payload);
            R::FAILED
        }
    }
}

/// Once per process: a panic is reported as -999, not on the program's standard error. The hook is that
/// of this library's own copy of the Rust runtime.
fn quiet() {
    static QUIET: Once = Once::new();
    // Tests of this crate want to be heard.
    if cfg!(not(test)) {
        QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    }
}

/// A new object for C.
fn create<B: Body + Default>() -> *mut Object<B> {
    quiet();
    Arc::into_raw(Arc::new(Object::<B>::default())).cast_mut()
}

/// A share of an object for the length of a call, so that a destroy in another thread leaves the memory
/// alone until the call is over.
///
/// # Safety
/// `object` is as in point 1.
unsafe fn share<B: Body>(object: *const Object<B>) -> Option<Arc<Object<B>>> {
    if object.is_null() {
        return None;
    }
    // SAFETY: point 1: the pointer is that of a living Arc, whose count is raised for this call. It stays
    // with C: ManuallyDrop does not lower the count that C holds.
    let held = ManuallyDrop::new(unsafe { Arc::from_raw(object) });
    Some(Arc::clone(&held))
}

/// Ends an object once the call that is under way has ended.
///
/// # Safety
/// `object` is as in point 1, and is not used after this.
unsafe fn destroy<B: Body>(object: *mut Object<B>) {
    if object.is_null() {
        return;
    }
    // SAFETY: point 1: this takes over the share that `create` gave to C.
    let object = unsafe { Arc::from_raw(object.cast_const()) };
    fence(|| object.destroy());
}

/// Runs a call on an object. None after a failure, which the object remembers.
///
/// # Safety
/// `object` is as in point 1.
unsafe fn run<B: Body, R>(
    object: *const Object<B>,
    call: impl FnOnce(&mut B) -> Result<R, Error>,
) -> Option<R> {
    // SAFETY: handed on.
    let object = unsafe { share(object) }?;
    object.run(call)
}

/// Runs a call that returns nothing but success.
///
/// # Safety
/// `object` is as in point 1.
unsafe fn act<B: Body>(object: *const Object<B>, call: impl FnOnce(&mut B) -> Result<(), Error>) -> Bool {
    // SAFETY: handed on.
    fence(|| unsafe { run(object, call) }.map_or(FALSE, |()| TRUE))
}

/// Runs a call that returns a number through `out`, which is written in any case: 0 after a failure.
///
/// # Safety
/// `object` is as in point 1, `out` as in point 3.
unsafe fn value<B: Body, V: Default>(
    object: *const Object<B>,
    out: *mut V,
    call: impl FnOnce(&mut B) -> Result<V, Error>,
) -> Bool {
    let call = |body: &mut B| if out.is_null() { Err(is_null("out")) } else { call(body) };
    // SAFETY: handed on.
    let found = fence_option(|| unsafe { run(object, call) });
    let success = found.is_some();
    if !out.is_null() {
        // SAFETY: point 3. Nothing is read or dropped: it may be uninitialised.
        unsafe { out.write(found.unwrap_or_default()) };
    }
    if success { TRUE } else { FALSE }
}

/// Runs a call that returns a text.
///
/// # Safety
/// `object` is as in point 1.
unsafe fn text<B: Body>(
    object: *const Object<B>,
    call: impl FnOnce(&mut B) -> Result<String, Error>,
) -> *mut c_char {
    // SAFETY: handed on.
    fence(|| unsafe { run(object, |body| copy_out(&call(body)?)) }.map_or(ptr::null_mut(), Owned::give))
}

/// Runs a call that returns a text through `out`, which is written in any case: NULL after a failure.
///
/// # Safety
/// `object` is as in point 1, `out` as in point 3.
unsafe fn text_out<B: Body>(
    object: *const Object<B>,
    out: *mut *mut c_char,
    call: impl FnOnce(&mut B) -> Result<String, Error>,
) -> Bool {
    let call = |body: &mut B| if out.is_null() { Err(is_null("out")) } else { call(body) };
    // SAFETY: handed on.
    let found = unsafe { text(object, call) };
    if !out.is_null() {
        // SAFETY: point 3.
        unsafe { out.write(found) };
    }
    if found.is_null() { FALSE } else { TRUE }
}

/// As [`fence`], for a result that C does not see.
fn fence_option<R>(body: impl FnOnce() -> Option<R>) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result,
        Err(payload) => {
            std::mem::forget(payload);
            None
        }
    }
}

/// Number and text of an object's last error. `*msg` is written on every way.
///
/// # Safety
/// `object` is as in point 1, `msg` as in point 3.
unsafe fn last_error<B: Body>(object: *const Object<B>, msg: *mut *mut c_char) -> c_int {
    if !msg.is_null() {
        // SAFETY: point 3.
        unsafe { msg.write(ptr::null_mut()) };
    }
    fence(|| {
        // SAFETY: handed on.
        let Some(object) = (unsafe { share(object) }) else { return ErrorCode::InvalidArgs.number() };
        let (number, text) = object.last_error();
        if let (Some(text), false) = (text, msg.is_null()) {
            let text = copy_out(&text).map_or(ptr::null_mut(), Owned::give);
            // SAFETY: point 3.
            unsafe { msg.write(text) };
        }
        number
    })
}

/// Whether an object is connected; a destroyed or missing one is not.
///
/// # Safety
/// `object` is as in point 1.
unsafe fn is<B: Body>(object: *const Object<B>, look: impl FnOnce(&B) -> bool) -> Bool {
    fence(|| {
        // SAFETY: handed on.
        let yes = unsafe { share(object) }.is_some_and(|object| object.look(look));
        if yes { TRUE } else { FALSE }
    })
}

fn is_null(name: &str) -> Error {
    Error::invalid(name, "is NULL")
}

/// An argument that must be there.
///
/// # Safety
/// `pointer` is as in point 2.
unsafe fn string(name: &str, pointer: *const c_char) -> Result<String, Error> {
    // SAFETY: handed on.
    unsafe { optional(name, pointer) }?.ok_or_else(|| is_null(name))
}

/// An argument that may be NULL.
///
/// # Safety
/// `pointer` is as in point 2.
unsafe fn optional(name: &str, pointer: *const c_char) -> Result<Option<String>, Error> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: point 2. The copy is made at once.
    let text = unsafe { CStr::from_ptr(pointer) };
    let text = text.to_str().map_err(|_| Error::invalid(name, "is not UTF-8"))?;
    Ok(Some(text.to_owned()))
}

/// A path, which may have any bytes.
///
/// # Safety
/// `pointer` is as in point 2.
unsafe fn path<'a>(name: &str, pointer: *const c_char) -> Result<&'a Path, Error> {
    if pointer.is_null() {
        return Err(is_null(name));
    }
    // SAFETY: point 2: it stays readable during the call, which is all that the result is used for.
    let bytes = unsafe { CStr::from_ptr(pointer) }.to_bytes();
    Ok(Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes)))
}

/// Memory of the C heap that is not C's yet: released unless it is given away.
#[derive(Debug)]
struct Owned<T>(*mut T);

impl<T> Owned<T> {
    /// Room for so many values, all bytes 0.
    fn zeroed(count: usize) -> Result<Self, Error> {
        // SAFETY: calloc takes any numbers and checks their product itself.
        let pointer = unsafe { libc::calloc(count.max(1), size_of::<T>()) }.cast::<T>();
        if pointer.is_null() { Err(Error::new(ErrorCode::NoMem)) } else { Ok(Owned(pointer)) }
    }

    /// Gives the memory to C.
    fn give(self) -> *mut T {
        ManuallyDrop::new(self).0
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it came from calloc and was not given away.
        unsafe { libc::free(self.0.cast()) };
    }
}

/// A copy of a text for C. A NUL inside, which C cannot see behind, becomes U+FFFD.
fn copy_out(text: &str) -> Result<Owned<c_char>, Error> {
    let replaced;
    let text = if text.contains('\0') {
        replaced = text.replace('\0', "\u{FFFD}");
        &replaced
    } else {
        text
    };
    let memory = Owned::<c_char>::zeroed(text.len() + 1)?;
    // SAFETY: there is room for the text and its NUL, which calloc has written; the two do not overlap.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr().cast(), memory.0, text.len()) };
    Ok(memory)
}

/// A list of texts for C, with NULL behind the last: an array, and each text, from the C heap.
struct OwnedList {
    array: Owned<*mut c_char>,
    texts: Vec<Owned<c_char>>,
}

impl OwnedList {
    fn copy(texts: &[String]) -> Result<Self, Error> {
        let array = Owned::zeroed(texts.len() + 1)?;
        let texts = texts.iter().map(|text| copy_out(text)).collect::<Result<_, _>>()?;
        Ok(OwnedList { array, texts })
    }

    fn give(self) -> *mut *mut c_char {
        for (index, text) in self.texts.into_iter().enumerate() {
            // SAFETY: there is room for one more than the texts; the last stays NULL.
            unsafe { self.array.0.add(index).write(text.give()) };
        }
        self.array.give()
    }
}

#[cfg(test)]
mod tests;
