//! The rules of the boundary, called as C calls it.

use super::params::{VMControl_ConnectParamsDestroy, VMControl_ConnectParamsNew, VMControlConnectParams};
use super::server::*;
use super::vm::*;
use super::*;

/// What GetLastError says, the text released as C would.
fn error_of(server: *mut VMControlServer) -> (c_int, Option<String>) {
    let mut msg = ptr::dangling_mut::<c_char>();
    // SAFETY: the place is writable, and what is found there is NULL or a string of the C heap.
    unsafe {
        let number = VMControl_ServerGetLastError(server, &raw mut msg);
        if msg.is_null() {
            return (number, None);
        }
        let text = CStr::from_ptr(msg).to_str().unwrap().to_owned();
        libc::free(msg.cast());
        (number, Some(text))
    }
}

#[test]
fn the_layout_of_the_parameters_is_the_known_one() {
    use std::mem::{align_of, offset_of, size_of};
    let pointer = size_of::<usize>();
    assert_eq!(size_of::<VMControlConnectParams>(), 4 * pointer);
    assert_eq!(align_of::<VMControlConnectParams>(), pointer);
    // SAFETY: plain pointers to string literals.
    unsafe {
        let params = VMControl_ConnectParamsNew(c"h".as_ptr(), 902, ptr::null(), c"secret".as_ptr());
        let words = params.cast::<*const c_char>();
        assert_eq!(CStr::from_ptr(words.read()), c"h");
        assert_eq!(params.cast::<c_int>().byte_add(pointer).read(), 902);
        assert!(words.add(2).read().is_null());
        assert_eq!(CStr::from_ptr(words.add(3).read()), c"secret");
        VMControl_ConnectParamsDestroy(params);
        VMControl_ConnectParamsDestroy(ptr::null_mut());
    }
    let _ = offset_of!((u8, u16), 1);
}

#[test]
fn missing_and_broken_arguments_are_invalid() {
    let server = VMControl_ServerNewEx();
    // SAFETY: pointers are NULL, literals, or places on the stack.
    unsafe {
        assert_eq!(VMControl_ServerConnectEx(server, ptr::null_mut()), FALSE);
        assert_eq!(error_of(server), (-3, Some("Invalid argument: params: is NULL".to_owned())));
        let params = VMControl_ConnectParamsNew(c"\xff".as_ptr(), 0, ptr::null(), ptr::null());
        assert_eq!(VMControl_ServerConnectEx(server, params), FALSE);
        assert_eq!(error_of(server), (-3, Some("Invalid argument: hostname: is not UTF-8".to_owned())));
        VMControl_ConnectParamsDestroy(params);
        let params = VMControl_ConnectParamsNew(ptr::null(), 65536, ptr::null(), ptr::null());
        assert_eq!(VMControl_ServerConnectEx(server, params), FALSE);
        assert_eq!(error_of(server).0, -3);
        VMControl_ConnectParamsDestroy(params);
        let mut out: [Bool; 3] = [7, 7, 7];
        assert_eq!(VMControl_ServerIsRegistered(server, ptr::null(), &raw mut out[1]), FALSE);
        assert_eq!(out, [7, 0, 7], "one byte");
        assert_eq!(error_of(server).0, -3);
        assert_eq!(VMControl_ServerIsRegistered(server, c"/a.vmx".as_ptr(), ptr::null_mut()), FALSE);
        assert_eq!(error_of(server).0, -3);
        assert!(VMControl_ServerExec(server, c"<exec/>".as_ptr()).is_null());
        assert_eq!(error_of(server), (-5, Some("Not connected".to_owned())));
        // A call without failure clears it.
        VMControl_ServerDisconnect(server);
        assert_eq!(error_of(server), (0, None));
        VMControl_ServerDestroy(server);
    }
}

#[test]
fn no_object_is_no_crash() {
    let mut msg = ptr::dangling_mut::<c_char>();
    // SAFETY: NULL is allowed everywhere.
    unsafe {
        assert_eq!(VMControl_VMGetLastError(ptr::null_mut(), &raw mut msg), -3);
        assert!(msg.is_null(), "always written");
        assert_eq!(VMControl_VMGetLastError(ptr::null_mut(), ptr::null_mut()), -3);
        assert_eq!(VMControl_VMIsConnected(ptr::null_mut()), FALSE);
        assert!(VMControl_ServerEnumerate(ptr::null_mut()).is_null());
        VMControl_VMDisconnect(ptr::null_mut());
        VMControl_VMDestroy(ptr::null_mut());
        VMControl_ServerDestroy(ptr::null_mut());
        // The four arguments that VMware Server's callers do not pass.
        let rubbish = ptr::without_provenance(0xdead_beef);
        let vm = VMControl_VMNewEx();
        assert_eq!(VMControl_VMCreateSnapshot(vm, rubbish, rubbish, 0x5a, -1), FALSE);
        VMControl_VMDestroy(vm);
    }
}

#[test]
fn a_panic_does_not_cross() {
    let server = VMControl_ServerNewEx();
    // SAFETY: a living object.
    let result = unsafe { act(server, |_| -> Result<(), Error> { panic!("on purpose") }) };
    assert_eq!(result, FALSE);
    assert_eq!(error_of(server).0, -999);
    let out: *mut c_char = fence(|| panic!("on purpose"));
    assert!(out.is_null());
    // SAFETY: a living object, not used after this.
    unsafe { VMControl_ServerDestroy(server) };
}

#[test]
fn texts_for_c_end_where_c_thinks() {
    for (text, seen) in [("", ""), ("ä", "ä"), ("a\0b", "a\u{FFFD}b")] {
        let copy = copy_out(text).unwrap();
        // SAFETY: just made, with its NUL.
        assert_eq!(unsafe { CStr::from_ptr(copy.0) }.to_str().unwrap(), seen);
    }
    let list = OwnedList::copy(&["a".to_owned(), "b".to_owned()]).unwrap().give();
    // SAFETY: two texts and NULL, all of the C heap, released once.
    unsafe {
        assert_eq!(CStr::from_ptr(list.add(1).read()), c"b");
        assert!(list.add(2).read().is_null());
        for index in 0..2 {
            libc::free(list.add(index).read().cast());
        }
        libc::free(list.cast());
    }
}

#[test]
fn destroy_waits_for_the_call_that_is_under_way() {
    use std::sync::mpsc;
    /// A pointer that C programs hand from thread to thread.
    struct Shared(*mut VMControlServer);
    // SAFETY: objects have a lock of their own.
    unsafe impl Send for Shared {}
    impl Shared {
        fn get(&self) -> *mut VMControlServer {
            self.0
        }
    }
    let server = VMControl_ServerNewEx();
    let (entered, wait) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let shared = Shared(server);
    let call = std::thread::spawn(move || {
        let call = |_: &mut crate::server::Server| {
            entered.send(()).unwrap();
            released.recv().unwrap();
            Ok(())
        };
        // SAFETY: the object lives: destroy comes while this call runs.
        unsafe { act(shared.get(), call) }
    });
    wait.recv().unwrap();
    let (done, ended) = mpsc::channel();
    let shared = Shared(server);
    let destroyer = std::thread::spawn(move || {
        // SAFETY: destroyed once.
        unsafe { VMControl_ServerDestroy(shared.get()) };
        done.send(()).unwrap();
    });
    assert!(ended.recv_timeout(std::time::Duration::from_millis(50)).is_err(), "it waits");
    release.send(()).unwrap();
    assert_eq!(call.join().unwrap(), TRUE, "the call is not disturbed");
    destroyer.join().unwrap();
}
