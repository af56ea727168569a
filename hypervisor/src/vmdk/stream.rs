//! A `KDMV` extent with compressed grains: `streamOptimized`, the form in which disks travel. It is
//! read, never written.
//!
//! ```text
//!   table entry ──▶ marker: sector of the disk (8 bytes), length (4)   then so many bytes of zlib data
//! ```
//!
//! One grain is kept unpacked, so that small reads in a row unpack it once.

use super::bytes::{to_bytes, to_len, u32_at, u64_at};
use super::error::Error;
use super::grain_map::{GrainMap, Span};
use super::part::Part;
use super::sparse::hosted_shape;
use super::storage::Access;
use super::{SECTOR, hosted};

/// Bytes of a marker in front of a grain.
const MARKER: usize = 12;

/// An open compressed extent.
pub(crate) struct StreamExtent {
    part: Part,
    map: GrainMap,
    capacity: u64,
    grain: u64,
    /// Bytes of the file.
    size: u64,
    /// Which grain `unpacked` holds.
    current: Option<u64>,
    unpacked: Vec<u8>,
}

impl StreamExtent {
    /// Opens a compressed extent for reading.
    ///
    /// # Errors
    /// When header or directory cannot be right.
    pub(crate) fn open(part: &Part, header: &hosted::Header, access: Access) -> Result<Self, Error> {
        if access == Access::Write {
            return Err(Error::unsupported(part.path(), "writing to compressed grains"));
        }
        let map = GrainMap::open(part, hosted_shape(header), access)?;
        Ok(StreamExtent {
            part: part.clone(),
            map,
            capacity: header.capacity,
            grain: header.grain,
            size: part.size()?,
            current: None,
            unpacked: Vec::new(),
        })
    }

    pub(crate) fn part(&self) -> &Part {
        &self.part
    }

    pub(crate) fn map_mut(&mut self) -> &mut GrainMap {
        &mut self.map
    }

    pub(crate) fn grain(&self) -> u64 {
        self.grain
    }

    /// Reads into the beginning of `buf`; see [`super::sparse::SparseExtent::read`].
    ///
    /// # Errors
    /// As the system calls, or when the stream is damaged.
    pub(crate) fn read(&mut self, sector: u64, buf: &mut [u8]) -> Result<(u64, bool), Error> {
        let grain = sector / self.grain;
        let within = sector % self.grain;
        let count = (buf.len() as u64 / SECTOR).min(self.grain - within);
        let head = buf.get_mut(..to_len(count)).unwrap_or_default();
        match self.map.span(&self.part, grain, 1)? {
            Span::Absent { .. } => return Ok((count, false)),
            Span::Zeros { .. } => head.fill(0),
            Span::Data { sector: place, .. } => {
                if self.current != Some(grain) {
                    self.current = None;
                    self.unpack(grain, place)?;
                    self.current = Some(grain);
                }
                let from = self.unpacked.get(to_len(within)..).unwrap_or_default();
                let bytes = from.get(..head.len()).ok_or_else(|| self.damaged(grain, "too short"))?;
                head.copy_from_slice(bytes);
            }
        }
        Ok((count, true))
    }

    fn unpack(&mut self, grain: u64, place: u64) -> Result<(), Error> {
        let mut marker = [0; MARKER];
        let start = to_bytes(place);
        self.part.read_bytes(start, &mut marker)?;
        if u64_at(&marker, 0) != grain * self.grain {
            return Err(self.damaged(grain, "its marker names another sector"));
        }
        let length = u64::from(u32_at(&marker, 8));
        // What cannot be compressed grows by a few bytes, never by half.
        let data = start + MARKER as u64;
        if length == 0 || length > to_bytes(self.grain) * 3 / 2 || data + length > self.size {
            return Err(self.damaged(grain, "its marker names an impossible length"));
        }
        let mut packed = vec![0; usize::try_from(length).unwrap_or(0)];
        self.part.read_bytes(data, &mut packed)?;
        // The last grain of a disk may be cut at its end.
        let needed = self.grain.min(self.capacity - grain * self.grain);
        self.unpacked.resize(to_len(self.grain), 0);
        let pieces = std::iter::once(packed.as_slice());
        let unpacked =
            miniz_oxide::inflate::decompress_slice_iter_to_slice(&mut self.unpacked, pieces, true, false);
        match unpacked {
            Ok(bytes) if bytes >= to_len(needed) => {
                self.unpacked.truncate(bytes);
                Ok(())
            }
            Ok(_) => Err(self.damaged(grain, "too short")),
            Err(_) => Err(self.damaged(grain, "its data cannot be decompressed")),
        }
    }

    fn damaged(&self, grain: u64, reason: &str) -> Error {
        Error::malformed(self.part.path(), format!("compressed grain {grain} is damaged: {reason}"))
    }
}
