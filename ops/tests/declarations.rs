//! What the derives make of a declaration: every key of `#[op]` and `#[field]`, on types that are not
//! in the table.

use ops::value::{HostPath, Size};
use ops::{Access, Document, Fault, Fragment, Op, Operation, Out, Reason, Reply, Runs, Shape, envelope};

ops::words! {
    /// Where a disk is attached.
    pub enum Adapter {
        /// IDE.
        Ide = "ide",
        /// SCSI.
        LsiLogic = "lsilogic",
    }
}

/// Who owns a file.
#[derive(Clone, Debug, Default, PartialEq, Fragment)]
#[fragment(request)]
struct Ownership {
    /// Name of the owner.
    owner: Option<String>,
    /// Number of attempts.
    #[field(default = "3", min = 1, max = 5)]
    attempts: i64,
}

/// Does many things.
///
/// First
/// paragraph.
///
/// Second paragraph.
#[derive(Debug, PartialEq, Op)]
#[op(name = "Many", handler = "Extension::Many_Handler", access = RootOnly, runs = Task, effect = Reads, reply = ManyReply)]
struct Many {
    /// A file.
    #[field(alias = "path", alias = "f")]
    file: HostPath,
    /// Lines.
    #[field(name = "n", default = "25", min = 1, max = 1000)]
    lines: i64,
    /// Adapter.
    #[field(name = "adapterType", default = "ide")]
    adapter: Adapter,
    /// Files.
    #[field(list = "files/entry", max_items = 2, alias = "single")]
    files: Option<Vec<String>>,
    /// Contents.
    #[field(large = 1048576, alias = "data")]
    contents: Option<String>,
    /// Ownership.
    #[field(flat)]
    ownership: Ownership,
    /// Settings.
    #[field(list = "settings/setting", max_items = 2)]
    settings: Option<Vec<Setting>>,
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Fragment)]
#[fragment(request)]
struct Setting {
    /// Its key.
    #[field(alias = "k")]
    key: String,
    /// Its number.
    #[field(default = "7", min = 1, max = 9)]
    number: i64,
    /// Its files.
    #[field(list = "files/file")]
    files: Option<Vec<HostPath>>,
}

/// A failure.
#[derive(Debug, PartialEq, Fragment)]
struct Failure {
    /// Number.
    #[field(attribute)]
    code: i64,
    /// Word.
    #[field(attribute, name = "kind")]
    word: Option<Adapter>,
    /// Text.
    #[field(content)]
    text: String,
}

/// The result.
#[derive(Debug, PartialEq, Reply)]
struct ManyReply {
    /// Bytes.
    size: Size,
    /// Failures.
    #[field(list = "failures/error")]
    failures: Vec<Failure>,
    /// More failures.
    #[field(list = "more/error")]
    more: Option<Vec<Failure>>,
    /// The last failure.
    last: Option<Failure>,
    /// Ownership, in place.
    #[field(flat)]
    ownership: Ownership,
    /// Remarks.
    #[field(warnings)]
    remarks: Vec<String>,
}

/// Reads what stands inside `in`.
fn read(inside: &str) -> Result<Many, Fault> {
    let text = format!("<exec><op>inc</op><in>{inside}</in></exec>");
    Many::read(envelope::parse(Document::check(&text)?)?.into_input())
}

fn refusal(inside: &str) -> String {
    match read(inside) {
        Err(Fault::Refused(error)) => error.text,
        other => panic!("{other:?} for {inside}"),
    }
}

#[test]
fn a_row_carries_what_was_declared() {
    let row = Many::ROW;
    assert_eq!((row.name, row.handler, row.extension), ("Many", "Extension::Many_Handler", true));
    assert_eq!((row.access, row.runs), (Access::RootOnly, Runs::Task));
    assert_eq!(row.summary, "Does many things.");
    assert_eq!(row.description, "First paragraph.\n\nSecond paragraph.");
    let large = row.large.unwrap();
    assert_eq!((large.field, large.aliases, large.max), ("contents", &["data"][..], 1_048_576));
    let fields: Vec<_> = row
        .request
        .iter()
        .map(|field| (field.name, field.type_name(), field.required, field.default, field.range))
        .collect();
    assert_eq!(
        fields,
        [
            ("file", "path".into(), true, None, None),
            ("n", "integer".into(), false, Some("25"), Some((1, 1000))),
            ("adapterType", "word".into(), false, Some("ide"), None),
            ("files", "list of text".into(), false, None, None),
            ("contents", "text".into(), false, None, None),
            ("", "group".into(), true, None, None),
            ("settings", "list of group".into(), false, None, None),
        ]
    );
    assert_eq!(row.request[0].aliases, ["path", "f"]);
    assert_eq!(row.request[3].shape, Shape::List { item: "entry", max: 2 });
    assert!((row.request[2].accepts)("LSIlogic") && !(row.request[2].accepts)("sata"));
    let shapes: Vec<_> = row.reply[1].nested.iter().map(|field| field.shape).collect();
    assert_eq!(shapes, [Shape::Attribute, Shape::Attribute, Shape::Content]);
}

