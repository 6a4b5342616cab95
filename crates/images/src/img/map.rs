//! `qemu-img map`.

use block::NodeRef;
use block::node::status_above;
use block::open::OpenMode;
use block::options::parse_bytes;
use qemu_compat::image_tool::arguments::Typed;

use super::failure::{Failure, Outcome};
use super::{fail, opening};

/// A run of the map.
struct Row {
    start: u64,
    length: u64,
    depth: usize,
    present: bool,
    zero: bool,
    data: bool,
    compressed: bool,
    offset: Option<u64>,
    file: Option<String>,
}

impl Row {
    /// Whether `next` continues this row.
    fn joins(&self, next: &Self) -> bool {
        let follows = match (self.offset, next.offset) {
            (Some(a), Some(b)) => a + self.length == b && self.file == next.file,
            (None, None) => true,
            _ => false,
        };
        follows
            && (self.depth, self.present, self.zero, self.data, self.compressed)
                == (next.depth, next.present, next.zero, next.data, next.compressed)
    }
}

pub fn run(typed: &Typed) -> Outcome {
    let name = opening::one_operand(typed)?;
    let as_json = opening::wants_json(typed)?;
    let start = bytes(typed, "start-offset", "start offset")?.unwrap_or(0);
    let length = bytes(typed, "max-length", "max length")?;
    let mode = OpenMode { no_data: true, ..OpenMode::default() };
    let node = opening::open(typed, name, typed.value("format"), &mode)?;
    let end = length.map_or(node.size(), |length| node.size().min(start.saturating_add(length)));
    if !as_json {
        println!("{:<16}{:<16}{:<16}File", "Offset", "Length", "Mapped to");
    }
    let mut first = true;
    let mut pending: Option<Row> = None;
    let mut at = start;
    while at < end {
        let row = look(&node, at, end - at)?;
        at += row.length;
        match &mut pending {
            Some(row_before) if row_before.joins(&row) => row_before.length += row.length,
            _ => {
                if let Some(row) = pending.replace(row) {
                    print(&row, as_json, &mut first)?;
                }
            }
        }
    }
    if let Some(row) = pending {
        print(&row, as_json, &mut first)?;
    }
    if as_json {
        println!("{}]", if first { "[" } else { "" });
    }
    Ok(0)
}

fn bytes(typed: &Typed, option: &str, word: &str) -> Result<Option<u64>, Failure> {
    typed
        .value(option)
        .map(|text| {
            parse_bytes(text, b'B').map_err(|_| fail(format!("Invalid {word} specified. You may use k, M, G, T, P or E suffixes for \nkilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.")))
        })
        .transpose()
}

fn look(node: &NodeRef, at: u64, length: u64) -> Result<Row, Failure> {
    let found = status_above(node, None, at, length)
        .map_err(|error| fail(format!("Could not read file metadata: {}", error.reason())))?;
    let extent = found.extent;
    let file = extent.host.and_then(|_| found.node.data_node()).map(|node| node.filename());
    Ok(Row {
        start: at,
        length: extent.length,
        depth: found.depth,
        present: extent.allocated,
        zero: extent.zero,
        data: extent.data,
        compressed: extent.compressed,
        offset: extent.host,
        file,
    })
}

fn print(row: &Row, as_json: bool, first: &mut bool) -> Result<(), Failure> {
    if as_json {
        let offset = row.offset.map(|offset| format!(", \"offset\": {offset}")).unwrap_or_default();
        let text = format!(
            "{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {}, \"zero\": {}, \"data\": {}, \"compressed\": {}{offset}}}",
            row.start, row.length, row.depth, row.present, row.zero, row.data, row.compressed
        );
        print!("{}{text}", if *first { "[" } else { ",\n" });
        *first = false;
        return Ok(());
    }
    if row.data && row.offset.is_none() {
        return Err(fail("File contains external, encrypted or compressed clusters."));
    }
    if row.data && !row.zero {
        println!(
            "{:<16}{:<16}{:<16}{}",
            hex(row.start),
            hex(row.length),
            hex(row.offset.unwrap_or(0)),
            row.file.as_deref().unwrap_or_default()
        );
    }
    Ok(())
}

/// C's `%#x`: zero has no prefix.
fn hex(number: u64) -> String {
    if number == 0 { "0".into() } else { format!("{number:#x}") }
}
