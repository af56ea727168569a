//! Reference pages, sample requests and the fuzz dictionary, rendered from the table.
//!
//! Pure functions: `cargo xtask` writes what they return to `docs/operations/` and `fuzz/`, and a
//! check in CI compares the files with it. Nothing in those folders is edited by hand.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::error::ErrorCode;
use crate::guard::{EXEC, MAX_ITEMS, Reason};
use crate::table::{Field, Row, Runs, Shape, TABLE, visit};
use crate::value::MAX_PATH;
use crate::writer::Out;

const GENERATED: &str = "<!-- Generated from ops::TABLE by `cargo xtask gen`. Do not edit. -->\n\n";

/// The page that tells who is answered what, beside the pages made here. A test makes it, and the
/// folder of examples, from the answers of a server.
pub const RESULTS: &str = "results.md";

/// The folder with a page of requests and real replies for each operation.
pub const EXAMPLES: &str = "examples";

/// File name of an operation's page.
#[must_use]
pub fn file_name(row: &Row) -> String {
    format!("{}.md", row.name)
}

/// The reference page of one operation, in Markdown.
#[must_use]
pub fn page(row: &'static Row) -> String {
    let mut page = format!("{GENERATED}# {}\n\n{}\n\n", row.name, row.summary);
    if !row.description.is_empty() {
        let _ = write!(page, "{}\n\n", row.description);
    }
    let _ = write!(
        page,
        "| | |\n| --- | --- |\n| handler | `{}` |\n| access | {} |\n| runs | {} |\n| origin | {} |\n\n",
        row.handler,
        match row.access {
            crate::Access::AuthUser => "`authuser`: any logged-in user",
            crate::Access::RootOnly => "`rootonly`: administrators",
        },
        match row.runs {
            Runs::Session => "session: in a process of the caller, with the caller's rights",
            Runs::Core => "core: in the server, on what all users share",
            Runs::Task => "task: in the background, in a process of the caller",
        },
        if row.extension {
            "an operation of this project"
        } else {
            "name, handler and access as in VMware Server 1.0.3"
        },
    );
    page.push_str("## Request\n\n");
    if row.request.is_empty() {
        page.push_str("No parameters; `in` may be left out.\n\n");
    } else {
        page.push_str(&fields_table(row.request, Column::Request));
    }
    let _ = write!(page, "```xml\n{}\n```\n\n", sample(row));
    if let Some(large) = &row.large {
        let _ = write!(
            page,
            "The text of `{}` may have up to {} bytes beyond the limit of a request; `op` must come before \
             `in` then.\n\n",
            large.field, large.max
        );
    }
    page.push_str("## Reply\n\n");
    if row.reply.is_empty() {
        page.push_str("`out` is empty.\n");
    } else {
        page.push_str(&fields_table(row.reply, Column::Reply));
        page.truncate(page.trim_end().len());
        page.push('\n');
    }
    let _ = write!(
        page,
        "\n## Examples\n\n[Requests and the replies of a server]({EXAMPLES}/{}), \
         [who is answered what]({RESULTS}).\n",
        file_name(row)
    );
    page
}

/// Which table of fields is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Request,
    Reply,
}

fn fields_table(fields: &'static [Field], column: Column) -> String {
    let mut table = String::from(match column {
        Column::Request => {
            "| parameter | type | needed | default | meaning |\n| --- | --- | --- | --- | --- |\n"
        }
        Column::Reply => "| element | type | always | meaning |\n| --- | --- | --- | --- |\n",
    });
    rows(&mut table, "", fields, column);
    table.push_str(if any_historical(fields) {
        "\nWhere an element is not marked as known from VMware Server 1.0.3, it is this project's choice; so \
         are all defaults, limits and effects.\n\n"
    } else {
        "\nThe elements are this project's choice.\n\n"
    });
    table
}

/// Whether an element is known from the original.
fn any_historical(fields: &'static [Field]) -> bool {
    let mut any = false;
    visit(fields, &mut |field| any |= field.historical || any_historical(field.nested));
    any
}

fn rows(table: &mut String, prefix: &str, fields: &'static [Field], column: Column) {
    visit(fields, &mut |field| {
        let name = field.path(prefix);
        let needed = if field.required { "yes" } else { "no" };
        let _ = write!(table, "| `{name}` | {} | {needed} |", field.type_name());
        if column == Column::Request {
            let default = field.default.map(|text| format!("`{text}`")).unwrap_or_default();
            let _ = write!(table, " {default} |");
        }
        let _ = writeln!(table, " {} |", meaning(field));
        rows(table, &format!("{name}/"), field.nested, column);
    });
}

