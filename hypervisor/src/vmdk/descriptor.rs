//! The text that describes a disk: which extents it has, in which order, and whose child it is.
//!
//! ```text
//! # Disk DescriptorFile
//! version=1
//! CID=0badcafe                      changed at the first write after each open
//! parentCID=ffffffff                no parent; else the parent's CID when this child was made
//! createType="monolithicSparse"
//! # Extent description
//! RW 204800 SPARSE "disk.vmdk"      access, sectors, kind, file relative to the descriptor
//! # The Disk Data Base
//! ddb.adapterType = "ide"           facts for the adapter; none of them moves a sector
//! ```
//!
//! Read with tolerance for white space, quotes, case and CR LF, but a line without a meaning is
//! refused, and so is a file of its own that ends at its extent lines: the rest of them may be
//! missing. Everything written by others stays as it is; only the CID is ever replaced.

use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::MAX_CAPACITY;
use super::geometry::{Adapter, Geometry};

/// Longest descriptor that is read, in bytes: 1025 extents of 2 TiB with long names fit.
pub const MAX_DESCRIPTOR: u64 = 512 * 1024;

/// Most extents of one disk: 2 TiB in pieces of 2 GiB, twice.
pub const MAX_EXTENTS: usize = 2050;

/// `parentCID` of a disk without a parent.
pub const NO_PARENT: u32 = 0xffff_ffff;

/// What may be done with an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentAccess {
    /// `RW`
    ReadWrite,
    /// `RDONLY`
    ReadOnly,
    /// `NOACCESS`
    None,
}

/// How an extent keeps its sectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtentKind {
    /// `FLAT`: one after the other, from an offset on.
    Flat,
    /// `VMFS`: the same, of ESX Server.
    Vmfs,
    /// `SPARSE`: a `KDMV` file.
    Sparse,
    /// `VMFSSPARSE`: a `COWD` file.
    VmfsSparse,
    /// `ZERO`: not at all; every sector is zeros.
    Zero,
    /// Anything else; such a disk can be listed, not opened.
    Other(String),
}

impl ExtentKind {
    /// The word in a descriptor.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            ExtentKind::Flat => "FLAT",
            ExtentKind::Vmfs => "VMFS",
            ExtentKind::Sparse => "SPARSE",
            ExtentKind::VmfsSparse => "VMFSSPARSE",
            ExtentKind::Zero => "ZERO",
            ExtentKind::Other(name) => name,
        }
    }

    fn from_name(name: &str) -> Self {
        let known = [Self::Flat, Self::Vmfs, Self::Sparse, Self::VmfsSparse, Self::Zero];
        let found = known.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name));
        found.unwrap_or_else(|| Self::Other(name.to_owned()))
    }
}

/// One extent line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtentLine {
    /// What may be done with it.
    pub access: ExtentAccess,
    /// Its part of the capacity, in sectors.
    pub sectors: u64,
    /// How it keeps them.
    pub kind: ExtentKind,
    /// Its file, as written: relative to the descriptor, or absolute. None for `ZERO`.
    pub file: Option<PathBuf>,
    /// First sector in the file (`FLAT` and `VMFS` only).
    pub offset: u64,
}

/// A descriptor as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// `createType`, as written.
    pub create_type: String,
    /// `CID`.
    pub cid: u32,
    /// `parentCID`, None where there is no parent.
    pub parent_cid: Option<u32>,
    /// `parentFileNameHint`, as written: relative to the descriptor, or absolute.
    pub parent_hint: Option<PathBuf>,
    /// The extents in the order of their sectors; never empty.
    pub extents: Vec<ExtentLine>,
    /// The `ddb.*` lines, in order.
    pub ddb: Vec<(String, String)>,
    /// The whole text, up to its padding.
    text: Vec<u8>,
    /// Where in it the digits of the CID are.
    cid_digits: Range<usize>,
    /// Something other than white space follows the last extent line.
    complete: bool,
}

