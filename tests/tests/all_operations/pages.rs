//! What is kept: pages in `docs/operations/` that people read, written when asked to and compared
//! otherwise.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use ops::ErrorCode;

use crate::Answer;
use crate::script::{ALSO, Who};

/// The environment variable that makes the test write the pages.
const BLESS: &str = "VMSERVERD_BLESS";

const MADE: &str =
    "<!-- Made by the test `all_operations` from what the server answered. Do not edit. -->\n\n";

/// Folder of the pages with requests and replies, beside the page of results.
const EXAMPLES: &str = ops::docs::EXAMPLES;

/// The page of results.
const RESULTS: &str = ops::docs::RESULTS;

/// What a caller is called on the pages.
fn caller(who: Who) -> &'static str {
    match who {
        Who::Root => "root",
        Who::Owner => "alice",
        Who::Other => "bob",
    }
}

/// All answers about one operation.
pub struct Operation {
    /// Its name.
    pub op: &'static str,
    /// What root, the owner and the other user were answered.
    pub answers: [Answer; 3],
    /// What the requests of [`ALSO`] were answered, in their order.
    pub also: Vec<Answer>,
}

/// All pages by their paths below `docs/operations`.
pub fn render(operations: &[Operation]) -> BTreeMap<String, String> {
    let mut pages = BTreeMap::from([(RESULTS.to_owned(), results(operations))]);
    for operation in operations {
        pages.insert(format!("{EXAMPLES}/{}.md", operation.op), example(operation));
    }
    pages
}

fn results(operations: &[Operation]) -> String {
    let mut page = format!(
        "{MADE}# Who is answered what\n\n\
         Each operation, asked of a running server by three callers: **root**; **alice**, an ordinary user \
         whose files and whose machine the request is about; and **bob**, an ordinary user with no right on \
         them. Each asks over every way in (unix socket, plain TCP, TLS; with a password, and as local \
         caller), and gets the same answer on each. The test `tests/tests/all_operations` makes this page \
         and the [examples](examples/) from the answers, and fails when they change; the codes are those of \
         [the reference](README.md#errors).\n\n\
         | operation | root | alice | bob |\n| --- | --- | --- | --- |\n"
    );
    for Operation { op, answers, .. } in operations {
        let [root, owner, other] = answers.each_ref().map(|answer| short(answer, &answers[1]));
        let _ = writeln!(page, "| [{op}]({EXAMPLES}/{op}.md) | {root} | {owner} | {other} |");
    }
    page.push_str(
        "\n\\* The answer is not the one that alice gets: each caller is told what he may see.\n\n\
         ## How to read the examples\n\n\
         Requests and replies are those of the wire, except for this: line breaks and indentation between \
         elements are added. Accounts, home directories and the directory of the server under test have the \
         names they would have elsewhere. What differs from host to host or from time to time stands in \
         braces, such as `{time}` (Unix seconds), `{task}`, `{fingerprint}`, `{bytes}`; the test has checked \
         that it has its form.\n",
    );
    page
}

/// A cell of the table: success, or the code and the text that goes with it.
fn short(answer: &Answer, owners: &Answer) -> String {
    let Some((code, text)) = &answer.error else {
        let same = answer.reply == owners.reply || owners.error.is_some();
        return if same { "ok" } else { "ok \\*" }.to_owned();
    };
    let base = ErrorCode::from_number(*code).filter(|code| *code != ErrorCode::Unspecified);
    let text = base.map_or(text.as_str(), |code| code.base_text());
    format!("{code} {}", text.lines().next().unwrap_or_default().replace('|', "\\|"))
}

