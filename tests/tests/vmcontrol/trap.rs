//! One name, two signatures: the snapshot call takes one argument, or five where the product is ESX.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use tests::account;
use tests::client::PLAIN_BANNER;

use crate::c;

fn reply(out: &str) -> String {
    format!("<exec><product id=\"GSX\"/><returncode>1</returncode><out>{out}</out></exec>\n")
}

/// A server of this product, which tells the snapshot request it got.
fn fake(product: u32) -> (u16, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move || {
        let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        stream.write_all(PLAIN_BANNER.as_bytes()).unwrap();
        let mut snapshot = String::new();
        while let Some(Ok(line)) = lines.next() {
            let answer = match line.split_whitespace().next().unwrap() {
                "USER" => "331 Password required.\r\n".to_owned(),
                "PASS" => "230 User user logged in.\r\n".to_owned(),
                "GLOBAL" => "200 Connected to vmware-serverd.\r\n".to_owned(),
                _ if line.contains("<op>VM_GetProductInfo</op>") => {
                    reply(&format!("<product>{product}</product>"))
                }
                _ if line.contains("<op>VM_CreateSnapshot</op>") => {
                    snapshot.push_str(&line);
                    reply("<snapshotId>1</snapshotId>")
                }
                _ => reply(""),
            };
            stream.write_all(answer.as_bytes()).unwrap();
        }
        snapshot
    };
    (port, std::thread::spawn(serve))
}

#[test]
fn rubbish_is_looked_at_only_where_it_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let program =
        c::compile(directory.path(), &c::sources().join("snapshot.c"), "snapshot", &["-fsanitize=address"]);
    let start = "<exec><op>VM_CreateSnapshot</op><in><config>/a.vmx</config>";
    for (product, form, expected) in [
        (2, "short", "</in></exec>"),
        (4, "short", "</in></exec>"),
        (
            3,
            "long",
            // A Bool is the low byte: 0x100 is no, 0x101 is yes.
            "<quiesce>0</quiesce><memory>1</memory><name>name &amp; more</name><description>words</description></in></exec>",
        ),
    ] {
        let (port, server) = fake(product);
        let mut command = Command::new(&program);
        assert_eq!(account::output(command.arg(port.to_string()).args(["/a.vmx", form, "words"])), "1 -\n");
        assert_eq!(server.join().unwrap(), format!("{start}{expected}"), "product {product}");
    }
}
