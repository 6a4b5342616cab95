//! Tables as virsh draws them.

/// Rows under headings; without the headings for scripts.
pub fn draw(headings: &[&str], rows: &[Vec<String>], is_quiet: bool) -> String {
    let cells = |column: usize| rows.iter().map(move |row| row[column].chars().count());
    let widths: Vec<usize> = headings
        .iter()
        .enumerate()
        .map(|(column, heading)| {
            let heading = if is_quiet { 0 } else { heading.len() };
            cells(column).chain([heading]).max().unwrap_or(0)
        })
        .collect();
    let line = |row: &[String]| {
        let mut text = String::new();
        for (place, (cell, width)) in row.iter().zip(&widths).enumerate() {
            text.push(' ');
            text.push_str(cell);
            if place + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
            }
        }
        text + "\n"
    };
    let mut text = String::new();
    if !is_quiet {
        let headings: Vec<String> = headings.iter().map(|text| (*text).to_owned()).collect();
        text.push_str(&line(&headings));
        text.extend(std::iter::repeat_n('-', widths.iter().map(|width| width + 3).sum()));
        text.push('\n');
    }
    text.extend(rows.iter().map(|row| line(row)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_look_like_virshs() {
        let rows = vec![vec!["4".into(), "c".into(), "running".into()]];
        assert_eq!(
            draw(&["Id", "Name", "State"], &rows, false),
            " Id   Name   State\n----------------------\n 4    c      running\n"
        );
    }
}
