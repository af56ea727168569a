//! The list of registered machines, as handlers see it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A registered machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Path of its .vmx.
    pub config: Arc<str>,
    /// Whether only the owner of the .vmx and administrators may know of it.
    pub private: bool,
}

/// The registered machines of one moment, in the order of `vm-list`, whoever may read them.
#[derive(Debug, Clone, Default)]
pub struct Registered {
    entries: BTreeMap<u64, Listed>,
    places: HashMap<Arc<str>, u64>,
    next: u64,
}

impl Registered {
    /// Adds a machine at the end; one that is there stays where it is.
    pub fn put(&mut self, config: String, private: bool) {
        let config: Arc<str> = config.into();
        if !self.places.contains_key(&config) {
            self.places.insert(Arc::clone(&config), self.next);
            self.entries.insert(self.next, Listed { config, private });
            self.next += 1;
        }
    }

    /// Takes a machine out.
    pub fn remove(&mut self, config: &str) {
        if let Some(place) = self.places.remove(config) {
            self.entries.remove(&place);
        }
    }

    /// The machine of that path.
    #[must_use]
    pub fn get(&self, config: &str) -> Option<&Listed> {
        self.entries.get(self.places.get(config)?)
    }

    /// Where in the list the machine of that path is; larger is later.
    #[must_use]
    pub fn place(&self, config: &str) -> Option<u64> {
        self.places.get(config).copied()
    }

    /// The machine at a place.
    #[must_use]
    pub fn at(&self, place: u64) -> Option<&Listed> {
        self.entries.get(&place)
    }

    /// All machines.
    pub fn iter(&self) -> impl Iterator<Item = &Listed> {
        self.entries.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_list() {
        let mut list = Registered::default();
        for (config, private) in [("/b", false), ("/a", true), ("/b", true), ("/c", false)] {
            list.put(config.to_owned(), private);
        }
        list.remove("/a");
        list.remove("/x");
        list.put("/a".to_owned(), false);
        assert_eq!(list.iter().map(|one| &*one.config).collect::<Vec<_>>(), ["/b", "/c", "/a"]);
        assert_eq!((list.get("/b").unwrap().private, list.get("/x"), list.len()), (false, None, 3));
    }
}
