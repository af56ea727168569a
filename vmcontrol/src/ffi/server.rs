//! The ten functions of the server object.

use std::ffi::{c_char, c_int};
use std::ptr;

use super::params::{self, VMControlConnectParams};
use super::{
    Bool, FALSE, OwnedList, TRUE, act, create, destroy, fence, is, last_error, run, string, text, value,
};
use crate::object::Object;
use crate::server::Server;

/// A server. Programs see no inside.
pub type VMControlServer = Object<Server>;

/// A new object, not connected. NULL when there is no memory.
#[unsafe(no_mangle)]
pub extern "C" fn VMControl_ServerNewEx() -> *mut VMControlServer {
    fence(create::<Server>)
}

/// Ends an object, connected or not, after the call that is under way.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_ServerDestroy(server: *mut VMControlServer) {
    // SAFETY: handed on.
    unsafe { destroy(server) }
}

/// Connects and logs in.
///
/// # Safety
/// Points 1 and 4 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_ServerConnectEx(
    server: *mut VMControlServer,
    params: *mut VMControlConnectParams,
) -> Bool {
    // SAFETY: handed on.
    unsafe { act(server, |server| server.connect(params::read(params)?)) }
}

/// Closes the connection.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_ServerDisconnect(server: *mut VMControlServer) {
    let call = |server: &mut Server| {
        server.disconnect();
        Ok(())
    };
    // SAFETY: handed on.
    unsafe { act(server, call) };
}

/// Whether there is a connection, as far as is known without asking.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_ServerIsConnected(server: *mut VMControlServer) -> Bool {
    // SAFETY: handed on.
    unsafe { is(server, Server::is_connected) }
}

/// The paths of all machines, with NULL behind the last.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_ServerEnumerate(server: *mut VMControlServer) -> *mut *mut c_char {
    fence(|| {
        // SAFETY: handed on.
        let list = unsafe { run(server, |server| OwnedList::copy(&server.enumerate()?)) };
        list.map_or(ptr::null_mut(), OwnedList::give)
    })
}

/// Whether a machine is registered.
///
/// # Safety
/// Points 1 to 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_ServerIsRegistered(
    server: *mut VMControlServer,
    cfg: *const c_char,
    out: *mut Bool,
) -> Bool {
    let call = |server: &mut Server| {
        // SAFETY: point 2.
        let cfg = unsafe { string("cfg", cfg) }?;
        let registered = server.is_registered(&cfg)?;
        Ok(if registered { TRUE } else { FALSE })
    };
    // SAFETY: handed on.
    unsafe { value(server, out, call) }
}

/// A figure of the host.
///
/// # Safety
/// Points 1 and 2 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_ServerGetResource(
    server: *mut VMControlServer,
    key: *mut c_char,
) -> *mut c_char {
    // SAFETY: handed on.
    unsafe { text(server, |server| server.resource(&string("key", key)?)) }
}

/// Sends any document and returns the reply as it is.
///
/// # Safety
/// Points 1 and 2 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_ServerExec(
    server: *mut VMControlServer,
    xml: *const c_char,
) -> *mut c_char {
    // SAFETY: handed on.
    unsafe { text(server, |server| server.exec(&string("xml", xml)?)) }
}

/// Number and text of the last error.
///
/// # Safety
/// Points 1 and 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_ServerGetLastError(
    server: *mut VMControlServer,
    msg: *mut *mut c_char,
) -> c_int {
    // SAFETY: handed on.
    unsafe { last_error(server, msg) }
}
