//! Output texts, exactly as scripts expect them.

use std::fmt::Write;

use serde_json::{Map, Value};

/// A size as people read it: three significant digits, binary units.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    // The exponent such that the number is below 1000 (not 1024) after rounding to a unit.
    let mut exponent = 0;
    let mut unit = 1f64;
    let value = bytes as f64;
    while value / unit >= 1000.0 && exponent < UNITS.len() - 1 {
        exponent += 1;
        unit *= 1024.0;
    }
    format!("{} {}", three_digits(value / unit), UNITS[exponent])
}

/// C's `%0.3g`.
fn three_digits(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let exponent = value.abs().log10().floor() as i32;
    let rounded = format!("{value:.*e}", 2);
    let exponent = rounded
        .split_once('e')
        .and_then(|(_, exponent)| exponent.parse::<i32>().ok())
        .unwrap_or(exponent);
    if !(-4..3).contains(&exponent) {
        let (mantissa, _) = rounded.split_once('e').unwrap_or((&rounded, ""));
        let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
        return format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    let fixed = format!("{value:.*}", (2 - exponent).max(0) as usize);
    if fixed.contains('.') {
        fixed.trim_end_matches('0').trim_end_matches('.').to_string()
    } else {
        fixed
    }
}

/// `info` for people: the same tree that `--output=json` prints.
pub fn info(image: &Value, indent: usize, protocol: bool) -> String {
    let mut text = String::new();
    let pad = " ".repeat(indent);
    let number = |key: &str| image[key].as_u64().unwrap_or(0);
    let name = image["filename"].as_str().unwrap_or_default();
    let size = number("virtual-size");
    let disk = match image.get("actual-size").and_then(Value::as_u64) {
        Some(bytes) => human_size(bytes),
        None => "unavailable".into(),
    };
    let (name_word, format_word, size_word) = if protocol {
        ("filename", "protocol type", "file length")
    } else {
        ("image", "file format", "virtual size")
    };
    _ = writeln!(text, "{pad}{name_word}: {name}");
    _ = writeln!(text, "{pad}{format_word}: {}", image["format"].as_str().unwrap_or_default());
    _ = writeln!(text, "{pad}{size_word}: {} ({size} bytes)", human_size(size));
    _ = writeln!(text, "{pad}disk size: {disk}");
    if image["encrypted"] == true {
        _ = writeln!(text, "{pad}encrypted: yes");
    }
    if let Some(cluster) = image.get("cluster-size").and_then(Value::as_u64) {
        _ = writeln!(text, "{pad}cluster_size: {cluster}");
    }
    if image["dirty-flag"] == true {
        _ = writeln!(text, "{pad}cleanly shut down: no");
    }
    if let Some(backing) = image.get("backing-filename").and_then(Value::as_str) {
        _ = write!(text, "{pad}backing file: {backing}");
        match image.get("full-backing-filename").and_then(Value::as_str) {
            None => text.push_str(" (cannot determine actual path)"),
            Some(full) if full != backing => _ = write!(text, " (actual path: {full})"),
            Some(_) => {}
        }
        text.push('\n');
        if let Some(format) = image.get("backing-filename-format").and_then(Value::as_str) {
            _ = writeln!(text, "{pad}backing file format: {format}");
        }
    }
    if let Some(list) = image.get("snapshots").and_then(Value::as_array) {
        _ = writeln!(text, "{pad}Snapshot list:");
        text.push_str(&pad);
        text.push_str(SNAPSHOT_HEAD);
        for row in list {
            _ = writeln!(text, "{pad}{}", snapshot_row(row));
        }
    }
    if let Some(Value::Object(data)) = image.get("format-specific").map(|tree| &tree["data"])
        && !data.is_empty()
    {
        _ = writeln!(text, "{pad}Format specific information:");
        specific_map(&mut text, indent + 4, data);
    }
    text
}

/// The head line of a list of snapshots.
pub const SNAPSHOT_HEAD: &str =
    "ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT\n";

/// A line of a list of snapshots.
pub fn snapshot_row(row: &Value) -> String {
    let seconds = row["vm-clock-sec"].as_u64().unwrap_or(0);
    let millis = row["vm-clock-nsec"].as_u64().unwrap_or(0) / 1_000_000;
    let clock =
        format!("{:04}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let icount = match row.get("icount").and_then(Value::as_i64) {
        Some(count) => count.to_string(),
        None => "--".into(),
    };
    format!(
        "{:<7} {:<16} {:>8} {:>19} {clock:>15} {icount:>10}",
        row["id"].as_str().unwrap_or_default(),
        row["name"].as_str().unwrap_or_default(),
        human_size(row["vm-state-size"].as_u64().unwrap_or(0)),
        row["date-text"].as_str().unwrap_or_default(),
    )
}

fn specific_map(text: &mut String, indent: usize, map: &Map<String, Value>) {
    for (key, value) in ordered(map) {
        let key = key.replace('-', " ");
        let pad = " ".repeat(indent);
        match value {
            Value::Object(inner) => {
                _ = writeln!(text, "{pad}{key}:");
                specific_map(text, indent + 4, inner);
            }
            Value::Array(list) => {
                _ = writeln!(text, "{pad}{key}:");
                specific_list(text, indent + 4, list);
            }
            scalar => _ = writeln!(text, "{pad}{key}: {}", scalar_text(scalar)),
        }
    }
}

fn specific_list(text: &mut String, indent: usize, list: &[Value]) {
    for (index, value) in list.iter().enumerate() {
        let pad = " ".repeat(indent);
        match value {
            Value::Object(inner) => {
                _ = writeln!(text, "{pad}[{index}]:");
                specific_map(text, indent + 4, inner);
            }
            Value::Array(inner) => {
                _ = writeln!(text, "{pad}[{index}]:");
                specific_list(text, indent + 4, inner);
            }
            scalar => _ = writeln!(text, "{pad}[{index}]: {}", scalar_text(scalar)),
        }
    }
}

fn ordered(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    crate::json::ordered(map)
}

fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a check found, for people. `None` stands for numbers that are not known.
pub fn check(report: &Value) -> String {
    let mut text = String::new();
    let number = |key: &str| report[key].as_u64().unwrap_or(0);
    let (corruptions, leaks, errors) =
        (number("corruptions"), number("leaks"), number("check-errors"));
    if corruptions == 0 && leaks == 0 && errors == 0 {
        text.push_str("No errors were found on the image.\n");
    }
    if corruptions > 0 {
        _ = write!(
            text,
            "\n{corruptions} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n"
        );
    }
    if leaks > 0 {
        _ = write!(
            text,
            "\n{leaks} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n"
        );
    }
    if errors > 0 {
        _ = write!(text, "\n{errors} internal errors have occurred during the check.\n");
    }
    let (total, allocated) = (number("total-clusters"), number("allocated-clusters"));
    if total != 0 && allocated != 0 {
        let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole as f64;
        _ = writeln!(
            text,
            "{allocated}/{total} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters",
            percent(allocated, total),
            percent(number("fragmented-clusters"), allocated),
            percent(number("compressed-clusters"), allocated)
        );
    }
    if number("image-end-offset") > 0 {
        _ = writeln!(text, "Image end offset: {}", number("image-end-offset"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1000, "0.977 KiB"),
            (1024, "1 KiB"),
            (197_120, "192 KiB"),
            (1 << 30, "1 GiB"),
            (1_600_000_000, "1.49 GiB"),
            (1023 << 20, "0.999 GiB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }
}
