//! `ops`: the operations of the server, as it describes them itself.

use serde_json::{Value, json};
use vmcontrol_client::{Element, Request};

use crate::failure::Failure;
use crate::grammar::Options;
use crate::output::Output;
use crate::server::Server;
use crate::table::{self, Set};
use crate::text::field;

/// Width of running text.
const WIDTH: usize = 78;

/// Without a word a list, with a name all about that operation, with a part of a name a list of those.
pub(crate) fn run(options: &Options, words: &[String], output: &mut Output) -> Result<(), Failure> {
    let wanted = match words {
        [] => None,
        [name] => Some(name.as_str()),
        _ => return Err(Failure::usage("use: ops [NAME]")),
    };
    let request = Request::new("VMServerd_GetOperationTable").flag("details", !options.has("names"));
    let out = Server::of(options)?.call(&request)?;
    let all: Vec<&Element> = out.list("operations", "operation").collect();
    let exact = all.iter().find(|row| Some(field(row, "name")) == wanted);
    let part = wanted.unwrap_or_default().to_ascii_lowercase();
    let found: Vec<&Element> = match exact {
        Some(row) => vec![row],
        None => all
            .iter()
            .copied()
            .filter(|row| field(row, "name").to_ascii_lowercase().contains(&part))
            .collect(),
    };
    if found.is_empty() {
        return Err(Failure::Said(format!("There is no operation {}.", wanted.unwrap_or_default())));
    }
    if output.json {
        let rows: Vec<Value> = found.iter().map(|row| document(row)).collect();
        output.document(&json!({ "ok": true, "operations": rows }));
    } else if options.has("names") {
        found.iter().for_each(|row| output.line(field(row, "name")));
    } else if exact.is_some() {
        found.iter().for_each(|row| page(row, output));
    } else {
        let heading = [("OPERATION", Set::Left), ("ACCESS", Set::Left), ("SUMMARY", Set::Left)];
        let row =
            |row: &&Element| ["name", "access", "summary"].map(|name| field(row, name).to_owned()).to_vec();
        let rows: Vec<Vec<String>> = found.iter().map(row).collect();
        table::lines(&heading, &rows).iter().for_each(|line| output.line(line));
    }
    Ok(())
}

/// All about one operation.
fn page(row: &Element, output: &mut Output) {
    let name = field(row, "name");
    output.line(name);
    wrap(field(row, "summary"), "    ", output);
    if !field(row, "description").is_empty() {
        output.line("");
        wrap(field(row, "description"), "    ", output);
    }
    output.line("");
    let origin = match field(row, "extension") {
        "1" => "an operation of this server",
        _ => "as in VMware Server 1.0.3",
    };
    for (what, text) in [
        ("handler", field(row, "handler")),
        ("access", field(row, "access")),
        ("runs", field(row, "runs")),
        ("origin", origin),
    ] {
        output.line(&format!("    {what:<8} {text}"));
    }
    for (title, list, item) in [("Request", "parameters", "parameter"), ("Reply", "results", "result")] {
        output.line(&format!("\n{title}"));
        let mut none = true;
        for part in row.list(list, item) {
            none = false;
            let mut facts = vec![field(part, "type").to_owned()];
            match (title, field(part, "required"), field(part, "default")) {
                ("Request", "1", _) => facts.push("needed".to_owned()),
                ("Request", _, default) if !default.is_empty() => facts.push(format!("default {default}")),
                ("Reply", "0", _) => facts.push("not always".to_owned()),
                _ => {}
            }
            let aliases: Vec<&str> =
                part.list("aliases", "alias").map(|alias| alias.content.as_str()).collect();
            if !aliases.is_empty() {
                facts.push(format!("also {}", aliases.join(", ")));
            }
            output.line(&format!("    {} ({})", field(part, "name"), facts.join("; ")));
            wrap(field(part, "summary"), "        ", output);
        }
        if none {
            output.line("    nothing");
        }
    }
    let needed = row.list("parameters", "parameter").filter(|part| field(part, "required") == "1");
    let needed: String = needed.map(|part| format!(" {}=...", field(part, "name"))).collect();
    output.line(&format!("\nTry\n    vmware-cmd exec {name}{needed}"));
}

/// Running text, indented, in lines of at most [`WIDTH`] characters where words allow it.
fn wrap(text: &str, indent: &str, output: &mut Output) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent.len() + line.chars().count() + 1 + word.chars().count() > WIDTH {
            output.line(&format!("{indent}{line}"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        output.line(&format!("{indent}{line}"));
    }
}

/// An element for programs: texts, objects for groups, arrays for lists.
fn document(element: &Element) -> Value {
    const LISTS: &[&str] = &["parameters", "results", "aliases"];
    const FLAGS: &[&str] = &["required", "extension", "historical"];
    if LISTS.contains(&element.name.as_str()) {
        return element.children.iter().map(document).collect();
    }
    if FLAGS.contains(&element.name.as_str()) {
        return json!(element.content == "1");
    }
    if element.children.is_empty() {
        return json!(element.content);
    }
    Value::Object(element.children.iter().map(|child| (child.name.clone(), document(child))).collect())
}
