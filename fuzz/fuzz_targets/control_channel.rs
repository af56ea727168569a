//! Messages between the server core and the process of a machine, both ways: any datagram is a message or
//! is refused; a message has exactly one form.
#![no_main]

use hypervisor::control::{FromVmx, ToVmx};
use libfuzzer_sys::fuzz_target;
use link::wire::Message;

fn only_form<M: Message + PartialEq + std::fmt::Debug>(datagram: &[u8]) -> Option<M> {
    let message = M::decode(datagram).ok()?;
    let mut again = Vec::new();
    message.encode(&mut again);
    assert_eq!(again, datagram, "{message:?}");
    assert!(!message.name().is_empty() && *message.descriptors().end() <= 4);
    // Cut short or longer it is no message.
    assert!(M::decode(&datagram[..datagram.len() - 1]).is_err());
    again.push(0);
    assert!(M::decode(&again).is_err());
    Some(message)
}

fuzz_target!(|input: &[u8]| {
    let Some((&direction, datagram)) = input.split_first() else {
        return;
    };
    if direction & 1 != 0 {
        only_form::<FromVmx>(datagram);
    } else if let Some(mut message) = only_form::<ToVmx>(datagram) {
        message.set_request(0xfffe_fdfc);
        assert_eq!(message.request(), 0xfffe_fdfc);
        let mut encoded = Vec::new();
        message.encode(&mut encoded);
        assert_eq!(ToVmx::decode(&encoded), Ok(message));
    }
});
