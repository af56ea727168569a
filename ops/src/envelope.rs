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
use crate::reader::{self, Input, Opened};
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
    match reader::open(document)? {
        Opened::Wrong(error) => Err(Fault::Refused(error)),
        Opened::Known(name, input) => match table::lookup(&name) {
            Some(op) => Ok(Request { op, input }),
            None => Err(refuse(input, Error::unknown_operation(&name))),
        },
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
