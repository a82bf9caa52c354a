//! A plain-text table. Each column is as wide as its widest cell.

use loopabull_model::is_harmful;

/// Rows of text under headings.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    pub(crate) fn push(&mut self, cells: Vec<String>) {
        // Cells can contain text from messages and tasks. Control characters are removed, because
        // they could move the cursor or break the line.
        let plain = |cell: String| cell.chars().filter(|&c| !is_harmful(c)).collect();
        self.rows.push(cells.into_iter().map(plain).collect());
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column| {
            let cells = self.rows.iter().filter_map(|row: &Vec<String>| row.get(column));
            cells.map(|cell: &String| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["A", "B"]);
        table.push(vec!["long\n\u{1b}[31m".into(), "x".into()]);
        assert_eq!(table.render(), "A         B\nlong[31m  x\n");
    }
}
