//! The `exec` envelope: which operation is asked for, and the frame around every reply.
//!
//! ```text
//!   request   <exec><op>NAME</op><in>...</in></exec>
//!   reply     <exec><product>...</product><returncode>1</returncode>[warnings]<out>...</out></exec>LF
//!   error     <exec><product>...</product><returncode>0</returncode><errors>...</errors>[warnings]<out/></exec>LF
//! ```
//!
//! The frame of the successful reply is that of VMware Server 1.0.3, byte for byte. No failing reply
//! of the original is known: `errors` and `warnings` are this project's choice.

use crate::error::{Error, Fault};
use crate::guard::Document;
use crate::reader::{self, Input};
use crate::table::{self, Access, OpId, Row};
use crate::writer::Out;
use crate::{Operation, Reply};

/// A request whose operation is known; its arguments have not been read yet.
pub struct Request<'a> {
    /// The operation.
    pub op: OpId,
    input: Input<'a>,
}

/// Reads the envelope of one document that the guard has accepted.
///
/// # Errors
/// [`Fault::Malformed`] for a wrong root or stray text, [`Fault::Refused`] for an unknown operation
/// (-17), a missing `op`, or `op` or `in` given twice (-3).
pub fn parse(document: Document<'_>) -> Result<Request<'_>, Fault> {
    let (name, input) = reader::open(document)?;
    match table::lookup(&name) {
        Some(op) => Ok(Request { op, input }),
        None => Err(refuse(input, Error::unknown_operation(&name))),
    }
}

impl<'a> Request<'a> {
    /// The operation's declaration.
    #[must_use]
    pub fn row(&self) -> &'static Row {
        self.op.row()
    }

    /// Passes the request on if the caller may ask for the operation at all.
    ///
    /// # Errors
    /// -4 for a `rootonly` operation and a caller who is no administrator.
    pub fn admit(self, administrator: bool) -> Result<Self, Fault> {
        match self.row().access {
            Access::RootOnly if !administrator => {
                let name = self.row().name;
                Err(self.reject(Error::admin_required(name)))
            }
            _ => Ok(self),
        }
    }

    /// The unread arguments, to be looked at.
    #[must_use]
    pub fn input(&self) -> &Input<'a> {
        &self.input
    }

    /// Reads the arguments as those of `O`. The caller has chosen `O` by [`Request::op`].
    ///
    /// # Errors
    /// What is wrong with the document or with an argument.
    pub fn read<O: Operation>(self) -> Result<O, Fault> {
        O::read(self.input)
    }

    /// The unread arguments, for code that dispatches without knowing the type.
    #[must_use]
    pub fn into_input(self) -> Input<'a> {
        self.input
    }

    /// Refuses the request without reading its arguments as a type. The rest of the document is
    /// read all the same, because a malformed rest is the graver fault.
    #[must_use]
    pub fn reject(self, error: Error) -> Fault {
        refuse(self.input, error)
    }
}

fn refuse(input: Input<'_>, error: Error) -> Fault {
    match input.finish() {
        Err(Fault::Malformed(reason)) => Fault::Malformed(reason),
        _ => Fault::Refused(error),
    }
}

/// What the server says it is, rendered once for all replies.
#[derive(Clone, Debug)]
pub struct Product {
    id: String,
    title: String,
    version: String,
    build: String,
    /// `<exec>` up to and including the start tag of `returncode`.
    frame: Vec<u8>,
}

impl Product {
    /// A product with these texts.
    #[must_use]
    pub fn new(id: &str, title: &str, version: &str, build: &str) -> Self {
        let mut frame = Vec::new();
        let mut out = Out::new(&mut frame);
        out.open("exec");
        out.begin("product");
        out.attribute("id", |out| out.text(id));
        let mark = out.end_attributes();
        for (name, text) in [("title", title), ("version", version), ("build", build)] {
            let mark = out.open(name);
            out.text(text);
            out.close(name, mark);
        }
        out.close("product", mark);
        out.open("returncode");
        Self { id: id.into(), title: title.into(), version: version.into(), build: build.into(), frame }
    }

