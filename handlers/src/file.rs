//! `File_*`: one file at a time.

use std::os::fd::AsFd;

use handlers_derive::handler;
use ops::Error;
use ops::file::{
    Copy, CopyReply, Create, CreateReply, Delete, DeleteReply, Exists, ExistsReply, Read, ReadLastN,
    ReadLastNReply, ReadReply,
};
use ops::value::{Encoding, Size, as_xml_text, to_base64};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Statx, Uid, fchmod, fchown, fsync, unlinkat};
use rustix::io::{Errno, write};

use crate::copy_tree::{Copier, open_source};
use crate::new_file::{NewFile, flush_names};
use crate::partial::Hidden;
use crate::place::{Identity, Place, at, kind, not_regular, open_regular};
use crate::tasks::Progress;
use crate::tree::UMASK;
use crate::{Ctx, entries, pieces};

/// What may be replaced by a new file; `None` when there is nothing.
fn replaced(place: &Place, path: &str, overwrite: bool) -> Result<Option<Statx>, Error> {
    // A path with a slash at its end is that of a directory, be there one or not.
    if place.slash {
        return Err(Error::file(path, &Errno::ISDIR.into()));
    }
    let facts = match place.facts() {
        Ok(facts) => facts,
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(Error::file(path, &error)),
    };
    match (overwrite, kind(&facts)) {
        (false, _) => Err(Error::file(path, &Errno::EXIST.into())),
        (true, FileType::Directory) => Err(Error::file(path, &Errno::ISDIR.into())),
        (true, _) => Ok(Some(facts)),
    }
}

/// The place for a new file. A path without a last name is that of a directory.
fn place_of(path: &str) -> Result<Place, Error> {
    Place::of(path).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::INVAL) => Error::file(path, &Errno::ISDIR.into()),
        _ => Error::file(path, &error),
    })
}

/// Copies a regular file, whatever its size, before the reply.
#[handler]
fn copy(_: &Ctx, req: Copy) -> Result<CopyReply, Error> {
    let (from, to) = (req.source.as_str(), req.destination.as_str());
    let source = open_source(from, true)?;
    match kind(&source.facts) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Error::file(from, &Errno::ISDIR.into())),
        _ => return Err(Error::file(from, &not_regular())),
    }
    let place = place_of(to)?;
    if place.facts().is_ok_and(|facts| Identity::of(&facts) == Identity::of(&source.facts)) {
        return Err(Error::invalid("destination", format_args!("{to} is the source")));
    }
    replaced(&place, to, req.overwrite)?;
    let hidden = Hidden::new().map_err(at(to))?;
    let progress = Progress::default();
    let directory = place.directory.as_fd();
    let copier = Copier { directory, hidden: &hidden, keep_owner: false, progress: &progress };
    let size = copier.copy(&source, &place.name, req.overwrite, from, to)?;
    Ok(CopyReply { source: req.source, destination: req.destination, size: Size(size) })
}

/// Writes a new file, flushes it, and gives it its name.
#[handler]
fn create(_: &Ctx, req: Create) -> Result<CreateReply, Error> {
    let path = req.file.as_str();
    let contents = req.encoding.decode(req.contents.unwrap_or_default());
    let contents = contents.map_err(|why| Error::invalid("contents", why))?;
    let place = place_of(path)?;
    let old = replaced(&place, path, req.overwrite)?.filter(|old| kind(old) == FileType::RegularFile);
    let hidden = Hidden::new().map_err(at(path))?;
    let directory = place.directory.as_fd();
    let new = NewFile::create(directory, &hidden).map_err(at(path))?;
    let mut rest = contents.as_slice();
    while !rest.is_empty() {
        match write(new.file(), rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::file(path, &error.into())),
        }
    }
    let mut open = 0o666 & !UMASK;
    if let Some(old) = old {
        open = u32::from(old.stx_mode) & 0o777;
        // As far as the kernel lets the caller give files away; otherwise it is the caller's own.
        let (owner, group) = (Uid::from_raw(old.stx_uid), Gid::from_raw(old.stx_gid));
        if fchown(new.file(), Some(owner), Some(group)).is_err() {
            let _ = fchown(new.file(), None, Some(group));
        }
    }
    fchmod(new.file(), Mode::from_raw_mode(req.modes.apply(open))).map_err(at(path))?;
    fsync(new.file()).map_err(at(path))?;
    new.publish(&place.name, req.overwrite).map_err(at(path))?;
    flush_names(directory).map_err(at(path))?;
    Ok(CreateReply { file: req.file, size: Size(contents.len() as u64) })
}

/// Removes a name that is no directory's.
#[handler]
fn delete(_: &Ctx, req: Delete) -> Result<DeleteReply, Error> {
    unlinkat(CWD, req.file.as_str(), AtFlags::empty()).map_err(at(&req.file))?;
    Ok(DeleteReply { file: req.file })
}

