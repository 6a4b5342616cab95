//! `qemu-img convert`.

mod engine;

use block::formats;
use block::open::OpenMode;
use block::options::parse_bytes;
use block::{CreateOptions, NodeRef};
use qemu_compat::image_tool::arguments::Typed;

use super::failure::{Failure, Outcome};
use super::measure::at_snapshot;
use super::progress::Progress;
use super::{create, fail, opening};
use engine::{Copy, Sources};

/// `-S` when nothing else is said: runs of zeros of this length become holes.
const SPARSE_BYTES: u64 = 4096;
const SPARSE_BYTES_MAX: u64 = 16 << 20;
const PARALLEL_MAX: u64 = 16;
const PARALLEL: u64 = 8;

/// The command line, checked.
struct Wish<'a> {
    typed: &'a Typed,
    sources: &'a [String],
    target: &'a str,
    format: &'a str,
    sparse: u64,
    parallel: u64,
    create: bool,
    compress: bool,
}

pub fn run(typed: &Typed) -> Outcome {
    let format = typed.value("target-format").unwrap_or("raw");
    let lists = || typed.values("target-format-options").chain(typed.values("target-options"));
    if opening::asks_for_help(lists()) {
        if typed.value("target-format").is_none() && typed.operands.is_empty() {
            return Err(fail("Option help requires a format be specified"));
        }
        create::print_options(format, typed.operands.first().map(String::as_str))?;
        return Ok(0);
    }
    let wish = Wish::new(typed, format)?;
    let progress = Progress::new(typed.has("progress") && !typed.has("quiet"));
    let outcome = convert(&wish, &progress);
    progress.end(outcome.is_ok());
    outcome.map(|()| 0)
}

impl<'a> Wish<'a> {
    fn new(typed: &'a Typed, format: &'a str) -> Result<Self, Failure> {
        let sparse = match typed.value("sparse-size") {
            None => SPARSE_BYTES,
            Some(text) => parse_bytes(text, b'B')
                .ok()
                .filter(|bytes| bytes.is_multiple_of(512) && *bytes <= SPARSE_BYTES_MAX)
                .ok_or_else(|| {
                    fail(format!("Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to {SPARSE_BYTES_MAX}. Select 0 to disable sparse detection (fully allocates output)."))
                })?,
        };
        let parallel = match typed.value("parallel") {
            None => PARALLEL,
            Some(text) => text.parse().ok().filter(|n| (1..=PARALLEL_MAX).contains(n)).ok_or_else(|| {
                fail(format!("Invalid number of coroutines specified. Must be between 1 and {PARALLEL_MAX}."))
            })?,
        };
        let skip_create = typed.has("no-create");
        let compress = typed.has("compress");
        let copying = typed.has("copy-range-offloading");
        let has_options = typed.has("target-format-options") || typed.has("target-options");
        let conflicts = [
            (
                typed.has("skip-broken-bitmaps") && !typed.has("bitmaps"),
                "Use of --skip-broken-bitmaps requires --bitmaps",
            ),
            (copying && compress, "Cannot enable copy offloading when -c is used"),
            (copying && typed.has("sparse-size"), "Cannot enable copy offloading when -S is used"),
            (copying && typed.has("salvage"), "Cannot use copy offloading in salvaging mode"),
            (
                typed.has("target-image-opts") && !skip_create,
                "--target-image-opts requires use of -n flag",
            ),
            (
                typed.has("target-is-zero") && !skip_create,
                "--target-is-zero requires use of -n flag",
            ),
        ];
        for (conflict, text) in conflicts {
            if conflict {
                return Err(fail(text));
            }
        }
        if skip_create && has_options {
            return Err(fail("-o has no effect when skipping image creation"));
        }
        let Some((target, sources)) = typed.operands.split_last().filter(|(_, s)| !s.is_empty())
        else {
            return Err(fail("Must specify image file name"));
        };
        Ok(Self {
            typed,
            sources,
            target,
            format,
            sparse,
            parallel,
            create: !skip_create,
            compress,
        })
    }
}

