//! The figures as a table for people and as JSON for programs.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Figures, Row};
use crate::workspace;

/// What a row came to.
pub struct Report {
    name: String,
    group: Option<&'static str>,
    outcome: Outcome,
}

enum Outcome {
    Compared { ours: Vec<Figures>, theirs: Vec<Figures> },
    Skipped(String),
    Failed(String),
}

/// The middle of some numbers, with the smallest and the largest.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

/// One column: its heading, the key in JSON, which figure it shows.
type Column = (&'static str, &'static str, fn(&Figures) -> f64);

const COLUMNS: [Column; 3] = [
    ("CPU s", "cpu_s", |figures| figures.cpu_s),
    ("wall s", "wall_s", |figures| figures.wall_s),
    ("peak KiB", "peak_kib", |figures| figures.peak_kib),
];

impl Report {
    pub fn compared(row: &Row, ours: Vec<Figures>, theirs: Vec<Figures>) -> Self {
        assert_eq!(ours.len(), theirs.len(), "the runs alternate");
        Self::new(row, Outcome::Compared { ours, theirs })
    }

    pub fn skipped(row: &Row, why: String) -> Self {
        Self::new(row, Outcome::Skipped(why))
    }

    pub fn failed(row: &Row, why: String) -> Self {
        Self::new(row, Outcome::Failed(why))
    }

    fn new(row: &Row, outcome: Outcome) -> Self {
        Self { name: row.name.clone(), group: row.group, outcome }
    }

    /// How much less CPU time we need, if it was measured.
    fn cpu_ratio(&self) -> Option<f64> {
        match &self.outcome {
            Outcome::Compared { ours, theirs } => Some(ratios(ours, theirs, |f| f.cpu_s).median),
            _ => None,
        }
    }

    fn to_json(&self) -> Value {
        match &self.outcome {
            Outcome::Skipped(why) => json!({ "name": self.name, "skipped": why }),
            Outcome::Failed(why) => json!({ "name": self.name, "failed": why }),
            Outcome::Compared { ours, theirs } => {
                let mut row = json!({ "name": self.name, "runs": ours.len() });
                for (_, key, figure) in COLUMNS {
                    row[key] = json!({
                        "ours": spread(ours.iter().map(figure)).to_json(),
                        "theirs": spread(theirs.iter().map(figure)).to_json(),
                        "theirs_to_ours": ratios(ours, theirs, figure).to_json(),
                    });
                }
                row
            }
        }
    }
}

impl Spread {
    fn to_json(&self) -> Value {
        json!({ "median": self.median, "min": self.least, "max": self.most })
    }
}

fn spread(numbers: impl Iterator<Item = f64>) -> Spread {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    };
    Spread { median, least: sorted[0], most: sorted[sorted.len() - 1] }
}

/// Theirs to ours, pair by pair: above 1 we are better.
fn ratios(ours: &[Figures], theirs: &[Figures], figure: fn(&Figures) -> f64) -> Spread {
    // A run too short for the clock counts as one tick of it, not as an infinite ratio.
    let tick = 1e-6;
    let pair = |(ours, theirs)| figure(theirs) / figure(ours).max(tick);
    spread(ours.iter().zip(theirs).map(pair))
}

/// The table for people.
pub fn table(reports: &[Report]) -> String {
    let mut table = String::from("theirs / ours, above 1 we are better: median (least-most)\n");
    for Report { name, outcome, .. } in reports {
        _ = match outcome {
            Outcome::Skipped(why) => writeln!(table, "{name:<34} skipped: {why}"),
            Outcome::Failed(why) => writeln!(table, "{name:<34} FAILED: {why}"),
            Outcome::Compared { ours, theirs } => {
                _ = write!(table, "{name:<34}");
                for (heading, _, figure) in COLUMNS {
                    let Spread { median, least, most } = ratios(ours, theirs, figure);
                    let (a, b) =
                        (spread(ours.iter().map(figure)), spread(theirs.iter().map(figure)));
                    let (a, b) = (a.median, b.median);
                    _ = write!(
                        table,
                        "  {heading} {median:.2} ({least:.2}-{most:.2}) [{a:.3} vs {b:.3}]"
                    );
                }
                writeln!(table)
            }
        };
    }
    for group in groups(reports) {
        let ratios: Vec<f64> = members(reports, group).filter_map(Report::cpu_ratio).collect();
        if !ratios.is_empty() {
            let mean = geometric_mean(&ratios);
            _ = writeln!(table, "{group:<34}  CPU, geometric mean of {}: {mean:.2}", ratios.len());
        }
    }
    table
}

fn groups(reports: &[Report]) -> Vec<&'static str> {
    let mut groups: Vec<_> = reports.iter().filter_map(|report| report.group).collect();
    groups.dedup();
    groups
}

fn members<'a>(reports: &'a [Report], group: &'a str) -> impl Iterator<Item = &'a Report> {
    reports.iter().filter(move |report| report.group == Some(group))
}

fn geometric_mean(ratios: &[f64]) -> f64 {
    let sum: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (sum / ratios.len() as f64).exp()
}

/// The CPU time of some runs, in the middle.
pub fn cpu(runs: &[Figures]) -> f64 {
    spread(runs.iter().map(|figures| figures.cpu_s)).median
}

/// `target/bench/latest.json`.
pub fn write_json(reports: &[Report]) -> Result<()> {
    let folder = workspace::root().join("target/bench");
    fs::create_dir_all(&folder)?;
    let rows: Vec<Value> = reports.iter().map(Report::to_json).collect();
    let text = serde_json::to_string_pretty(&json!({ "version": 1, "rows": rows }))?;
    fs::write(folder.join("latest.json"), text).context("Cannot write target/bench/latest.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_taken_pair_by_pair() {
        let figures = |cpu_s| Figures { cpu_s, wall_s: 1.0, peak_kib: 1.0 };
        let ours = [figures(1.0), figures(2.0), figures(4.0)];
        let theirs = [figures(3.0), figures(4.0), figures(4.0)];
        let Spread { median, least, most } = ratios(&ours, &theirs, |figures| figures.cpu_s);
        assert_eq!((median, least, most), (2.0, 1.0, 3.0));
        assert!((geometric_mean(&[2.0, 8.0]) - 4.0).abs() < 1e-9);
    }
}
