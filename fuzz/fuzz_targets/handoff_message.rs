//! What the processes of the two daemons say to each other: gateway and core, root half and network half,
//! core and session process. Any datagram is a message or is refused; a message has exactly one form.
#![no_main]

// The session's channel names what handlers know by its crate; the two files are taken here without the
// crates around them, which would bring TLS and all handlers into every build.
extern crate self as handlers;

#[path = "../../serverd/src/channel.rs"]
#[allow(clippy::enum_variant_names, dead_code, reason = "only the messages are used here")]
mod channel;
#[path = "../../authd/src/messages.rs"]
#[allow(dead_code, reason = "only the messages are used here")]
mod messages;
#[path = "../../handlers/src/running.rs"]
#[allow(dead_code, reason = "only the messages are used here")]
pub mod running;

use libfuzzer_sys::fuzz_target;
use link::gateway::{ToAuthd, ToServerd};
use link::wire::{MAX_MESSAGE, Message};

fn only_form<M: Message + PartialEq + std::fmt::Debug>(datagram: &[u8]) {
    let Ok(message) = M::decode(datagram) else {
        return;
    };
    let mut again = Vec::new();
    message.encode(&mut again);
    assert_eq!(again, datagram, "{message:?}");
    assert!(!message.name().is_empty() && message.descriptors().start() <= message.descriptors().end());
    // Cut short or longer it is no message.
    assert!(M::decode(&datagram[..datagram.len() - 1]).is_err());
    again.push(0);
    assert!(M::decode(&again).is_err());
}

fuzz_target!(|input: &[u8]| {
    let Some((&direction, datagram)) = input.split_first() else {
        return;
    };
    let datagram = &datagram[..datagram.len().min(MAX_MESSAGE)];
    match direction % 10 {
        0 => only_form::<ToServerd>(datagram),
        1 => only_form::<ToAuthd>(datagram),
        2 => only_form::<messages::ToMonitor>(datagram),
        3 => only_form::<messages::FromMonitor>(datagram),
        4 => only_form::<messages::ToHelper>(datagram),
        5 => only_form::<messages::FromHelper>(datagram),
        6 => only_form::<channel::ToSession>(datagram),
        7 => only_form::<channel::ToCore>(datagram),
        8 => only_form::<channel::Ask>(datagram),
        _ => only_form::<channel::Answer>(datagram),
    }
});