fn example(operation: &Operation) -> String {
    let op = operation.op;
    let mut page = format!(
        "{MADE}# {op}: examples\n\n\
         [What it does](../{op}.md), [who is answered what](../{RESULTS}), \
         [how to read this](../{RESULTS}#how-to-read-the-examples). \
         Files and machine are alice's; bob has no right on them.\n\n"
    );
    let [root, owner, other] = &operation.answers;
    let first = if owner.error.is_none() || root.error.is_some() { Who::Owner } else { Who::Root };
    let shown = if first == Who::Owner { owner } else { root };
    let _ = write!(page, "## Asked by {}\n\n", caller(first));
    exchange(&mut page, shown);
    // Somebody who is refused, else somebody who is shown something else.
    let others = [(Who::Owner, owner), (Who::Other, other), (Who::Root, root)];
    let others = others.iter().filter(|(_, answer)| answer.reply != shown.reply);
    let refused = others.clone().find(|(_, answer)| answer.error.is_some());
    if let Some((who, answer)) = refused.or_else(|| others.clone().next()) {
        let _ = write!(page, "## The same, asked by {}\n\n", caller(*who));
        block(&mut page, &answer.reply);
    }
    for (also, answer) in ALSO.iter().filter(|also| also.op == op).zip(&operation.also) {
        let _ = write!(page, "## {}\n\n", also.title);
        if also.who != first {
            let _ = write!(page, "Asked by {}.\n\n", caller(also.who));
        }
        exchange(&mut page, answer);
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn exchange(page: &mut String, answer: &Answer) {
    block(page, &answer.request);
    block(page, &answer.reply);
}

fn block(page: &mut String, document: &str) {
    let _ = write!(page, "```xml\n{document}```\n\n");
}

/// Whether the pages are to be written.
fn bless() -> bool {
    std::env::var_os(BLESS).is_some_and(|value| value == "1")
}

/// Operations without a page of examples, which the reference links to.
pub fn missing(directory: &Path) -> Vec<&'static str> {
    let names = ops::TABLE.iter().map(|row| row.name);
    let examples = directory.join(EXAMPLES);
    names.filter(|name| !bless() && !examples.join(format!("{name}.md")).exists()).collect()
}

/// Writes the pages if that is asked for; otherwise every one must be as it is checked in.
pub fn keep(directory: &Path, pages: &BTreeMap<String, String>) {
    if bless() {
        let examples = directory.join(EXAMPLES);
        let _ = fs::remove_dir_all(&examples);
        fs::create_dir_all(&examples).expect("our repository");
        for (name, text) in pages {
            fs::write(directory.join(name), text).expect("our repository");
        }
        return;
    }
    let mut changed = String::new();
    for (name, text) in pages {
        let kept = fs::read_to_string(directory.join(name)).unwrap_or_default();
        if kept != *text {
            let _ = write!(changed, "\n--- docs/operations/{name}: as it was, and as it is\n");
            changed.push_str(&difference(&kept, text));
        }
    }
    for name in left_over(directory, pages) {
        let _ = write!(changed, "\n--- docs/operations/{name}: nothing makes it any more\n");
    }
    assert!(
        changed.is_empty(),
        "the server answers otherwise than the pages say. If that is meant, write them anew with\n\n    \
         {BLESS}=1 cargo test -p tests --test all_operations\n{changed}"
    );
}

/// Pages of examples that belong to no operation.
fn left_over(directory: &Path, pages: &BTreeMap<String, String>) -> Vec<String> {
    let entries = fs::read_dir(directory.join(EXAMPLES)).into_iter().flatten().flatten();
    let names = entries.map(|entry| format!("{EXAMPLES}/{}", entry.file_name().display()));
    names.filter(|name| !pages.contains_key(name)).collect()
}

/// The lines that differ, between the first and the last of them, with two lines around.
fn difference(old: &str, new: &str) -> String {
    const AROUND: usize = 2;
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let most = old.len().min(new.len()) - head;
    let tail = old.iter().rev().zip(new.iter().rev()).take(most).take_while(|(a, b)| a == b).count();
    let mut text = String::new();
    let mut put = |mark: &str, lines: &[&str]| {
        for line in lines {
            let _ = writeln!(text, "{mark} {line}");
        }
    };
    put(" ", &new[head.saturating_sub(AROUND)..head]);
    put("-", &old[head..old.len() - tail]);
    put("+", &new[head..new.len() - tail]);
    put(" ", &new[new.len() - tail..(new.len() - tail + AROUND).min(new.len())]);
    text
}

#[test]
fn a_difference_shows_the_lines_that_differ() {
    let old = "a\nb\nc\nd\ne\nf\ng\n";
    assert_eq!(difference(old, "a\nb\nc\nD\ne\nf\ng\n"), "  b\n  c\n- d\n+ D\n  e\n  f\n");
    assert_eq!(difference("", "x\n"), "+ x\n");
    assert_eq!(difference("x\nx\n", "x\n"), "  x\n- x\n");
}
