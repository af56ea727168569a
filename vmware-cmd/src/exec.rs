//! `exec`: any request, as XML or in short; the reply as it came.
//!
//! ```text
//!   vmware-cmd exec FILE                        the documents of a file
//!   vmware-cmd exec [-]                         of standard input
//!   vmware-cmd exec NAME [key=value ...]        one request, written for you
//! ```
//!
//! Several documents in one file are sent one after the other over one session; each reply is a line.
//! The status is 1 when a reply reports failure. A key with a slash is an item of a list:
//! `directories/directory=/a`; items of one list stand next to each other.

use std::fs::File;
use std::io::Read;

use ops::{Inbox, Limits};
use vmcontrol_client::{Reply, Request};

use crate::failure::Failure;
use crate::grammar::Options;
use crate::output::Output;
use crate::server::Server;

/// Largest document that is sent, in bytes: the server takes less of all operations but one.
const MAX_DOCUMENT: usize = 2 * 1024 * 1024;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// What is needed to see where a document ends. Everything else is for the server to refuse: a text
/// that is over these goes to it as it is.
static LIMITS: Limits =
    Limits { bytes: MAX_DOCUMENT, depth: 64, attributes: 255, name: 255, root: None, large: |_| None };

/// Sends and prints. False when a reply reports failure.
pub(crate) fn run(options: &Options, words: &[String], output: &mut Output) -> Result<bool, Failure> {
    let documents = match words.split_first() {
        None => cut(&read(None)?)?,
        Some((first, [])) if first == "-" => cut(&read(None)?)?,
        Some((first, [])) if first.contains('/') || std::path::Path::new(first).is_file() => {
            cut(&read(Some(first))?)?
        }
        Some((name, arguments)) => vec![request(name, arguments)?.to_string()],
    };
    let mut server = Server::of(options)?;
    let mut all = true;
    for document in documents {
        let reply = server.exec(&document)?;
        output.line(&reply);
        output.flush()?;
        all &= Reply::parse(&reply)?.ok;
    }
    Ok(all)
}

/// All of a file, or of standard input.
fn read(path: Option<&str>) -> Result<Vec<u8>, Failure> {
    let name = path.unwrap_or("standard input");
    let mut bytes = Vec::new();
    let done = match path {
        None => std::io::stdin().take(MAX_FILE + 1).read_to_end(&mut bytes),
        Some(path) => File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)),
    };
    done.map_err(|error| Failure::Said(format!("cannot read {name}: {error}")))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Failure::Said(format!("{name} is larger than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

/// The documents in a text.
fn cut(bytes: &[u8]) -> Result<Vec<String>, Failure> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| Failure::Said("the request is not UTF-8".to_owned()))?;
    let mut inbox = Inbox::with_limits(&LIMITS);
    inbox.feed(bytes);
    let mut documents = Vec::new();
    loop {
        match inbox.next() {
            Ok(Some(document)) => documents.push(document.as_str().to_owned()),
            Ok(None) => break,
            Err(_) => return Ok(vec![text.to_owned()]),
        }
    }
    match (inbox.is_empty(), documents.is_empty()) {
        (false, _) => Err(Failure::Said("the last document is not complete".to_owned())),
        (true, true) => Err(Failure::Said("there is no document".to_owned())),
        (true, false) => Ok(documents),
    }
}

/// A request from its short form.
fn request(name: &str, arguments: &[String]) -> Result<Request, Failure> {
    let mut pairs = Vec::new();
    for argument in arguments {
        let pair = argument.split_once('=').filter(|(key, _)| !key.is_empty());
        pairs.push(pair.ok_or_else(|| Failure::usage(format!("{argument} is no key=value")))?);
    }
    let usable = |key: &str| {
        let mut letters = key.chars();
        letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && letters.all(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter))
    };
    let mut request = Request::new(name);
    let mut rest = pairs.as_slice();
    while let Some(((key, value), others)) = rest.split_first() {
        rest = others;
        match key.split_once('/') {
            Some((list, item)) if usable(list) && usable(item) => {
                let more = others.iter().take_while(|(next, _)| next == key).count();
                let (same, left) = others.split_at_checked(more).unwrap_or((others, &[]));
                let values = std::iter::once(*value).chain(same.iter().map(|(_, value)| *value));
                request = request.list(list, item, values);
                rest = left;
            }
            None if usable(key) => request = request.text(key, value),
            _ => return Err(Failure::usage(format!("{key} is no name, and no list/item"))),
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(words: &str) -> Result<String, String> {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let (name, arguments) = words.split_first().unwrap();
        request(name, arguments).map(|request| request.to_string()).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn short_requests_are_written_out() {
        for (words, document) in [
            ("inc number=42", "<exec><op>inc</op><in><number>42</number></in></exec>"),
            ("VM_List", "<exec><op>VM_List</op><in></in></exec>"),
            ("a k=x=<&", "<exec><op>a</op><in><k>x=&lt;&amp;</k></in></exec>"),
            ("m d/e=/a d/e=/b o=rwx", "<exec><op>m</op><in><d><e>/a</e><e>/b</e></d><o>rwx</o></in></exec>"),
        ] {
            assert_eq!(short(words).unwrap(), document);
        }
        for words in ["a b", "a =b", "a b/c/d=1", "a <x>=1", "a 1=1"] {
            assert!(short(words).unwrap_err().contains("Usage"), "{words}");
        }
    }

    #[test]
    fn a_text_is_cut_into_documents() {
        let said = |text: &str| match cut(text.as_bytes()) {
            Ok(documents) => documents.join("|"),
            Err(Failure::Said(text)) => text,
            Err(other) => format!("{other:?}"),
        };
        assert_eq!(said("<a>1</a>\n<b/>\n"), "<a>1</a>|<b/>");
        assert_eq!(said("<?xml version='1.0'?><exec/>"), "<?xml version='1.0'?><exec/>");
        assert_eq!(said(" \n"), "there is no document");
        assert_eq!(said("<a>1</a><b>"), "the last document is not complete");
        // The server, or the client before it, says what is wrong with these.
        for text in ["hello", "<a><!DOCTYPE b></a>", "<a></b>"] {
            assert_eq!(said(text), text);
        }
    }
}
