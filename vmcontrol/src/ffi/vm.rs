//! The functions of the machine object.

use std::ffi::{c_char, c_int, c_uint};

use super::params::{self, VMControlConnectParams};
use super::{
    Bool, FALSE, TRUE, act, create, destroy, fence, is, last_error, optional, path, string, text, value,
};
use crate::object::Object;
use crate::vm::{Snapshot, Vm};

/// A machine. Programs see no inside.
pub type VMControlVM = Object<Vm>;

/// A truth value for C.
fn bool_of(yes: bool) -> Bool {
    if yes { TRUE } else { FALSE }
}

/// A new object, not connected. NULL when there is no memory.
#[unsafe(no_mangle)]
pub extern "C" fn VMControl_VMNewEx() -> *mut VMControlVM {
    fence(create::<Vm>)
}

/// Ends an object, connected or not, after the call that is under way.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMDestroy(vm: *mut VMControlVM) {
    // SAFETY: handed on.
    unsafe { destroy(vm) }
}

/// Connects, and looks the machine up. `mks` other than 0 asks for the console.
///
/// # Safety
/// Points 1, 2 and 4 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMConnectEx(
    vm: *mut VMControlVM,
    params: *mut VMControlConnectParams,
    cfg: *const c_char,
    mks: Bool,
) -> Bool {
    // SAFETY: handed on.
    unsafe { act(vm, |vm| vm.connect(params::read(params)?, &string("cfg", cfg)?, mks != 0)) }
}

/// Closes the connection.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMDisconnect(vm: *mut VMControlVM) {
    // SAFETY: handed on.
    unsafe {
        act(vm, |vm| {
            vm.disconnect();
            Ok(())
        })
    };
}

/// Whether there is a connection, as far as is known without asking.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMIsConnected(vm: *mut VMControlVM) -> Bool {
    // SAFETY: handed on.
    unsafe { is(vm, Vm::is_connected) }
}

/// Number and text of the last error.
///
/// # Safety
/// Points 1 and 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMGetLastError(vm: *mut VMControlVM, msg: *mut *mut c_char) -> c_int {
    // SAFETY: handed on.
    unsafe { last_error(vm, msg) }
}

/// The state, 1 to 5.
///
/// # Safety
/// Points 1 and 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMGetExecutionState(vm: *mut VMControlVM, out: *mut c_int) -> Bool {
    // SAFETY: handed on.
    unsafe { value(vm, out, Vm::execution_state) }
}

/// One of the six numbers of the product.
///
/// # Safety
/// Points 1 and 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMGetProductInfo(
    vm: *mut VMControlVM,
    kind: c_int,
    out: *mut c_int,
) -> Bool {
    // SAFETY: handed on.
    unsafe { value(vm, out, |vm| vm.product_info(kind)) }
}

/// Rights of the connected user.
///
/// # Safety
/// Points 1 and 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMGetCapabilities(vm: *mut VMControlVM, out: *mut c_uint) -> Bool {
    // SAFETY: handed on.
    unsafe { value(vm, out, Vm::capabilities) }
}

/// Seconds since power on.
///
/// # Safety
/// Points 1 and 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMGetUptime(vm: *mut VMControlVM, out: *mut c_uint) -> Bool {
    // SAFETY: handed on.
    unsafe { value(vm, out, Vm::uptime) }
}

/// A running counter from the guest's Tools.
///
/// # Safety
/// Points 1 and 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMGetHeartbeat(vm: *mut VMControlVM, out: *mut c_uint) -> Bool {
    // SAFETY: handed on.
    unsafe { value(vm, out, Vm::heartbeat) }
}

/// How the guest's Tools are.
///
/// # Safety
/// Points 1 and 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMToolsLastActive(vm: *mut VMControlVM, out: *mut c_int) -> Bool {
    // SAFETY: handed on.
    unsafe { value(vm, out, Vm::tools_last_active) }
}

/// Consoles that are connected.
///
/// # Safety
/// Points 1 and 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMGetRemoteConnections(vm: *mut VMControlVM, out: *mut c_uint) -> Bool {
    // SAFETY: handed on.
    unsafe { value(vm, out, Vm::remote_connections) }
}

/// Process id of the machine.
///
/// # Safety
/// Points 1 and 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMGetPid(vm: *mut VMControlVM, out: *mut c_uint) -> Bool {
    // SAFETY: handed on.
    unsafe { value(vm, out, Vm::pid) }
}

/// Number of the running machine.
///
/// # Safety
/// Points 1 and 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMGetId(vm: *mut VMControlVM, out: *mut c_uint) -> Bool {
    // SAFETY: handed on.
    unsafe { value(vm, out, Vm::id) }
}

/// The user that the machine runs as.
///
/// # Safety
/// Points 1 and 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMGetRunAsUser(vm: *mut VMControlVM, out: *mut *mut c_char) -> Bool {
    // SAFETY: handed on.
    unsafe { super::text_out(vm, out, Vm::run_as_user) }
}

/// The path that was given to connect.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMGetConfigFileName(vm: *mut VMControlVM) -> *mut c_char {
    // SAFETY: handed on.
    unsafe { text(vm, Vm::config_file_name) }
}

/// A value of the .vmx.
///
/// # Safety
/// Points 1 and 2 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMGetConfig(vm: *mut VMControlVM, key: *mut c_char) -> *mut c_char {
    // SAFETY: handed on.
    unsafe { text(vm, |vm| vm.config(&string("key", key)?)) }
}