impl Descriptor {
    /// Reads a descriptor; a NUL ends it.
    ///
    /// # Errors
    /// What is wrong, for a human.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        let mut reading = Reading::default();
        for (number, line) in lines(text).enumerate() {
            reading
                .line(&line)
                .map_err(|reason| format!("line {} of the descriptor: {reason}", number + 1))?;
        }
        reading.finish(text)
    }

    /// Whether the text goes on after its extent lines. All writers of such files end with facts for
    /// the adapter; a file that does not may have lost extents.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Sectors of the disk: the extents together, at most [`MAX_CAPACITY`].
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.extents.iter().map(|extent| extent.sectors).sum()
    }

    /// A `ddb.*` fact; the name without regard to case.
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.ddb.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The adapter it was made for, if it says so in a known word.
    #[must_use]
    pub fn adapter(&self) -> Option<Adapter> {
        self.fact("ddb.adapterType").and_then(Adapter::from_name)
    }

    /// The geometry, if all three numbers are there and make sense.
    #[must_use]
    pub fn geometry(&self) -> Option<Geometry> {
        let number = |name| self.fact(name)?.trim().parse::<u32>().ok().filter(|&number| number > 0);
        Some(Geometry {
            cylinders: number("ddb.geometry.cylinders")?,
            heads: number("ddb.geometry.heads")?,
            sectors: number("ddb.geometry.sectors")?,
        })
    }

    /// The text, without padding.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Replaces the CID and nothing else. Returns where the text differs now, as (offset in bytes,
    /// new bytes, whether only these bytes changed); the rest moves when the old CID had fewer digits.
    pub(crate) fn set_cid(&mut self, cid: u32) -> (usize, Vec<u8>, bool) {
        let digits = format!("{cid:08x}").into_bytes();
        let same_length = self.cid_digits.len() == digits.len();
        let start = self.cid_digits.start;
        self.text.splice(self.cid_digits.clone(), digits.iter().copied());
        self.cid_digits = start..start.saturating_add(digits.len());
        self.cid = cid;
        (start, digits, same_length)
    }
}

/// A line without its end and the white space around it, and where it begins.
struct Line<'a> {
    text: &'a [u8],
    start: usize,
}

fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut next = 0_usize;
    text.split(|&byte| byte == b'\n').map(move |raw| {
        let first = next == 0;
        next = next.saturating_add(raw.len()).saturating_add(1);
        let unmarked = if first { raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw) } else { raw };
        let text = unmarked.trim_ascii_start();
        // `next` is one behind the line end.
        Line { text: text.trim_ascii_end(), start: next.saturating_sub(text.len()).saturating_sub(1) }
    })
}

/// What the lines so far have said.
#[derive(Default)]
struct Reading {
    version: Option<()>,
    cid: Option<(u32, Range<usize>)>,
    parent_cid: Option<u32>,
    create_type: Option<String>,
    parent_hint: Option<PathBuf>,
    extents: Vec<ExtentLine>,
    sectors: u64,
    ddb: Vec<(String, String)>,
    complete: bool,
}

impl Reading {
    fn line(&mut self, line: &Line<'_>) -> Result<(), String> {
        let text = line.text;
        if text.is_empty() {
            return Ok(());
        }
        if text.starts_with(b"#") {
            self.complete = true;
            return Ok(());
        }
        if let Some(extent) = extent_line(text)? {
            self.sectors = self.sectors.saturating_add(extent.sectors);
            if extent.sectors == 0 || self.sectors > MAX_CAPACITY {
                return Err(format!("{} sectors; a disk has 1 to {MAX_CAPACITY}", self.sectors));
            }
            if self.extents.len() >= MAX_EXTENTS {
                return Err(format!("more than {MAX_EXTENTS} extents"));
            }
            self.extents.push(extent);
            self.complete = false;
            return Ok(());
        }
        self.setting(line)?;
        self.complete = true;
        Ok(())
    }

