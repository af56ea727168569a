//! Suspended machines and snapshots on disk.
//!
//! ```text
//!   magic "VMSRVDST"  8     version u32   length of the state u32   CRC-32 of those 16 bytes u32
//!   state             postcard; then its CRC-32 u32
//!   run               address u64, length u32, bytes, CRC-32 of all of these u32     any number
//!   end               address all ones u64, length 0 u32, number of runs u32, CRC-32 u32
//! ```
//!
//! All numbers little-endian. Pages of zeros are not written. A file is written under a temporary name
//! and gets its own when it is complete and durable: a file with the right name is whole, or was
//! damaged later, which the checksums tell.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use vm_memory::GuestMemoryMmap;

use crate::memory;

const MAGIC: &[u8; 8] = b"VMSRVDST";

/// Version of the format, and of what is in the state.
pub const VERSION: u32 = 1;

/// Longest state without memory, in bytes.
const STATE_MAX: usize = 64 << 20;

/// Most bytes of a run.
const RUN: usize = 1 << 20;

const END: u64 = u64::MAX;

/// Why a file was not written or not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be used.
    #[error("{path}: {why}")]
    Unusable {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Writes a file at `path`: the state, and the memory if there is one. Durable when it returns.
///
/// # Errors
/// [`Error::Io`]; nothing is left then, and a file that was there before still is.
pub fn write<S: Serialize>(path: &Path, state: &S, memory: Option<&GuestMemoryMmap>) -> Result<(), Error> {
    let temporary = temporary(path);
    let result = write_to(&temporary, state, memory).and_then(|()| {
        std::fs::rename(&temporary, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    });
    result.map_err(|source| {
        let _ = std::fs::remove_file(&temporary);
        Error::Io { path: path.display().to_string(), source }
    })
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

fn write_to<S: Serialize>(path: &Path, state: &S, memory: Option<&GuestMemoryMmap>) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The memory of a machine is nobody else's business.
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let mut out = BufWriter::with_capacity(RUN, file);
    let state = postcard::to_stdvec(state).map_err(io::Error::other)?;
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&u32::try_from(state.len()).map_err(io::Error::other)?.to_le_bytes());
    checked(&mut out, &[&head])?;
    checked(&mut out, &[&state])?;
    let mut runs = 0u32;
    if let Some(memory) = memory {
        memory::visit_used(memory, RUN, &mut |address, bytes| {
            runs += 1;
            let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            checked(&mut out, &[&address.to_le_bytes(), &length.to_le_bytes(), bytes])
        })?;
    }
    checked(&mut out, &[&END.to_le_bytes(), &0u32.to_le_bytes(), &runs.to_le_bytes()])?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Writes parts and their CRC-32.
fn checked(out: &mut impl Write, parts: &[&[u8]]) -> io::Result<()> {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
        out.write_all(part)?;
    }
    out.write_all(&hasher.finalize().to_le_bytes())
}

/// A file that is being read: its state was read and checked, its memory not yet.
#[derive(Debug)]
pub struct Reader<R = BufReader<File>> {
    path: String,
    input: R,
}

/// Opens the file at `path` and reads the state.
///
/// # Errors
/// [`Error`], naming the file.
pub fn open<S: DeserializeOwned>(path: &Path) -> Result<(S, Reader), Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let name = path.display().to_string();
    let failed = |source| Error::Io { path: name.clone(), source };
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::Unusable { path: name, why: "not a regular file".into() });
    }
    read_state(name, BufReader::with_capacity(RUN, file))
}

