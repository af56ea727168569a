//! A disk as a machine sees it: numbered sectors, its parents included.

use std::path::Path;

use super::bytes::to_len;
use super::error::Error;
use super::info::Info;
use super::layer::{Found, Layer};
use super::storage::{Access, FileOpener, Opener};
use super::{MAX_CHAIN, SECTOR};

/// What a disk is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reading. Nothing is locked: somebody else may be writing.
    Read,
    /// Reading and writing. The disk is locked against all others that write; its parents are locked
    /// against writing.
    Write,
}

/// Memory for the tables of a whole chain, in bytes.
const TABLE_CACHE: usize = 8 << 20;

/// How far writing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was written since it was opened.
    Unwritten,
    Written,
    /// A flush failed: what is on the disk is unknown.
    Failed,
    Closed,
}

/// An open disk. Sectors are 512 bytes; all lengths in bytes are multiples of that.
///
/// Dropping it does what [`Disk::close`] does, without a word about errors.
pub struct Disk {
    /// The disk itself, its parent, and so on; never empty.
    layers: Vec<Layer>,
    mode: Mode,
    state: State,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path();
        f.debug_struct("Disk").field("path", &path).field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Disk {
    /// Opens a disk and its parents with the rights of this process. `path` names the descriptor, or
    /// the one file of a one-file disk.
    ///
    /// # Errors
    /// See [`Error`]; a file that is no disk, or a damaged one, is told from a system call that failed.
    pub fn open(path: &Path, mode: Mode) -> Result<Self, Error> {
        Self::open_with(&FileOpener, path, mode)
    }

    /// Opens a disk and its parents through `opener`.
    ///
    /// # Errors
    /// As [`Disk::open`].
    pub fn open_with(opener: &dyn Opener, path: &Path, mode: Mode) -> Result<Self, Error> {
        let chain = match mode {
            Mode::Read => Chain::default(),
            Mode::Write => Chain { lock: true, writable: Some(0) },
        };
        Ok(Self::of(open_chain(opener, path, &chain)?, mode))
    }

    /// Opens a disk for reading and keeps writers away from the whole chain meanwhile.
    ///
    /// # Errors
    /// As [`Disk::open`]; busy when somebody writes.
    pub(crate) fn open_quiet(opener: &dyn Opener, path: &Path) -> Result<Self, Error> {
        Ok(Self::of(open_chain(opener, path, &Chain { lock: true, writable: None })?, Mode::Read))
    }

    fn of(mut layers: Vec<Layer>, mode: Mode) -> Self {
        share_cache(&mut layers);
        Disk { layers, mode, state: State::Unwritten }
    }

    fn top(&self) -> Option<&Layer> {
        self.layers.first()
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.top().map_or(Path::new(""), |layer| layer.found.part.path())
    }

    /// Its size in sectors, 1 to [`super::MAX_CAPACITY`].
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.top().map_or(0, |layer| layer.capacity)
    }

    /// What its descriptors and headers say, parents included.
    #[must_use]
    pub fn info(&self) -> Info {
        Info::of(&self.layers)
    }

    /// The layers, for what is told about them.
    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Fills `buf`, a multiple of 512 bytes, from `sector` on.
    ///
    /// # Errors
    /// When the request leaves the disk, a system call fails, or a file is damaged there.
    pub fn read_at(&mut self, sector: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.check_range(sector, buf.len())?;
        read_layers(&mut self.layers, sector, buf)
    }

    /// Writes `data`, a multiple of 512 bytes, at `sector`. It is durable after the next
    /// [`Disk::flush`], not before.
    ///
    /// # Errors
    /// When the disk is not open for writing or the request leaves it, when a system call fails (a
    /// part may then have been written), when a file is damaged there, or when a flush failed before.
    pub fn write_at(&mut self, sector: u64, data: &[u8]) -> Result<(), Error> {
        self.check_range(sector, data.len())?;
        if self.mode != Mode::Write {
            return Err(Error::ReadOnly { path: self.path().to_owned() });
        }
        self.check_failed()?;
        if data.is_empty() {
            return Ok(());
        }
        let result = self.write_top(sector, data);
        self.note(result)
    }

    fn write_top(&mut self, sector: u64, data: &[u8]) -> Result<(), Error> {
        let Some((top, parents)) = self.layers.split_first_mut() else {
            return Ok(());
        };
        if self.state == State::Unwritten {
            // Before the first byte: a child made earlier must notice, come what may.
            top.change_cid(new_cid(top.found.descriptor.cid))?;
            self.state = State::Written;
        }
        top.write(sector, data, &mut |sector, buf| read_layers(parents, sector, buf))
    }

