//! Disks without a file system: for tests, fuzzing, and the question what a power cut leaves.
//!
//! A file here remembers what was written since its last flush. [`Memory::power_cut`] then keeps an
//! arbitrary part of that, sector by sector and in no order, as a real machine may.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SECTOR;
use super::create::Planned;
use super::storage::{Access, Identity, Opener, Storage};

/// Files by name, all in memory. Clones share them.
#[derive(Clone, Default)]
pub struct Memory {
    files: Arc<Mutex<HashMap<PathBuf, MemoryFile>>>,
}

/// One file. Clones share it.
#[derive(Clone, Default)]
struct MemoryFile {
    state: Arc<Mutex<State>>,
}

/// Only sectors that hold something are stored, so a disk of 2 TiB costs nothing.
type Sectors = BTreeMap<u64, [u8; SECTOR as usize]>;

#[derive(Default)]
struct State {
    number: u64,
    now: Contents,
    /// What a power cut leaves for sure.
    durable: Contents,
    /// Sectors written since the last flush, in order.
    pending: Vec<(u64, [u8; SECTOR as usize])>,
    /// Every system call fails that changes something.
    broken: bool,
}

#[derive(Clone, Default)]
struct Contents {
    size: u64,
    sectors: Sectors,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// No files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file there, durable.
    pub fn put(&self, path: impl Into<PathBuf>, bytes: &[u8]) {
        static FILES: AtomicU64 = AtomicU64::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let mut now = Contents { size: bytes.len() as u64, sectors: Sectors::new() };
        now.write(0, bytes);
        let state = State { number, durable: now.clone(), now, ..State::default() };
        locked(&self.files).insert(path.into(), MemoryFile { state: Arc::new(Mutex::new(state)) });
    }

    /// Puts the files of a planned disk into `directory`, durable.
    pub fn put_disk(&self, directory: &Path, planned: &Planned) {
        for file in &planned.files {
            let path = directory.join(&file.name);
            self.put(&path, &[]);
            let files = locked(&self.files);
            let Some(stored) = files.get(&path) else {
                continue;
            };
            let mut state = locked(&stored.state);
            state.now.size = file.size;
            for (offset, bytes) in &file.pieces {
                state.now.write(*offset, bytes);
            }
            state.durable = state.now.clone();
        }
    }

    /// The bytes of a file, as far as they fit in memory; empty if there is none.
    #[must_use]
    pub fn get(&self, path: &Path) -> Vec<u8> {
        let files = locked(&self.files);
        let Some(file) = files.get(path) else {
            return Vec::new();
        };
        let state = locked(&file.state);
        let mut bytes = vec![0; usize::try_from(state.now.size).unwrap_or(0)];
        state.now.read(0, &mut bytes);
        bytes
    }

    /// Makes every later change of a file fail, or work again.
    pub fn set_broken(&self, path: &Path, broken: bool) {
        if let Some(file) = locked(&self.files).get(path) {
            locked(&file.state).broken = broken;
        }
    }

    /// Cuts the power: of every write since the last flush of its file, `keep` decides for each sector
    /// whether it had reached the disk. A file grows only as far as something kept reaches.
    pub fn power_cut(&self, mut keep: impl FnMut() -> bool) {
        let files = locked(&self.files);
        let mut paths: Vec<_> = files.keys().collect();
        paths.sort_unstable();
        for path in paths {
            let Some(file) = files.get(path) else {
                continue;
            };
            let mut state = locked(&file.state);
            let mut left = state.durable.clone();
            for (number, bytes) in std::mem::take(&mut state.pending) {
                if keep() {
                    left.size = left.size.max(((number + 1) * SECTOR).min(state.now.size));
                    left.sectors.insert(number, bytes);
                }
            }
            state.now = left.clone();
            state.durable = left;
        }
    }
}

impl Contents {
    fn read(&self, offset: u64, buf: &mut [u8]) {
        buf.fill(0);
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let within = (at % SECTOR) as usize;
            let length = (SECTOR as usize - within).min(buf.len() - done);
            let target = buf.get_mut(done..done + length).unwrap_or_default();
            let stored =
                self.sectors.get(&(at / SECTOR)).and_then(|bytes| bytes.get(within..within + length));
            if let Some(stored) = stored {
                target.copy_from_slice(stored);
            }
            done += length;
        }
    }

    /// Writes and returns the numbers of the sectors touched.
    fn write(&mut self, offset: u64, mut bytes: &[u8]) -> std::ops::Range<u64> {
        let end = offset + bytes.len() as u64;
        self.size = self.size.max(end);
        let mut at = offset;
        while !bytes.is_empty() {
            let within = (at % SECTOR) as usize;
            let length = (SECTOR as usize - within).min(bytes.len());
            let (now, later) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
            let stored = self.sectors.entry(at / SECTOR).or_insert([0; SECTOR as usize]);
            if let Some(target) = stored.get_mut(within..within + length) {
                target.copy_from_slice(now);
            }
            at += length as u64;
            bytes = later;
        }
        offset / SECTOR..end.div_ceil(SECTOR)
    }
}

impl Opener for Memory {
    fn open(&self, path: &Path, _: Access) -> io::Result<Box<dyn Storage>> {
        let files = locked(&self.files);
        let file = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(file.clone()))
    }
}

impl MemoryFile {
    fn changing(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = locked(&self.state);
        if state.broken {
            Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()))
        } else {
            Ok(state)
        }
    }
}

impl Storage for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let state = locked(&self.state);
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > state.now.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        state.now.read(offset, buf);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.changing()?;
        for number in state.now.write(offset, buf) {
            let bytes = state.now.sectors.get(&number).copied().unwrap_or([0; SECTOR as usize]);
            state.pending.push((number, bytes));
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(locked(&self.state).now.size)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.changing()?;
        for (number, bytes) in std::mem::take(&mut state.pending) {
            state.durable.sectors.insert(number, bytes);
        }
        state.durable.size = state.now.size;
        Ok(())
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok((0, locked(&self.state).number))
    }

    fn lock_for(&self, _: Access) -> io::Result<bool> {
        Ok(true)
    }
}