#[test]
fn items_of_a_list_can_be_groups() {
    let settings = |inside: &str| read(&format!("<file>/a</file>{inside}")).unwrap().settings;
    let setting = |key: &str, number| Setting { key: key.into(), number, files: None };
    let two = settings(
        "<settings> <setting><key>a</key><number>2</number><other><key>x</key></other></setting><!-- -->\
         <other/><setting><k>b</k></setting></settings>",
    );
    assert_eq!(two, Some(vec![setting("a", 2), setting("b", 7)]));
    // As any list: one item may stand alone, and a wrapper may be empty.
    assert_eq!(settings("<setting><key>a</key></setting>"), Some(vec![setting("a", 7)]));
    assert_eq!(settings("<settings/>"), Some(Vec::new()));
    let files = settings("<setting><key>a</key><files><file>/b</file></files></setting>").unwrap();
    assert_eq!(files[0].files.as_deref(), Some(&["/b".to_owned().try_into().unwrap()][..]));

    let one =
        |inside: &str| refusal(&format!("<file>/a</file><settings><setting>{inside}</setting></settings>"));
    assert_eq!(one(""), "Invalid argument: missing parameter key");
    assert_eq!(one("<key>a</key><k>b</k>"), "Invalid argument: key: given twice");
    assert_eq!(one("<key><b/></key>"), "Invalid argument: key: must not contain elements");
    assert_eq!(one("<key>a</key><number>10</number>"), "Invalid argument: number: must be 1 to 9");
    assert_eq!(one("<key>a</key>text"), "Invalid argument: setting: text beside its elements");
    let many = "<setting><key>a</key></setting>".repeat(3);
    assert_eq!(
        refusal(&format!("<file>/a</file><settings>{many}</settings>")),
        "Invalid argument: settings: more than 2 items"
    );
    let many = "<setting/>".repeat(257);
    assert_eq!(
        read(&format!("<settings>{many}</settings>")),
        Err(Fault::Malformed(Reason::TooManyItems(256)))
    );
    // What is malformed further down decides over the connection.
    let long = "x".repeat(5000);
    let text = format!("<settings><setting/></settings><file>/{long}</file>");
    assert!(matches!(read(&text), Err(Fault::Malformed(_))), "{:?}", read(&text));
    let field = Many::ROW.request.last().unwrap();
    assert_eq!(field.nested.iter().map(|field| field.name).collect::<Vec<_>>(), ["key", "number", "files"]);
    assert!(!(field.accepts)("a") && (field.nested[1].accepts)("7"));
}

#[test]
fn absent_parameters_have_their_defaults() {
    assert_eq!(
        read("<f>/a</f>"),
        Ok(Many {
            file: "/a".to_owned().try_into().unwrap(),
            lines: 25,
            adapter: Adapter::Ide,
            files: None,
            contents: None,
            ownership: Ownership { owner: None, attempts: 3 },
            settings: None,
        })
    );
}

#[test]
fn given_parameters_are_read() {
    let many = read(
        "<attempts>5</attempts><owner>a b</owner><data> x </data><adapterType>LSILOGIC</adapterType><n> 1000 </n>\
         <files><entry>a</entry><entry/></files><file>/a</file>",
    )
    .unwrap();
    assert_eq!((many.lines, many.adapter), (1000, Adapter::LsiLogic));
    assert_eq!(many.files, Some(vec!["a".into(), String::new()]));
    assert_eq!(many.contents.as_deref(), Some(" x "));
    assert_eq!(many.ownership, Ownership { owner: Some("a b".into()), attempts: 5 });
    assert_eq!(read("<file>/a</file><files/>").unwrap().files, Some(Vec::new()));
    assert_eq!(read("<file>/a</file><single>b</single>").unwrap().files, Some(vec!["b".into()]));
}

#[test]
fn wrong_parameters_are_named() {
    for (inside, reason) in [
        ("", "missing parameter file"),
        ("<file>/a</file><n>0</n>", "n: must be 1 to 1000"),
        ("<file>/a</file><n>1001</n>", "n: must be 1 to 1000"),
        ("<file>/a</file><attempts>6</attempts>", "attempts: must be 1 to 5"),
        ("<file>/a</file><attempts>1</attempts><attempts>1</attempts>", "attempts: given twice"),
        ("<file>/a</file><adapterType>sata</adapterType>", "adapterType: must be one of: ide lsilogic"),
        ("<file>/a</file><contents/><data/>", "contents: given twice"),
        (
            "<file>/a</file><files><entry>1</entry><entry>2</entry><entry>3</entry></files>",
            "files: more than 2 items",
        ),
        ("<file>/a</file><single>1</single><entry>2</entry>", "entry: given twice"),
        ("<n>x</n><adapterType>y</adapterType>", "n: not an integer"),
    ] {
        assert_eq!(refusal(inside), format!("Invalid argument: {reason}"), "{inside}");
    }
    let many = format!("<file>a</file><files>{}</files>", "<entry/>".repeat(257));
    assert_eq!(read(&many), Err(Fault::Malformed(Reason::TooManyItems(256))));
}

#[test]
fn replies_are_written_in_the_order_of_declaration() {
    let failure = |word| Failure { code: -4, word, text: "a<b".into() };
    let reply = ManyReply {
        size: Size(7),
        failures: vec![failure(None), failure(Some(Adapter::Ide))],
        more: None,
        last: Some(failure(None)),
        ownership: Ownership { owner: Some("x".into()), attempts: 1 },
        remarks: vec!["careful".into()],
    };
    let mut bytes = Vec::new();
    reply.write(&mut Out::new(&mut bytes));
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        "<size>7</size><failures><error code=\"-4\">a&lt;b</error><error code=\"-4\" kind=\"ide\">a&lt;b</error>\
         </failures><last code=\"-4\">a&lt;b</last><owner>x</owner><attempts>1</attempts>"
    );
    assert_eq!(reply.warnings(), ["careful"]);
    assert_eq!(ManyReply::FIELDS.len(), 5, "warnings are no field of out");
}
