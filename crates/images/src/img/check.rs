//! `qemu-img check`.

use block::Error;
use block::info::{CheckReport, Fix};
use block::open::OpenMode;
use qemu_compat::image_tool::arguments::Typed;
use qemu_compat::image_tool::text;
use qemu_compat::json;
use serde_json::{Map, Value};

use super::failure::Outcome;
use super::{fail, opening};

/// Exit codes beyond 0 and 1.
const CORRUPT: u8 = 2;
const LEAKS: u8 = 3;
const NOT_SUPPORTED: u8 = 63;

pub fn run(typed: &Typed) -> Outcome {
    let name = opening::one_operand(typed)?;
    let as_json = opening::wants_json(typed)?;
    let fix = match typed.value("repair") {
        None => Fix::default(),
        Some("leaks") => Fix { leaks: true, errors: false },
        Some("all") => Fix { leaks: true, errors: true },
        Some(_) => {
            return Err(fail("--repair/-r expects 'leaks' or 'all'"));
        }
    };
    let repair = fix != Fix::default();
    let mut mode =
        OpenMode { write: repair, repair, check: true, unmap: true, ..OpenMode::default() };
    let write_through = opening::cache(typed, "cache", &mut mode, "Invalid source cache option")?;
    let node = opening::open(typed, name, typed.value("format"), &mode)?;
    let quiet = typed.has("quiet");
    let checked = node.check(fix);
    let mut report = match checked {
        Ok(report) => report,
        Err(Error::Unsupported { .. }) => {
            return Err(fail("This image format does not support checks").code(NOT_SUPPORTED));
        }
        Err(error) => return Err(fail(format!("Check failed: {}", error.reason()))),
    };
    if repair && write_through {
        node.flush()?;
    }
    print_messages(&report);
    let fixed = (report.corruptions_fixed, report.leaks_fixed);
    if fixed != (0, 0) {
        if !as_json && !quiet {
            println!(
                "The following inconsistencies were found and repaired:\n\n    {} leaked clusters\n    {} corruptions\n\nDouble checking the fixed image now...",
                report.leaks_fixed, report.corruptions_fixed
            );
        }
        let again = node
            .check(Fix::default())
            .map_err(|error| fail(format!("Check failed: {}", error.reason())))?;
        print_messages(&again);
        report = CheckReport { corruptions_fixed: fixed.0, leaks_fixed: fixed.1, ..again };
    }
    let tree = describe(&report, &node.filename(), node.driver());
    if !quiet {
        if as_json {
            println!("{}", json::pretty(&tree));
        } else {
            print!("{}", text::check(&tree));
        }
    }
    Ok(match report {
        CheckReport { check_errors: 1.., .. } => 1,
        CheckReport { corruptions: 1.., .. } => CORRUPT,
        CheckReport { leaks: 1.., .. } => LEAKS,
        _ => 0,
    })
}

fn print_messages(report: &CheckReport) {
    for line in &report.messages {
        eprintln!("{line}");
    }
}

fn describe(report: &CheckReport, filename: &str, format: &str) -> Value {
    let mut map = Map::new();
    map.insert("filename".into(), Value::from(filename));
    map.insert("format".into(), Value::from(format));
    map.insert("check-errors".into(), Value::from(report.check_errors));
    let numbers = [
        ("image-end-offset", report.image_end_offset),
        ("corruptions", report.corruptions),
        ("leaks", report.leaks),
        ("corruptions-fixed", report.corruptions_fixed),
        ("leaks-fixed", report.leaks_fixed),
        ("total-clusters", report.total_clusters),
        ("allocated-clusters", report.allocated_clusters),
        ("fragmented-clusters", report.fragmented_clusters),
        ("compressed-clusters", report.compressed_clusters),
    ];
    for (key, number) in numbers {
        if number > 0 {
            map.insert(key.into(), Value::from(number));
        }
    }
    Value::Object(map)
}
