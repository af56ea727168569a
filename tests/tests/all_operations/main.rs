//! Every operation of the table, over the wire, by three users, on every way in.
//!
//! ```text
//!   script: one request per row ─▶ stage: a new scene, then asked by root, owner, other on each way
//!                                     │
//!   docs/operations/results.md, ◀─ pages ◀─ shown: stable names for paths, times, numbers
//!   docs/operations/examples/*.md      compared, or written with VMSERVERD_BLESS=1
//! ```
//!
//! So the examples in the reference are what the server says, and a change of any answer is seen.

mod pages;
mod script;
mod shown;
mod stage;

use std::path::PathBuf;

use pages::Operation;
use script::{ALSO, Prop, SCRIPT, Who};
use shown::Names;
use stage::Stage;

/// A request and its reply, as they are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    request: String,
    reply: String,
    /// Code and text, with stable names.
    error: Option<(i32, String)>,
}

/// What a caller is answered, on one way in. The first value is the name of the way.
fn answer(
    stage: &mut Stage,
    who: Who,
    way: usize,
    op: &str,
    props: &[Prop],
    arguments: &str,
) -> (&'static str, Answer) {
    let (name, request, reply, scene) = stage.ask(who, way, op, props, arguments);
    let names = Names::new(stage, &scene);
    let answer = Answer {
        request: names.document(op, &request),
        reply: names.document(op, &reply.text),
        error: reply.error().map(|(code, text)| (code, names.replace(&text))),
    };
    (name, answer)
}

/// What a caller is answered on every way in: always the same.
fn answers(stage: &mut Stage, who: Who, op: &str, props: &[Prop], arguments: &str) -> Answer {
    let (first, expected) = answer(stage, who, 0, op, props, arguments);
    for way in 1..stage.ways(who) {
        let (name, found) = answer(stage, who, way, op, props, arguments);
        assert_eq!(found, expected, "{op} as {who:?}: {name} on the left, {first} on the right");
    }
    expected
}

/// Where the pages are.
fn directory() -> PathBuf {
    tests::programs::repository().join("docs/operations")
}

#[test]
fn every_row_of_the_table_is_in_the_script() {
    let scripted: Vec<_> = SCRIPT.iter().map(|entry| entry.op).collect();
    let rows: Vec<_> = ops::TABLE.iter().map(|row| row.name).collect();
    let missing: Vec<_> = rows.iter().filter(|row| !scripted.contains(row)).collect();
    assert!(missing.is_empty(), "add a request to tests/tests/all_operations/script.rs for {missing:?}");
    assert_eq!(scripted, rows, "the script has the order of the table");
    assert!(ALSO.iter().all(|also| rows.contains(&also.op)));
    assert_eq!(pages::missing(&directory()), [""; 0], "operations without a page of examples");
}

#[test]
fn every_operation_answers_as_the_pages_say() {
    if !tests::need_root("every operation by three users, and the examples of the reference") {
        return;
    }
    let mut stage = Stage::new();
    let mut operations = Vec::new();
    for entry in SCRIPT {
        let mut ask = |who| answers(&mut stage, who, entry.op, entry.props, entry.arguments);
        let answers = [Who::Root, Who::Owner, Who::Other].map(&mut ask);
        let also = ALSO.iter().filter(|also| also.op == entry.op);
        let also = also.map(|also| answer(&mut stage, also.who, 0, also.op, also.props, also.arguments).1);
        operations.push(Operation { op: entry.op, answers, also: also.collect() });
    }
    pages::keep(&directory(), &pages::render(&operations));
}
