//! `task`: long work on the server. Without a number a list, with one that task until it ends.
//!
//! ```text
//!   terminal   a bar with rate and remaining time, on standard error
//!   pipe       a line at each change of the percentage
//! ```
//!
//! The status is 0 for a task that is done and 1 for one that has failed or was stopped.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};
use vmcontrol_client::{Element, Request};

use crate::failure::Failure;
use crate::grammar::Options;
use crate::output::{Output, say};
use crate::server::Server;
use crate::table::{self, Set};
use crate::text::{field, size, time};

/// Longest wait for news of a task: how far it is, is no event, so it is asked for that often.
const POLL: Duration = Duration::from_millis(200);

/// Lists, follows, stops or forgets. False when the task did not come to a good end.
pub(crate) fn run(options: &Options, words: &[String], output: &mut Output) -> Result<bool, Failure> {
    let id = match words {
        [] => None,
        [id] => Some(id.parse::<u64>().map_err(|_| Failure::usage(format!("task {id}: not a number")))?),
        _ => return Err(Failure::usage("use: task [ID]")),
    };
    let mut server = Server::of(options)?;
    match id {
        None if options.has("stop") || options.has("delete") => {
            Err(Failure::usage("which task? Give its number"))
        }
        None => list(&mut server, options, output).map(|()| true),
        Some(id) if options.has("stop") => {
            server.call(&Request::new("TaskManager_StopTask").text("taskId", &id.to_string()))?;
            if !options.has("delete") {
                return show(&status(&mut server, id)?, output).map(|_| true);
            }
            forget(&mut server, id, output)
        }
        Some(id) if options.has("delete") => forget(&mut server, id, output),
        Some(id) => follow(&mut server, id, options, output),
    }
}

fn forget(server: &mut Server, id: u64, output: &mut Output) -> Result<bool, Failure> {
    server.call(&Request::new("TaskManager_DeleteTask").text("taskId", &id.to_string()))?;
    if output.json {
        output.document(&json!({ "ok": true, "taskId": id }));
    }
    Ok(true)
}

fn list(server: &mut Server, options: &Options, output: &mut Output) -> Result<(), Failure> {
    let out = server.call(&Request::new("TaskManager_ListTasks").flag("all", options.has("all")))?;
    if output.json {
        let tasks: Vec<Value> = out.list("tasks", "task").map(document).collect();
        output.document(&json!({ "ok": true, "tasks": tasks }));
        return Ok(());
    }
    let heading = [
        ("ID", Set::Right),
        ("STATE", Set::Left),
        ("DONE", Set::Right),
        ("OF", Set::Right),
        ("STARTED", Set::Left),
        ("USER", Set::Left),
        ("OPERATION", Set::Left),
    ];
    let row = |task: &Element| {
        let text = |name: &str| field(task, name).to_owned();
        vec![
            text("taskId"),
            text("state"),
            format!("{}%", field(task, "percent")),
            size(field(task, "bytesTotal").parse().unwrap_or(0)),
            time(field(task, "startTime")),
            text("user"),
            match task.text("error") {
                Some(error) => format!("{}: {error}", field(task, "op")),
                None => text("op"),
            },
        ]
    };
    let rows: Vec<Vec<String>> = out.list("tasks", "task").map(row).collect();
    table::lines(&heading, &rows).iter().for_each(|line| output.line(line));
    Ok(())
}

fn status(server: &mut Server, id: u64) -> Result<Element, Failure> {
    let out = server.call(&Request::new("TaskManager_StatusOfTask").text("taskId", &id.to_string()))?;
    Ok(out.child("task").cloned().unwrap_or_default())
}

fn ended(task: &Element) -> bool {
    !matches!(field(task, "state"), "queued" | "running")
}

/// Waits for the end of a task.
fn follow(server: &mut Server, id: u64, options: &Options, output: &mut Output) -> Result<bool, Failure> {
    let mut task = status(server, id)?;
    if options.has("no-wait") {
        return show(&task, output);
    }
    let silent = output.json || options.quiet || options.has("no-progress");
    let bar = bar(silent);
    let mut said = String::new();
    while !ended(&task) {
        let number = |name: &str| field(&task, name).parse::<u64>().unwrap_or(0);
        bar.set_length(number("bytesTotal"));
        bar.set_position(number("bytesDone"));
        bar.set_message(field(&task, "op").to_owned());
        let now = format!("{} {}%", field(&task, "state"), field(&task, "percent"));
        if !silent && bar.is_hidden() && now != said {
            output.line(&now);
            output.flush()?;
            said = now;
        }
        std::thread::sleep(POLL);
        task = status(server, id)?;
    }
    bar.finish_and_clear();
    show(&task, output)
}

fn bar(silent: bool) -> ProgressBar {
    let target = if silent { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = "{msg} [{wide_bar}] {percent}% {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(0), target).with_style(style.progress_chars("=> "))
}

/// How a task is, in a line. False when it has come to a bad end.
fn show(task: &Element, output: &mut Output) -> Result<bool, Failure> {
    let good = !matches!(field(task, "state"), "failed" | "stopped");
    if output.json {
        output.document(&json!({ "ok": good, "task": document(task) }));
        return Ok(good);
    }
    let number = |name: &str| size(field(task, name).parse().unwrap_or(0));
    output.line(&format!(
        "task {} {} {}% {} of {} at {}/s",
        field(task, "taskId"),
        field(task, "state"),
        field(task, "percent"),
        number("bytesDone"),
        number("bytesTotal"),
        number("rate")
    ));
    match task.child("error") {
        Some(error) if !good => {
            let code = error.attribute("code").unwrap_or("-999");
            output.flush()?;
            say(&format!("VMControl error {code}: {}", error.content));
        }
        _ => {}
    }
    Ok(good)
}

/// A task for programs.
fn document(task: &Element) -> Value {
    const TEXTS: &[&str] = &["op", "user", "state"];
    let value = |fact: &Element| {
        if fact.name == "error" {
            let code = fact.attribute("code").and_then(|code| code.parse::<i64>().ok());
            return json!({ "code": code, "text": fact.content });
        }
        match fact.content.parse::<u64>() {
            Ok(number) if !TEXTS.contains(&fact.name.as_str()) => json!(number),
            _ => json!(fact.content),
        }
    };
    Value::Object(task.children.iter().map(|fact| (fact.name.clone(), value(fact))).collect::<Map<_, _>>())
}