    /// `id` of the product element; `GSX` for VMware Server.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// For example `VMware Server`.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// For example `1.0.3 build-44356`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// For example `44356`.
    #[must_use]
    pub fn build(&self) -> &str {
        &self.build
    }
}

impl Default for Product {
    /// The values in the captured reply of VMware Server 1.0.3.
    fn default() -> Self {
        Self::new("GSX", "VMware Server", "1.0.3 build-44356", "44356")
    }
}

/// Appends the reply to an operation that succeeded.
pub fn write_ok<R: Reply>(out: &mut Vec<u8>, product: &Product, reply: &R) {
    out.extend_from_slice(&product.frame);
    out.extend_from_slice(b"1</returncode>");
    let mut pen = Out::new(out);
    warnings(&mut pen, reply.warnings());
    let mark = pen.open("out");
    reply.write(&mut pen);
    pen.close("out", mark);
    out.extend_from_slice(b"</exec>\n");
}

/// Appends the reply to a request that failed.
pub fn write_error(out: &mut Vec<u8>, product: &Product, error: &Error) {
    out.extend_from_slice(&product.frame);
    out.extend_from_slice(b"0</returncode>");
    let mut pen = Out::new(out);
    let errors = pen.open("errors");
    pen.begin("error");
    pen.attribute("code", |pen| pen.signed(i64::from(error.code.number())));
    let mark = pen.end_attributes();
    pen.text(&error.text);
    pen.close("error", mark);
    pen.close("errors", errors);
    let mark = pen.open("out");
    if let Some(partial) = &error.partial {
        pen.rendered(partial);
    }
    pen.close("out", mark);
    out.extend_from_slice(b"</exec>\n");
}

/// Appends the reply to either outcome.
///
/// # Errors
/// None; the result of an operation is written as it is.
pub fn write<R: Reply>(out: &mut Vec<u8>, product: &Product, outcome: &Result<R, Error>) {
    match outcome {
        Ok(reply) => write_ok(out, product, reply),
        Err(error) => write_error(out, product, error),
    }
}

