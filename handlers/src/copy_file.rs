//! Copying the contents and the attributes of one file.
//!
//! ```text
//!   FICLONE ── shares the blocks, no data moves
//!     └─ not here ─▶ next data, next hole, ... ─▶ copy_file_range, in pieces
//!                                                   └─ not here ─▶ read and write
//! ```
//!
//! Only data is copied; what is a hole in the source stays one. Pieces are small enough that progress
//! moves and a stop is quick.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    Advice, Gid, Mode, SeekFrom, Statx, StatxTimestamp, Timespec, Timestamps, Uid, copy_file_range, fadvise,
    fchmod, fchown, ftruncate, futimens, ioctl_ficlone, seek,
};
use rustix::io::{Errno, pread, pwrite};

use crate::place::facts_of;
use crate::tasks::Progress;

/// Most bytes that are copied before progress and stop are looked at.
const PIECE: u64 = 8 * 1024 * 1024;
/// Size of the buffer where the kernel cannot copy on its own.
const BUFFER: usize = 256 * 1024;

/// That the work was told to stop.
pub(crate) fn stopped() -> io::Error {
    io::Error::other("Stopped")
}

/// Copies `size` bytes from the beginning of `from` into `to`, which is empty. Returns the bytes that
/// there were: fewer when the source has become shorter. A source that says it is empty is read to its
/// end, because files that the kernel makes up say so.
pub(crate) fn contents(from: impl AsFd, to: impl AsFd, size: u64, progress: &Progress) -> io::Result<u64> {
    let (from, to) = (from.as_fd(), to.as_fd());
    if progress.is_stopped() {
        return Err(stopped());
    }
    if size == 0 {
        return by_hand(from, to, 0, u64::MAX, progress);
    }
    if ioctl_ficlone(to, from).is_ok() {
        let size = facts_of(to)?.stx_size;
        progress.add(size);
        return Ok(size);
    }
    let _ = fadvise(from, 0, None, Advice::Sequential);
    let (mut at, mut in_kernel) = (0, true);
    while at < size {
        let (data, hole) = next_data(from, at, size)?;
        progress.add(data - at);
        at = data;
        while at < hole {
            if progress.is_stopped() {
                return Err(stopped());
            }
            let length = PIECE.min(hole - at);
            let copied = if in_kernel { piece(from, to, at, length)? } else { None };
            let copied = match copied {
                Some(copied) => {
                    progress.add(copied);
                    copied
                }
                None => {
                    in_kernel = false;
                    by_hand(from, to, at, length, progress)?
                }
            };
            if copied == 0 {
                // The source has become shorter.
                return Ok(at);
            }
            at += copied;
        }
    }
    // The end may be a hole.
    ftruncate(to, size)?;
    Ok(size)
}

/// Where the next data begins and ends, both within `at..=size`. Without data they are both `size`.
fn next_data(from: BorrowedFd<'_>, at: u64, size: u64) -> io::Result<(u64, u64)> {
    let data = match seek(from, SeekFrom::Data(at)) {
        Ok(data) => data.clamp(at, size),
        Err(Errno::NXIO) => size,
        // No holes to be seen here.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((at, size)),
        Err(error) => return Err(error.into()),
    };
    if data == size {
        return Ok((size, size));
    }
    let hole = match seek(from, SeekFrom::Hole(data)) {
        Ok(hole) => hole,
        // Cut off since; the copying will find out.
        Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => size,
        Err(error) => return Err(error.into()),
    };
    Ok((data, hole.clamp(data, size)))
}

