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
