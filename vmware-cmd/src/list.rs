//! `-l`: the registered machines; with `--long` what is known about them, in one round trip.

use serde_json::{Map, Value, json};
use vmcontrol_client::{Element, Request};

use crate::actions::state;
use crate::failure::Failure;
use crate::grammar::Options;
use crate::output::Output;
use crate::server::Server;
use crate::table::{self, Set};
use crate::text::{duration, field};

/// One path per line and nothing else.
pub(crate) fn paths(options: &Options, output: &mut Output) -> Result<(), Failure> {
    let out = Server::of(options)?.call(&Request::new("VM_List").flag("details", false))?;
    let paths = out.list("vms", "vm").map(|machine| field(machine, "config"));
    if output.json {
        output.document(&json!({ "ok": true, "vms": paths.collect::<Vec<_>>() }));
    } else {
        paths.for_each(|path| output.line(path));
    }
    Ok(())
}

/// A table with state, name, uptime and more.
pub(crate) fn long(options: &Options, output: &mut Output) -> Result<(), Failure> {
    let out = Server::of(options)?.call(&Request::new("VM_List"))?;
    let machines: Vec<&Element> = out.list("vms", "vm").collect();
    if output.json {
        let all: Vec<Value> = machines.iter().map(|machine| document(machine)).collect();
        output.document(&json!({ "ok": true, "vms": all }));
    } else {
        table(&machines).iter().for_each(|line| output.line(line));
    }
    Ok(())
}

/// The lines of the table, heading first.
pub(crate) fn table(machines: &[&Element]) -> Vec<String> {
    let heading = [
        ("STATE", Set::Left),
        ("NAME", Set::Left),
        ("UPTIME", Set::Right),
        ("CPU%", Set::Right),
        ("CPUS", Set::Right),
        ("MB", Set::Right),
        ("IP", Set::Left),
        ("CONFIG", Set::Left),
    ];
    let row = |machine: &&Element| {
        let text = |name: &str| match field(machine, name) {
            "" => "-".to_owned(),
            text => text.to_owned(),
        };
        let uptime = field(machine, "uptime").parse().unwrap_or(0);
        let busy = if uptime == 0 { "-".to_owned() } else { text("cpuPercent") };
        let name = match field(machine, "displayName") {
            // A machine without a name is called after its file.
            "" => field(machine, "config").rsplit('/').next().unwrap_or_default().to_owned(),
            name => name.to_owned(),
        };
        vec![
            state(machine),
            name,
            duration(uptime),
            busy,
            text("cpus"),
            text("memoryMb"),
            text("ip"),
            text("config"),
        ]
    };
    let rows: Vec<Vec<String>> = machines.iter().map(row).collect();
    table::lines(&heading, &rows)
}

/// What is known about a machine: numbers as numbers, yes and no as such, the rest as texts.
pub(crate) fn document(machine: &Element) -> Value {
    const NUMBERS: &[&str] = &["id", "pid", "uptime", "heartbeat", "memoryMb", "cpus", "cpuPercent"];
    const FLAGS: &[&str] = &["paused", "hasQuestion"];
    let value = |child: &Element| {
        let (name, text) = (child.name.as_str(), child.content.as_str());
        match text.parse::<i64>() {
            Ok(number) if NUMBERS.contains(&name) => json!(number),
            _ if FLAGS.contains(&name) => json!(text == "1"),
            _ => json!(text),
        }
    };
    Value::Object(
        machine.children.iter().map(|child| (child.name.clone(), value(child))).collect::<Map<_, _>>(),
    )
}
