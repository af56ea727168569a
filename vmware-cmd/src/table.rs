//! Columns that stand below each other.

use unicode_width::UnicodeWidthStr;

use crate::text::harmless;

/// How a column is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    /// To the left, as words are.
    Left,
    /// To the right, as numbers are.
    Right,
}

/// Lines, each without its end: the heading, then the rows. The last column is not padded.
pub(crate) fn lines(heading: &[(&str, Set)], rows: &[Vec<String>]) -> Vec<String> {
    let head = heading.iter().map(|(name, _)| (*name).to_owned()).collect();
    let all: Vec<Vec<String>> = std::iter::once(head)
        .chain(rows.iter().map(|row| row.iter().map(|cell| harmless(cell)).collect()))
        .collect();
    let widths: Vec<usize> = (0..heading.len())
        .map(|column| {
            all.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0)
        })
        .collect();
    let last = heading.len().saturating_sub(1);
    let cell = |column: usize, cell: &str| {
        let width = widths.get(column).copied().unwrap_or(0);
        let gap = " ".repeat(width.saturating_sub(cell.width()));
        match heading.get(column) {
            Some((_, Set::Right)) => format!("{gap}{cell}"),
            _ if column == last => cell.to_owned(),
            _ => format!("{cell}{gap}"),
        }
    };
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().enumerate().map(|(column, text)| cell(column, text)).collect();
        cells.join("  ")
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [vec!["on".to_owned(), "日本".to_owned(), "7".to_owned(), "/a b".to_owned()]];
        let heading =
            [("STATE", Set::Left), ("NAME", Set::Left), ("UPTIME", Set::Right), ("CONFIG", Set::Left)];
        assert_eq!(lines(&heading, &rows), ["STATE  NAME  UPTIME  CONFIG", "on     日本       7  /a b"]);
        assert_eq!(lines(&heading, &[]), ["STATE  NAME  UPTIME  CONFIG"]);
    }
}
