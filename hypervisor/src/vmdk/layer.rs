//! One disk of a chain: its descriptor and its extents.

use std::path::{Path, PathBuf};

use super::bytes::{to_bytes, to_len};
use super::descriptor::{Descriptor, ExtentKind, MAX_DESCRIPTOR};
use super::error::Error;
use super::extent::Extent;
use super::part::Part;
use super::sparse::Below;
use super::storage::{Access, Identity, Opener};
use super::{SECTOR, cowd, hosted};

/// A descriptor and where it was found.
pub(crate) struct Found {
    pub(crate) part: Part,
    pub(crate) descriptor: Descriptor,
    /// Place and length in sectors, when it is embedded in its extent.
    pub(crate) embedded: Option<(u64, u64)>,
}

impl Found {
    /// Opens `path` and reads the descriptor in it.
    ///
    /// # Errors
    /// When there is none, or a damaged one.
    pub(crate) fn open(opener: &dyn Opener, path: &Path, access: Access) -> Result<Self, Error> {
        let part = Part::open(opener, path, access)?;
        let size = part.size()?;
        let mut magic = [0; 4];
        if size < magic.len() as u64 {
            return Err(Error::malformed(path, "too short for a disk"));
        }
        part.read_bytes(0, &mut magic)?;
        match &magic {
            hosted::MAGIC => Self::embedded(part),
            cowd::MAGIC => Err(Error::malformed(
                path,
                "an extent, not a disk: a COW extent is described by a text file beside it",
            )),
            _ => Self::text(part, size),
        }
    }

    fn embedded(part: Part) -> Result<Self, Error> {
        let header = hosted::Header::read(&part)?;
        let Some((place, length)) = header.descriptor else {
            return Err(Error::malformed(part.path(), "an extent, not a disk: it has no descriptor"));
        };
        // The header was checked: at most MAX_DESCRIPTOR, and inside the file.
        let mut text = vec![0; to_len(length)];
        part.read(place, &mut text)?;
        let descriptor = Descriptor::parse(&text).map_err(|reason| Error::malformed(part.path(), reason))?;
        if !matches!(descriptor.extents.as_slice(), [only] if only.kind == ExtentKind::Sparse) {
            return Err(Error::malformed(part.path(), "an embedded descriptor has one extent, SPARSE"));
        }
        Ok(Found { part, descriptor, embedded: Some((place, length)) })
    }

    fn text(part: Part, size: u64) -> Result<Self, Error> {
        if size > MAX_DESCRIPTOR {
            return Err(Error::malformed(part.path(), "no disk: neither an extent nor a descriptor"));
        }
        let mut text = vec![0; usize::try_from(size).unwrap_or(0)];
        part.read_bytes(0, &mut text)?;
        let descriptor = Descriptor::parse(&text).map_err(|reason| Error::malformed(part.path(), reason))?;
        if !descriptor.is_complete() {
            let reason = "the descriptor ends at its extent lines: it may be cut short";
            return Err(Error::malformed(part.path(), reason));
        }
        Ok(Found { part, descriptor, embedded: None })
    }

    /// A name in the descriptor as a path: relative ones start at the descriptor.
    pub(crate) fn beside(&self, name: &Path) -> PathBuf {
        beside(self.part.path(), name)
    }

    /// Where the parent is, if there is one.
    pub(crate) fn parent(&self) -> Option<(u32, PathBuf)> {
        let cid = self.descriptor.parent_cid?;
        Some((cid, self.beside(self.descriptor.parent_hint.as_deref()?)))
    }
}

/// A name found in the file at `path`, as a path.
pub(crate) fn beside(path: &Path, name: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(name)
}

/// An open disk of a chain.
pub(crate) struct Layer {
    pub(crate) found: Found,
    pub(crate) extents: Vec<Extent>,
    pub(crate) capacity: u64,
}

impl Layer {
    /// Opens the extents of a descriptor.
    ///
    /// # Errors
    /// When one of them does not hold what the descriptor says.
    pub(crate) fn open(opener: &dyn Opener, found: Found, access: Access) -> Result<Self, Error> {
        let path = found.part.path().to_owned();
        let mut extents = Vec::with_capacity(found.descriptor.extents.len());
        let mut start = 0;
        for line in &found.descriptor.extents {
            let open = |access| match (&found.embedded, &line.file) {
                // Renamed or not, the extent is the file that the descriptor is in.
                (Some(_), _) => Ok(found.part.clone()),
                (None, Some(file)) => Part::open(opener, &found.beside(file), access),
                (None, None) => Err(Error::malformed(&path, "an extent without a file")),
            };
            extents.push(Extent::open(line, start, access, &path, open)?);
            start += line.sectors;
        }
        Ok(Layer { found, extents, capacity: start })
    }

