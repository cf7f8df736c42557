//! Columns of text.

/// The rows in columns, the first `left` of them to the left and the others to
/// the right, with two spaces between. Each line ends with a line break.
pub fn table(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column > 0 {
                line.push_str("  ");
            }
            if column < left {
                line.push_str(&format!("{cell:<width$}"));
            } else {
                line.push_str(&format!("{cell:>width$}"));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn names_stand_left_and_numbers_right() {
        let rows = [["a", "1"], ["bbb", "≥22"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows, 1), "a      1\nbbb  ≥22\n");
    }
}