/// One piece by the kernel's hand; `None` where it cannot.
fn piece(from: BorrowedFd<'_>, to: BorrowedFd<'_>, at: u64, length: u64) -> io::Result<Option<u64>> {
    let (mut read, mut written) = (at, at);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    loop {
        match copy_file_range(from, Some(&mut read), to, Some(&mut written), length) {
            // Nothing, before the end of the source: some file systems say so instead of an error.
            Ok(0) => return Ok(None),
            Ok(copied) => return Ok(Some(copied as u64)),
            Err(Errno::INTR) => {}
            Err(
                Errno::XDEV
                | Errno::INVAL
                | Errno::NOSYS
                | Errno::OPNOTSUPP
                | Errno::PERM
                | Errno::TXTBSY
                | Errno::BADF,
            ) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// At most `length` bytes by reading and writing; fewer only at the end of the source. Counts them.
fn by_hand(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    at: u64,
    length: u64,
    progress: &Progress,
) -> io::Result<u64> {
    let mut buffer = vec![0u8; BUFFER.min(usize::try_from(length).unwrap_or(BUFFER))];
    let mut done = 0;
    while done < length {
        if progress.is_stopped() {
            return Err(stopped());
        }
        let want = usize::try_from(length - done).unwrap_or(BUFFER).min(buffer.len());
        let room = buffer.get_mut(..want).unwrap_or_default();
        let read = match pread(from, room, at + done) {
            Ok(0) => break,
            Ok(read) => read,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut rest = buffer.get(..read).unwrap_or_default();
        while !rest.is_empty() {
            match pwrite(to, rest, at + done) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    done += written as u64;
                    progress.add(written as u64);
                    rest = rest.get(written..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(done)
}

/// When a file was last read and changed.
pub(crate) fn times(facts: &Statx) -> (Timespec, Timespec) {
    let time = |of: &StatxTimestamp| Timespec { tv_sec: of.tv_sec, tv_nsec: of.tv_nsec.into() };
    (time(&facts.stx_atime), time(&facts.stx_mtime))
}

/// Rights, times and owner that a copy takes over.
#[derive(Clone, Copy)]
pub(crate) struct Attributes {
    mode: u32,
    owner: Option<(u32, u32)>,
    times: (Timespec, Timespec),
}

impl Attributes {
    /// Those of the source. The copy belongs to the caller, so set-uid and set-gid are not taken over;
    /// something that is moved keeps both, as far as the caller may give files away.
    pub(crate) fn of(facts: &Statx, keep_owner: bool) -> Self {
        Attributes {
            mode: u32::from(facts.stx_mode) & 0o7777,
            owner: keep_owner.then_some((facts.stx_uid, facts.stx_gid)),
            times: times(facts),
        }
    }

    /// Gives them to an open file or directory of the caller's, the last thing before it is published.
    pub(crate) fn give(&self, to: impl AsFd) -> io::Result<()> {
        let to = to.as_fd();
        let facts = facts_of(to)?;
        let special = if self.give_owner(to, &facts)? {
            self.mode & 0o7000
        } else {
            // Sticky means something on directories; the set-gid bit that a directory has got from the
            // one above it stays.
            match crate::place::kind(&facts).is_dir() {
                true => self.mode & 0o1000 | u32::from(facts.stx_mode) & 0o2000,
                false => 0,
            }
        };
        fchmod(to, Mode::from_raw_mode(self.mode & 0o777 | special))?;
        let (last_access, last_modification) = self.times;
        Ok(futimens(to, &Timestamps { last_access, last_modification })?)
    }

    /// Whether the owner and group are those wanted now.
    fn give_owner(&self, to: BorrowedFd<'_>, facts: &Statx) -> io::Result<bool> {
        let Some((uid, gid)) = self.owner else { return Ok(false) };
        if (facts.stx_uid, facts.stx_gid) == (uid, gid) {
            return Ok(true);
        }
        match fchown(to, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
            Ok(()) => return Ok(true),
            Err(Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        // A user may give own files to his groups.
        match fchown(to, None, Some(Gid::from_raw(gid))) {
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {
                Ok(facts.stx_uid == uid && facts_of(to)?.stx_gid == gid)
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

    fn copied(from: &File, size: u64) -> (File, u64) {
        let to = tempfile::tempfile().unwrap();
        let progress = Progress::new(size);
        let count = contents(from, &to, size, &progress).unwrap();
        assert_eq!(progress.done(), count);
        (to, count)
    }

    fn bytes(mut file: &File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn holes_stay_holes() {
        let from = tempfile::tempfile().unwrap();
        from.set_len(1 << 32).unwrap();
        for at in [0, 1 << 20, (1 << 31) + 12345] {
            from.write_all_at(&[7; 70_000], at).unwrap();
        }
        from.sync_all().unwrap();
        let (to, count) = copied(&from, 1 << 32);
        to.sync_all().unwrap();
        assert_eq!(count, 1 << 32);
        let (from_facts, to_facts) = (from.metadata().unwrap(), to.metadata().unwrap());
        assert_eq!((to_facts.len(), to_facts.blocks()), (1 << 32, from_facts.blocks()));
        let mut piece = [0; 4];
        to.read_exact_at(&mut piece, (1 << 31) + 12344).unwrap();
        assert_eq!(piece, [0, 7, 7, 7]);
    }

    #[test]
    fn what_the_kernel_makes_up_is_read_to_its_end() {
        let from = File::open("/proc/self/status").unwrap();
        assert_eq!(from.metadata().unwrap().len(), 0);
        let (to, count) = copied(&from, 0);
        assert!(count > 100 && bytes(&to).starts_with(b"Name:"));
    }

    #[test]
    fn a_source_that_has_become_shorter_ends_the_copy() {
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(&[1; 1000]).unwrap();
        let (to, count) = copied(&from, 5000);
        // The rest of what was promised is missing data at the end, or counted as a hole.
        assert!(count == 1000 || count == 5000);
        assert!(bytes(&to).starts_with(&[1; 1000]));
    }

    #[test]
    fn a_stop_is_an_error() {
        let from = tempfile::tempfile().unwrap();
        let progress = Progress::new(0);
        progress.stop();
        let to = tempfile::tempfile().unwrap();
        assert_eq!(contents(&from, &to, 10, &progress).unwrap_err().to_string(), "Stopped");
    }

    #[test]
    fn rights_and_times_are_taken_over_and_set_uid_is_not() {
        let (from, to) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        from.as_file().set_permissions(PermissionsExt::from_mode(0o6751)).unwrap();
        let times =
            std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(5, 7));
        from.as_file().set_times(times).unwrap();
        let attributes = |keep| Attributes::of(&facts_of(from.as_file()).unwrap(), keep);
        attributes(false).give(to.as_file()).unwrap();
        let facts = to.as_file().metadata().unwrap();
        assert_eq!((facts.mode() & 0o7777, facts.mtime(), facts.mtime_nsec()), (0o751, 5, 7));
        attributes(true).give(to.as_file()).unwrap();
        assert_eq!(to.as_file().metadata().unwrap().mode() & 0o7777, 0o6751, "ours before and after");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_pattern_of_data_and_holes_comes_over(
            pieces in proptest::collection::vec((0u64..600_000, 1usize..9000, any::<u8>()), 0..12),
            size in 1u64..700_000,
        ) {
            let from = tempfile::tempfile().unwrap();
            for (at, length, byte) in pieces {
                from.write_all_at(&vec![byte; length], at).unwrap();
            }
            from.set_len(size).unwrap();
            let (to, count) = copied(&from, size);
            prop_assert_eq!(count, size);
            prop_assert!(bytes(&from) == bytes(&to));
            // And without the kernel's help.
            let to = tempfile::tempfile().unwrap();
            let progress = Progress::new(size);
            prop_assert_eq!(by_hand(from.as_fd(), to.as_fd(), 0, size, &progress).unwrap(), size);
            prop_assert!(bytes(&from) == bytes(&to));
        }
    }
}
