//! `qemu-img dd`.

use block::open::OpenMode;
use block::options::parse_bytes;
use block::{CreateOptions, formats};
use qemu_compat::image_tool::arguments::Typed;

use super::failure::Outcome;
use super::{create, fail, opening};

/// Larger blocks are refused.
const BLOCK_BYTES_MAX: u64 = i32::MAX as u64;

#[derive(Default)]
struct Operands {
    block: Option<u64>,
    count: Option<u64>,
    skip: Option<u64>,
    input: Option<String>,
    output: Option<String>,
}

pub fn run(typed: &Typed) -> Outcome {
    let operands = parse(typed)?;
    let (Some(input), Some(output)) = (&operands.input, &operands.output) else {
        return Err(fail("Must specify both input and output files"));
    };
    let target = typed.value("output-format").unwrap_or("raw");
    if typed.has("image-opts") && typed.has("format") {
        return Err(fail("--image-opts and --format are mutually exclusive"));
    }
    let source = opening::open(typed, input, typed.value("format"), &OpenMode::default())?;
    let format = formats::find(target).ok_or_else(|| fail("Unknown file format"))?;
    let block = operands.block.unwrap_or(512);
    let mut size = source.size();
    if let Some(count) = operands.count {
        size = size.min(
            count
                .saturating_mul(block)
                .saturating_add(operands.skip.unwrap_or(0).saturating_mul(block)),
        );
    }
    let skip = operands.skip.unwrap_or(0).saturating_mul(block);
    let too_far = skip > source.size();
    let out_size = size.saturating_sub(skip);
    if format.create.is_none() {
        return Err(fail(format!("Format driver '{target}' does not support image creation")));
    }
    let mut options = CreateOptions::new();
    create::create(
        output,
        target,
        &mut options,
        &create::Backing::default(),
        Some(out_size),
        true,
    )?;
    let mode = OpenMode { write: true, unmap: true, ..OpenMode::default() };
    let sink = opening::open_named(output, Some(target), &mode)?;
    if too_far {
        eprintln!("qemu-img: {input}: cannot skip to specified offset");
        return Ok(0);
    }
    let mut buffer = vec![0; block as usize];
    let mut at = skip;
    while at < size {
        let piece = (size - at).min(block) as usize;
        source.read_at(&mut buffer[..piece], at).map_err(|error| {
            fail(format!("error while reading from input image file: {}", error.reason()))
        })?;
        sink.write_at(&buffer[..piece], at - skip).map_err(|error| {
            fail(format!("error while writing to output image file: {}", error.reason()))
        })?;
        at += piece as u64;
    }
    sink.flush()?;
    Ok(0)
}

fn parse(typed: &Typed) -> Result<Operands, super::failure::Failure> {
    let mut operands = Operands::default();
    for operand in &typed.operands {
        let Some((name, value)) = operand.split_once('=') else {
            return Err(fail(format!("unrecognized operand {operand}")));
        };
        let number =
            || parse_bytes(value, b'B').map_err(|_| fail(format!("invalid number: '{value}'")));
        match name {
            "if" => operands.input = Some(value.to_string()),
            "of" => operands.output = Some(value.to_string()),
            "bs" => {
                let bytes = number()?;
                if bytes == 0 || bytes > BLOCK_BYTES_MAX {
                    return Err(fail(format!("invalid number: '{value}'")));
                }
                operands.block = Some(bytes);
            }
            "count" => operands.count = Some(number()?),
            "skip" => operands.skip = Some(number()?),
            _ => return Err(fail(format!("unrecognized operand {name}"))),
        }
    }
    Ok(operands)
}
