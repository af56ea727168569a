//! Cylinders, heads and sectors: what an old BIOS wants to know of a disk.

/// The kind of adapter a disk was made for: `ddb.adapterType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapter {
    /// `ide`
    Ide,
    /// `buslogic`
    BusLogic,
    /// `lsilogic`
    LsiLogic,
    /// `legacyESX`
    LegacyEsx,
}

impl Adapter {
    /// All of them.
    pub const ALL: [Adapter; 4] = [Adapter::Ide, Adapter::BusLogic, Adapter::LsiLogic, Adapter::LegacyEsx];

    /// The word in a descriptor.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Adapter::Ide => "ide",
            Adapter::BusLogic => "buslogic",
            Adapter::LsiLogic => "lsilogic",
            Adapter::LegacyEsx => "legacyESX",
        }
    }

    /// The adapter of a word, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|adapter| adapter.name().eq_ignore_ascii_case(name))
    }
}

/// The `ddb.geometry.*` facts of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Number of cylinders.
    pub cylinders: u32,
    /// Number of heads.
    pub heads: u32,
    /// Sectors of a track.
    pub sectors: u32,
}

impl Geometry {
    /// The geometry of a new disk of `capacity` sectors.
    ///
    /// IDE as usually written: 16 heads, 63 sectors, at most 16383 cylinders. SCSI, our choice after
    /// the translations that such adapters' BIOSes document: 64 heads and 32 sectors below 1 GiB, 128
    /// and 32 below 2 GiB, 255 and 63 from there on.
    #[must_use]
    pub fn of(adapter: Adapter, capacity: u64) -> Self {
        const GIB: u64 = 1 << 21; // sectors
        let (heads, sectors, most) = match adapter {
            Adapter::Ide => (16, 63, 16383),
            _ if capacity < GIB => (64, 32, u32::MAX),
            _ if capacity < 2 * GIB => (128, 32, u32::MAX),
            _ => (255, 63, u32::MAX),
        };
        let cylinders = capacity / (u64::from(heads) * u64::from(sectors));
        Geometry { cylinders: u32::try_from(cylinders).unwrap_or(most).min(most), heads, sectors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometry_of_usual_sizes() {
        let of = |adapter, bytes: u64| {
            let Geometry { cylinders, heads, sectors } = Geometry::of(adapter, bytes / 512);
            (cylinders, heads, sectors)
        };
        // What qemu-img writes for 100 MiB.
        assert_eq!(of(Adapter::Ide, 100 << 20), (203, 16, 63));
        assert_eq!(of(Adapter::Ide, 2 << 40), (16383, 16, 63));
        assert_eq!(of(Adapter::LsiLogic, 512 << 20), (512, 64, 32));
        assert_eq!(of(Adapter::BusLogic, 3 << 29), (768, 128, 32));
        assert_eq!(of(Adapter::LsiLogic, 8 << 30), (1044, 255, 63));
        assert_eq!(Adapter::from_name("LSILogic"), Some(Adapter::LsiLogic));
        assert_eq!(Adapter::from_name("virtio"), None);
    }
}
