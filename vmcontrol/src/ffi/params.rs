//! Start-up, and the connection parameters.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use vmcontrol_client::{Error, Params};
use zeroize::{Zeroize, Zeroizing};

use super::{Bool, Owned, TRUE, fence, is_null, optional, quiet};

/// What a program says about where and as whom to connect. Programs look inside and set fields: the
/// layout is part of the interface. Strings are of the C heap; each may be NULL.
#[repr(C)]
pub struct VMControlConnectParams {
    hostname: *const c_char,
    port: c_int,
    username: *const c_char,
    password: *mut c_char,
}

/// Starts the library. Returns 1.
#[unsafe(no_mangle)]
pub extern "C" fn VMControl_Init() -> Bool {
    fence(|| {
        quiet();
        TRUE
    })
}

/// Starts the part for machines. Returns 1.
#[unsafe(no_mangle)]
pub extern "C" fn VMControl_VMInit() -> Bool {
    fence(|| {
        quiet();
        TRUE
    })
}

/// New parameters, with copies of the strings. NULL when there is no memory.
///
/// # Safety
/// The strings are as in point 2 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_ConnectParamsNew(
    host: *const c_char,
    port: c_int,
    user: *const c_char,
    pass: *const c_char,
) -> *mut VMControlConnectParams {
    fence(|| {
        quiet();
        let strings = [host, user, pass].map(|string| {
            // SAFETY: point 2.
            unsafe { duplicate(string) }
        });
        let [Ok(hostname), Ok(username), Ok(password)] = strings else { return ptr::null_mut() };
        let Ok(params) = Owned::<VMControlConnectParams>::zeroed(1) else { return ptr::null_mut() };
        let give = |string: Option<Owned<c_char>>| string.map_or(ptr::null_mut(), Owned::give);
        let filled = VMControlConnectParams {
            hostname: give(hostname),
            port,
            username: give(username),
            password: give(password),
        };
        // SAFETY: the memory has the size and alignment of the struct, and is ours alone.
        unsafe { params.0.write(filled) };
        params.give()
    })
}

/// A copy of a string, bytes as they are.
///
/// # Safety
/// `string` is as in point 2.
unsafe fn duplicate(string: *const c_char) -> Result<Option<Owned<c_char>>, Error> {
    if string.is_null() {
        return Ok(None);
    }
    // SAFETY: point 2.
    let bytes = unsafe { CStr::from_ptr(string) }.to_bytes_with_nul();
    let copy = Owned::<c_char>::zeroed(bytes.len())?;
    // SAFETY: there is room for all bytes; the two do not overlap.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), copy.0, bytes.len()) };
    Ok(Some(copy))
}

/// Releases parameters and wipes the password. What was connected with them stays connected.
///
/// # Safety
/// `params` is as in point 4, and is not used after this.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_ConnectParamsDestroy(params: *mut VMControlConnectParams) {
    fence(|| {
        if params.is_null() {
            return;
        }
        // SAFETY: point 4; the memory of all four is of the C heap, and nobody uses it after this.
        unsafe {
            let all = params.read();
            if !all.password.is_null() {
                let length = libc::strlen(all.password);
                std::slice::from_raw_parts_mut(all.password.cast::<u8>(), length).zeroize();
            }
            for string in [all.hostname.cast_mut(), all.username.cast_mut(), all.password] {
                libc::free(string.cast());
            }
            libc::free(params.cast());
        }
    });
}

/// A copy of what the parameters say.
///
/// # Safety
/// `params` is as in point 4.
pub(super) unsafe fn read(params: *const VMControlConnectParams) -> Result<Params, Error> {
    if params.is_null() {
        return Err(is_null("params"));
    }
    // SAFETY: point 4; only the pointers are copied here.
    let all = unsafe { params.read() };
    let port = u16::try_from(all.port)
        .map_err(|_| Error::invalid("port", format_args!("{} is not in 0 to 65535", all.port)))?;
    // SAFETY: points 2 and 4.
    let (host, user, password) = unsafe {
        (
            optional("hostname", all.hostname)?,
            optional("username", all.username)?,
            optional("password", all.password)?,
        )
    };
    Ok(Params { host, port, user, password: password.map(Zeroizing::new), ..Params::default() })
}
