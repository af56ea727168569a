//! Matching registered functions with the operation table.
//!
//! Registration happens when the program is linked, and can silently be empty: a crate of which no
//! symbol is used is dropped, registrations and all. Therefore the table decides what must be there,
//! [`link`] compares, and a server whose table and handlers differ refuses to start. Calling
//! [`link`] is also the reference that keeps this crate in the program.

use std::fmt;

use ops::{OpId, Row, TABLE};

use crate::run::Run;

/// One function that says which operation it handles; submitted by `#[handler]`.
pub struct Registration {
    /// Name of the operation.
    pub op: &'static str,
    /// Path of the function, for error texts.
    pub function: &'static str,
    /// The function.
    pub run: Run,
}

inventory::collect!(Registration);

/// A handler for every operation.
#[derive(Clone)]
pub struct Linked(Box<[Run]>);

impl Linked {
    /// The handler of an operation.
    #[must_use]
    pub fn get(&self, op: OpId) -> Option<&Run> {
        self.0.get(op.index())
    }
}

impl fmt::Debug for Linked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linked({} operations)", self.0.len())
    }
}

/// The table and the registered functions differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// One sentence per operation.
    pub problems: Vec<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation table and handlers differ: {}", self.problems.join("; "))
    }
}

impl std::error::Error for Mismatch {}

/// Finds the handler of every operation in the table.
///
/// # Errors
/// [`Mismatch`] with a sentence for every operation without a handler or with several, and for every
/// handler of an operation that is not in the table.
pub fn link() -> Result<Linked, Mismatch> {
    match_up(TABLE, inventory::iter::<Registration>.into_iter())
}

fn match_up<'a>(
    table: &[Row],
    registrations: impl Iterator<Item = &'a Registration> + Clone,
) -> Result<Linked, Mismatch> {
    let mut problems = Vec::new();
    let mut runs = Vec::with_capacity(table.len());
    for row in table {
        let mut found = registrations.clone().filter(|registration| registration.op == row.name);
        match (found.next(), found.next()) {
            (Some(only), None) => runs.push(only.run),
            (None, _) => problems.push(format!("operation {} has no handler", row.name)),
            (Some(first), Some(second)) => problems.push(format!(
                "operation {} has two handlers, {} and {}",
                row.name, first.function, second.function
            )),
        }
    }
    for registration in registrations {
        if !table.iter().any(|row| row.name == registration.op) {
            problems.push(format!(
                "handler {} is for operation {}, which is not in the table",
                registration.function, registration.op
            ));
        }
    }
    if problems.is_empty() { Ok(Linked(runs.into())) } else { Err(Mismatch { problems }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Run = Run::Quick(|_, _, _| Ok(()));

    fn registration(op: &'static str, function: &'static str) -> Registration {
        Registration { op, function, run: QUICK }
    }

    #[test]
    fn every_row_of_the_table_has_its_handler() {
        let linked = link().unwrap();
        for op in ops::table::all() {
            assert!(linked.get(op).is_some(), "{}", op.row().name);
        }
    }

    #[test]
    fn a_missing_a_doubled_and_an_unknown_handler_are_named() {
        let table: Vec<Row> =
            TABLE.iter().filter(|row| ["dec", "inc"].contains(&row.name)).copied().collect();
        let registered =
            [registration("inc", "a::one"), registration("inc", "a::two"), registration("frob", "a::frob")];
        let problems = match_up(&table, registered.iter()).unwrap_err().problems;
        assert_eq!(
            problems,
            [
                "operation dec has no handler",
                "operation inc has two handlers, a::one and a::two",
                "handler a::frob is for operation frob, which is not in the table",
            ]
        );
        let nothing: [Registration; 0] = [];
        let error = match_up(&table, nothing.iter()).unwrap_err();
        assert!(error.to_string().contains("inc has no handler"), "{error}");
        let both = [registration("inc", "a::inc"), registration("dec", "a::dec")];
        assert!(match_up(&table, both.iter()).is_ok());
    }
}
