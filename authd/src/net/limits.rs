//! How many connections that have not logged in there may be: in all, and from one source.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::source::Source;

/// The counters; cheap to clone.
#[derive(Debug, Clone)]
pub struct Limits {
    inner: Rc<RefCell<Counters>>,
}

#[derive(Debug)]
struct Counters {
    per_source: u32,
    most: u32,
    total: u32,
    by_source: HashMap<Source, u32>,
}

/// One counted connection; dropped when it logs in or closes.
#[derive(Debug)]
pub struct Permit {
    source: Source,
    limits: Limits,
}

impl Limits {
    /// Counters with these limits.
    #[must_use]
    pub fn new(per_source: u32, most: u32) -> Self {
        let counters = Counters { per_source, most, total: 0, by_source: HashMap::new() };
        Limits { inner: Rc::new(RefCell::new(counters)) }
    }

    /// Takes other limits; those already counted stay.
    pub fn configure(&self, per_source: u32, most: u32) {
        let mut inner = self.inner.borrow_mut();
        (inner.per_source, inner.most) = (per_source, most);
    }

    /// Counts a connection, or refuses it.
    #[must_use]
    pub fn admit(&self, source: Source) -> Option<Permit> {
        let mut inner = self.inner.borrow_mut();
        let (per_source, most) = (inner.per_source, inner.most);
        let count = inner.by_source.get(&source).copied().unwrap_or(0);
        if count >= per_source || inner.total >= most {
            return None;
        }
        inner.by_source.insert(source, count + 1);
        inner.total += 1;
        Some(Permit { source, limits: self.clone() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut inner = self.limits.inner.borrow_mut();
        inner.total = inner.total.saturating_sub(1);
        if let Some(count) = inner.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                inner.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_and_are_given_back() {
        let limits = Limits::new(2, 3);
        let (a, b) = (Source::User(1), Source::User(2));
        let first = limits.admit(a).unwrap();
        let _second = limits.admit(a).unwrap();
        assert!(limits.admit(a).is_none());
        let _third = limits.admit(b).unwrap();
        assert!(limits.admit(b).is_none());
        drop(first);
        assert!(limits.admit(b).is_some());
        assert_eq!(limits.inner.borrow().total, 2);
    }
}