    /// A line `key = "value"`.
    fn setting(&mut self, line: &Line<'_>) -> Result<(), String> {
        let Some(equals) = line.text.iter().position(|&byte| byte == b'=') else {
            return Err("neither an extent nor a setting".to_owned());
        };
        let (key, value) = line.text.split_at(equals);
        let value = value.get(1..).unwrap_or_default().trim_ascii_start();
        let key = String::from_utf8_lossy(key.trim_ascii()).to_ascii_lowercase();
        // The line is trimmed, so the value ends where the line ends.
        let start = line.start.saturating_add(line.text.len().saturating_sub(value.len()));
        let start = start.saturating_add(usize::from(value.starts_with(b"\"")));
        let raw = unquote(value)?;
        let value = String::from_utf8_lossy(raw);
        match key.as_str() {
            "version" => {
                if !matches!(value.as_ref(), "1" | "2" | "3") {
                    return Err(format!("version {value} is not known"));
                }
                once(&mut self.version, (), &key)
            }
            "cid" => once(&mut self.cid, (hex(&value)?, start..start.saturating_add(raw.len())), &key),
            "parentcid" => once(&mut self.parent_cid, hex(&value)?, &key),
            "createtype" => once(&mut self.create_type, value.into_owned(), &key),
            "parentfilenamehint" => {
                if raw.is_empty() {
                    return Err("an empty parentFileNameHint".to_owned());
                }
                once(&mut self.parent_hint, PathBuf::from(OsStr::from_bytes(raw)), &key)
            }
            _ if key.starts_with("ddb.") => {
                let name = line.text.get(..equals).unwrap_or_default().trim_ascii();
                self.ddb.push((String::from_utf8_lossy(name).into_owned(), value.into_owned()));
                Ok(())
            }
            // encoding, isNativeSnapshot, changeTrackPath and whatever comes: kept, not used.
            _ => Ok(()),
        }
    }

    fn finish(self, text: &[u8]) -> Result<Descriptor, String> {
        self.version.ok_or("no descriptor of a disk (it has no version)")?;
        let (cid, cid_digits) = self.cid.ok_or("the descriptor has no CID")?;
        let create_type = self.create_type.ok_or("the descriptor has no createType")?;
        if self.extents.is_empty() {
            return Err("the descriptor has no extents".to_owned());
        }
        let parent_cid = self.parent_cid.filter(|&cid| cid != NO_PARENT);
        if parent_cid.is_some() && self.parent_hint.is_none() {
            return Err("a child that does not name its parent".to_owned());
        }
        Ok(Descriptor {
            create_type,
            cid,
            parent_cid,
            parent_hint: self.parent_hint.filter(|_| parent_cid.is_some()),
            extents: self.extents,
            ddb: self.ddb,
            text: text.to_vec(),
            cid_digits,
            complete: self.complete,
        })
    }
}

/// Two lines for one fact leave open which is meant, so the second is an error.
fn once<T>(slot: &mut Option<T>, value: T, key: &str) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("a second {key}")),
    }
}

fn unquote(value: &[u8]) -> Result<&[u8], String> {
    match value.strip_prefix(b"\"") {
        None => Ok(value),
        Some(rest) => {
            let end = rest.iter().position(|&byte| byte == b'"').ok_or("a quote that is never closed")?;
            Ok(rest.get(..end).unwrap_or_default())
        }
    }
}

fn hex(text: &str) -> Result<u32, String> {
    let digits = text.len() <= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = digits.then(|| u32::from_str_radix(text, 16).ok()).flatten();
    number.ok_or_else(|| format!("{text:?} is no 32-bit hexadecimal number"))
}

/// Reads `RW 204800 FLAT "file" 0`; None when the line does not begin like an extent.
fn extent_line(line: &[u8]) -> Result<Option<ExtentLine>, String> {
    let (word, rest) = next_word(line);
    let access = match word.to_ascii_uppercase().as_slice() {
        b"RW" => ExtentAccess::ReadWrite,
        b"RDONLY" => ExtentAccess::ReadOnly,
        b"NOACCESS" => ExtentAccess::None,
        _ => return Ok(None),
    };
    let (sectors, rest) = next_word(rest);
    let sectors = decimal(sectors)?;
    let (kind, rest) = next_word(rest);
    let kind = ExtentKind::from_name(&String::from_utf8_lossy(kind));
    let (file, rest) = match rest.strip_prefix(b"\"") {
        None => (None, rest),
        Some(quoted) => {
            let name = unquote(rest)?;
            let after = quoted.get(name.len().saturating_add(1)..).unwrap_or_default();
            (Some(PathBuf::from(OsStr::from_bytes(name))), after.trim_ascii_start())
        }
    };
    let needs_file = !matches!(kind, ExtentKind::Zero | ExtentKind::Other(_));
    if needs_file && file.as_ref().is_none_or(|file| file.as_os_str().is_empty()) {
        return Err("an extent without a file".to_owned());
    }
    let offset = match next_word(rest).0 {
        b"" if kind == ExtentKind::Flat => return Err("a flat extent without an offset".to_owned()),
        word if matches!(kind, ExtentKind::Flat | ExtentKind::Vmfs) && !word.is_empty() => decimal(word)?,
        _ => 0,
    };
    Ok(Some(ExtentLine { access, sectors, kind, file, offset }))
}

