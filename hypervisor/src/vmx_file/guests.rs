//! The guest operating systems that a machine can be made for.

/// What kind of system a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Windows.
    Windows,
    /// Linux.
    Linux,
    /// Anything else.
    Other,
}

impl Family {
    /// `windows`, `linux` or `other`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Family::Windows => "windows",
            Family::Linux => "linux",
            Family::Other => "other",
        }
    }
}

/// One guest operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest {
    /// The value of `guestOS`, as seen in working files.
    pub key: &'static str,
    /// A name for people. Ours.
    pub name: &'static str,
    /// What kind of system it is.
    pub family: Family,
    /// Memory of a new machine in MiB. Ours.
    pub memory_mb: u32,
}

const fn row(key: &'static str, name: &'static str, family: Family, memory_mb: u32) -> Guest {
    Guest { key, name, family, memory_mb }
}

/// All of them; the last one is for everything else.
pub const GUESTS: [Guest; 13] = [
    row("winxppro", "Windows XP Professional", Family::Windows, 256),
    row("win2000Pro", "Windows 2000 Professional", Family::Windows, 256),
    row("winNetStandard", "Windows Server 2003 Standard", Family::Windows, 384),
    row("winnetenterprise", "Windows Server 2003 Enterprise", Family::Windows, 384),
    row("linux", "Linux", Family::Linux, 256),
    row("redhat", "Red Hat Linux", Family::Linux, 256),
    row("suse", "SUSE Linux", Family::Linux, 256),
    row("ubuntu", "Ubuntu", Family::Linux, 256),
    row("other24xlinux", "Other Linux, kernel 2.4", Family::Linux, 256),
    row("other26xlinux", "Other Linux, kernel 2.6", Family::Linux, 256),
    row("freebsd", "FreeBSD", Family::Other, 256),
    row("dos", "DOS", Family::Other, 32),
    OTHER,
];

const OTHER: Guest = row("other", "Other", Family::Other, 256);
static UNKNOWN: Guest = OTHER;

/// The guest of a key, in any case; an unknown key counts as `other`.
#[must_use]
pub fn guest(key: &str) -> &'static Guest {
    static ALL: [Guest; 13] = GUESTS;
    ALL.iter().find(|guest| guest.key.eq_ignore_ascii_case(key)).unwrap_or(&UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list() {
        for (index, guest) in GUESTS.iter().enumerate() {
            assert!(GUESTS.iter().skip(index + 1).all(|other| !other.key.eq_ignore_ascii_case(guest.key)));
            assert_eq!(guest.memory_mb % 4, 0);
        }
        assert_eq!(guest("WINNETSTANDARD").family, Family::Windows);
        assert_eq!(guest("plan9").key, "other");
        assert_eq!(super::super::defaults::GUEST_OS, "other");
    }
}
