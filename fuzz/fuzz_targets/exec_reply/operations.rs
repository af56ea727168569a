//! The operation table.

use fuzz::Input;
use ops::vmserverd::{GetOperationTableReply, OperationInfo};
use ops::{Effect, HISTORICAL, Reply, Runs, TABLE, envelope, lookup, table};

use crate::pieces::text;
use crate::readers::{PRODUCT, by_quick_xml, by_roxmltree, declared};

/// Only this byte asks for the whole table, which is large.
const WHOLE: u8 = 0xa5;

/// The operation table: any name is looked up, and one row is told with all that is declared in it.
pub(crate) fn operations(mut input: Input<'_>) {
    let (details, choice) = (input.byte() & 1 == 1, input.byte());
    let name = text(input.0);
    let known = TABLE.iter().position(|row| row.name == name);
    assert_eq!(lookup(&name).map(ops::OpId::index), known);
    assert_eq!(table::large_text(&name).is_some(), known.is_some_and(|place| TABLE[place].large.is_some()));
    let place = known.unwrap_or(usize::from(choice) % TABLE.len());
    let (row, id) = (&TABLE[place], table::all().nth(place).expect("a row"));
    assert_eq!((id.row().name, lookup(row.name)), (row.name, Some(id)));
    let info = OperationInfo::of(row, details);
    assert_eq!(info.access, row.access.word());
    assert!(info.runs.as_deref().is_none_or(|word| {
        [Runs::Session, Runs::Core, Runs::Task].iter().filter(|runs| runs.word() == word).count() == 1
    }));
    assert!(row.effect >= Effect::Changes);
    for fields in [row.request, row.reply] {
        let mut count = 0;
        table::visit(fields, &mut |field| {
            count += 1;
            assert!(field.type_name().ends_with(field.kind) && !field.doc.is_empty());
            assert!(field.path("").len() + 3 >= field.name.len() && field.path("a/b/").starts_with("a/b"));
            assert!(field.default.is_none_or(field.accepts));
            // What a field accepts is for its type to say; it says so of any text.
            let _ = (field.accepts)(&name);
        });
        assert!(count >= fields.len());
    }
    if choice == WHOLE {
        let lines = table::listing();
        assert_eq!(lines.len(), TABLE.len() + 2);
        assert!(
            HISTORICAL
                .iter()
                .zip(&lines[1..])
                .all(|((name, ..), line)| line.starts_with(&format!("Op {name} ")))
        );
    }
    let operations = match choice {
        WHOLE => GetOperationTableReply::of_table(details).operations,
        _ => vec![info],
    };
    let reply = GetOperationTableReply { operations };
    let mut bytes = Vec::new();
    envelope::write_ok(&mut bytes, &PRODUCT, &reply);
    let document = String::from_utf8(bytes).expect("replies are text");
    let leaves = by_roxmltree(&document);
    assert_eq!(leaves, by_quick_xml(&document));
    let names = leaves.iter().filter(|(path, _)| path == "exec/out/operations/operation/name");
    assert!(names.map(|(_, name)| name).eq(reply.operations.iter().map(|info| &info.name)));
    let tree = roxmltree::Document::parse(&document).expect("it was read before");
    let out =
        tree.root_element().children().find(|node| node.has_tag_name("out")).expect("every reply has it");
    declared(out, GetOperationTableReply::FIELDS);
}