fn warnings(pen: &mut Out<'_>, warnings: &[String]) {
    if warnings.is_empty() {
        return;
    }
    let all = pen.open("warnings");
    for text in warnings {
        let mark = pen.open("warning");
        pen.text(text);
        pen.close("warning", mark);
    }
    pen.close("warnings", all);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_manager::{GetHomeDir, GetParentDir, ListDir, MakeDir, MakeDirReply};
    use crate::guard::Reason;
    use crate::main_ops::{Div, Inc};
    use crate::value::Number;
    use crate::vmserverd::{GetConnectedVmListReply, GetOperationTable, IsAdminUser, IsAdminUserReply};
    use crate::{Error, ErrorCode, Field};

    /// Reads a request as the operation `O`, which must be the one it names.
    fn read<O: Operation>(text: &str) -> Result<O, Fault> {
        let request = parse(Document::check(text).expect("guarded"))?;
        assert_eq!(request.row().name, O::ROW.name);
        request.read()
    }

    fn refused<O: Operation + std::fmt::Debug>(text: &str) -> String {
        match read::<O>(text) {
            Err(Fault::Refused(error)) => error.text,
            other => panic!("{other:?} for {text}"),
        }
    }

    fn malformed<O: Operation + std::fmt::Debug>(text: &str) -> Reason {
        match read::<O>(text) {
            Err(Fault::Malformed(reason)) => reason,
            other => panic!("{other:?} for {text}"),
        }
    }

    #[test]
    fn an_unread_request_tells_its_paths_and_nothing_else() {
        let subjects = |text: &str| {
            let request = parse(Document::check(text).expect("guarded")).expect("an operation");
            let row = request.row();
            request.input().clone().about(Some("/own.vmx")).subjects(row, 2)
        };
        let own = || Some("/own.vmx".to_owned());
        let two = "<exec><op>FileManager_MakeDir</op><in><directories><directory> /a&amp;b </directory><directory>/c</directory><directory>/d</directory></directories></in></exec>";
        assert_eq!(subjects(two), (own(), vec!["/a&b".to_owned(), "/c".to_owned()]));
        let keys = "<exec><op>VM_SendKeys</op><in><keys>secret</keys><config>/m.vmx</config></in></exec>";
        assert_eq!(subjects(keys), (Some("/m.vmx".to_owned()), vec![]));
        assert_eq!(subjects("<exec><op>inc</op></exec>"), (own(), vec![]));
    }

    #[test]
    fn a_number_however_it_is_written() {
        for text in [
            "<exec><op>inc</op><in><number>42</number></in></exec>",
            " <?xml version='1.0'?><!-- c --><exec>\n<op>inc</op>\n<in>\n<number> 42\n</number>\n</in>\n</exec>",
            "<exec a='1'><op b='2'>inc</op><in c='>'><number d='/>'>42</number></in></exec>",
            "<exec><op>in<!-- c -->c</op><in><number>4<!-- c -->2</number></in></exec>",
            "<exec><op>&#105;nc</op><in><number>&#x34;2</number></in></exec>",
            "<exec><op><![CDATA[inc]]></op><in><number>4<![CDATA[2]]></number></in></exec>",
            "<exec><in><number>42</number></in><op>inc</op></exec>",
            "<exec><x><op>dec</op></x><op>inc</op><y/><in><z><number>1</number></z><number>42</number></in><w/></exec>",
        ] {
            assert_eq!(read(text), Ok(Inc { number: Number::Integer(42) }), "{text}");
        }
    }

    #[test]
    fn an_operation_without_parameters_needs_no_in() {
        for text in [
            "<exec><op>VMServerd_IsAdminUser</op></exec>",
            "<exec><op>VMServerd_IsAdminUser</op><in/></exec>",
            "<exec><op>VMServerd_IsAdminUser</op><in> </in></exec>",
            "<exec><in/><op>VMServerd_IsAdminUser</op></exec>",
            "<exec><op>VMServerd_IsAdminUser</op><in><a><b>c</b></a></in></exec>",
        ] {
            assert_eq!(read(text), Ok(IsAdminUser {}), "{text}");
        }
        assert_eq!(
            read("<exec><op>VMServerd_GetOperationTable</op></exec>"),
            Ok(GetOperationTable { details: false })
        );
        assert_eq!(read("<exec><op>FileManager_GetHomeDir</op></exec>"), Ok(GetHomeDir { user: None }));
        assert_eq!(
            read("<exec><op>FileManager_GetHomeDir</op><in><user/></in></exec>"),
            Ok(GetHomeDir { user: Some(String::new()) })
        );
    }

    #[test]
    fn envelopes_that_are_wrong() {
        for (text, error) in [
            ("<exec/>", "Invalid argument: missing parameter op"),
            ("<exec><in/></exec>", "Invalid argument: missing parameter op"),
            ("<exec><op/></exec>", "Not supported: unknown operation "),
            ("<exec><op>INC</op></exec>", "Not supported: unknown operation INC"),
            ("<exec><op> inc</op></exec>", "Not supported: unknown operation  inc"),
            ("<exec><op>inc</op><op>inc</op></exec>", "Invalid argument: op: given twice"),
            ("<exec><op>a<b/></op></exec>", "Invalid argument: op: must not contain elements"),
            ("<exec><in/><in/><op>inc</op></exec>", "Invalid argument: in: given twice"),
            ("<exec><op>x</op><in/></exec>", "Not supported: unknown operation x"),
        ] {
            let fault = parse(Document::check(text).unwrap()).map(|request| request.op).unwrap_err();
            assert_eq!(fault, Fault::Refused(fault.clone().into_error()), "{text}");
            assert_eq!(fault.into_error().text, error, "{text}");
        }
        for (text, error) in [
            (
                "<exec><op>inc</op><in><number>1</number></in><op>inc</op></exec>",
                "Invalid argument: op: given twice",
            ),
            (
                "<exec><op>inc</op><in><number>1</number></in><in/></exec>",
                "Invalid argument: in: given twice",
            ),
            ("<exec><op>inc</op><in/></exec>", "Invalid argument: missing parameter number"),
            ("<exec><op>inc</op></exec>", "Invalid argument: missing parameter number"),
        ] {
            assert_eq!(refused::<Inc>(text), error, "{text}");
        }
    }

    #[test]
    fn text_where_only_elements_belong_is_malformed() {
        for text in [
            "<exec>x<op>inc</op><in><number>1</number></in></exec>",
            "<exec><op>inc</op>x<in><number>1</number></in></exec>",
            "<exec><op>inc</op><in>x<number>1</number></in></exec>",
            "<exec><op>inc</op><in><number>1</number>&#65;</in></exec>",
            "<exec><op>inc</op><in><number>1</number></in><![CDATA[x]]></exec>",
            "<exec><op>inc</op><in><number>1</number></in><in>x</in></exec>",
        ] {
            let reason = match parse(Document::check(text).unwrap()) {
                Err(fault) => fault,
                Ok(request) => request.read::<Inc>().unwrap_err(),
            };
            assert_eq!(reason, Fault::Malformed(Reason::StrayText), "{text}");
        }
        // Also when the operation is unknown, missing, or in the other order.
        for text in [
            "<exec><op>x</op><in>y</in></exec>",
            "<exec><op>x</op><in>\u{FEFF}<y/></in></exec>",
            "<exec><op>x</op><in/>y</exec>",
            "<exec><in>y</in></exec>",
            "<exec><in>y</in><op>inc</op></exec>",
            "<exec>y</exec>",
        ] {
            let fault = parse(Document::check(text).unwrap()).map(|request| request.op).unwrap_err();
            assert_eq!(fault, Fault::Malformed(Reason::StrayText), "{text}");
        }
    }

    #[test]
    fn the_first_wrong_parameter_is_named() {
        let div = |inside: &str| refused::<Div>(&format!("<exec><op>div</op><in>{inside}</in></exec>"));
        assert_eq!(
            div("<dividend>x</dividend><divisor>y</divisor>"),
            "Invalid argument: dividend: not a number"
        );
        assert_eq!(div("<divisor>y</divisor>"), "Invalid argument: divisor: not a number");
        assert_eq!(div("<divisor>1</divisor>"), "Invalid argument: missing parameter dividend");
        assert_eq!(
            div("<dividend>1</dividend><numerator>1</numerator><divisor>1</divisor>"),
            "Invalid argument: dividend: given twice"
        );
        assert_eq!(
            div("<dividend><b>1</b></dividend><divisor>1</divisor>"),
            "Invalid argument: dividend: must not contain elements"
        );
        assert_eq!(
            read("<exec><op>div</op><in><numerator>1</numerator><denominator>2</denominator></in></exec>"),
            Ok(Div { dividend: Number::Integer(1), divisor: Number::Integer(2) })
        );
    }

    #[test]
    fn a_malformed_rest_wins_over_a_wrong_parameter() {
        let many = "<directory>/a</directory>".repeat(257);
        let text = format!(
            "<exec><op>FileManager_MakeDir</op><in><makeParents>x</makeParents><directories>{many}</directories></in></exec>"
        );
        assert_eq!(malformed::<MakeDir>(&text), Reason::TooManyItems(256));
        assert_eq!(
            malformed::<Inc>("<exec><op>inc</op><in><number>x</number></in>y</exec>"),
            Reason::StrayText
        );
    }

    #[test]
    fn lists() {
        let make = |inside: &str| format!("<exec><op>FileManager_MakeDir</op><in>{inside}</in></exec>");
        let paths = |inside: &str| -> Vec<String> {
            let request: MakeDir = read(&make(inside)).unwrap();
            request.directories.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            paths("<directories><directory>/a</directory> <x/> <directory>/b</directory></directories>"),
            ["/a", "/b"]
        );
        assert_eq!(paths("<directory>/a</directory>"), ["/a"]);
        assert_eq!(paths("<path>/a</path>"), ["/a"]);
        let full = format!("<directories>{}</directories>", "<directory>/a</directory>".repeat(256));
        assert_eq!(paths(&full).len(), 256);
        for (inside, error) in [
            ("", "missing parameter directories"),
            ("<directories/>", "missing parameter directories"),
            ("<directories>/a</directories>", "directories: text outside directory"),
            ("<directories><directory>a</directory></directories>", "directory: not an absolute path"),
            ("<directory>/a</directory><directory>/b</directory>", "directory: given twice"),
            ("<directories/><directory>/b</directory>", "directory: given twice"),
            ("<directories/><directories/>", "directories: given twice"),
        ] {
            assert_eq!(refused::<MakeDir>(&make(inside)), format!("Invalid argument: {error}"), "{inside}");
        }
        assert_eq!(
            malformed::<MakeDir>(&make(&format!("<directory>/{}</directory>", "p".repeat(4095)))),
            Reason::PathTooLong
        );
    }

    #[test]
    fn rights_stand_in_place_and_line_ends_are_folded() {
        let request: MakeDir = read(
            "<exec><op>FileManager_MakeDir</op><in><group_mode>rx</group_mode><other_mode/>\
             <directory>/a\r\nb\rc&#13;</directory><makeParents> YES </makeParents></in></exec>",
        )
        .unwrap();
        assert_eq!(request.modes.apply(0o777), 0o750);
        assert_eq!(request.directories[0].as_str(), "/a\nb\nc\r");
        assert!(request.make_parents);
        let list: ListDir =
            read("<exec><op>FileManager_ListDir</op><in><path>/a&lt;&amp;<![CDATA[<b>]]></path></in></exec>")
                .unwrap();
        assert_eq!((list.directory.as_str(), list.show_hidden), ("/a<&<b>", true));
        assert_eq!(
            refused::<GetParentDir>(
                "<exec><op>FileManager_GetParentDir</op><in><path>/a</path><directory>/a</directory></in></exec>"
            ),
            "Invalid argument: directory: given twice"
        );
    }

    /// A rootonly row, which the table does not have yet.
    #[test]
    fn only_administrators_are_admitted_to_rootonly_operations() {
        let text = "<exec><op>inc</op><in><number>1</number></in></exec>";
        for row in crate::TABLE {
            let sample = crate::docs::sample(row);
            let request = parse(Document::check(&sample).unwrap()).unwrap();
            let admitted = request.admit(false).map(|request| request.op);
            match row.access {
                Access::AuthUser => assert_eq!(admitted.unwrap().row().name, row.name),
                Access::RootOnly => assert_eq!(admitted.unwrap_err().into_error().code, ErrorCode::NoAccess),
            }
        }
        let request = parse(Document::check(text).unwrap()).unwrap();
        assert_eq!(
            request.reject(Error::admin_required("inc")).into_error().text,
            "Permission denied: operation inc requires administrator privileges"
        );
        let request = parse(Document::check("<exec><op>inc</op><in>x</in></exec>").unwrap()).unwrap();
        assert_eq!(request.reject(Error::admin_required("inc")), Fault::Malformed(Reason::StrayText));
    }

    const FRAME: &str = concat!(
        r#"<exec><product id="GSX"><title>VMware Server</title><version>1.0.3 build-44356</version>"#,
        "<build>44356</build></product><returncode>"
    );

    fn text_of(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn on_a_connection_to_a_machine_it_need_not_be_named() {
        use crate::vm_facts::GetState;
        use crate::vm_power::Stop;
        fn config<O: Operation>(inside: &str, machine: Option<&str>, of: fn(O) -> String) -> Option<String> {
            let text = format!("<exec><op>{}</op>{inside}</exec>", O::ROW.name);
            let request = parse(Document::check(&text).unwrap()).unwrap();
            O::read(request.into_input().about(machine)).ok().map(of)
        }
        let state = |inside, machine| config::<GetState>(inside, machine, |get| get.config.to_string());
        // One whose parameters stand in a group.
        let stop = |inside, machine| config::<Stop>(inside, machine, |stop| stop.request.config.to_string());
        for of in [state, stop] {
            assert_eq!(of("", Some("/a.vmx")).as_deref(), Some("/a.vmx"));
            assert_eq!(of("<in><cfg>/b.vmx</cfg></in>", Some("/a.vmx")).as_deref(), Some("/b.vmx"));
            assert_eq!(of("<in/>", None), None);
        }
    }

    #[test]
    fn replies() {
        let product = Product::default();
        let reply = IsAdminUserReply { user: "a<b".into(), is_admin: false };
        assert_eq!(
            text_of(|out| write_ok(out, &product, &reply)),
            format!("{FRAME}1</returncode><out><user>a&lt;b</user><isAdmin>0</isAdmin></out></exec>\n")
        );
        let reply = GetConnectedVmListReply { vms: Vec::new() };
        assert_eq!(
            text_of(|out| write(out, &product, &Ok(reply))),
            format!("{FRAME}1</returncode><out><vms/></out></exec>\n")
        );
    }

    #[test]
    fn error_replies() {
        let product = Product::default();
        let error = Error::new(ErrorCode::NoSuchVm);
        assert_eq!(
            text_of(|out| write_error(out, &product, &error)),
            format!(
                "{FRAME}0</returncode><errors><error code=\"-11\">No such virtual machine</error></errors><out/></exec>\n"
            )
        );
        let done = MakeDirReply { directories: vec!["/a".to_owned().try_into().unwrap()] };
        let error = Error::no_access("/b&").finished(&done);
        assert_eq!(
            text_of(|out| write::<MakeDirReply>(out, &product, &Err(error))),
            format!(
                "{FRAME}0</returncode><errors><error code=\"-4\">Permission denied: /b&amp;</error></errors>\
                 <out><directories><directory>/a</directory></directories></out></exec>\n"
            )
        );
        // Scripts look for the quoted state in the raw text.
        let conflict = text_of(|out| write_error(out, &product, &Error::state_conflict("start", "on")));
        assert!(conflict.contains(r#"("on")"#));
    }

    /// A reply with warnings, written by hand where the derive would.
    struct Warned(Vec<String>);

    impl Reply for Warned {
        const FIELDS: &'static [Field] = &[];

        fn write(&self, _: &mut Out<'_>) {}

        fn warnings(&self) -> &[String] {
            &self.0
        }
    }

    #[test]
    fn warnings_stand_before_out() {
        let reply = Warned(vec!["one".into(), "t<o".into()]);
        assert_eq!(
            text_of(|out| write_ok(out, &Product::default(), &reply)),
            format!(
                "{FRAME}1</returncode><warnings><warning>one</warning><warning>t&lt;o</warning></warnings><out/></exec>\n"
            )
        );
    }

    #[test]
    fn the_product_is_escaped() {
        let product = Product::new("a\"<", "b&", "c", "");
        let reply = text_of(|out| write_error(out, &product, &Error::missing("x")));
        assert!(reply.starts_with(
            "<exec><product id=\"a&quot;&lt;\"><title>b&amp;</title><version>c</version><build/></product>"
        ));
    }
}
