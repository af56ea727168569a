//! `watch`: what happens on the server, as it happens.
//!
//! ```text
//!   terminal   the table of -l --long, drawn again at each event, and the last events below it
//!   pipe       one line per event: time, type, facts
//!   --json     one document per event
//! ```
//!
//! It goes on until it is ended from outside (Ctrl-C). A server that is started again is waited for.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use vmcontrol_client::{Element, Error, ErrorCode, Params, Request};

use crate::failure::Failure;
use crate::grammar::Options;
use crate::list;
use crate::output::{Output, say};
use crate::server::{self, Server};
use crate::text::{field, harmless, time};

/// Longest wait for an event, in seconds.
const PATIENCE: i64 = 25;

/// The same on a terminal, where uptimes are to go on.
const REDRAW: i64 = 2;

/// How long a server that went away is waited for.
const RETURN: Duration = Duration::from_secs(60);

/// Pause between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(500);

/// How many events a terminal shows.
const SHOWN: usize = 5;

/// Runs until somebody ends it.
pub(crate) fn run(options: &Options, configs: &[String], output: &mut Output) -> Result<(), Failure> {
    let params = server::params(options)?;
    let server = Server::open(&params, options.verbose).map_err(Failure::Server)?;
    let live = output.is_terminal() && !output.json;
    let mut watch = Watch { params, options, configs, server, place: None, last: Vec::new(), live };
    watch.forever(output)
}

struct Watch<'a> {
    params: Params,
    options: &'a Options,
    configs: &'a [String],
    server: Server,
    /// `epoch` and `next` of the last answer.
    place: Option<(String, String)>,
    /// The last events as lines.
    last: Vec<String>,
    live: bool,
}

