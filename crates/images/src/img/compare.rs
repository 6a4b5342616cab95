//! `qemu-img compare`.

use std::ops::Range;

use block::NodeRef;
use block::node::{Found, status_above};
use block::open::OpenMode;
use qemu_compat::image_tool::arguments::Typed;

use super::failure::{Failure, Outcome};
use super::progress::Progress;
use super::{fail, opening};

/// Exit codes: 0 same, 1 different, larger ones for errors.
const ERROR_OPEN: u8 = 2;
const ERROR_STATUS: u8 = 3;
const ERROR_READ: u8 = 4;
/// Contents are compared in pieces of this size.
const PIECE_BYTES: u64 = 2 << 20;

struct Side<'a> {
    node: NodeRef,
    name: &'a str,
}

pub fn run(typed: &Typed) -> Outcome {
    let [one, two] = typed.operands.as_slice() else {
        return Err(Failure::usage("Expecting two image file names").code(ERROR_OPEN));
    };
    let quiet = typed.has("quiet");
    let mut mode = OpenMode::default();
    opening::cache(typed, "cache", &mut mode, "Invalid source cache option")
        .map_err(|failure| failure.code(ERROR_OPEN))?;
    let open = |name, format| {
        opening::open(typed, name, typed.value(format), &mode)
            .map_err(|failure| failure.code(ERROR_OPEN))
    };
    let one = Side { node: open(one, "a-format")?, name: one };
    let two = Side { node: open(two, "b-format")?, name: two };
    let progress = Progress::new(typed.has("progress") && !quiet);
    let outcome = compare(&one, &two, typed.has("strict"), quiet, &progress);
    progress.end(matches!(outcome, Ok(0)));
    outcome
}

fn compare(
    one: &Side<'_>,
    two: &Side<'_>,
    strict: bool,
    quiet: bool,
    progress: &Progress,
) -> Outcome {
    let say = |text: String| {
        if !quiet {
            println!("{text}");
        }
    };
    let sizes = (one.node.size(), two.node.size());
    let (total, progress_total) = (sizes.0.min(sizes.1), sizes.0.max(sizes.1));
    if strict && sizes.0 != sizes.1 {
        say("Strict mode: Image size mismatch!".into());
        return Ok(1);
    }
    let mut buffers = (vec![0; PIECE_BYTES as usize], vec![0; PIECE_BYTES as usize]);
    let mut at = 0;
    while at < total {
        let a = status(one, at, total - at)?;
        let b = status(two, at, total - at)?;
        let length = a.extent.length.min(b.extent.length);
        if strict && a.extent.allocated != b.extent.allocated {
            say(format!("Strict mode: Offset {at} block status mismatch!"));
            return Ok(1);
        }
        let different = match (a.extent.zero, b.extent.zero) {
            (true, true) => None,
            (true, false) => first_nonzero(two, at, length, &mut buffers.0)?,
            (false, true) => first_nonzero(one, at, length, &mut buffers.0)?,
            (false, false) => first_difference(one, two, at, length, &mut buffers)?,
        };
        if let Some(place) = different {
            say(format!("Content mismatch at offset {place}!"));
            return Ok(1);
        }
        at += length;
        progress.set(at, progress_total);
    }
    if sizes.0 != sizes.1 {
        const WARNING: &str = "Warning: Image size mismatch!";
        let larger = if sizes.0 > sizes.1 { one } else { two };
        let rest = first_in_rest(larger, at..progress_total, &mut buffers.0, progress);
        let silent =
            |failure: Failure| if quiet { failure } else { failure.with_last_words(WARNING) };
        let rest = rest.map_err(silent)?;
        say(WARNING.into());
        if let Some(place) = rest {
            say(format!("Content mismatch at offset {place}!"));
            return Ok(1);
        }
    }
    say("Images are identical.".into());
    Ok(0)
}

/// The first place beyond the other image's end that is not zero.
fn first_in_rest(
    larger: &Side<'_>,
    range: Range<u64>,
    buffer: &mut [u8],
    progress: &Progress,
) -> Result<Option<u64>, Failure> {
    let mut at = range.start;
    while at < range.end {
        let found = status(larger, at, range.end - at)?;
        let length = found.extent.length;
        if !found.extent.zero
            && let Some(place) = first_nonzero(larger, at, length, buffer)?
        {
            return Ok(Some(place));
        }
        at += length;
        progress.set(at, range.end);
    }
    Ok(None)
}

fn status(side: &Side<'_>, at: u64, length: u64) -> Result<Found, Failure> {
    status_above(&side.node, None, at, length).map_err(|_| {
        fail(format!("Sector allocation test failed for {}", side.name)).code(ERROR_STATUS)
    })
}

fn read(side: &Side<'_>, at: u64, buffer: &mut [u8]) -> Result<(), Failure> {
    side.node.read_at(buffer, at).map_err(|error| {
        fail(format!("Error while reading offset {at} of {}: {}", side.name, error.reason()))
            .code(ERROR_READ)
    })
}

/// Mismatches are reported by sector.
const SECTOR: u64 = 512;

fn first_nonzero(
    side: &Side<'_>,
    at: u64,
    length: u64,
    buffer: &mut [u8],
) -> Result<Option<u64>, Failure> {
    let mut done = 0;
    while done < length {
        let piece = (length - done).min(PIECE_BYTES) as usize;
        read(side, at + done, &mut buffer[..piece])?;
        if !block::zeros::all_zero(&buffer[..piece]) {
            let place = buffer[..piece].iter().position(|byte| *byte != 0).unwrap_or(0) as u64;
            return Ok(Some(at + done + place - place % SECTOR));
        }
        done += piece as u64;
    }
    Ok(None)
}

fn first_difference(
    one: &Side<'_>,
    two: &Side<'_>,
    at: u64,
    length: u64,
    buffers: &mut (Vec<u8>, Vec<u8>),
) -> Result<Option<u64>, Failure> {
    let mut done = 0;
    while done < length {
        let piece = (length - done).min(PIECE_BYTES) as usize;
        let (a, b) = (&mut buffers.0[..piece], &mut buffers.1[..piece]);
        read(one, at + done, a)?;
        read(two, at + done, b)?;
        if a != b {
            let place = a.iter().zip(b.iter()).position(|(x, y)| x != y).unwrap_or(0) as u64;
            return Ok(Some(at + done + place - place % SECTOR));
        }
        done += piece as u64;
    }
    Ok(None)
}