/// As [`open`], from any source; `path` is for error texts.
///
/// # Errors
/// [`Error`], naming `path`.
pub fn read_state<S: DeserializeOwned, R: Read>(path: String, input: R) -> Result<(S, Reader<R>), Error> {
    let mut reader = Reader { path, input };
    let mut head = [0; 16];
    reader.fill(&mut head)?;
    let (magic, numbers) = head.split_first_chunk::<8>().unwrap_or((MAGIC, &[]));
    if magic != MAGIC {
        return Err(reader.unusable("this is no state of a machine"));
    }
    reader.check(&[&head])?;
    let mut numbers = numbers.chunks_exact(4).map(number);
    let (version, length) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version != VERSION {
        let why = format!("written by another version (format {version}; this one reads {VERSION})");
        return Err(reader.unusable(&why));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > STATE_MAX {
        return Err(reader.unusable(&format!("a state of {length} bytes; at most {STATE_MAX} are read")));
    }
    // Read as far as the file goes: nothing is allocated by a number from it.
    let mut state = Vec::new();
    let read = (&mut reader.input).take(length as u64).read_to_end(&mut state);
    read.map_err(|source| Error::Io { path: reader.path.clone(), source })?;
    if state.len() < length {
        return Err(reader.unusable("it ends too early"));
    }
    reader.check(&[&state])?;
    match postcard::from_bytes(&state) {
        Ok(state) => Ok((state, reader)),
        Err(error) => Err(reader.unusable(&format!("its state makes no sense: {error}"))),
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

impl<R: Read> Reader<R> {
    fn unusable(&self, why: &str) -> Error {
        Error::Unusable { path: self.path.clone(), why: why.to_owned() }
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<(), Error> {
        self.input.read_exact(buf).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.unusable("it ends too early"),
            _ => Error::Io { path: self.path.clone(), source },
        })
    }

    /// Reads a CRC-32 and compares it with that of `parts`.
    fn check(&mut self, parts: &[&[u8]]) -> Result<(), Error> {
        let mut hasher = crc32fast::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        let mut sum = [0; 4];
        self.fill(&mut sum)?;
        if u32::from_le_bytes(sum) == hasher.finalize() {
            Ok(())
        } else {
            Err(self.unusable("a checksum is wrong: it is damaged"))
        }
    }

    /// Reads the memory; what the file does not have must be zeros in `memory` already.
    ///
    /// # Errors
    /// [`Error`]; the memory is then of no use.
    pub fn read_memory(mut self, memory: &GuestMemoryMmap) -> Result<(), Error> {
        let mut runs = 0u32;
        let mut buffer = vec![0; RUN];
        loop {
            let mut head = [0; 12];
            self.fill(&mut head)?;
            let (address, length) = head.split_at(8);
            let (address, length) =
                (address.first_chunk().map_or(END, |bytes| u64::from_le_bytes(*bytes)), number(length));
            if address == END {
                let mut count = [0; 4];
                self.fill(&mut count)?;
                self.check(&[&head, &count])?;
                return if u32::from_le_bytes(count) == runs {
                    Ok(())
                } else {
                    Err(self.unusable("parts of its memory are missing"))
                };
            }
            let Some(bytes) = buffer.get_mut(..usize::try_from(length).unwrap_or(usize::MAX)) else {
                return Err(self.unusable("a part of its memory is longer than any can be"));
            };
            self.input.read_exact(bytes).map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => self.unusable("it ends too early"),
                _ => Error::Io { path: self.path.clone(), source },
            })?;
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&head);
            hasher.update(bytes);
            let mut sum = [0; 4];
            let taken = hasher.finalize();
            if memory::write(memory, address, bytes).is_err() {
                return Err(self.unusable("it holds memory that the machine does not have"));
            }
            self.fill(&mut sum)?;
            if u32::from_le_bytes(sum) != taken {
                return Err(self.unusable("a checksum is wrong: it is damaged"));
            }
            runs += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.vmss");
        let memory = memory::reserve(1 << 20, 0).unwrap();
        memory::write(&memory, 0x3000, &[7; 5000]).unwrap();
        write(&path, &("state", 5u32), Some(&memory)).unwrap();
        (directory, path)
    }

    fn read(bytes: &[u8], ram: u64) -> Result<GuestMemoryMmap, Error> {
        let ((text, number), reader) = read_state::<(String, u32), _>("a.vmss".into(), bytes)?;
        assert_eq!((text.as_str(), number), ("state", 5));
        let memory = memory::reserve(ram, 0).unwrap();
        reader.read_memory(&memory).map(|()| memory)
    }

    #[test]
    fn written_and_read() {
        let (directory, path) = sample();
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.len() < 9000);
        let memory = read(&bytes, 1 << 20).unwrap();
        let mut page = [0; 5001];
        memory::read(&memory, 0x3000, &mut page).unwrap();
        assert_eq!((&page[..5000], page[5000]), (&[7; 5000][..], 0));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
        assert!(read(&bytes, 4096).unwrap_err().to_string().contains("does not have"));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        let (_directory, path) = sample();
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            let text = read(&bytes[..length], 1 << 20).unwrap_err().to_string();
            assert!(text.starts_with("a.vmss: "), "{text}");
        }
        for place in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[place] ^= 0x10;
            read(&bad, 1 << 20).unwrap_err();
        }
        let mut newer = bytes;
        newer[8] = 9;
        let sum = crc32fast::hash(&newer[..16]).to_le_bytes();
        newer[16..20].copy_from_slice(&sum);
        assert!(read(&newer, 1 << 20).unwrap_err().to_string().contains("another version"));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let mut file = MAGIC.to_vec();
            file.extend(bytes);
            prop_assert!(read(&file, 1 << 20).is_err());
        }
    }
}
