//! Requests as a client sends them, through inbox, envelope and types, to the bytes of the reply.

use ops::envelope::{self, Product};
use ops::file_manager::MakeDir;
use ops::main_ops::{Inc, IncReply};
use ops::value::Number;
use ops::{Document, Fault, Inbox};

/// The reply captured from VMware Server 1.0.3, with the line feed that ends every reply here.
const INC_REPLY: &str = concat!(
    r#"<exec><product id="GSX"><title>VMware Server</title><version>1.0.3 build-44356</version>"#,
    r#"<build>44356</build></product><returncode>1</returncode><out><number>43</number></out></exec>"#,
    "\n"
);

#[test]
fn the_first_exec_of_the_api_page() {
    let mut inbox = Inbox::new();
    inbox.feed(b"<exec><op>inc</op><in><number>42</number></in></exec>");
    let document = inbox.next().unwrap().unwrap();
    let request = envelope::parse(document).unwrap();
    assert_eq!(request.row().name, "inc");
    let inc: Inc = request.read().unwrap();
    let reply = IncReply { number: inc.number.checked_add(1).unwrap() };
    let mut bytes = Vec::new();
    envelope::write_ok(&mut bytes, &Product::default(), &reply);
    assert_eq!(String::from_utf8(bytes).unwrap(), INC_REPLY);
    assert!(inbox.next().unwrap().is_none());
    assert_eq!(inbox.capacity(), 0, "an idle inbox holds no memory");
}

/// Reads one document as the operation `O`.
fn read<O: ops::Operation>(document: &str) -> Result<O, Fault> {
    envelope::parse(Document::check(document)?)?.read()
}

#[test]
fn the_make_dir_request_of_the_api_page() {
    let request: MakeDir = read(
        "<exec><op>FileManager_MakeDir</op><in>\n  <directories><directory>/srv/a b</directory></directories>\n\
         <owner_mode>rwx</owner_mode><group_mode>rwx</group_mode><other_mode>rwx</other_mode>\n\
         <makeParents>0</makeParents>\n</in></exec>",
    )
    .unwrap();
    assert_eq!(request.directories.iter().map(|d| d.as_str()).collect::<Vec<_>>(), ["/srv/a b"]);
    assert_eq!(request.modes.apply(0), 0o777);
    assert!(!request.make_parents);
}

#[test]
fn op_after_in() {
    let inc: Inc = read("<exec><in><number>1.5</number></in><op>inc</op></exec>").unwrap();
    assert_eq!(inc.number, Number::Decimal(1.5));
}