/// The last column: what the field means, and what else there is to know.
fn meaning(field: &Field) -> String {
    let mut text = field.doc.replace("\n\n", " ").replace('|', "\\|");
    if let Some((min, max)) = field.range {
        let _ = write!(text, " From {min} to {max}.");
    }
    if let Shape::List { item, max } = field.shape
        && max < MAX_ITEMS
    {
        let _ = write!(text, " At most {max} `{item}`.");
    }
    if !field.aliases.is_empty() {
        let aliases: Vec<_> = field.aliases.iter().map(|alias| format!("`{alias}`")).collect();
        let _ = write!(text, " Also accepted as {}.", aliases.join(", "));
    }
    if field.historical {
        text.push_str(" *Element known from VMware Server 1.0.3.*");
    }
    text
}

/// A request that the operation accepts, with every parameter present.
#[must_use]
pub fn sample(row: &'static Row) -> String {
    let mut bytes = Vec::new();
    let mut out = Out::new(&mut bytes);
    let exec = out.open("exec");
    let op = out.open("op");
    out.text(row.name);
    out.close("op", op);
    let input = out.open("in");
    sample_fields(row.request, &mut out);
    out.close("in", input);
    out.close("exec", exec);
    String::from_utf8(bytes).unwrap_or_default()
}

/// Every field once, and one item in every list.
fn sample_fields(fields: &'static [Field], out: &mut Out<'_>) {
    visit(fields, &mut |field| {
        let mark = out.open(field.name);
        let item = match field.shape {
            Shape::List { item, .. } => Some((item, out.open(item))),
            _ => None,
        };
        if field.nested.is_empty() {
            out.text(sample_value(field));
        } else {
            sample_fields(field.nested, out);
        }
        if let Some((name, mark)) = item {
            out.close(name, mark);
        }
        out.close(field.name, mark);
    });
}

/// A text that the field's type accepts: the default, or something of its kind.
fn sample_value(field: &Field) -> &'static str {
    if let Some(default) = field.default {
        return default;
    }
    let candidates = ["/srv/example", "42", "1", "rwx", "ide", "example"];
    let by_kind = match field.kind {
        "path" => "/srv/example",
        "integer" | "number" | "size" | "time" => "42",
        "boolean" => "1",
        "rights" => "rwx",
        _ => "example",
    };
    if (field.accepts)(by_kind) {
        return by_kind;
    }
    // Words of a fixed set and narrow ranges: whatever fits.
    candidates.into_iter().find(|text| (field.accepts)(text)).unwrap_or(by_kind)
}

/// The index of the reference: all operations, the rules they share, errors and limits.
#[must_use]
pub fn index() -> String {
    let mut index = format!(
        "{GENERATED}# Operations\n\n\
         What can be asked of the server, one page each. The names, handlers and access classes of the \
         first list are those of VMware Server 1.0.3; their parameters and replies are this project's \
         choice wherever a page does not say otherwise. Each page links to requests and replies taken from \
         a running server; [who is answered what]({RESULTS}) shows all of them for three callers.\n\n\
         | operation | what it does | access | runs |\n| --- | --- | --- | --- |\n"
    );
    index_rows(&mut index, false);
    if TABLE.iter().any(|row| row.extension) {
        index.push_str(
            "\n## Extensions\n\nOperations that this project added.\n\n\
             | operation | what it does | access | runs |\n| --- | --- | --- | --- |\n",
        );
        index_rows(&mut index, true);
    }
    index.push_str(
        "\n## Errors\n\n\
         A reply with `returncode` 0 carries one of these numbers. The text is the one below, or that \
         text, a colon and a detail. Numbers and names are those of the VMControl library; of the texts, \
         those of -8, -11, -14 and -20 are historical, the others are this project's choice.\n\n\
         | code | name | text |\n| --- | --- | --- |\n",
    );
    for code in ErrorCode::ALL {
        let _ = writeln!(index, "| {} | {} | {} |", code.number(), code.name(), code.base_text());
    }
    let _ = write!(
        index,
        "\n## Limits\n\n\
         A request over a limit is answered with -3 `Invalid argument: malformed request: <reason>`, and \
         the connection is closed.\n\n\
         | limit | value | reason |\n| --- | --- | --- |\n"
    );
    for (what, value, reason) in [
        ("bytes of a request, `<` to `>`", EXEC.bytes, Reason::TooLarge(EXEC.bytes)),
        ("depth of elements, the root counting 1", EXEC.depth, Reason::TooDeep(EXEC.depth)),
        (
            "attributes of one element",
            usize::from(EXEC.attributes),
            Reason::TooManyAttributes(EXEC.attributes),
        ),
        ("bytes of a name", usize::from(EXEC.name), Reason::NameTooLong),
        ("items of a list", MAX_ITEMS, Reason::TooManyItems(MAX_ITEMS)),
        ("bytes of a path", MAX_PATH, Reason::PathTooLong),
    ] {
        let _ = writeln!(index, "| {what} | {value} | `{reason}` |");
    }
    index
}

fn index_rows(index: &mut String, extension: bool) {
    for row in TABLE.iter().filter(|row| row.extension == extension) {
        let _ = writeln!(
            index,
            "| [{}]({}) | {} | {} | {} |",
            row.name,
            file_name(row),
            row.summary.replace('|', "\\|"),
            row.access.word(),
            row.runs.word()
        );
    }
}

