//! Merging: what a disk and the children above it hold goes into one of its parents.
//!
//! ```text
//!   top ── … ── child ── target ── … ── root       before; whoever uses the disk names the top
//!     └──────────┴──────────▶ target               every sector that one of these has is written there
//!                             target ── … ── root  after; whoever uses the disk names the target
//! ```
//!
//! **What a crash can do.** Only sectors change in the target that a disk above it has: read through the
//! top, the chain holds the same at every moment, and merging can begin again. So the order is
//! [`Merge::run`]; then whoever uses the disk names the target from now on, durably; then [`Merge::seal`],
//! which makes children that were made of the target before stale; then the disks above it can go.
//! Until `seal` the target keeps its CID: its child must go on to fit it.

use std::path::Path;

use super::bytes::to_len;
use super::disk::{Chain, new_cid, open_chain, read_layers, share_cache};
use super::error::Error;
use super::layer::Layer;
use super::storage::{FileOpener, Opener};

/// Sectors that are looked at and written at once.
const STEP: u64 = 2048;

/// Steps between two flushes: a crash then repeats at most so much, and little memory is kept.
const FLUSH: u64 = 64;

/// A merge that can run. The target is locked against everybody else, the disks above it against writers.
pub struct Merge {
    /// The top and all disks above the target; never empty.
    above: Vec<Layer>,
    /// The target, its parent, and so on; never empty.
    target: Vec<Layer>,
}

impl std::fmt::Debug for Merge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merge").finish_non_exhaustive()
    }
}

impl Merge {
    /// Opens the chain of the disk at `top`, to merge it into the one at `target`.
    ///
    /// # Errors
    /// When `target` is not below `top`, they have different sizes, one of them is in use, or the target
    /// cannot be written.
    pub fn open(top: &Path, target: &Path) -> Result<Self, Error> {
        Self::open_with(&FileOpener, top, target)
    }

    /// As [`Merge::open`], through `opener`.
    ///
    /// # Errors
    /// As [`Merge::open`].
    pub fn open_with(opener: &dyn Opener, top: &Path, target: &Path) -> Result<Self, Error> {
        let wanted = opener.open(target, super::Access::Read).and_then(|file| file.identity());
        let wanted = wanted.map_err(|error| Error::io("open", target, error))?;
        // First without locks, to see where in the chain it is.
        let layers = open_chain(opener, top, &Chain::default())?;
        let at = layers.iter().position(|layer| layer.found.part.identity().is_ok_and(|id| id == wanted));
        let (Some(at @ 1..), Some(first)) = (at, layers.first()) else {
            return Err(Error::unsupported(top, format!("{} is no parent of it", target.display())));
        };
        let size = layers.get(at).map_or(0, |layer| layer.capacity);
        if size != first.capacity {
            let why = format!("merging it into {}, which has another size", target.display());
            return Err(Error::unsupported(top, why));
        }
        drop(layers);
        let mut above = open_chain(opener, top, &Chain { lock: true, writable: Some(at) })?;
        share_cache(&mut above);
        let target = above.split_off(at.min(above.len()));
        if let Some(layer) = target.first().filter(|layer| !layer.is_writable()) {
            return Err(Error::ReadOnly { path: layer.found.part.path().to_owned() });
        }
        Ok(Merge { above, target })
    }

    /// Whether somebody who has the whole chain open may go on reading through its top meanwhile: nothing
    /// in the target's tables changes that he would look at.
    #[must_use]
    pub fn is_unnoticed(&self) -> bool {
        let layers = || self.above.iter().chain(self.target.first());
        let mut grains = layers().flat_map(|layer| &layer.extents).map(|extent| extent.grain());
        let first =
            self.above.first().and_then(|layer| layer.extents.first()).and_then(|extent| extent.grain());
        let aligned = |grain: u64| {
            layers().flat_map(|layer| &layer.extents).all(|extent| extent.start.is_multiple_of(grain))
        };
        first.is_some_and(|first| {
            grains.all(|grain| grain.is_none_or(|grain| grain == first)) && aligned(first)
        })
    }

    /// Writes everything into the target, durably. `go_on` is called often, with the sectors that are done
    /// and how many there are; false ends it, and nothing is lost then.
    ///
    /// # Errors
    /// As the system calls, or when a file is damaged. Nothing is lost then either.
    pub fn run(&mut self, go_on: &mut dyn FnMut(u64, u64) -> bool) -> Result<bool, Error> {
        self.run_layers(usize::MAX, go_on)
    }

    /// As [`Merge::run`], with the top alone: the disks between it and the target were merged before.
    ///
    /// # Errors
    /// As [`Merge::run`].
    pub fn run_top(&mut self, go_on: &mut dyn FnMut(u64, u64) -> bool) -> Result<bool, Error> {
        self.run_layers(1, go_on)
    }

    fn run_layers(&mut self, layers: usize, go_on: &mut dyn FnMut(u64, u64) -> bool) -> Result<bool, Error> {
        let layers = layers.min(self.above.len());
        let capacity = self.above.first().map_or(0, |layer| layer.capacity);
        let mut buffer = vec![0; to_len(STEP)];
        let mut sector = 0;
        let mut steps = 0;
        while sector < capacity {
            if !go_on(sector, capacity) {
                return Ok(false);
            }
            let count = STEP.min(capacity - sector);
            let part = buffer.get_mut(..to_len(count)).unwrap_or_default();
            if merge(self.above.get_mut(..layers).unwrap_or_default(), &mut self.target, sector, part)? {
                steps += 1;
                if steps % FLUSH == 0 {
                    self.flush()?;
                }
            }
            sector += count;
        }
        if let Some(target) = self.target.first_mut() {
            target.close()?;
        }
        Ok(true)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.target.first_mut().map_or(Ok(()), Layer::flush)
    }

    /// Gives the target a new CID: nobody names its old children any more.
    ///
    /// # Errors
    /// As the system calls.
    pub fn seal(mut self) -> Result<(), Error> {
        let Some(target) = self.target.first_mut() else { return Ok(()) };
        target.change_cid(new_cid(target.found.descriptor.cid))
    }
}

/// Writes what one of the layers above has of a range into the target. Returns whether there was any.
fn merge(above: &mut [Layer], target: &mut [Layer], sector: u64, buf: &mut [u8]) -> Result<bool, Error> {
    let Some((top, others)) = above.split_first_mut() else { return Ok(false) };
    let (mut sector, mut buf, mut any) = (sector, buf, false);
    while !buf.is_empty() {
        let (count, here) = top.read(sector, buf)?;
        let (now, later) = std::mem::take(&mut buf).split_at_mut_checked(to_len(count)).unwrap_or_default();
        if here {
            let Some((layer, parents)) = target.split_first_mut() else { return Ok(any) };
            layer.write(sector, now, &mut |sector, buf| read_layers(parents, sector, buf))?;
            any = true;
        } else {
            any |= merge(others, target, sector, now)?;
        }
        sector += count;
        buf = later;
    }
    Ok(any)
}
