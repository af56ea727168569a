//! What the kernel says about the processes of a side: resident memory and processor time.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use crate::Result;

/// A number for each process, with the process's name.
pub type ByProcess = BTreeMap<u32, (String, u64)>;

/// A process and its descendants, or only these.
#[derive(Debug, Clone, Copy)]
pub struct Tree {
    top: u32,
    /// The process at the top only supervises the others and does not count.
    supervised: bool,
}

impl Tree {
    /// The process and its descendants.
    pub fn of(top: u32) -> Self {
        Tree { top, supervised: false }
    }

    /// The descendants of a process that only supervises them.
    pub fn below(top: u32) -> Self {
        Tree { top, supervised: true }
    }

    /// Resident bytes: `Rss` of `smaps_rollup`.
    ///
    /// # Errors
    /// When the kernel does not tell us.
    pub fn resident(self) -> Result<ByProcess> {
        self.collect(|pid| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let kib = text
                .lines()
                .find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB")?.parse().ok());
            kib.map(|kib: u64| kib * 1024).ok_or_else(|| ErrorKind::InvalidData.into())
        })
    }

    /// Readings until two in a row agree: what is freed after a login has then been freed.
    ///
    /// # Errors
    /// When the kernel does not tell us.
    pub fn settled(self) -> Result<ByProcess> {
        let mut last = self.resident()?;
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(500));
            let now = self.resident()?;
            if now == last {
                break;
            }
            last = now;
        }
        Ok(last)
    }

    /// Processor time so far, in nanoseconds.
    ///
    /// # Errors
    /// When the kernel does not tell us.
    pub fn processor(self) -> Result<ByProcess> {
        self.collect(|pid| {
            let mut nanos = 0;
            for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
                let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
                nanos +=
                    text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
            }
            Ok(nanos)
        })
    }

    fn collect(self, read: impl Fn(u32) -> std::io::Result<u64>) -> Result<ByProcess> {
        let mut wanted = vec![self.top];
        let mut found = ByProcess::new();
        while let Some(pid) = wanted.pop() {
            wanted.extend(children(pid));
            if self.supervised && pid == self.top {
                continue;
            }
            match read(pid) {
                Ok(value) => {
                    found.insert(pid, (name(pid), value));
                }
                // It ended between the two looks; ESRCH is 3.
                Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(3) => {}
                Err(error) => return Err(format!("cannot look at process {pid}: {error} (root can)")),
            }
        }
        Ok(found)
    }
}

/// How much each process grew, divided by `count`, and the sum.
pub fn growth(before: &ByProcess, after: &ByProcess, count: f64) -> (f64, Vec<(String, f64)>) {
    let each: Vec<(String, f64)> = after
        .iter()
        .map(|(pid, (name, now))| {
            let earlier = before.get(pid).map_or(0, |(_, earlier)| *earlier);
            (name.clone(), (*now as f64 - earlier as f64) / count)
        })
        .collect();
    (each.iter().map(|(_, grown)| grown).sum(), each)
}

/// The processes that a process has started and not yet outlived.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Program and role, for the reader: `vmware-authd net`.
fn name(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    match words.next() {
        Some(role) if !role.is_empty() && !role.starts_with('-') => format!("{program} {role}"),
        _ => program,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_resident_and_has_run() {
        let tree = Tree::of(std::process::id());
        assert!(tree.resident().unwrap()[&std::process::id()].1 > 100_000);
        assert!(tree.processor().unwrap()[&std::process::id()].1 > 0);
    }

    #[test]
    fn growth_is_by_process_and_counts_new_ones() {
        let at =
            |values: &[(u32, u64)]| values.iter().map(|(pid, v)| (*pid, (format!("p{pid}"), *v))).collect();
        let (sum, each) = growth(&at(&[(1, 100), (2, 50)]), &at(&[(1, 300), (3, 10)]), 10.0);
        assert_eq!(each, [("p1".to_owned(), 20.0), ("p3".to_owned(), 1.0)]);
        assert!((sum - 21.0).abs() < 1e-9);
    }
}
