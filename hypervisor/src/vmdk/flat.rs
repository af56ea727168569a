//! A flat extent: its sectors one after the other in a file, from an offset on.

use super::SECTOR;
use super::error::Error;
use super::part::Part;

/// An open flat extent.
pub(crate) struct FlatExtent {
    part: Part,
    /// First sector in the file.
    offset: u64,
}

impl FlatExtent {
    /// Takes an open file as an extent of `sectors` sectors.
    ///
    /// # Errors
    /// When the file is too short.
    pub(crate) fn open(part: Part, offset: u64, sectors: u64) -> Result<Self, Error> {
        let there = part.size()? / SECTOR;
        if offset.checked_add(sectors).is_none_or(|end| end > there) {
            let reason =
                format!("cut short: {there} sectors, {sectors} from sector {offset} on were expected");
            return Err(Error::malformed(part.path(), reason));
        }
        Ok(FlatExtent { part, offset })
    }

    pub(crate) fn part(&self) -> &Part {
        &self.part
    }

    pub(crate) fn read(&self, sector: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.part.read(self.offset + sector, buf)
    }

    pub(crate) fn write(&self, sector: u64, data: &[u8]) -> Result<(), Error> {
        self.part.write(self.offset + sector, data)
    }
}
