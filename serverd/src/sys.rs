//! The only unsafe code of this room.
//!
//! Three things that the safe wrappers we use do not offer: closing every descriptor above a number, sharing
//! atomic counters with another process, and giving free memory back.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags};

/// Bytes of the page in which the core publishes numbers.
pub(crate) const NEWS_BYTES: usize = 4096;

/// Closes every descriptor from `first` on. To be called at the very start of a process only.
///
/// # Errors
/// As `close_range(2)`.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // JUSTIFICATION: a process that is about to become somebody else must not rely on every
    // descriptor of its parent having been marked close-on-exec.
    // SAFETY: called before anything in this process has opened a descriptor above `first`, so no
    // object owns what is closed.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Maps so many words of a file of figures for writing; they stay mapped as long as the process lives.
///
/// # Errors
/// When the file is too small, or as `mmap(2)`.
pub(crate) fn map_counter(file: &OwnedFd, words: usize) -> io::Result<&'static [AtomicU64]> {
    map(file, ProtFlags::READ | ProtFlags::WRITE, words)
}

/// Maps a page for publishing three numbers to other processes.
///
/// # Errors
/// As [`map_counter`].
pub(crate) fn map_publishing(file: &OwnedFd) -> io::Result<[&'static AtomicU64; 3]> {
    three(map(file, ProtFlags::READ | ProtFlags::WRITE, NEWS_BYTES / 8)?)
}

/// Maps a page in which another process publishes three numbers. They must only be loaded from: a store
/// ends the process by SIGSEGV.
///
/// # Errors
/// As [`map_counter`].
pub(crate) fn map_published(file: &OwnedFd) -> io::Result<[&'static AtomicU64; 3]> {
    three(map(file, ProtFlags::READ, NEWS_BYTES / 8)?)
}

fn three(words: &'static [AtomicU64]) -> io::Result<[&'static AtomicU64; 3]> {
    match words {
        [first, second, third, ..] => Ok([first, second, third]),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn map(file: &OwnedFd, protection: ProtFlags, words: usize) -> io::Result<&'static [AtomicU64]> {
    let size = rustix::fs::fstat(file)?.st_size;
    let bytes = words * 8;
    if usize::try_from(size).is_ok_and(|size| size < bytes) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the counter page is too small"));
    }
    // JUSTIFICATION: counting by messages would cost a round trip or be late; a shared page makes
    // the count exact for the price of one addition.
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let address =
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, file, 0)? };
    // SAFETY: the mapping is page-aligned, readable, zero or written by atomics only, never
    // unmapped, and cannot fault because the core has sealed the file against shrinking. Where it is
    // not writable, the callers only load.
    // The words lie within the mapping, and any bytes are words.
    Ok(unsafe { std::slice::from_raw_parts(address.cast::<AtomicU64>(), words) })
}

/// Gives free memory back to the system.
pub(crate) fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // JUSTIFICATION: the allocator keeps what a rare piece of work has used, for as long as the process lives.
    // SAFETY: may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_counter_is_seen_through_the_file() {
        use std::os::unix::fs::FileExt;
        let file = tempfile::tempfile().unwrap();
        file.set_len(16).unwrap();
        let words = map_counter(&OwnedFd::from(file.try_clone().unwrap()), 2).unwrap();
        words[0].fetch_add(7, Ordering::Relaxed);
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(u64::from_ne_bytes(bytes), 7);
        let small = tempfile::tempfile().unwrap();
        assert!(map_counter(&OwnedFd::from(small), 2).is_err());
    }
}