impl Watch<'_> {
    fn forever(&mut self, output: &mut Output) -> Result<(), Failure> {
        loop {
            match self.turn(output) {
                Ok(()) => {}
                Err(Failure::Operation(error)) if lost(&error) => self.reach(error)?,
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Waits for events once and shows what there is.
    fn turn(&mut self, output: &mut Output) -> Result<(), Failure> {
        let patience = if self.live { REDRAW } else { PATIENCE };
        let mut request = Request::new("VMServerd_WaitForEvents");
        if let Some((epoch, next)) = &self.place {
            request = request.text("epoch", epoch).text("since", next).number("timeout", patience);
        }
        let out = self.server.call(&self.about(request))?;
        let first = self.place.is_none();
        self.place = Some((out.need("epoch")?.to_owned(), out.need("next")?.to_owned()));
        if field(&out, "lost") == "1" {
            self.show("events were missed", &json!({ "type": "lost" }), output);
        }
        // The first answer says where we are; what it may hold happened before.
        for event in out.list("events", "event").filter(|_| !first) {
            self.show(&line(event), &document(event), output);
        }
        if self.live {
            let out = self.server.call(&self.about(Request::new("VM_List")))?;
            let machines: Vec<&Element> = out.list("vms", "vm").collect();
            output.text(&frame(list::table(&machines), &self.last, size()));
        }
        output.flush()
    }

    fn about(&self, request: Request) -> Request {
        match self.configs {
            [] => request,
            configs => request.list("configs", "config", configs.iter().map(String::as_str)),
        }
    }

    fn show(&mut self, line: &str, document: &Value, output: &mut Output) {
        if output.json {
            output.document(document);
        } else if self.live {
            self.last.push(line.to_owned());
            let old = self.last.len().saturating_sub(SHOWN);
            self.last.drain(..old);
        } else {
            output.line(line);
        }
    }

    /// Connects again; gives up after a while, with what was wrong first.
    fn reach(&mut self, cause: Error) -> Result<(), Failure> {
        let end = Instant::now() + RETURN;
        say(&format!("vmware-cmd: {cause}; trying again"));
        while Instant::now() < end {
            match Server::open(&self.params, self.options.verbose) {
                Ok(server) => {
                    self.server = server;
                    return Ok(());
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
        Err(Failure::Operation(cause))
    }
}

/// Whether an error means that the connection is gone.
fn lost(error: &Error) -> bool {
    matches!(
        error.code,
        ErrorCode::Disconnect
            | ErrorCode::NetFail
            | ErrorCode::NotConnected
            | ErrorCode::BadResponse
            | ErrorCode::Timeout
    )
}

/// An event as a line: time, type, then its facts.
fn line(event: &Element) -> String {
    let kind = event.attribute("type").unwrap_or("event");
    let mut text = format!("{} {kind}", time(field(event, "time")));
    for fact in event.children.iter().filter(|fact| !["sequence", "time"].contains(&fact.name.as_str())) {
        match fact.name.as_str() {
            "config" => text.push_str(&format!(" {}", fact.content)),
            name => text.push_str(&format!(" {name}={}", fact.content)),
        }
    }
    harmless(&text)
}

/// An event for programs.
fn document(event: &Element) -> Value {
    const NUMBERS: &[&str] = &["sequence", "time", "id", "taskId", "percent"];
    const FLAGS: &[&str] = &["paused", "connected"];
    let value = |fact: &Element| match fact.content.parse::<i64>() {
        Ok(number) if NUMBERS.contains(&fact.name.as_str()) => json!(number),
        _ if FLAGS.contains(&fact.name.as_str()) => json!(fact.content == "1"),
        _ => json!(fact.content),
    };
    let mut all = Map::new();
    all.insert("type".to_owned(), json!(event.attribute("type").unwrap_or_default()));
    all.extend(event.children.iter().map(|fact| (fact.name.clone(), value(fact))));
    Value::Object(all)
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or((80, 24), |size| (usize::from(size.ws_col), usize::from(size.ws_row)))
}

/// What is drawn: from the upper left corner, each line to its end, then nothing more. The screen is
/// not cleared first, which would flicker.
fn frame(mut table: Vec<String>, events: &[String], (columns, rows): (usize, usize)) -> String {
    // The last line of a terminal is left alone: writing to its end scrolls.
    let room = rows.saturating_sub(events.len() + 2).max(2);
    let machines = table.len().saturating_sub(1);
    if table.len() > room {
        table.truncate(room.saturating_sub(1));
        table.push(format!("... {} more", machines.saturating_sub(table.len().saturating_sub(1))));
    }
    let mut text = String::from("\x1b[H");
    for line in table.iter().map(String::as_str).chain([""]).chain(events.iter().map(String::as_str)) {
        text.extend(line.chars().take(columns));
        text.push_str("\x1b[K\r\n");
    }
    text.push_str("\x1b[J");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines_and_documents() {
        let reply = "<exec><returncode>1</returncode><out><events><event type=\"vm.state\"><sequence>7</sequence>\
            <time>0</time><config>/a.vmx</config><from>off</from><to>on</to></event></events></out></exec>";
        let out = vmcontrol_client::Reply::parse(reply).unwrap().out;
        let event = out.list("events", "event").next().unwrap();
        assert_eq!(line(event), "1970-01-01T00:00:00Z vm.state /a.vmx from=off to=on");
        let expected = json!({
            "type": "vm.state", "sequence": 7, "time": 0, "config": "/a.vmx", "from": "off", "to": "on",
        });
        assert_eq!(document(event), expected);
    }

    #[test]
    fn a_frame_fits_the_terminal() {
        let table: Vec<String> = (0..100).map(|number| format!("{number} {}", "x".repeat(200))).collect();
        let events = ["one".to_owned(), "two".to_owned()];
        let drawn = frame(table, &events, (80, 24));
        let lines: Vec<&str> = drawn.split("\r\n").collect();
        assert!(lines.len() <= 24, "{}", lines.len());
        assert!(lines.iter().all(|line| line.len() <= 80 + "\x1b[H\x1b[K\x1b[J".len()));
        assert!(drawn.contains("... 81 more"), "{drawn}");
        assert!(drawn.starts_with("\x1b[H0 x") && drawn.ends_with("two\x1b[K\r\n\x1b[J"), "{drawn:?}");
    }
}
