//! `docs/performance/figures.json`: every round of every side of the last run of each figure.
//!
//! ```text
//!   { "P1": { "ours": …, "peer": …, "bound": …, "lines": […], "verdict": …, "run": { machine, seconds, … } }, … }
//! ```
//!
//! A figure is replaced as a whole, sides and machine facts together, so that ours and the peer's are always of
//! one run. Figures of different runs stand beside each other, each with its date.

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::Result;
use crate::workspace::root;

/// The figures, by id.
#[derive(Debug, Clone)]
pub struct Store(Map<String, Value>);

/// The directory of the file, the page and the plots.
pub fn directory() -> PathBuf {
    root().join("docs/performance")
}

impl Store {
    /// Reads the file; one that is not there is empty.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn load() -> Result<Self> {
        let path = directory().join("figures.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "{}".to_owned(),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        serde_json::from_str(&text).map(Store).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Takes over a figure with all its sides, in place of the last one of that id.
    pub fn put(&mut self, mut figure: Value, run: &Value) {
        if let Some(id) = figure.get("id").and_then(Value::as_str).map(str::to_owned) {
            round(&mut figure);
            if let Some(fields) = figure.as_object_mut() {
                fields.insert("run".to_owned(), run.clone());
            }
            self.0.insert(id, figure);
        }
    }

    /// The figure of that id.
    pub fn get(&self, id: &str) -> Option<&Value> {
        self.0.get(id)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.0).map_err(|error| error.to_string())?;
        link::product_config::replace_file(
            &directory().join("figures.json"),
            format!("{text}\n").as_bytes(),
            0o644,
        )
        .map_err(|error| error.to_string())
    }
}

/// Six digits are more than any figure has.
fn round(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let rounded = number.as_f64().and_then(|number| format!("{number:.5e}").parse::<f64>().ok());
            if let Some(rounded) = rounded.and_then(serde_json::Number::from_f64) {
                *number = rounded;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(round),
        Value::Object(fields) => fields.values_mut().for_each(round),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_figure_is_replaced_as_a_whole() {
        let mut store = Store(Map::new());
        store.put(json!({"id": "P1", "ours": 1.23456789, "peer": {"median": 4.0}}), &json!({"date": "old"}));
        store.put(json!({"id": "P2", "ours": 2}), &json!({"date": "old"}));
        store.put(json!({"id": "P1", "ours": 3}), &json!({"date": "new"}));
        assert_eq!(store.get("P1"), Some(&json!({"id": "P1", "ours": 3, "run": {"date": "new"}})));
        assert_eq!(store.get("P2").unwrap()["run"]["date"], "old");
        let mut value = json!([1.23456789, 987654321.5]);
        round(&mut value);
        assert_eq!(value, json!([1.23457, 987654000.0]));
    }
}
