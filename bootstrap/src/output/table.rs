//! Tables. Elsewhere than on a terminal each row is one line. On a terminal the columns become as narrow as their words;
//! of those that find no room, what they say is below the row.

use super::terminal::{columns, fold};

/// A table whose columns have headings.
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these headings, the most important ones first.
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { header: header.iter().map(|name| (*name).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row; `-` is what there is nothing to say about.
    pub(crate) fn add_row(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().collect());
    }

    /// Its lines, each with its end; for a terminal of this width, if it is one.
    pub(crate) fn render(&self, width: Option<usize>) -> String {
        let all: Vec<usize> = (0..self.header.len()).collect();
        let natural = |column: usize| self.cells(column).map(columns).max().unwrap_or(0);
        let full: Vec<_> = all.iter().map(|column| natural(*column)).collect();
        let Some(width) = width.filter(|width| total(&full, 2) > *width) else {
            return self.lines(&all, &full, 2, &[], usize::MAX);
        };
        let says = |column: &usize| self.rows.iter().any(|row| row[*column] != "-");
        let mut shown: Vec<usize> = all.into_iter().filter(says).collect();
        let least = |column: usize| self.cells(column).flat_map(|cell| cell.split(' ').map(columns)).max();
        let mut widths: Vec<_> = shown.iter().map(|column| least(*column).unwrap_or(0)).collect();
        let mut below = Vec::new();
        while shown.len() > 1 && total(&widths, 1) > width {
            below.extend(shown.pop());
            widths.pop();
        }
        below.reverse();
        let mut room = width.saturating_sub(total(&widths, 1));
        for (column, least) in shown.iter().zip(&mut widths) {
            let more = room.min(natural(*column) - *least);
            *least += more;
            room -= more;
        }
        self.lines(&shown, &widths, 1, &below, width)
    }

    /// What is in a column, its heading first.
    fn cells(&self, column: usize) -> impl Iterator<Item = &str> {
        [self.header[column].as_str()]
            .into_iter()
            .chain(self.rows.iter().map(move |row| row[column].as_str()))
    }

    fn lines(&self, shown: &[usize], widths: &[usize], gap: usize, below: &[usize], width: usize) -> String {
        let mut text = String::new();
        for (number, row) in [&self.header].into_iter().chain(&self.rows).enumerate() {
            let cells: Vec<Vec<String>> =
                shown.iter().zip(widths).map(|(column, width)| wrapped(&row[*column], *width)).collect();
            for line in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
                let mut written = String::new();
                for (cell, width) in cells.iter().zip(widths) {
                    let part = cell.get(line).map_or("", String::as_str);
                    written.push_str(part);
                    written.push_str(&" ".repeat(width.saturating_sub(columns(part)) + gap));
                }
                text.push_str(written.trim_end());
                text.push('\n');
            }
            let says = below.iter().filter(|column| number > 0 && row[**column] != "-");
            let said: Vec<_> = says
                .map(|column| format!("{}: {}", self.header[*column].to_lowercase(), row[*column]))
                .collect();
            if !said.is_empty() {
                text.push_str(&fold(&format!("  {}", said.join("; ")), width));
                text.push('\n');
            }
        }
        text
    }
}

fn total(widths: &[usize], gap: usize) -> usize {
    widths.iter().sum::<usize>() + gap * widths.len().saturating_sub(1)
}

/// A cell in lines of at most this width, but for words that are longer.
fn wrapped(cell: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in cell.split(' ') {
        match lines.last_mut() {
            Some(line) if columns(line) + 1 + columns(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["INSTANCE", "TARGET STATE", "REASON", "EMPTY", "ZONE"]);
        let rows = [
            ["i-0123", "healthy", "-", "-", "us-east-1a"],
            ["i-4567", "unhealthy", "Target.Timeout", "-", "-"],
        ];
        for row in rows {
            table.add_row(row.map(str::to_owned));
        }
        table
    }

    #[test]
    fn a_row_is_one_line_where_nobody_looks_or_there_is_room() {
        let wide = "INSTANCE  TARGET STATE  REASON          EMPTY  ZONE\n\
                    i-0123    healthy       -               -      us-east-1a\n\
                    i-4567    unhealthy     Target.Timeout  -      -\n";
        assert_eq!(table().render(None), wide);
        assert_eq!(table().render(Some(80)), wide);
    }

    #[test]
    fn columns_get_narrower_and_what_has_no_room_is_below_the_row() {
        let narrow = "INSTANCE TARGET    REASON         ZONE\n\
                      \u{20}        STATE\n\
                      i-0123   healthy   -              us-east-1a\n\
                      i-4567   unhealthy Target.Timeout -\n";
        assert_eq!(table().render(Some(44)), narrow);
        let narrower = "INSTANCE TARGET STATE\n\
                        i-0123   healthy\n  zone: us-east-1a\n\
                        i-4567   unhealthy\n  reason: Target.Timeout\n";
        assert_eq!(table().render(Some(24)), narrower);
    }
}
