//! The reply of `FileManager_ListDirTree`: entries inside entries.
//!
//! A derived writer would call itself once per level, and how deep a tree is was decided by whoever
//! made it. So a tree is a flat list here, in the order of the document, each entry with its depth,
//! and one loop writes it:
//!
//! ```text
//!   depth 1  a/      <entry>a .. <entries>
//!   depth 2  a/x       <entry>x ..</entry>
//!   depth 1  b                     </entries></entry> <entry>b ..</entry>
//! ```

use crate::Fragment;
use crate::file_manager::Entry;
use crate::table::{Field, Shape};
use crate::value::{Element, HostPath};
use crate::writer::Out;

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    /// 1 for what is in the directory asked for, 2 for what is in one of these, and so on.
    pub depth: u32,
    /// Its facts.
    pub entry: Entry,
    /// Whether it is a directory that was looked into: then it has `entries`, be they empty.
    pub opened: bool,
}

/// A directory with what is below it.
#[derive(Clone, Debug, PartialEq)]
pub struct ListDirTreeReply {
    /// Path of the directory, as asked.
    pub directory: HostPath,
    /// What is below it, each directory before its contents.
    pub entries: Vec<Branch>,
    /// Directories that could not be read; `truncated` when the listing is not complete.
    pub warnings: Vec<String>,
}

/// The fields of one entry. The inner list is described once and not without end.
const BRANCH: &[Field] = &[
    Field { shape: Shape::Flat, kind: "group", nested: Entry::FIELDS, ..Field::BASE },
    Field {
        name: "entries",
        kind: "group",
        shape: Shape::List { item: "entry", max: usize::MAX },
        required: false,
        doc: "What is in the entry, in the same form. Only a directory that was looked into has it.",
        ..Field::BASE
    },
];

impl crate::Reply for ListDirTreeReply {
    const FIELDS: &'static [Field] = &[
        Field {
            name: "directory",
            kind: <HostPath as Element>::KIND,
            doc: "Path of the directory, as asked.",
            ..Field::BASE
        },
        Field {
            name: "entries",
            kind: "group",
            shape: Shape::List { item: "entry", max: usize::MAX },
            doc: "What is in it.",
            nested: BRANCH,
            ..Field::BASE
        },
    ];

    fn write(&self, out: &mut Out<'_>) {
        self.directory.write_element("directory", out);
        let list = out.open("entries");
        // Elements that are still open: the entry's mark, and that of its list if it has one.
        let mut open: Vec<(usize, Option<usize>)> = Vec::new();
        for branch in &self.entries {
            while open.len() >= branch.depth.max(1) as usize {
                close(&mut open, out);
            }
            let entry = out.open("entry");
            branch.entry.write_fields(out);
            open.push((entry, branch.opened.then(|| out.open("entries"))));
        }
        while !open.is_empty() {
            close(&mut open, out);
        }
        out.close("entries", list);
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn close(open: &mut Vec<(usize, Option<usize>)>, out: &mut Out<'_>) {
    if let Some((entry, list)) = open.pop() {
        if let Some(mark) = list {
            out.close("entries", mark);
        }
        out.close("entry", entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reply;
    use crate::file_manager::{EntryType, Modes};
    use crate::value::{Size, Time};

    fn branch(depth: u32, name: &str, opened: bool) -> Branch {
        let entry = Entry {
            name_encoding: None,
            name: name.into(),
            path: format!("/{name}"),
            kind: if opened { EntryType::Directory } else { EntryType::File },
            size: Size(1),
            mtime: Time(2),
            owner: "o".into(),
            group: "g".into(),
            modes: Modes::from_mode(0o700),
        };
        Branch { depth, entry, opened }
    }

    fn written(entries: Vec<Branch>) -> String {
        let directory = HostPath::try_from("/d".to_owned()).unwrap();
        let mut bytes = Vec::new();
        ListDirTreeReply { directory, entries, warnings: Vec::new() }.write(&mut Out::new(&mut bytes));
        String::from_utf8(bytes).unwrap()
    }

    /// Names with their levels, as a reader of the document sees them.
    fn read(xml: &str) -> Vec<(usize, String)> {
        let text = format!("<out>{xml}</out>");
        let options = roxmltree::ParsingOptions::default();
        let tree = roxmltree::Document::parse_with_options(&text, options).unwrap();
        let entries = tree.descendants().filter(|node| node.has_tag_name("entry"));
        entries
            .map(|entry| {
                let level = entry.ancestors().filter(|node| node.has_tag_name("entry")).count();
                let name = entry.children().find(|node| node.has_tag_name("name")).unwrap();
                (level, name.text().unwrap_or_default().to_owned())
            })
            .collect()
    }

    #[test]
    fn entries_stand_inside_their_directory() {
        let text = written(vec![branch(1, "a", true), branch(2, "x", false), branch(1, "b", true)]);
        assert_eq!(read(&text), [(1, "a".into()), (2, "x".into()), (1, "b".into())]);
        assert!(text.ends_with("<entries/></entry></entries>"), "{text}");
        assert_eq!(written(Vec::new()), "<directory>/d</directory><entries/>");
    }

    #[test]
    fn a_deep_tree_needs_no_stack() {
        let entries: Vec<_> = (1..=100_000).map(|depth| branch(depth, "d", true)).collect();
        let text = written(entries);
        assert_eq!(text.matches("<entry>").count(), 100_000);
        assert_eq!(text.matches("</entry>").count(), 100_000);
    }

    proptest::proptest! {
        #[test]
        fn levels_come_back(steps in proptest::collection::vec((0u32..4, "[a-z]{1,3}"), 0..40)) {
            // A level is at most one deeper than the one before.
            let mut depth = 0u32;
            let mut entries = Vec::new();
            for (back, name) in steps {
                depth = (depth + 1).saturating_sub(back).max(1);
                entries.push(branch(depth, &name, true));
            }
            let expected: Vec<_> =
                entries.iter().map(|one| (one.depth as usize, one.entry.name.clone())).collect();
            proptest::prop_assert_eq!(read(&written(entries)), expected);
        }
    }
}
