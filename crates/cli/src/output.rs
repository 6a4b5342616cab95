//! Answers in the form that was asked for.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde_json::{Map, Value, json};

use crate::arguments::Format;
use crate::failure::Failure;

/// Counted up when members change their meaning or go.
const SCHEMA: u32 = 1;

/// A list of things with the same members.
pub struct List {
    /// What they are, in the plural: the key in JSON.
    pub name: &'static str,
    /// Columns: the heading for people, and the member.
    pub columns: &'static [(&'static str, &'static str)],
    /// The things.
    pub rows: Vec<Map<String, Value>>,
    /// What people read where there is nothing.
    pub empty: &'static str,
}

impl List {
    /// Prints it.
    pub fn print(&self, format: Format) -> Result<(), Failure> {
        let text = match format {
            Format::Table if self.rows.is_empty() => format!("{}\n", self.empty),
            Format::Table => self.table(),
            Format::Json => {
                let value = json!({"schema": SCHEMA, self.name: self.rows});
                serde_json::to_string_pretty(&value).unwrap_or_default() + "\n"
            }
            Format::Yaml => {
                let mut text = format!("schema: {SCHEMA}\n{}:", self.name);
                yaml(&mut text, &json!(self.rows), 0);
                text
            }
            Format::Csv => self.csv(),
        };
        // Whoever reads may have enough.
        match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::new("The answer cannot be written").because(&error))
            }
            _ => Ok(()),
        }
    }

    fn cells(&self, row: &Map<String, Value>) -> Vec<String> {
        let cell = |(_, member): &(&str, &str)| match row.get(*member) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(list)) => {
                let texts = list
                    .iter()
                    .map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
                texts.collect::<Vec<_>>().join(" ")
            }
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        self.columns.iter().map(cell).collect()
    }

    fn table(&self) -> String {
        let heading: Vec<String> =
            self.columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        let lines: Vec<Vec<String>> =
            std::iter::once(heading).chain(self.rows.iter().map(|row| self.cells(row))).collect();
        let width = |column: usize| {
            lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for line in &lines {
            let mut out = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                let cell = if cell.is_empty() { "--" } else { cell };
                _ = write!(out, "{cell:<width$}   ");
            }
            text.push_str(out.trim_end());
            text.push('\n');
        }
        text
    }

    fn csv(&self) -> String {
        let quoted = |cell: &str| match cell.contains([',', '"', '\n']) {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell.to_owned(),
        };
        let heading: Vec<&str> = self.columns.iter().map(|(_, member)| *member).collect();
        let mut text = heading.join(",") + "\n";
        for row in &self.rows {
            let cells: Vec<String> = self.cells(row).iter().map(|cell| quoted(cell)).collect();
            text.push_str(&(cells.join(",") + "\n"));
        }
        text
    }
}

/// A value behind its key, on lines of its own where it has several.
fn yaml(text: &mut String, value: &Value, depth: usize) {
    let margin = "  ".repeat(depth);
    match value {
        Value::Array(list) if list.is_empty() => text.push_str(" []\n"),
        Value::Object(map) if map.is_empty() => text.push_str(" {}\n"),
        Value::Array(list) => {
            text.push('\n');
            for value in list {
                let mut inner = String::new();
                yaml(&mut inner, value, depth + 1);
                // The first member stands behind the dash.
                _ = write!(text, "{margin}- {}", inner.trim_start());
            }
        }
        Value::Object(map) => {
            text.push('\n');
            for (key, value) in map {
                _ = write!(text, "{margin}{key}:");
                yaml(text, value, depth + 1);
            }
        }
        // JSON's texts and numbers are YAML's too.
        other => _ = writeln!(text, " {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> List {
        let row = |name: &str, ports: Value| {
            let mut row = Map::new();
            row.insert("name".into(), name.into());
            row.insert("ports".into(), ports);
            row
        };
        List {
            name: "machines",
            columns: &[("Name", "name"), ("Ports", "ports")],
            rows: vec![row("a,b", json!([])), row("web", json!(["1:2", "3:4"]))],
            empty: "none",
        }
    }

    #[test]
    fn every_form_holds_the_same() {
        assert_eq!(list().table(), "Name   Ports\na,b    --\nweb    1:2 3:4\n");
        assert_eq!(list().csv(), "name,ports\n\"a,b\",\nweb,1:2 3:4\n");
        let mut text = String::new();
        yaml(&mut text, &json!(list().rows), 0);
        let expected = "\n- name: \"a,b\"\n  ports: []\n- name: \"web\"\n  ports:\n    - \"1:2\"\n    - \"3:4\"\n";
        assert_eq!(text, expected);
    }
}
