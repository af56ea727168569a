//! The firmware: SeaBIOS and its VGA BIOS, from the Debian package `seabios`.

use std::io::{self, Read};
use std::path::Path;

use crate::screen::Font;

/// Where the package puts them.
pub const DIRECTORY: &str = "/usr/share/seabios";

/// The package that has them.
pub const PACKAGE: &str = "seabios";

const BIOS: &str = "bios.bin";
const VGA: &str = "vgabios-isavga.bin";

/// Most bytes of an image.
const MAX: u64 = 256 * 1024;

/// The images.
#[derive(Debug, Clone)]
pub struct Firmware {
    /// The BIOS: a multiple of 64 KiB; its last byte lies below 4 GiB.
    pub bios: Vec<u8>,
    /// The VGA BIOS.
    pub vga: Vec<u8>,
    /// The font of the VGA BIOS, for screenshots.
    pub font: Font,
}

/// Why there is no firmware.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("no firmware: cannot read {path} ({source}); it comes with the package {PACKAGE}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("no firmware: {path} is {why}")]
    Wrong {
        /// The file.
        path: String,
        /// What it is.
        why: &'static str,
    },
}

impl Firmware {
    /// Reads the images from `directory`.
    ///
    /// # Errors
    /// [`Error`], naming the file and the package.
    pub fn load(directory: &Path) -> Result<Self, Error> {
        let bios = read(&directory.join(BIOS))?;
        let wrong = |name: &str, why| Error::Wrong { path: directory.join(name).display().to_string(), why };
        if bios.is_empty() || bios.len() % (64 * 1024) != 0 {
            return Err(wrong(BIOS, "no BIOS image: its size is no multiple of 64 KiB"));
        }
        let vga = read(&directory.join(VGA))?;
        if !vga.starts_with(&[0x55, 0xaa]) {
            return Err(wrong(VGA, "no option ROM"));
        }
        let font = Font::in_rom(&vga).ok_or_else(|| wrong(VGA, "a VGA BIOS without a font of 8 by 16"))?;
        Ok(Firmware { bios, vga, font })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { path: path.display().to_string(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX {
        return Err(Error::Wrong { path: path.display().to_string(), why: "larger than 256 KiB" });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let empty = tempfile::tempdir().unwrap();
        let text = Firmware::load(empty.path()).unwrap_err().to_string();
        assert!(text.contains("bios.bin") && text.contains("package seabios"), "{text}");
        std::fs::write(empty.path().join(BIOS), vec![0; 1000]).unwrap();
        let text = Firmware::load(empty.path()).unwrap_err().to_string();
        assert!(text.contains("64 KiB"), "{text}");
    }
}