fn convert(wish: &Wish<'_>, progress: &Progress) -> Result<(), Failure> {
    let typed = wish.typed;
    let mut nodes = open_sources(wish)?;
    let snapshot = typed.value("snapshot").or(typed.value("source-snapshot"));
    if let Some(snapshot) = snapshot {
        if nodes.len() > 1 {
            return Err(fail("No support for concatenating multiple snapshot"));
        }
        nodes[0] = at_snapshot(&nodes[0], snapshot)?;
    }
    let sources = Sources::new(nodes);
    let mut options = CreateOptions::new();
    if wish.create {
        opening::creation_options(
            typed.values("target-format-options").chain(typed.values("target-options")),
            &mut options,
        )?;
    }
    let backing = typed.value("backing").or(typed.value("Backing")).map(str::to_string);
    let has_backing = prepare_target(wish, &sources, &mut options, backing.as_deref())?;
    let target = open_target(wish, &options)?;
    let backing_bytes = match (&has_backing, target.backing()) {
        (true, Some(backing)) => Some(backing.size()),
        (true, None) => backing_size(&backing, typed)?,
        _ => None,
    };
    if !wish.create {
        adjust_existing(&sources, &target)?;
    }
    if wish.compress && target.compressing().is_none() {
        return Err(fail("Compression not supported for this file format"));
    }
    let starts_zeroed =
        if wish.create { target.starts_zeroed() } else { typed.has("target-is-zero") };
    if typed.has("target-is-zero") && target.backing().is_some() {
        return Err(fail(
            "Cannot use --target-is-zero when the destination image has a backing file",
        ));
    }
    let copy = Copy {
        sources: &sources,
        target: &target,
        top_layer_only: has_backing,
        target_backing_bytes: backing_bytes,
        starts_zeroed: starts_zeroed && !has_backing,
        sparse: wish.sparse,
        compress: wish.compress || target.only_compressed(),
        salvage: typed.has("salvage"),
        quiet: typed.has("quiet"),
        parallel: wish.parallel as usize,
        any_order: typed.has("oob-writes"),
        clone: !wish.compress
            && (typed.has("copy-range-offloading")
                || (!typed.has("sparse-size") && target.shares_blocks())),
        write_through: opening::writes_through(typed, "target-cache"),
        rate: rate(typed)?,
        progress,
    };
    copy.run()?;
    if typed.has("bitmaps") {
        copy_bitmaps(&sources, &target, typed.has("skip-broken-bitmaps"))?;
    }
    target.flush()?;
    Ok(())
}

fn rate(typed: &Typed) -> Result<Option<u64>, Failure> {
    let Some(text) = typed.value("rate-limit") else { return Ok(None) };
    let rate = parse_bytes(text, b'B').map_err(|_| fail("Invalid rate limit specified. You may use k, M, G, T, P or E suffixes for \nkilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.".to_string()))?;
    Ok(Some(rate))
}

fn open_sources(wish: &Wish<'_>) -> Result<Vec<NodeRef>, Failure> {
    let typed = wish.typed;
    let mut mode = OpenMode::default();
    opening::cache(typed, "source-cache", &mut mode, "Invalid source cache option")?;
    let open = |name: &String| opening::open(typed, name, typed.value("source-format"), &mode);
    wish.sources.iter().map(open).collect()
}

/// Checks that the target can be made, and makes it. Says whether it has a backing file.
fn prepare_target(
    wish: &Wish<'_>,
    sources: &Sources,
    options: &mut CreateOptions,
    backing: Option<&str>,
) -> Result<bool, Failure> {
    let typed = wish.typed;
    let bitmaps = typed.has("bitmaps");
    if bitmaps {
        check_bitmaps(wish, sources)?;
    }
    let has_backing = backing.is_some() || options.non_empty("backing_file").is_some();
    if has_backing && sources.count() > 1 {
        return Err(fail(
            "Having a backing file for the target makes no sense when concatenating multiple input images",
        ));
    }
    if !wish.create {
        return Ok(has_backing);
    }
    let format = formats::find(wish.format)
        .ok_or_else(|| fail(format!("Unknown file format '{}'", wish.format)))?;
    if format.create.is_none() {
        return Err(fail(format!(
            "Format driver '{}' does not support image creation",
            wish.format
        )));
    }
    if has_backing
        && options.non_empty("backing_fmt").is_none()
        && typed.value("backing-format").is_none()
    {
        return Err(fail("Use of backing file requires explicit backing format"));
    }
    if wish.compress && options.non_empty("preallocation").is_some_and(|mode| mode != "off") {
        return Err(fail("Compression and preallocation not supported at the same time"));
    }
    let size = match options.size("size")? {
        Some(size) => size,
        None => sources.size(),
    };
    let backing =
        create::Backing { name: backing, format: typed.value("backing-format"), unchecked: false };
    create::create(wish.target, wish.format, options, &backing, Some(size), true).map_err(
        |failure| {
            failure.with_prefix(
                &format!("{}: error while converting {}: ", wish.target, wish.format),
                wish.target,
            )
        },
    )?;
    Ok(has_backing)
}