    /// Returns when everything written so far survives a power cut, and what could be read before.
    ///
    /// # Errors
    /// As the system calls. After a failed flush the disk refuses to be written: what of the data
    /// since the last successful flush is on the disk, nobody knows.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.check_failed()?;
        if self.mode != Mode::Write || self.state == State::Closed {
            return Ok(());
        }
        let result = self.layers.first_mut().map_or(Ok(()), Layer::flush);
        self.note(result)
    }

    /// Gives up the lock on the parent at `path`, so that [`super::Merge`] can write to it while this disk is
    /// read through. Returns whether there is such a parent.
    ///
    /// # Errors
    /// As the system calls.
    pub fn lend(&self, path: &Path) -> Result<bool, Error> {
        let parent = self.layers.iter().skip(1).find(|layer| layer.found.part.path() == path);
        parent.map_or(Ok(false), |layer| layer.found.part.unlock().map(|()| true))
    }

    /// Locks the parent at `path` again.
    ///
    /// # Errors
    /// Busy when somebody writes to it now; otherwise as the system calls.
    pub fn take_back(&self, path: &Path) -> Result<(), Error> {
        let mut parents = self.layers.iter().skip(1);
        let parent = parents.find(|layer| layer.found.part.path() == path);
        parent.map_or(Ok(()), |layer| layer.found.part.lock(Access::Read))
    }

    /// The paths of its parents, the nearest first.
    #[must_use]
    pub fn parents(&self) -> Vec<std::path::PathBuf> {
        self.layers.iter().skip(1).map(|layer| layer.found.part.path().to_owned()).collect()
    }

    /// Flushes, and marks the files as closed properly.
    ///
    /// # Errors
    /// As [`Disk::flush`].
    pub fn close(mut self) -> Result<(), Error> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.check_failed()?;
        if self.state != State::Written {
            return Ok(());
        }
        self.state = State::Closed;
        self.layers.first_mut().map_or(Ok(()), Layer::close)
    }

    /// Notes a failed flush. Other failures can be repeated.
    fn note(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        if matches!(&result, Err(Error::Io { action: "flush", .. })) {
            self.state = State::Failed;
        }
        result
    }

    fn check_failed(&self) -> Result<(), Error> {
        match self.state {
            State::Failed => Err(Error::FlushFailed { path: self.path().to_owned() }),
            _ => Ok(()),
        }
    }

    fn check_range(&self, sector: u64, bytes: usize) -> Result<(), Error> {
        let end = sector.saturating_add((bytes as u64).div_ceil(SECTOR));
        if end > self.capacity() || !(bytes as u64).is_multiple_of(SECTOR) {
            let capacity = self.capacity();
            return Err(Error::OutOfRange { path: self.path().to_owned(), sector, end, capacity });
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

/// How a chain is opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Chain {
    /// Its files are locked: against all others for writing, against writers for reading.
    pub(crate) lock: bool,
    /// The one that is opened for writing: 0 is the disk itself, 1 its parent, and so on.
    pub(crate) writable: Option<usize>,
}

/// Opens a disk and its parents.
///
/// # Errors
/// As [`Disk::open`].
pub(crate) fn open_chain(opener: &dyn Opener, path: &Path, chain: &Chain) -> Result<Vec<Layer>, Error> {
    let mut layers: Vec<Layer> = Vec::new();
    let mut seen = Vec::new();
    let mut next = Some((None, path.to_owned()));
    while let Some((expected, path)) = next {
        let access = if chain.writable == Some(layers.len()) { Access::Write } else { Access::Read };
        let child = layers.last().map(|layer| layer.found.part.path().to_owned());
        let found = Found::open(opener, &path, access)?;
        // Loops first: the same file would be locked against itself.
        if seen.contains(&found.part.identity()?) {
            return Err(Error::malformed(&path, "a chain of disks that leads back to itself"));
        }
        if layers.len() >= MAX_CHAIN {
            return Err(Error::unsupported(&path, format!("a chain of more than {MAX_CHAIN} disks")));
        }
        if chain.lock {
            found.part.lock(access)?;
        }
        if let (Some(expected), Some(child)) = (expected, child)
            && found.descriptor.cid != expected
        {
            let found = found.descriptor.cid;
            return Err(Error::ParentChanged { path: child, parent: path, expected, found });
        }
        next = found.parent().map(|(cid, path)| (Some(cid), path));
        let layer = Layer::open(opener, found, access)?;
        for identity in layer.identities()? {
            if seen.contains(&identity) {
                let reason = "one of its files belongs to another disk of the chain";
                return Err(Error::malformed(&path, reason));
            }
            seen.push(identity);
        }
        layers.push(layer);
    }
    Ok(layers)
}

/// Divides the memory for tables among all extents that have any.
pub(crate) fn share_cache(layers: &mut [Layer]) {
    let extents = layers.iter_mut().flat_map(|layer| &mut layer.extents);
    let mut maps: Vec<_> = extents.filter_map(|extent| extent.map_mut()).collect();
    let share = TABLE_CACHE / maps.len().max(1);
    for map in &mut maps {
        map.set_room(share / map.table_bytes().max(1));
    }
}

/// Reads from the first layer that has each sector; what none of them has is zeros.
pub(crate) fn read_layers(layers: &mut [Layer], mut sector: u64, mut buf: &mut [u8]) -> Result<(), Error> {
    let Some((top, below)) = layers.split_first_mut() else {
        buf.fill(0);
        return Ok(());
    };
    while !buf.is_empty() {
        let (count, here) = top.read(sector, buf)?;
        let (now, later) = std::mem::take(&mut buf).split_at_mut_checked(to_len(count)).unwrap_or_default();
        if !here {
            read_layers(below, sector, now)?;
        }
        sector += count;
        buf = later;
    }
    Ok(())
}

/// A random CID, other than the last one and the number that means "no parent".
pub(crate) fn new_cid(old: u32) -> u32 {
    let mut cid = old;
    loop {
        let mut bytes = [0; 4];
        let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        cid = match filled {
            Ok(4) => u32::from_ne_bytes(bytes),
            // No kernel that runs this lacks it; a different number is what matters.
            _ => cid.wrapping_mul(0x9e37_79b1).wrapping_add(1),
        };
        // 0xfffffffe is what some tools write for "to be filled in".
        if cid != old && cid < 0xffff_fffe {
            return cid;
        }
    }
}
