//! How it is shown: documents with line breaks, and with stable names for what differs from machine to
//! machine and from run to run.
//!
//! A value is replaced only when it has the form it ought to have; any other stays, and the comparison
//! shows it.

use std::fmt::Write as _;

use roxmltree::{Document, Node};

use crate::stage::{Scene, Stage};

/// Names of this run and what stands for them, in the order of replacing.
pub struct Names(Vec<(String, String)>);

impl Names {
    /// The names of a scene.
    pub fn new(stage: &Stage, scene: &Scene) -> Self {
        let text = |path: &std::path::Path| path.display().to_string();
        let mut names = vec![
            (text(&scene.work), "/home/alice/work".to_owned()),
            (text(&stage.owner.home), "/home/alice".to_owned()),
            (text(&stage.other.home), "/home/bob".to_owned()),
            (stage.owner.name.clone(), "alice".to_owned()),
            (stage.other.name.clone(), "bob".to_owned()),
            (text(&stage.instance.base.root()), String::new()),
        ];
        if scene.task != 0 {
            names.push((format!("such task: {}", scene.task), "such task: {task}".to_owned()));
        }
        Names(names)
    }

    /// A text with the names replaced.
    pub fn replace(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// A document of an operation as it is shown.
    pub fn document(&self, op: &str, text: &str) -> String {
        let text = self.replace(text);
        let document = Document::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let mut shown = String::new();
        element(op, document.root_element(), 0, &mut shown);
        shown
    }
}

fn element(op: &str, node: Node<'_, '_>, depth: usize, shown: &mut String) {
    let name = node.tag_name().name();
    let _ = write!(shown, "{:1$}<{name}", "", 2 * depth);
    for attribute in node.attributes() {
        let _ =
            write!(shown, " {}=\"{}\"", attribute.name(), escape(attribute.value()).replace('"', "&quot;"));
    }
    if node.children().any(|child| child.is_element()) {
        shown.push_str(">\n");
        for child in node.children().filter(Node::is_element) {
            element(op, child, depth + 1, shown);
        }
        let _ = writeln!(shown, "{:1$}</{name}>", "", 2 * depth);
        return;
    }
    let text: String = node.children().filter_map(|child| child.text()).collect();
    let text = stable(op, node, &text).map_or(text, str::to_owned);
    let _ = match text.as_str() {
        "" => writeln!(shown, "/>"),
        text => writeln!(shown, ">{}</{name}>", escape(text)),
    };
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What stands for the text of an element, if it is one that differs.
fn stable(op: &str, node: Node<'_, '_>, text: &str) -> Option<&'static str> {
    let name = node.tag_name().name();
    let parent = node.parent().map_or("", |parent| parent.tag_name().name());
    let beside = |name: &str| {
        let found = node.parent()?.children().find(|child| child.has_tag_name(name))?;
        found.text()
    };
    let number = text.parse::<u64>().is_ok();
    let fits = |pattern: &str| fits(pattern, text);
    let (mark, right) = match (op, name) {
        (_, "mtime" | "time" | "startTime" | "endTime" | "notBefore" | "notAfter") => {
            ("{time}", text.len() == 10 && number)
        }
        (_, "taskId") => ("{task}", number && text != "0"),
        (_, "rate") => ("{rate}", number),
        (_, "fingerprint") => ("{fingerprint}", fits(&["HH"; 20].join(":"))),
        (_, "cid") => ("{cid}", fits("hhhhhhhh")),
        ("VM_Create", "uuid") => ("{uuid}", fits("56 4d hh hh hh hh hh hh-hh hh hh hh hh hh hh hh")),
        ("VM_Create", "macAddress") => ("{mac}", fits("00:0c:29:hh:hh:hh")),
        ("GSXHostInfo_Query", "hostname") => ("{hostname}", !text.is_empty()),
        ("GSXHostInfo_Query", "osVersion") => ("{osVersion}", text.starts_with(|c: char| c.is_ascii_digit())),
        // Not every processor has a name.
        ("GSXHostInfo_Query", "cpuModel") => ("{cpuModel}", true),
        ("GSXHostInfo_Query", "cpus") => ("{cpus}", number && text != "0"),
        ("GSXHostInfo_Query", "cpuMhz") => ("{cpuMhz}", number),
        ("GSXHostInfo_Query", "memoryMb" | "freeMemoryMb") => ("{memory}", number),
        ("GSXHostInfo_Query", "hostClass") => {
            ("{hostClass}", ["native", "emulated", "none", "unknown"].contains(&text))
        }
        ("GSXHostInfo_Query", "uptime") => ("{uptime}", number),
        ("GSXHostInfo_Query", "loadAverage") => (
            "{load}",
            text.split(' ').count() == 3 && text.split(' ').all(|load| load.parse::<f64>().is_ok()),
        ),
        ("GSXHostInfo_GetDiskSpace", "fileSystem") => ("{fileSystem}", !text.is_empty()),
        ("GSXHostInfo_GetDiskSpace", "total" | "free" | "available") => ("{bytes}", number),
        ("VMServerd_GetRequestCount", "count") => ("{count}", number && text != "0"),
        ("VMServerd_GetProductInfo", "version") if parent == "implementation" => {
            ("{version}", text == env!("CARGO_PKG_VERSION"))
        }
        ("VMServerd_GetResource", "value") => ("{number}", number && text != "0"),
        ("VMServerd_WaitForEvents", "epoch" | "next") => ("{number}", number),
        ("VMServerd_GetMetrics", "contents") => {
            ("{metrics}", text.starts_with("# HELP ") && text.ends_with("\n# EOF\n"))
        }
        ("Directory_GetSpaceUsage", "size") => ("{bytes}", number),
        // How large a directory is depends on the file system.
        (_, "size") if parent == "entry" && beside("type") == Some("directory") => ("{bytes}", number),
        _ => return None,
    };
    right.then_some(mark)
}

/// Whether a text has the form of a pattern: `h` and `H` are hexadecimal digits, small and capital.
fn fits(pattern: &str, text: &str) -> bool {
    let digit = |c: char| c.is_ascii_digit();
    pattern.chars().count() == text.chars().count()
        && pattern.chars().zip(text.chars()).all(|(pattern, c)| match pattern {
            'h' => digit(c) || ('a'..='f').contains(&c),
            'H' => digit(c) || ('A'..='F').contains(&c),
            other => other == c,
        })
}