/// Looks for a name.
#[handler]
fn exists(_: &Ctx, req: Exists) -> Result<ExistsReply, Error> {
    let kind = entries::existing(&req.file)?;
    Ok(ExistsReply { file: req.file, exists: kind.is_some(), kind })
}

/// A piece of a regular file.
#[handler]
fn read(_: &Ctx, req: Read) -> Result<ReadReply, Error> {
    let (file, facts) = open_regular(req.file.as_str()).map_err(at(&req.file))?;
    let Size(offset) = req.offset;
    let wanted = req.length.min(ops::file::MAX_PIECE) as usize;
    let size = facts.stx_size;
    // No more memory than there are bytes; what the kernel makes up says that it is empty.
    let there = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    let length = if size == 0 { wanted } else { wanted.min(there) };
    let bytes = pieces::read(&file, offset, length).map_err(at(&req.file))?;
    let end = offset.saturating_add(bytes.len() as u64);
    // Nothing there: at its end, or it has become shorter.
    let at_end = end >= size && (size > 0 || bytes.len() < wanted || wanted == 0) || bytes.len() < length;
    let (encoding, contents, covered) = pieces::encode(&bytes, !at_end);
    Ok(ReadReply {
        file: req.file,
        size: Size(size),
        offset: req.offset,
        length: covered as u64,
        eof: at_end && covered == bytes.len(),
        encoding,
        contents,
    })
}

