//! `qemu-img bitmap`.

use block::bitmaps::Bitmaps;
use block::open::OpenMode;
use block::options::parse_bytes;
use qemu_compat::image_tool::arguments::Typed;

use super::failure::{Failure, Outcome};
use super::{fail, opening};

/// What a bit speaks for when nothing else is said, unless clusters are smaller or larger.
const GRANULARITY_MIN: u64 = 4 << 10;
const GRANULARITY_MAX: u64 = 64 << 10;

pub fn run(typed: &Typed) -> Outcome {
    let actions = ["add", "remove", "clear", "enable", "disable", "merge", "remove-all"];
    let given: Vec<_> = typed.options.iter().filter(|(name, _)| actions.contains(name)).collect();
    if given.is_empty() {
        return Err(Failure::usage(
            "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge",
        ));
    }
    let granularity = match typed.value("granularity") {
        None => None,
        Some(text) => Some(parse_bytes(text, b'B').ok().filter(|bytes| *bytes > 0).ok_or_else(|| {
            fail("Invalid granularity specified. You may use k, M, G, T, P or E suffixes for \nkilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.")
        })?),
    };
    if granularity.is_some() && !typed.has("add") {
        return Err(fail("granularity only supported with --add"));
    }
    if typed.has("source-format") && !typed.has("source-file") {
        return Err(fail("-F only supported with -b"));
    }
    if typed.has("source-file") && !typed.has("merge") {
        return Err(fail("Merge bitmap source file only supported with --merge"));
    }
    let (name, bitmap) = match typed.operands.as_slice() {
        [name, bitmap] => (name, bitmap.as_str()),
        [name] if given.iter().all(|(action, _)| *action == "remove-all") => (name, ""),
        _ => return Err(Failure::usage("Expecting filename and bitmap name")),
    };
    let mode = OpenMode { write: true, unmap: true, ..OpenMode::default() };
    let node = opening::open(typed, name, typed.value("format"), &mode)?;
    let Some(bitmaps) = node.bitmaps() else {
        return Err(fail(format!(
            "Operation {} on bitmap {bitmap} failed: Driver '{}' does not support persistent bitmaps",
            given[0].0,
            node.driver()
        )));
    };
    for (action, value) in given {
        let done = match *action {
            "add" => {
                let default = node
                    .cluster_bytes()
                    .unwrap_or(GRANULARITY_MAX)
                    .clamp(GRANULARITY_MIN, GRANULARITY_MAX);
                bitmaps.add(bitmap, granularity.unwrap_or(default), true)
            }
            "remove" => bitmaps.remove(bitmap),
            "remove-all" => bitmaps.list().iter().try_for_each(|row| bitmaps.remove(&row.name)),
            "clear" => bitmaps.clear(bitmap),
            "enable" => bitmaps.enable(bitmap, true),
            "disable" => bitmaps.enable(bitmap, false),
            _ => return merge_then_rest(typed, bitmaps, bitmap, value),
        };
        done.map_err(|error| {
            fail(format!("Operation {action} on bitmap {bitmap} failed: {error}"))
        })?;
    }
    node.flush()?;
    Ok(0)
}

fn merge_then_rest(typed: &Typed, target: &dyn Bitmaps, bitmap: &str, source: &str) -> Outcome {
    let failed = |text: String| fail(format!("Operation merge on bitmap {bitmap} failed: {text}"));
    let ranges = match typed.value("source-file") {
        None => target.dirty(source),
        Some(file) => {
            // What is merged may lie behind it.
            let mode = OpenMode { no_backing: true, ..OpenMode::default() };
            let node = opening::open_named(file, typed.value("source-format"), &mode)?;
            match node.bitmaps() {
                Some(bitmaps) => bitmaps.dirty(source),
                None => return Err(failed(format!("Dirty bitmap '{source}' not found"))),
            }
        }
    };
    let ranges = ranges.map_err(|error| failed(error.to_string()))?;
    target.mark(bitmap, &ranges).map_err(|error| failed(error.to_string()))?;
    // Further actions behind a merge run in their order.
    let after = typed.options.iter().skip_while(|(name, _)| *name != "merge").skip(1);
    for (action, value) in after {
        let done = match *action {
            "clear" => target.clear(bitmap),
            "enable" => target.enable(bitmap, true),
            "disable" => target.enable(bitmap, false),
            "remove" => target.remove(bitmap),
            "merge" => target.dirty(value).and_then(|ranges| target.mark(bitmap, &ranges)),
            _ => Ok(()),
        };
        done.map_err(|error| {
            fail(format!("Operation {action} on bitmap {bitmap} failed: {error}"))
        })?;
    }
    Ok(0)
}
