//! One extent of a disk, whatever its kind: sectors are counted from its own beginning here.

use std::path::Path;

use super::bytes::{round_up, to_len};
use super::descriptor::{ExtentAccess, ExtentKind, ExtentLine};
use super::error::Error;
use super::flat::FlatExtent;
use super::grain_map::GrainMap;
use super::part::Part;
use super::sparse::{Below, SparseExtent};
use super::storage::Access;
use super::stream::StreamExtent;
use super::{SECTOR, cowd, hosted};

/// How much of an extent of `own` sectors is looked at, where the descriptor expects `sectors`: whole
/// grains. A directory for more is not read: the disk alone, and not the number in each of two thousand
/// headers, decides how much memory its directories take.
///
/// # Errors
/// When the extent is too small.
fn needed(part: &Part, own: u64, grain: u64, sectors: u64) -> Result<u64, Error> {
    if own < sectors {
        let reason = format!("an extent of {own} sectors; the descriptor expects {sectors}");
        return Err(Error::malformed(part.path(), reason));
    }
    Ok(own.min(round_up(sectors, grain)))
}

/// An extent and its place in the disk.
pub(crate) struct Extent {
    /// First sector in the disk.
    pub(crate) start: u64,
    /// Number of sectors.
    pub(crate) sectors: u64,
    access: ExtentAccess,
    body: Body,
}

/// How it keeps its sectors.
enum Body {
    Flat(FlatExtent),
    Sparse(Box<SparseExtent>),
    Stream(Box<StreamExtent>),
    Zero,
}

impl Extent {
    /// Opens the extent of a line. `open` opens its file; it is not called for `ZERO`.
    ///
    /// # Errors
    /// When the file does not hold what the line says.
    pub(crate) fn open(
        line: &ExtentLine,
        start: u64,
        access: Access,
        descriptor: &Path,
        open: impl FnOnce(Access) -> Result<Part, Error>,
    ) -> Result<Self, Error> {
        // An extent that nobody writes to need not be writable.
        let access = if line.access == ExtentAccess::ReadWrite { access } else { Access::Read };
        let body = match &line.kind {
            ExtentKind::Zero => Body::Zero,
            ExtentKind::Flat | ExtentKind::Vmfs => {
                Body::Flat(FlatExtent::open(open(access)?, line.offset, line.sectors)?)
            }
            ExtentKind::Sparse => Self::open_hosted(&open(access)?, access, line.sectors)?,
            ExtentKind::VmfsSparse => {
                let part = open(access)?;
                let header = cowd::Header::read(&part)?;
                let capacity = needed(&part, header.capacity, header.grain, line.sectors)?;
                let header = cowd::Header { capacity, ..header };
                Body::Sparse(Box::new(SparseExtent::open_cow(&part, &header, access)?))
            }
            ExtentKind::Other(kind) => {
                return Err(Error::unsupported(descriptor, format!("extents of kind {kind}")));
            }
        };
        Ok(Extent { start, sectors: line.sectors, access: line.access, body })
    }

    fn open_hosted(part: &Part, access: Access, sectors: u64) -> Result<Body, Error> {
        let header = hosted::Header::read(part)?;
        let capacity = needed(part, header.capacity, header.grain, sectors)?;
        let header = hosted::Header { capacity, ..header };
        Ok(if header.compressed {
            Body::Stream(Box::new(StreamExtent::open(part, &header, access)?))
        } else {
            Body::Sparse(Box::new(SparseExtent::open_hosted(part, &header, access)?))
        })
    }

    /// The open file, if there is one.
    pub(crate) fn part(&self) -> Option<&Part> {
        match &self.body {
            Body::Flat(flat) => Some(flat.part()),
            Body::Sparse(sparse) => Some(sparse.part()),
            Body::Stream(stream) => Some(stream.part()),
            Body::Zero => None,
        }
    }

    /// Whether two extents may share the file: flat ones may, with tables they would collide.
    pub(crate) fn is_flat(&self) -> bool {
        matches!(self.body, Body::Flat(_))
    }

    /// Directory and tables, if it has any.
    pub(crate) fn map_mut(&mut self) -> Option<&mut GrainMap> {
        match &mut self.body {
            Body::Sparse(sparse) => Some(sparse.map_mut()),
            Body::Stream(stream) => Some(stream.map_mut()),
            Body::Flat(_) | Body::Zero => None,
        }
    }

    /// Sectors of a grain, if it has grains.
    pub(crate) fn grain(&self) -> Option<u64> {
        match &self.body {
            Body::Sparse(sparse) => Some(sparse.grain()),
            Body::Stream(stream) => Some(stream.grain()),
            Body::Flat(_) | Body::Zero => None,
        }
    }

    /// Whether the file was not closed after its last writing.
    pub(crate) fn is_unclean(&self) -> bool {
        matches!(&self.body, Body::Sparse(sparse) if sparse.is_unclean())
    }

    /// Whether its grains are compressed.
    pub(crate) fn is_compressed(&self) -> bool {
        matches!(self.body, Body::Stream(_))
    }

    /// Whether sectors can be written to, if it was opened for that.
    pub(crate) fn is_writable(&self) -> bool {
        self.access == ExtentAccess::ReadWrite && matches!(self.body, Body::Flat(_) | Body::Sparse(_))
    }

    /// Reads into the beginning of `buf`, which stays inside the extent. Returns how many sectors it
    /// answers for (at least 1), and whether they are here.
    ///
    /// # Errors
    /// As the system calls, when a file is damaged, or when the extent may not be read.
    pub(crate) fn read(
        &mut self,
        sector: u64,
        buf: &mut [u8],
        descriptor: &Path,
    ) -> Result<(u64, bool), Error> {
        let all = buf.len() as u64 / SECTOR;
        if self.access == ExtentAccess::None {
            return Err(Error::unsupported(descriptor, "reading an extent of access NOACCESS"));
        }
        match &mut self.body {
            Body::Flat(flat) => flat.read(sector, buf).map(|()| (all, true)),
            Body::Sparse(sparse) => sparse.read(sector, buf),
            Body::Stream(stream) => stream.read(sector, buf),
            Body::Zero => {
                buf.fill(0);
                Ok((all, true))
            }
        }
    }

    /// Writes `data`, which stays inside the extent.
    ///
    /// # Errors
    /// As the system calls, when a file is damaged, or when the extent may not be written.
    pub(crate) fn write(
        &mut self,
        sector: u64,
        data: &[u8],
        descriptor: &Path,
        below: Below<'_>,
    ) -> Result<(), Error> {
        if self.access != ExtentAccess::ReadWrite {
            return Err(Error::ReadOnly { path: descriptor.to_owned() });
        }
        match &mut self.body {
            Body::Flat(flat) => flat.write(sector, data),
            Body::Sparse(sparse) => sparse.write(sector, data, below),
            Body::Stream(_) | Body::Zero => Err(Error::ReadOnly { path: descriptor.to_owned() }),
        }
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// As the system calls.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        match &mut self.body {
            Body::Flat(flat) => flat.part().sync(),
            Body::Sparse(sparse) => sparse.flush(),
            Body::Stream(_) | Body::Zero => Ok(()),
        }
    }

    /// Flushes, and says so in the header.
    ///
    /// # Errors
    /// As the system calls.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        match &mut self.body {
            Body::Sparse(sparse) => sparse.close(),
            _ => self.flush(),
        }
    }

    /// How many of `wanted` sectors from `sector` on lie inside the extent, in bytes of memory.
    pub(crate) fn clip(&self, sector: u64, wanted: usize) -> usize {
        wanted.min(to_len(self.sectors.saturating_sub(sector)))
    }
}
