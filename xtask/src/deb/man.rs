//! Man pages: those of `packaging/man/` as they are, and one for each operation, from the table.

use std::collections::BTreeMap;

use ops::table::{Field, Row, Runs, visit};
use roff::{Roff, bold, italic, roman};

use crate::Result;
use crate::workspace::root;

/// Section of the operations' pages.
const SECTION: &str = "7";

/// Every page: `NAME.SECTION` and its text.
///
/// # Errors
/// When `packaging/man` cannot be read.
pub fn pages() -> Result<BTreeMap<String, String>> {
    let directory = root().join("packaging/man");
    let describe = |error: std::io::Error| format!("cannot read {}: {error}", directory.display());
    let mut pages = BTreeMap::new();
    for entry in std::fs::read_dir(&directory).map_err(describe)? {
        let entry = entry.map_err(describe)?;
        let text = std::fs::read_to_string(entry.path()).map_err(describe)?;
        pages.insert(entry.file_name().to_string_lossy().into_owned(), text);
    }
    for row in ops::TABLE {
        pages.insert(format!("{}.{SECTION}", row.name), page(row));
    }
    Ok(pages)
}

/// The page of an operation.
fn page(row: &'static Row) -> String {
    let mut page = Roff::new();
    page.control("TH", [row.name, SECTION, "", "vmserverd", "Operations of vmserverd"]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{} - {}", row.name, plain(row.summary)))]);
    page.control("SH", ["SYNOPSIS"]);
    page.control("nf", []);
    page.text([roman(ops::docs::sample(row))]);
    page.control("fi", []);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(plain(row.summary))]);
    for paragraph in row.description.split("\n\n").filter(|text| !text.is_empty()) {
        page.control("PP", []);
        page.text([roman(plain(paragraph))]);
    }
    page.control("PP", []);
    let access = match row.access {
        ops::Access::AuthUser => "any logged-in user",
        ops::Access::RootOnly => "administrators only",
    };
    let runs = match row.runs {
        Runs::Session => "in a process of the caller",
        Runs::Core => "in the server's core",
        Runs::Task => "in the background, in a process of the caller",
    };
    let origin = if row.extension {
        "An operation of this project"
    } else {
        "Name, handler and access as in VMware Server 1.0.3"
    };
    page.text([roman(format!("Open to {access}; runs {runs}. {origin}."))]);
    fields(&mut page, "REQUEST", row.request, true);
    fields(&mut page, "REPLY", row.reply, false);
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("vmserverd"), roman("(8), "), bold("vmware-cmd"), roman("(1)")]);
    page.render()
}

fn fields(page: &mut Roff, title: &str, list: &'static [Field], request: bool) {
    page.control("SH", [title]);
    if list.is_empty() {
        page.text([roman(if request { "No parameters." } else { "Nothing but success or errors." })]);
        return;
    }
    entries(page, "", list, request);
}

fn entries(page: &mut Roff, prefix: &str, list: &'static [Field], request: bool) {
    visit(list, &mut |field| {
        let name = field.path(prefix);
        page.control("TP", []);
        let mut head = vec![bold(name.clone()), roman(" "), italic(field.type_name())];
        match (field.required, field.default) {
            (true, _) if request => head.push(roman(", needed")),
            (_, Some(default)) if request => head.push(roman(format!(", default {default}"))),
            _ => {}
        }
        page.text(head);
        page.text([roman(plain(field.doc))]);
        entries(page, &format!("{name}/"), field.nested, request);
    });
}

/// Markdown of doc comments as running text.
fn plain(text: &str) -> String {
    text.replace('`', "").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_page_that_names_its_fields() {
        for row in ops::TABLE {
            let page = page(row);
            assert!(page.contains(".SH NAME") && page.contains(".SH REPLY"), "{page}");
            visit(row.request, &mut |field| {
                let name = field.path("").replace('-', "\\-");
                assert!(page.contains(&name), "{}: {name} is not in {page}", row.name);
            });
        }
    }
}