/// A dictionary for libFuzzer: names of operations and elements, pieces of the envelope, values at
/// the edges, and what the guard refuses.
#[must_use]
pub fn dictionary() -> String {
    let mut words: BTreeSet<String> = [
        "<exec><op>",
        "</op><in>",
        "</in></exec>",
        "<in/>",
        "<op>",
        "</op>",
        "<in>",
        "</in>",
        "<exec>",
        "</exec>",
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
        "<!DOCTYPE exec>",
        "<!ENTITY a \"b\">",
        "<!--",
        "-->",
        "<![CDATA[",
        "]]>",
        "&amp;",
        "&lt;",
        "&gt;",
        "&apos;",
        "&quot;",
        "&#13;",
        "&#x0;",
        "&#xFFFE;",
        "&#x10FFFF;",
        "&a;",
        "xmlns=\"u\"",
        "xmlns:a=\"u\"",
        " a=\"\"",
        " b='>'",
        "a:b",
        "/>",
        "\0",
        "\u{FEFF}",
        "\u{FFFE}",
        "\u{10FFFF}",
        "\r\n",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551616",
        "1e9",
        "0x10",
        "1.5",
        ".5",
        "0",
        "true",
        "YES",
        "rwx",
        "r-x---",
        "/",
        "/..",
        "//a/",
        "/a/../b",
    ]
    .map(str::to_owned)
    .into();
    for row in TABLE {
        words.insert(row.name.to_owned());
        let mut fields: Vec<&'static [Field]> = vec![row.request];
        while let Some(some) = fields.pop() {
            visit(some, &mut |field| {
                let item = match field.shape {
                    Shape::List { item, .. } => Some(item),
                    _ => None,
                };
                for name in std::iter::once(field.name).chain(item).chain(field.aliases.iter().copied()) {
                    words.insert(format!("<{name}>"));
                    words.insert(format!("</{name}>"));
                }
                fields.push(field.nested);
            });
        }
    }
    let mut dictionary = String::from("# Generated from ops::TABLE by `cargo xtask gen`. Do not edit.\n");
    for word in words {
        dictionary.push('"');
        for byte in word.bytes() {
            match byte {
                b'"' | b'\\' => {
                    dictionary.push('\\');
                    dictionary.push(char::from(byte));
                }
                b' '..=b'~' => dictionary.push(char::from(byte)),
                _ => {
                    let _ = write!(dictionary, "\\x{byte:02X}");
                }
            }
        }
        dictionary.push_str("\"\n");
    }
    dictionary
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;
    use crate::envelope;

    #[test]
    fn every_sample_is_accepted_by_its_operation() {
        for row in TABLE {
            let sample = sample(row);
            let request = envelope::parse(Document::check(&sample).unwrap()).unwrap();
            assert_eq!(request.row().name, row.name);
            (row.check)(request.into_input()).unwrap_or_else(|fault| panic!("{sample}: {fault}"));
        }
    }

    #[test]
    fn a_page_tells_parameters_reply_and_origin() {
        let page = page(crate::lookup("FileManager_MakeDir").unwrap().row());
        for part in [
            "# FileManager_MakeDir\n",
            "| handler | `VMware::VMServerd::FileManager::MakeDir_Handler` |",
            "| `directories/directory` | list of path | yes |  |",
            "| `makeParents` | boolean | no | `0` |",
            "| `owner_mode` | rights | no |  |",
            "*Element known from VMware Server 1.0.3.*",
            "<makeParents>0</makeParents>",
            "## Reply",
            "(examples/FileManager_MakeDir.md)",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
    }

    #[test]
    fn nested_fields_have_paths() {
        let page = page(crate::lookup("VMServerd_GetProductInfo").unwrap().row());
        for part in ["| `product` | group |", "| `product@id` | text |", "| `product/title` | text |"] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
    }

    #[test]
    fn the_index_links_every_page_and_names_every_code_and_limit() {
        let index = index();
        for row in TABLE {
            assert!(index.contains(&format!("[{}]({})", row.name, file_name(row))));
        }
        assert!(index.contains("| -8 | BADSTATE | Invalid operation for virtual machine's current state |"));
        assert!(index.contains("`larger than 65536 bytes`"));
        assert!(index.contains("`nested deeper than 16`"));
    }

    #[test]
    fn the_dictionary_is_one_quoted_string_per_line() {
        let dictionary = dictionary();
        for line in dictionary.lines().skip(1) {
            let inner = line.strip_prefix('"').and_then(|l| l.strip_suffix('"')).expect(line);
            assert!(!inner.is_empty() && inner.is_ascii(), "{line}");
        }
        assert!(dictionary.contains("\"FileManager_MakeDir\"\n"));
        assert!(dictionary.contains("\"<makeParents>\"\n"));
        assert!(dictionary.contains("\"\\x00\"\n"));
    }
}
