//! What a machine is: name, memory, versions, identifiers.

use super::guests::{Guest, guest};
use super::identifiers::Uuid;
use super::text::VmxFile;
use crate::control::Snapshot;

/// Memory where `memsize` is missing, in MiB.
pub(crate) const MEMORY_DEFAULT_MB: u32 = 32;

/// Most memory that is believed, in MiB: 1 TiB. Ours.
const MEMORY_MAX_MB: u32 = 1 << 20;

/// Most processors that are believed. Ours.
const CPUS_MAX: u32 = 64;

impl VmxFile {
    /// Whether this can be the configuration of a machine: it names the version of its format.
    /// Ours: every file of the product does.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.config_version().is_some()
    }

    /// `config.version`.
    #[must_use]
    pub fn config_version(&self) -> Option<u32> {
        self.number("config.version")
    }

    /// `virtualHW.version`: 3 or 4 for the products of that time.
    #[must_use]
    pub fn hardware_version(&self) -> Option<u32> {
        self.number("virtualHW.version")
    }

    /// `displayName`, None when there is none. `%2f` and `%5c`, which libvirt writes for `/` and `\`,
    /// are undone.
    #[must_use]
    pub fn display_name(&self) -> Option<String> {
        let name = self.get_filled("displayName")?;
        let mut out = String::with_capacity(name.len());
        let mut rest = name;
        while let Some((before, after)) = rest.split_once('%') {
            out.push_str(before);
            let code = after.get(..2).map(str::to_ascii_lowercase);
            let (character, length) = match code.as_deref() {
                Some("2f") => ('/', 2),
                Some("5c") => ('\\', 2),
                _ => ('%', 0),
            };
            out.push(character);
            rest = after.get(length..).unwrap_or_default();
        }
        out.push_str(rest);
        Some(out)
    }

    /// `guestOS`, as written.
    #[must_use]
    pub fn guest_os(&self) -> Option<&str> {
        self.get_filled("guestOS")
    }

    /// What is known of its guest; one that is not in the list counts as `other`.
    #[must_use]
    pub fn guest(&self) -> &'static Guest {
        guest(self.guest_os().unwrap_or_default())
    }

    /// Memory in MiB, a multiple of 4, at least 4; 32 where nothing is said. A number that is no
    /// multiple of 4 is rounded down (ours).
    #[must_use]
    pub fn memory_mb(&self) -> u32 {
        let said = self.number("memsize").unwrap_or(MEMORY_DEFAULT_MB);
        said.clamp(4, MEMORY_MAX_MB) / 4 * 4
    }

    /// Processors, at least 1.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        self.number("numvcpus").unwrap_or(1).clamp(1, CPUS_MAX)
    }

    /// `annotation`, empty without; lines end with a line feed.
    #[must_use]
    pub fn annotation(&self) -> &str {
        self.get("annotation").unwrap_or_default()
    }

    /// `uuid.bios`: what the guest sees.
    #[must_use]
    pub fn uuid_bios(&self) -> Option<Uuid> {
        self.get("uuid.bios")?.parse().ok()
    }

    /// `uuid.location`: where the machine was last, in one number.
    #[must_use]
    pub fn uuid_location(&self) -> Option<Uuid> {
        self.get("uuid.location")?.parse().ok()
    }

    /// `nvram`: the file with the memory of the clock chip, as written.
    #[must_use]
    pub fn nvram(&self) -> Option<&str> {
        self.get_filled("nvram")
    }

    /// `checkpoint.vmState`: the file with the state of a suspended machine. None when not suspended.
    #[must_use]
    pub fn suspend_state(&self) -> Option<&str> {
        self.get_filled("checkpoint.vmState")
    }

    /// The snapshots in a machine's list of them (`.vmsd`, the same kind of file), oldest first. Entries
    /// without a number are passed over, and so is everything after the thousandth.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let count = self.number("snapshot.numSnapshots").unwrap_or(0).min(1000);
        let snapshot = |number| {
            let value = |key: &str| self.get(&format!("snapshot{number}.{key}"));
            let text = |key| value(key).unwrap_or_default().to_owned();
            Some(Snapshot {
                id: value("uid")?.parse().ok()?,
                name: text("displayName"),
                description: text("description"),
                time: value("createTime").and_then(|time| time.parse().ok()).unwrap_or(0),
                memory: value("filename").is_some_and(|name| !name.is_empty()),
            })
        };
        (0..count).filter_map(snapshot).collect()
    }

    /// `guestinfo.NAME`.
    #[must_use]
    pub fn guest_info(&self, name: &str) -> Option<&str> {
        self.get(&format!("guestinfo.{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vmx(text: &str) -> VmxFile {
        VmxFile::parse(text.as_bytes())
    }

    #[test]
    fn facts_and_their_defaults() {
        let empty = vmx("");
        assert!(!empty.is_usable());
        assert_eq!((empty.memory_mb(), empty.cpus(), empty.display_name()), (32, 1, None));
        assert_eq!((empty.guest().key, empty.annotation()), ("other", ""));
        let full =
            vmx("config.version = \"8\"\nVirtualHW.Version = \"3\"\nmemsize = \"259\"\nnumvcpus = \"2\"\n\
            displayName = \"a%2Fb%5cc%20%\"\nguestOS = \"WinXPPro\"\nannotation = \"one|0Atwo |22x|22 |7C\"\n\
            checkpoint.vmState = \"\"\nnvram = nvram\nguestinfo.ip = \"10.0.0.1\"\n");
        assert!(full.is_usable());
        assert_eq!((full.config_version(), full.hardware_version()), (Some(8), Some(3)));
        assert_eq!((full.memory_mb(), full.cpus()), (256, 2));
        assert_eq!(full.display_name().as_deref(), Some("a/b\\c%20%"));
        assert_eq!((full.guest_os(), full.guest().key), (Some("WinXPPro"), "winxppro"));
        assert_eq!(full.annotation(), "one\ntwo \"x\" |");
        assert_eq!((full.suspend_state(), full.nvram()), (None, Some("nvram")));
        assert_eq!(full.guest_info("ip"), Some("10.0.0.1"));
    }

    #[test]
    fn numbers_that_make_no_sense() {
        for (text, memory) in
            [("-1", 32), ("1e9", 32), ("0", 4), ("4294967295", 1 << 20), ("99999999999", 32), ("7", 4)]
        {
            assert_eq!(vmx(&format!("memsize = \"{text}\"")).memory_mb(), memory, "{text}");
        }
        assert_eq!(vmx("numvcpus = \"0\"").cpus(), 1);
        assert_eq!(vmx("numvcpus = \"1000\"").cpus(), 64);
    }
}
