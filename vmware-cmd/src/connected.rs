//! `getconnectedusers`: who is connected to a machine.

use serde_json::json;
use vmcontrol_client::Error;

use crate::actions::Machine;
use crate::text::{field, harmless, time};

/// One line per session: name, time of login, address, kind. The same as a JSON document.
pub(crate) fn users(machine: &mut Machine) -> Result<(Vec<String>, serde_json::Value), Error> {
    let out = machine.call("VM_Who", |request| request)?;
    let line = |user: &vmcontrol_client::Element| {
        let [name, address, kind] = ["name", "address", "type"].map(|name| field(user, name));
        harmless(&format!("{name} {} {address} {kind}", time(field(user, "time"))))
    };
    let lines = out.list("users", "user").map(line).collect();
    let users: Vec<_> = out
        .list("users", "user")
        .map(|user| {
            let [name, time, address, kind] = ["name", "time", "address", "type"].map(|name| field(user, name));
            json!({ "name": name, "time": time.parse::<i64>().unwrap_or(0), "address": address, "type": kind })
        })
        .collect();
    Ok((lines, json!({ "ok": true, "action": "getconnectedusers", "arguments": [], "value": users })))
}
