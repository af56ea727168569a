//! An exec session: documents out, documents in.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::client::{Client, End, Tap};

/// What every successful reply starts with, up to the value of the return code.
pub const PREFIX: &str = "<exec><product id=\"GSX\"><title>VMware Server</title>\
    <version>1.0.3 build-44356</version><build>44356</build></product><returncode>";

/// A session with the server, after the hand-over.
#[derive(Debug)]
pub struct Exec {
    client: Client,
}

impl Exec {
    /// Takes over a connection whose next byte belongs to the server.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Exec { client }
    }

    /// A session of the test's own user over a unix socket, if one is served there just now.
    #[must_use]
    pub fn try_unix(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        let mut client = Client::new(Tap::Unix(stream)).patience(Duration::from_secs(10));
        client.try_line().ok().filter(|line| line.starts_with("220 "))?;
        for (command, start) in [("LOCAL\r\n", "230 "), ("GLOBAL server\r\n", "200 ")] {
            client.try_send(command).ok()?;
            client.try_line().ok().filter(|line| line.starts_with(start))?;
        }
        Some(Exec::new(client))
    }

    /// The connection beneath.
    #[must_use]
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.send(bytes);
    }

    /// Reads the next reply.
    ///
    /// # Errors
    /// When the connection gives none.
    pub fn try_reply(&mut self) -> Result<Reply, End> {
        let bytes = self.client.read_to(b"</exec>\n")?;
        let text = String::from_utf8(bytes).expect("replies are UTF-8");
        assert!(text.starts_with(PREFIX), "not a reply: {text}");
        Ok(Reply { text: text.trim_end().to_owned() })
    }

    /// Reads the next reply, which must come.
    #[must_use]
    pub fn reply(&mut self) -> Reply {
        self.try_reply().unwrap_or_else(|end| panic!("no reply: {end:?}"))
    }

    /// Sends a document and reads its reply.
    pub fn ask(&mut self, document: impl AsRef<[u8]>) -> Reply {
        self.send(document);
        self.reply()
    }

    /// Sends an operation with the contents of its `in` and reads the reply.
    pub fn op(&mut self, name: &str, arguments: &str) -> Reply {
        self.ask(request(name, arguments))
    }

    /// Asks for `number + 1`: the smallest proof that the session works.
    #[must_use]
    pub fn inc(&mut self, number: i64) -> i64 {
        let reply = self.op("inc", &format!("<number>{number}</number>"));
        reply.out("number").parse().unwrap_or_else(|_| panic!("not a number: {reply:?}"))
    }

    /// Who the server takes us for.
    #[must_use]
    pub fn user(&mut self) -> String {
        self.op("VMServerd_IsAdminUser", "").out("user")
    }
}

/// A request document.
#[must_use]
pub fn request(name: &str, arguments: &str) -> String {
    format!("<exec><op>{name}</op><in>{arguments}</in></exec>")
}

/// The arguments of `FileManager_MakeDir` for one directory.
#[must_use]
pub fn make_dir(path: &Path) -> String {
    format!("<directories><directory>{}</directory></directories>", path.display())
}

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The document, without the line end behind it.
    pub text: String,
}

impl Reply {
    fn with<T>(&self, look: impl FnOnce(&roxmltree::Document<'_>) -> T) -> T {
        let document = roxmltree::Document::parse(&self.text);
        look(&document.unwrap_or_else(|error| panic!("reply is no document: {error}\n{}", self.text)))
    }

    /// Whether the operation succeeded.
    #[must_use]
    pub fn ok(&self) -> bool {
        let code = self.with(|document| child(document.root_element(), "returncode"));
        match code.as_deref() {
            Some("1") => true,
            Some("0") => false,
            other => panic!("returncode {other:?} in {}", self.text),
        }
    }

    /// Code and text of the first error, if the operation failed.
    #[must_use]
    pub fn error(&self) -> Option<(i32, String)> {
        if self.ok() {
            return None;
        }
        self.with(|document| {
            let error = document.descendants().find(|node| node.has_tag_name("error")).expect("an error");
            let code = error.attribute("code").expect("a code").parse().expect("a number");
            Some((code, error.text().unwrap_or_default().to_owned()))
        })
    }

    /// The code of the first error, 0 for success.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.error().map_or(0, |(code, _)| code)
    }

    /// The text of a child of `out`, which must exist in a successful reply.
    #[must_use]
    pub fn out(&self, name: &str) -> String {
        assert!(self.ok(), "{}", self.text);
        let found = self.with(|document| {
            let out = document.root_element().children().find(|node| node.has_tag_name("out"))?;
            child(out, name)
        });
        found.unwrap_or_else(|| panic!("no {name} in {}", self.text))
    }

    /// The texts of all elements of a name, anywhere in the reply.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<String> {
        self.with(|document| {
            let found = document.descendants().filter(|node| node.has_tag_name(name));
            found.map(|node| node.text().unwrap_or_default().to_owned()).collect()
        })
    }

    /// The values of an attribute of all elements of a name, anywhere in the reply.
    #[must_use]
    pub fn attributes(&self, name: &str, attribute: &str) -> Vec<String> {
        self.with(|document| {
            let found = document.descendants().filter(|node| node.has_tag_name(name));
            found.filter_map(|node| node.attribute(attribute).map(str::to_owned)).collect()
        })
    }
}

fn child(node: roxmltree::Node<'_, '_>, name: &str) -> Option<String> {
    let found = node.children().find(|child| child.has_tag_name(name))?;
    Some(found.text().unwrap_or_default().to_owned())
}