/// Sets a value of the .vmx.
///
/// # Safety
/// Points 1 and 2 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMSetConfig(
    vm: *mut VMControlVM,
    key: *mut c_char,
    value: *mut c_char,
) -> Bool {
    // SAFETY: handed on.
    unsafe { act(vm, |vm| vm.set_config(&string("key", key)?, &string("value", value)?)) }
}

/// A variable of the guest.
///
/// # Safety
/// Points 1 and 2 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMGetGuestInfo(vm: *mut VMControlVM, key: *mut c_char) -> *mut c_char {
    // SAFETY: handed on.
    unsafe { text(vm, |vm| vm.guest_info(&string("key", key)?)) }
}

/// Sets a variable of the guest.
///
/// # Safety
/// Points 1 and 2 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMSetGuestInfo(
    vm: *mut VMControlVM,
    key: *mut c_char,
    value: *mut c_char,
) -> Bool {
    // SAFETY: handed on.
    unsafe { act(vm, |vm| vm.set_guest_info(&string("key", key)?, &string("value", value)?)) }
}

/// A figure of the machine.
///
/// # Safety
/// Points 1 and 2 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMGetResource(vm: *mut VMControlVM, key: *mut c_char) -> *mut c_char {
    // SAFETY: handed on.
    unsafe { text(vm, |vm| vm.resource(&string("key", key)?)) }
}

/// Powers on, or lets a suspended machine go on.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMStart(vm: *mut VMControlVM, mode: c_int) -> Bool {
    // SAFETY: handed on.
    unsafe { act(vm, |vm| vm.start(mode)) }
}

/// Powers off, or resets with `stop` 0.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMStopOrReset(vm: *mut VMControlVM, stop: Bool, mode: c_int) -> Bool {
    // SAFETY: handed on.
    unsafe { act(vm, |vm| vm.stop_or_reset(stop != 0, mode)) }
}

/// Suspends to a file.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMSuspendToDisk(vm: *mut VMControlVM, mode: c_int) -> Bool {
    // SAFETY: handed on.
    unsafe { act(vm, |vm| vm.suspend(mode)) }
}

/// Whether there is a snapshot.
///
/// # Safety
/// Points 1 and 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMHasSnapshot(vm: *mut VMControlVM, out: *mut Bool) -> Bool {
    // SAFETY: handed on.
    unsafe { value(vm, out, |vm| vm.has_snapshot().map(bool_of)) }
}

/// Takes a snapshot. Programs pass one argument, and five only where the product is ESX: the server is
/// asked for its product first, and what may be rubbish is not looked at before.
///
/// # Safety
/// Points 1 and 2 of [`super`], the second only where the product is ESX.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMCreateSnapshot(
    vm: *mut VMControlVM,
    name: *const c_char,
    descr: *const c_char,
    quiesce: Bool,
    memory: Bool,
) -> Bool {
    let arguments = || {
        // SAFETY: point 2: the product is ESX, so the caller has passed all five.
        let (name, description) = unsafe { (optional("name", name)?, optional("descr", descr)?) };
        Ok(Snapshot { name, description, quiesce: quiesce != 0, memory: memory != 0 })
    };
    // SAFETY: handed on.
    unsafe { act(vm, |vm| vm.create_snapshot(arguments)) }
}

/// Goes back to the newest snapshot.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMRevertToSnapshot(vm: *mut VMControlVM) -> Bool {
    // SAFETY: handed on.
    unsafe { act(vm, Vm::revert_to_snapshot) }
}

/// The older name of [`VMControl_VMRevertToSnapshot`].
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMRevertSnapshot(vm: *mut VMControlVM) -> Bool {
    // SAFETY: handed on.
    unsafe { act(vm, Vm::revert_to_snapshot) }
}

/// Removes all snapshots.
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMRemoveAllSnapshots(vm: *mut VMControlVM) -> Bool {
    // SAFETY: handed on.
    unsafe { act(vm, Vm::remove_all_snapshots) }
}

/// The older name of [`VMControl_VMRemoveAllSnapshots`].
///
/// # Safety
/// Point 1 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMDeleteSnapshot(vm: *mut VMControlVM) -> Bool {
    // SAFETY: handed on.
    unsafe { act(vm, Vm::remove_all_snapshots) }
}

/// Plugs a device in.
///
/// # Safety
/// Points 1 and 2 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMDeviceConnect(vm: *mut VMControlVM, dev: *const c_char) -> Bool {
    // SAFETY: handed on.
    unsafe { act(vm, |vm| vm.plug(&string("dev", dev)?, true)) }
}

/// Plugs a device out.
///
/// # Safety
/// Points 1 and 2 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMDeviceDisconnect(vm: *mut VMControlVM, dev: *const c_char) -> Bool {
    // SAFETY: handed on.
    unsafe { act(vm, |vm| vm.plug(&string("dev", dev)?, false)) }
}

/// Whether a device is plugged in.
///
/// # Safety
/// Points 1 to 3 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_VMDeviceIsConnected(
    vm: *mut VMControlVM,
    dev: *const c_char,
    out: *mut Bool,
) -> Bool {
    // SAFETY: handed on.
    unsafe { value(vm, out, |vm| vm.is_plugged(&string("dev", dev)?).map(bool_of)) }
}

/// Writes a picture of the screen into a file on this machine.
///
/// # Safety
/// Points 1 and 2 of [`super`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VMControl_MKSSaveScreenshot(
    vm: *mut VMControlVM,
    file: *const c_char,
    format: *const c_char,
) -> Bool {
    // SAFETY: handed on.
    unsafe { act(vm, |vm| vm.save_screenshot(path("path", file)?, &string("format", format)?)) }
}
