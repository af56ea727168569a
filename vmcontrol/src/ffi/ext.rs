//! What the scripting layers can do and no old name covers: `VMControlExt_`.

use std::ffi::{c_char, c_int, c_uint};
use std::ptr;
use std::time::Duration;

use vmcontrol_client::Error;

use super::server::VMControlServer;
use super::vm::VMControlVM;
use super::{Bool, FALSE, Owned, OwnedList, TRUE, act, copy_out, fence, run, string};

/// The only time-out there is.
const TIMEOUT_DEFAULT: c_int = 1;

/// The version of this library, to be released with `free`.
#[unsafe(no_mangle)]
pub extern "C" fn VMControlExt_GetVersion() -> *mut c_char {
    fence(|| copy_out(env!("CARGO_PKG_VERSION")).map_or(ptr::null_mut(), Owned::give))
}

/// Registers a machine.
///
/// # Safety
/// Points 1 and 2 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControlExt_ServerRegister(
    server: *mut VMControlServer,
    cfg: *const c_char,
) -> Bool {
    // SAFETY: handed on.
    unsafe { act(server, |server| server.register(&string("cfg", cfg)?)) }
}

/// Takes a machine off the list. No file is deleted.
///
/// # Safety
/// Points 1 and 2 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControlExt_ServerUnregister(
    server: *mut VMControlServer,
    cfg: *const c_char,
) -> Bool {
    // SAFETY: handed on.
    unsafe { act(server, |server| server.unregister(&string("cfg", cfg)?)) }
}

/// Sets a figure of the host.
///
/// # Safety
/// Points 1 and 2 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControlExt_ServerSetResource(
    server: *mut VMControlServer,
    key: *const c_char,
    value: *const c_char,
) -> Bool {
    // SAFETY: handed on.
    unsafe { act(server, |server| server.set_resource(&string("key", key)?, &string("value", value)?)) }
}

/// Sets a figure of a machine.
///
/// # Safety
/// Points 1 and 2 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControlExt_VMSetResource(
    vm: *mut VMControlVM,
    key: *const c_char,
    value: *const c_char,
) -> Bool {
    // SAFETY: handed on.
    unsafe { act(vm, |vm| vm.set_resource(&string("key", key)?, &string("value", value)?)) }
}

/// Sets the longest time of one call, in milliseconds, also of the next connect.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControlExt_ServerSetTimeout(
    server: *mut VMControlServer,
    id: c_int,
    milliseconds: c_uint,
) -> Bool {
    // SAFETY: handed on.
    unsafe {
        act(server, |server| {
            server.set_timeout(timeout(id, milliseconds)?);
            Ok(())
        })
    }
}

/// Sets the longest time of one call, in milliseconds, also of the next connect.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControlExt_VMSetTimeout(
    vm: *mut VMControlVM,
    id: c_int,
    milliseconds: c_uint,
) -> Bool {
    // SAFETY: handed on.
    unsafe {
        act(vm, |vm| {
            vm.set_timeout(timeout(id, milliseconds)?);
            Ok(())
        })
    }
}

fn timeout(id: c_int, milliseconds: c_uint) -> Result<Duration, Error> {
    if id != TIMEOUT_DEFAULT {
        return Err(Error::invalid("id", format_args!("there is no time-out {id}")));
    }
    if milliseconds == 0 {
        return Err(Error::invalid("milliseconds", "must be at least 1"));
    }
    Ok(Duration::from_millis(milliseconds.into()))
}

/// What a machine wants to know. Success with NULL in `*text` and `*choices`: nothing. Otherwise the text,
/// each choice and the array of choices, NULL behind the last, are released with `free`. All four places
/// are written in any case.
///
/// # Safety
/// Points 1 and 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControlExt_VMGetQuestion(
    vm: *mut VMControlVM,
    id: *mut c_int,
    text: *mut *mut c_char,
    choices: *mut *mut *mut c_char,
    default_choice: *mut c_int,
) -> Bool {
    let write = |number: c_int, words: *mut c_char, list: *mut *mut c_char, suggested: c_int| {
        // SAFETY: point 3, for all four.
        unsafe {
            if !id.is_null() {
                id.write(number);
            }
            if !text.is_null() {
                text.write(words);
            }
            if !choices.is_null() {
                choices.write(list);
            }
            if !default_choice.is_null() {
                default_choice.write(suggested);
            }
        }
    };
    write(0, ptr::null_mut(), ptr::null_mut(), 0);
    let missing = id.is_null() || text.is_null() || choices.is_null() || default_choice.is_null();
    fence(|| {
        let call = |vm: &mut crate::vm::Vm| {
            if missing {
                return Err(Error::invalid("out", "is NULL"));
            }
            let Some(question) = vm.question()? else { return Ok(None) };
            let copies = (copy_out(&question.text)?, OwnedList::copy(&question.choices)?);
            Ok(Some((question, copies)))
        };
        // SAFETY: handed on.
        match unsafe { run(vm, call) } {
            None => FALSE,
            Some(None) => TRUE,
            Some(Some((question, (words, list)))) => {
                write(question.id, words.give(), list.give(), question.default_choice);
                TRUE
            }
        }
    })
}

/// Answers a question; the machine goes on.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControlExt_VMAnswerQuestion(
    vm: *mut VMControlVM,
    id: c_int,
    choice: c_int,
) -> Bool {
    // SAFETY: handed on.
    unsafe { act(vm, |vm| vm.answer(id, choice)) }
}