/// The last lines of a regular file.
#[handler]
fn read_last_n(_: &Ctx, req: ReadLastN) -> Result<ReadLastNReply, Error> {
    let (file, facts) = open_regular(req.file.as_str()).map_err(at(&req.file))?;
    let tail = pieces::last_lines(&file, facts.stx_size, req.n as usize).map_err(at(&req.file))?;
    let texts: Option<Vec<String>> =
        tail.lines.iter().map(|line| as_xml_text(line).map(str::to_owned)).collect();
    let (encoding, lines) = match texts {
        Some(texts) => (None, texts),
        None => (Some(Encoding::Base64), tail.lines.iter().map(|line| to_base64(line)).collect()),
    };
    let warning = format!("only the last {} bytes were looked at", ops::file::MAX_PIECE);
    Ok(ReadLastNReply {
        file: req.file,
        n: lines.len() as u64,
        encoding,
        lines,
        warnings: tail.short.then_some(warning).into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::ctx;
    use ops::file_manager::{EntryType, Modes};
    use ops::value::{HostPath, Triad};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    fn path(base: &Path, name: &str) -> HostPath {
        HostPath::try_from(format!("{}/{name}", base.to_str().unwrap())).unwrap()
    }

    fn creation(file: HostPath, contents: &str, overwrite: bool) -> Create {
        let (encoding, modes) = (Encoding::Text, Modes::default());
        Create { file, contents: Some(contents.into()), encoding, modes, overwrite }
    }

    #[test]
    fn a_created_file_has_its_contents_and_rights() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| path(base.path(), name);
        let mode = |name: &str| base.path().join(name).metadata().unwrap().mode() & 0o7777;
        assert_eq!(create(&ctx(), creation(at("a"), "one", false)).unwrap().size, Size(3));
        assert_eq!(mode("a"), 0o644);
        let error = create(&ctx(), creation(at("a"), "two", false)).unwrap_err();
        assert_eq!(error.text, format!("{}: File exists", at("a")));
        std::fs::set_permissions(base.path().join("a"), PermissionsExt::from_mode(0o4750)).unwrap();
        create(&ctx(), creation(at("a"), "two", true)).unwrap();
        assert_eq!(
            (std::fs::read(base.path().join("a")).unwrap().as_slice(), mode("a")),
            (&b"two"[..], 0o750)
        );
        let binary = Create {
            contents: Some("AP8=".into()),
            encoding: Encoding::Base64,
            modes: Modes { other_mode: Some(Triad::from_bits(7)), ..Modes::default() },
            ..creation(at("b"), "", false)
        };
        create(&ctx(), binary.clone()).unwrap();
        assert_eq!((std::fs::read(base.path().join("b")).unwrap(), mode("b")), (vec![0, 255], 0o647));
        let wrong = Create { contents: Some("AP8".into()), file: at("c"), ..binary };
        assert_eq!(create(&ctx(), wrong).unwrap_err().code.number(), -3);
        let empty = Create { contents: None, ..creation(at("d"), "", false) };
        assert_eq!(create(&ctx(), empty).unwrap().size, Size(0));
        for place in ["", ".", "a/", "new/"] {
            let error = create(&ctx(), creation(at(place), "x", true)).unwrap_err();
            assert!(error.text.ends_with("Is a directory"), "{place}: {error}");
        }
        assert!(
            create(&ctx(), creation(at("no/x"), "x", true))
                .unwrap_err()
                .text
                .ends_with("No such file or directory")
        );
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 3);
    }

    #[test]
    fn creating_replaces_a_link_and_never_follows_it() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("kept"), "kept").unwrap();
        for target in ["kept", "nowhere"] {
            symlink(target, base.path().join("link")).unwrap();
            assert!(create(&ctx(), creation(path(base.path(), "link"), "x", false)).is_err());
            create(&ctx(), creation(path(base.path(), "link"), "x", true)).unwrap();
            std::fs::remove_file(base.path().join("link")).unwrap();
        }
        assert_eq!(std::fs::read(base.path().join("kept")).unwrap(), b"kept");
        assert!(!base.path().join("nowhere").exists());
    }

    #[test]
    fn copies_of_regular_files_only() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| path(base.path(), name);
        std::fs::write(base.path().join("a"), "abc").unwrap();
        std::fs::hard_link(base.path().join("a"), base.path().join("same")).unwrap();
        symlink("a", base.path().join("link")).unwrap();
        std::fs::create_dir(base.path().join("d")).unwrap();
        let one = |source: &str, destination: &str, overwrite| {
            copy(&ctx(), Copy { source: at(source), destination: at(destination), overwrite })
        };
        assert_eq!(one("link", "b", false).unwrap().size, Size(3));
        for (source, destination, overwrite, code) in [
            ("a", "b", false, -999),
            ("a", "a", true, -3),
            ("a", "same", true, -3),
            ("link", "a", true, -3),
            ("d", "x", false, -999),
            ("a", "d", true, -999),
            ("missing", "x", false, -999),
            ("a", "x/", true, -999),
        ] {
            let error = one(source, destination, overwrite).unwrap_err();
            assert_eq!(error.code.number(), code, "{source} {destination}: {error}");
        }
        one("a", "b", true).unwrap();
        let null = HostPath::try_from("/dev/null".to_owned()).unwrap();
        let error = copy(&ctx(), Copy { source: null, destination: at("x"), overwrite: false }).unwrap_err();
        assert_eq!(error.text, "/dev/null: Not a regular file");
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 5);
    }

    #[test]
    fn reading_pieces_up_to_the_end_and_behind_it() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("f"), "aä€").unwrap();
        let piece = |offset, length| {
            let request = Read { file: path(base.path(), "f"), offset: Size(offset), length };
            let reply = read(&ctx(), request).unwrap();
            (reply.length, reply.eof, reply.encoding, reply.contents)
        };
        let text = |text: &str| text.to_owned();
        assert_eq!(piece(0, 1 << 20), (6, true, Encoding::Text, text("aä€")));
        assert_eq!(piece(0, 5), (3, false, Encoding::Text, text("aä")));
        assert_eq!(piece(3, 3), (3, true, Encoding::Text, text("€")));
        assert_eq!(piece(0, 0), (0, false, Encoding::Text, text("")));
        assert_eq!(piece(6, 10), (0, true, Encoding::Text, text("")));
        assert_eq!(piece(u64::MAX, 10), (0, true, Encoding::Text, text("")));
        assert_eq!(piece(5, 10), (1, true, Encoding::Base64, text("rA==")));
        let kernel = HostPath::try_from("/proc/self/status".to_owned()).unwrap();
        let reply = read(&ctx(), Read { file: kernel, offset: Size(0), length: 1 << 20 }).unwrap();
        assert!(reply.length > 100 && reply.eof);
        let directory = Read { file: path(base.path(), ""), offset: Size(0), length: 1 };
        assert!(read(&ctx(), directory).unwrap_err().text.ends_with("Is a directory"));
    }

    #[test]
    fn last_lines_and_what_is_no_text() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("f"), "a\nb\r\nc\n").unwrap();
        let last = |n| read_last_n(&ctx(), ReadLastN { file: path(base.path(), "f"), n }).unwrap();
        assert_eq!(
            (last(2).encoding, last(2).lines, last(2).n),
            (None, vec!["b\r".into(), "c".to_owned()], 2)
        );
        std::fs::write(base.path().join("f"), b"a\n\xFF\n").unwrap();
        assert_eq!(
            (last(9).encoding, last(9).lines),
            (Some(Encoding::Base64), vec!["YQ==".into(), "/w==".into()])
        );
        std::fs::write(base.path().join("f"), vec![b'x'; 2 << 20]).unwrap();
        assert_eq!(last(1).warnings, ["only the last 1048576 bytes were looked at"]);
    }

    #[test]
    fn existing_and_deleted() {
        let base = tempfile::tempdir().unwrap();
        symlink("nowhere", base.path().join("link")).unwrap();
        let looked = |name: &str| exists(&ctx(), Exists { file: path(base.path(), name) }).unwrap();
        assert_eq!((looked("link").exists, looked("link").kind), (true, Some(EntryType::Link)));
        assert_eq!(looked("").kind, Some(EntryType::Directory));
        let gone = |name: &str| delete(&ctx(), Delete { file: path(base.path(), name) });
        assert!(gone("").unwrap_err().text.ends_with("Is a directory"));
        gone("link").unwrap();
        assert_eq!(
            (looked("link").exists, looked("link").kind, looked("link/x").exists),
            (false, None, false)
        );
        assert!(exists(&ctx(), Exists { file: path(base.path(), &"n".repeat(300)) }).is_err());
    }
}