    /// Which files this layer consists of, each once.
    ///
    /// # Errors
    /// When two extents with tables are the same file, or the system does not tell.
    pub(crate) fn identities(&self) -> Result<Vec<Identity>, Error> {
        let descriptor = self.found.part.identity()?;
        let mut all = vec![(descriptor, false)];
        for extent in self.extents.iter().filter(|_| self.found.embedded.is_none()) {
            let Some(part) = extent.part() else {
                continue;
            };
            all.push((part.identity()?, extent.is_flat()));
        }
        // Flat extents may share a file, each with its own offset; nothing else may.
        all.sort_unstable();
        let collide = |pair: &[(Identity, bool)]| match pair {
            [(one, one_flat), (other, other_flat)] => one == other && !(*one_flat && *other_flat),
            _ => false,
        };
        if all.windows(2).any(collide) {
            return Err(Error::malformed(self.found.part.path(), "two of its extents are the same file"));
        }
        let mut identities: Vec<Identity> = all.into_iter().map(|(identity, _)| identity).collect();
        identities.dedup();
        Ok(identities)
    }

    /// Whether every extent can be written to.
    pub(crate) fn is_writable(&self) -> bool {
        self.extents.iter().all(Extent::is_writable)
    }

    /// Reads into the beginning of `buf`. Returns how many sectors are answered for (at least 1), and
    /// whether they are here. Behind the end of a disk, smaller than its child, there are zeros.
    ///
    /// # Errors
    /// As the extents.
    pub(crate) fn read(&mut self, sector: u64, buf: &mut [u8]) -> Result<(u64, bool), Error> {
        let path = self.found.part.path();
        let Some(extent) = extent_at(&mut self.extents, sector) else {
            buf.fill(0);
            return Ok((buf.len() as u64 / SECTOR, true));
        };
        let inside = sector - extent.start;
        let length = extent.clip(inside, buf.len());
        extent.read(inside, buf.get_mut(..length).unwrap_or_default(), path)
    }

    /// Writes `data`, which stays inside the disk.
    ///
    /// # Errors
    /// As the extents.
    pub(crate) fn write(&mut self, mut sector: u64, mut data: &[u8], below: Below<'_>) -> Result<(), Error> {
        let path = self.found.part.path();
        while !data.is_empty() {
            let Some(extent) = extent_at(&mut self.extents, sector) else {
                let end = sector + data.len() as u64 / SECTOR;
                return Err(Error::OutOfRange {
                    path: path.to_owned(),
                    sector,
                    end,
                    capacity: self.capacity,
                });
            };
            let (start, inside) = (extent.start, sector - extent.start);
            let (now, later) = data.split_at_checked(extent.clip(inside, data.len())).unwrap_or((data, &[]));
            extent.write(inside, now, path, &mut |sector, buf| below(start + sector, buf))?;
            sector += now.len() as u64 / SECTOR;
            data = later;
        }
        Ok(())
    }

    /// Gives the disk a new CID, durably: children made before are now stale.
    ///
    /// # Errors
    /// As the system calls.
    pub(crate) fn change_cid(&mut self, cid: u32) -> Result<(), Error> {
        let Found { part, descriptor, embedded } = &mut self.found;
        let mut new = descriptor.clone();
        let (offset, digits, in_place) = new.set_cid(cid);
        let base = embedded.map_or(0, |(place, _)| to_bytes(place));
        if in_place {
            part.write_bytes(base + offset as u64, &digits)?;
        } else {
            // The old CID was written with fewer digits: everything behind it moves.
            let mut text = new.text().to_vec();
            if let Some((_, length)) = *embedded {
                if text.len() > to_len(length) {
                    return Err(Error::malformed(part.path(), "no room for a CID of eight digits"));
                }
                text.resize(to_len(length), 0);
            }
            part.write_bytes(base, &text)?;
        }
        part.sync()?;
        *descriptor = new;
        Ok(())
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// As the system calls.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.extents.iter_mut().try_for_each(Extent::flush)?;
        self.found.part.sync()
    }

    /// Flushes, and says so in the headers.
    ///
    /// # Errors
    /// As the system calls.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        self.extents.iter_mut().try_for_each(Extent::close)?;
        self.found.part.sync()
    }
}

/// The extent that holds a sector.
fn extent_at(extents: &mut [Extent], sector: u64) -> Option<&mut Extent> {
    let index = extents.partition_point(|extent| extent.start + extent.sectors <= sector);
    extents.get_mut(index)
}