fn backing_size(backing: &Option<String>, typed: &Typed) -> Result<Option<u64>, Failure> {
    let Some(name) = backing else { return Ok(None) };
    let node = opening::open_named(name, typed.value("backing-format"), &OpenMode::default())?;
    Ok(Some(node.size()))
}

fn open_target(wish: &Wish<'_>, created: &CreateOptions) -> Result<NodeRef, Failure> {
    let typed = wish.typed;
    // A conversion that was interrupted is worthless anyway: flushing it would only cost time.
    let mut mode = OpenMode { write: true, no_flush: true, unmap: true, ..OpenMode::default() };
    if typed.has("target-cache") {
        mode.no_flush = false;
        opening::cache(typed, "target-cache", &mut mode, "Invalid cache option")?;
    }
    if typed.has("target-image-opts") {
        opening::open_spec(wish.target, &mode)
    } else {
        let mut options = block::OpenOptions::new();
        options.set("driver", wish.format);
        // The key that the image was made with opens it.
        for name in created.names().filter(|name| name.ends_with("key-secret")) {
            options.set(name, created.text(name).unwrap_or_default());
        }
        block::open::open(Some(wish.target), options, &mode)
            .map_err(|error| opening::could_not_open(wish.target, &error))
    }
}

/// A target that was there: it must be large enough.
fn adjust_existing(sources: &Sources, target: &NodeRef) -> Result<(), Failure> {
    if target.size() < sources.size() {
        return Err(fail("output file is smaller than input file"));
    }
    Ok(())
}

fn check_bitmaps(wish: &Wish<'_>, sources: &Sources) -> Result<(), Failure> {
    if sources.count() > 1 {
        return Err(fail("Copying bitmaps only possible with single source"));
    }
    let Some(bitmaps) = sources.first().bitmaps() else {
        return Err(fail("Source lacks bitmap support"));
    };
    // The latest first, as everywhere here.
    let broken = bitmaps.list().into_iter().rev().find(|bitmap| bitmap.in_use);
    if let (Some(bitmap), false) = (broken, wish.typed.has("skip-broken-bitmaps")) {
        return Err(fail(format!(
            "Cannot copy inconsistent bitmap '{}'\nTry --skip-broken-bitmaps, \
             or use 'qemu-img bitmap --remove' to delete it",
            bitmap.name
        )));
    }
    Ok(())
}

fn copy_bitmaps(sources: &Sources, target: &NodeRef, skip_broken: bool) -> Result<(), Failure> {
    let Some(from) = sources.first().bitmaps() else { return Ok(()) };
    let list = from.list();
    let Some(to) = target.bitmaps() else {
        return if list.is_empty() {
            Ok(())
        } else {
            Err(fail(format!("Format driver '{}' does not support bitmaps", target.driver())))
        };
    };
    for bitmap in list.iter().rev().filter(|bitmap| bitmap.in_use && skip_broken) {
        eprintln!("qemu-img: warning: Skipping inconsistent bitmap '{}'", bitmap.name);
    }
    for bitmap in list.into_iter().filter(|bitmap| !(bitmap.in_use && skip_broken)) {
        to.add(&bitmap.name, bitmap.granularity, false)
            .map_err(|error| fail(format!("Failed to create bitmap {}: {error}", bitmap.name)))?;
        let populate = |error: block::Error| {
            fail(format!("Failed to populate bitmap {}: {error}", bitmap.name))
        };
        let ranges = from.dirty(&bitmap.name).map_err(populate)?;
        to.mark(&bitmap.name, &ranges).map_err(populate)?;
        to.enable(&bitmap.name, bitmap.auto).map_err(populate)?;
    }
    Ok(())
}