fn next_word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_ascii_start())
}

fn decimal(word: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(word);
    let digits = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    digits.then(|| text.parse().ok()).flatten().ok_or_else(|| format!("{text:?} is no number of sectors"))
}

/// What a new descriptor says.
#[derive(Debug)]
pub(crate) struct NewDescriptor<'a> {
    pub(crate) create_type: &'a str,
    pub(crate) cid: u32,
    /// CID and name of the parent.
    pub(crate) parent: Option<(u32, &'a Path)>,
    pub(crate) extents: &'a [ExtentLine],
    pub(crate) hardware_version: u32,
    pub(crate) adapter: Adapter,
    pub(crate) geometry: Geometry,
}

impl NewDescriptor<'_> {
    /// The text, in the order and spelling that the product's own tools and `qemu-img` accept.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut out = format!(
            "# Disk DescriptorFile\nversion=1\nCID={:08x}\nparentCID={:08x}\ncreateType=\"{}\"\n",
            self.cid,
            self.parent.map_or(NO_PARENT, |(cid, _)| cid),
            self.create_type
        )
        .into_bytes();
        if let Some((_, hint)) = self.parent {
            out.extend_from_slice(b"parentFileNameHint=\"");
            out.extend_from_slice(hint.as_os_str().as_bytes());
            out.extend_from_slice(b"\"\n");
        }
        out.extend_from_slice(b"\n# Extent description\n");
        for extent in self.extents {
            let access = match extent.access {
                ExtentAccess::ReadWrite => "RW",
                ExtentAccess::ReadOnly => "RDONLY",
                ExtentAccess::None => "NOACCESS",
            };
            out.extend_from_slice(format!("{access} {} {}", extent.sectors, extent.kind.name()).as_bytes());
            if let Some(file) = &extent.file {
                out.extend_from_slice(b" \"");
                out.extend_from_slice(file.as_os_str().as_bytes());
                out.push(b'"');
            }
            if extent.kind == ExtentKind::Flat {
                out.extend_from_slice(format!(" {}", extent.offset).as_bytes());
            }
            out.push(b'\n');
        }
        let Geometry { cylinders, heads, sectors } = self.geometry;
        let facts = format!(
            "\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"{}\"\n\
             ddb.geometry.cylinders = \"{cylinders}\"\nddb.geometry.heads = \"{heads}\"\n\
             ddb.geometry.sectors = \"{sectors}\"\nddb.adapterType = \"{}\"\n",
            self.hardware_version,
            self.adapter.name()
        );
        out.extend_from_slice(facts.as_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "# Disk DescriptorFile\r\nversion = 1\r\nencoding=\"UTF-8\"\r\nCID=badcafe\r\n\
        parentCid=FFFFFFFF\r\ncreateType = \"custom\"\r\n\r\n# Extent description\r\n\
        RW 63 FLAT \"a b-flat.vmdk\" 128\r\n  rdonly 100 sparse \"s.vmdk\"\r\nRW 5 ZERO\r\n\
        NOACCESS 7 VMFS \"/vmfs/x\"\r\n\r\nddb.adapterType = \"lsilogic\"\r\nddb.geometry.cylinders = \"5\"\r\n";

    #[test]
    fn reads_what_others_write() {
        let descriptor = Descriptor::parse(TEXT.as_bytes()).unwrap();
        assert_eq!((descriptor.cid, descriptor.parent_cid), (0x0bad_cafe, None));
        assert_eq!(descriptor.create_type, "custom");
        assert_eq!(descriptor.capacity(), 175);
        assert_eq!(descriptor.extents[0].file.as_deref(), Some(Path::new("a b-flat.vmdk")));
        assert_eq!(descriptor.extents[0].offset, 128);
        assert_eq!(descriptor.extents[1].access, ExtentAccess::ReadOnly);
        assert_eq!(descriptor.extents[2].file, None);
        assert_eq!(descriptor.extents[3].kind, ExtentKind::Vmfs);
        assert_eq!(descriptor.adapter(), Some(Adapter::LsiLogic));
        assert_eq!(descriptor.geometry(), None);
        assert!(descriptor.is_complete());
    }

    #[test]
    fn only_the_cid_changes() {
        let mut descriptor = Descriptor::parse(TEXT.as_bytes()).unwrap();
        let (offset, bytes, in_place) = descriptor.set_cid(0x1234);
        assert_eq!(
            (offset, bytes.as_slice(), in_place),
            (TEXT.find("badcafe").unwrap(), &b"00001234"[..], false)
        );
        assert_eq!(descriptor.text(), TEXT.replace("badcafe", "00001234").as_bytes());
        assert!(descriptor.set_cid(0x5678).2);
        assert_eq!(Descriptor::parse(descriptor.text()).unwrap(), descriptor);
    }

    #[test]
    fn refuses_what_is_unclear() {
        let refused =
            |from: &str, to: &str| Descriptor::parse(TEXT.replace(from, to).as_bytes()).unwrap_err();
        assert!(
            refused("CID=badcafe", "CID=badcafe\nCID=1").contains("line 5 of the descriptor: a second cid")
        );
        assert!(refused("badcafe", "123456789").contains("hexadecimal"));
        assert!(refused("badcafe", "+1").contains("hexadecimal"));
        assert!(refused("version = 1", "").contains("no version"));
        assert!(refused("createType", "create").contains("no createType"));
        assert!(refused("\" 128", "\"").contains("without an offset"));
        assert!(refused("\"s.vmdk\"", "").contains("without a file"));
        assert!(refused("RW 63", "RW 0").contains("sectors"));
        assert!(refused("RW 63", "RW 9223372036854775808").contains("sectors"));
        assert!(refused("RW 63", "RW -1").contains("sectors"));
        assert!(refused("\"lsilogic\"", "\"lsi").contains("never closed"));
        assert!(refused("FFFFFFFF", "12").contains("name its parent"));
        assert!(refused("RW 5 ZERO", "R").contains("neither"));
        let other = Descriptor::parse(TEXT.replace("ZERO", "SESPARSE \"x\"").as_bytes()).unwrap();
        assert_eq!(other.extents[2].kind, ExtentKind::Other("SESPARSE".to_owned()));
    }

    #[test]
    fn a_text_that_ends_at_its_extents_is_not_complete() {
        let cut = |at: &str| &TEXT.as_bytes()[..TEXT.find(at).unwrap()];
        assert!(!Descriptor::parse(cut("  rdonly")).unwrap().is_complete());
        assert!(!Descriptor::parse(cut("\r\nddb.adapter")).unwrap().is_complete());
        assert!(Descriptor::parse(cut("ddb.geometry")).unwrap().is_complete());
    }

    #[test]
    fn what_is_written_is_read() {
        let extents = [ExtentLine {
            access: ExtentAccess::ReadWrite,
            sectors: 204_800,
            kind: ExtentKind::Sparse,
            file: Some("d.vmdk".into()),
            offset: 0,
        }];
        let new = NewDescriptor {
            create_type: "monolithicSparse",
            cid: 0xbad,
            parent: Some((7, Path::new("../base.vmdk"))),
            extents: &extents,
            hardware_version: 4,
            adapter: Adapter::Ide,
            geometry: Geometry::of(Adapter::Ide, 204_800),
        };
        let read = Descriptor::parse(&new.text()).unwrap();
        assert_eq!((read.cid, read.parent_cid), (0xbad, Some(7)));
        assert_eq!(read.parent_hint.as_deref(), Some(Path::new("../base.vmdk")));
        assert_eq!(read.extents, extents);
        assert_eq!(read.geometry(), Some(new.geometry));
        assert_eq!(read.fact("ddb.virtualHWVersion"), Some("4"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Descriptor::parse(&bytes);
        }

        #[test]
        fn any_change_of_a_good_text_is_read_or_refused(at in 0..TEXT.len(), byte in any::<u8>(), cid in any::<u32>()) {
            let mut text = TEXT.as_bytes().to_vec();
            text[at] = byte;
            if let Ok(mut descriptor) = Descriptor::parse(&text) {
                descriptor.set_cid(cid);
                prop_assert_eq!(Descriptor::parse(descriptor.text()).unwrap().cid, cid);
            }
        }
    }
}
