//! `qemu-img create`: also what other commands use to make their targets.

use block::formats::{self, Format};
use block::open::{OpenContext, OpenMode, protocol_of};
use block::options::{OptionSpec, SizeProblem, parse_bytes};
use block::{CreateOptions, OpenOptions};
use qemu_compat::image_tool::arguments::Typed;

use super::failure::{Failure, Outcome};
use super::{fail, opening};

pub fn run(typed: &Typed) -> Outcome {
    let format = typed.value("format").unwrap_or("raw");
    if opening::asks_for_help(typed.values("options")) {
        print_options(format, typed.operands.first().map(String::as_str))?;
        return Ok(0);
    }
    let (name, size) = match typed.operands.as_slice() {
        [name] => (name, None),
        [name, size] => (name, Some(size)),
        [] => return Err(Failure::usage("Expecting image file name")),
        [_, _, extra, ..] => return Err(Failure::usage(format!("Unexpected argument: {extra}"))),
    };
    let size = size.map(|text| image_size(text)).transpose()?;
    let mut options = CreateOptions::new();
    opening::creation_options(typed.values("options"), &mut options)?;
    let backing = Backing {
        name: typed.value("backing"),
        format: typed.value("backing-format").or(typed.value("backing-fmt")),
        unchecked: typed.has("backing-unsafe"),
    };
    create(name, format, &mut options, &backing, size, typed.has("quiet"))?;
    Ok(0)
}

/// A size on the command line.
pub fn image_size(text: &str) -> Result<u64, Failure> {
    let range = "Invalid image size specified. Must be between 0 and 9223372036854775807.";
    match parse_bytes(text, b'B') {
        Ok(size) if size <= i64::MAX as u64 => Ok(size),
        Ok(_) | Err(SizeProblem::TooLarge) => Err(fail(range)),
        Err(SizeProblem::Malformed) if text.starts_with('-') && text.parse::<i64>().is_ok() => {
            Err(fail(range))
        }
        Err(SizeProblem::Malformed) => {
            Err(fail(format!("Invalid image size specified: '{text}'.")))
        }
    }
}

/// The backing file of a new image.
#[derive(Default)]
pub struct Backing<'a> {
    pub name: Option<&'a str>,
    pub format: Option<&'a str>,
    pub unchecked: bool,
}

/// Makes an image and prints what was made.
pub fn create(
    name: &str,
    format_name: &str,
    options: &mut CreateOptions,
    backing: &Backing<'_>,
    size: Option<u64>,
    quiet: bool,
) -> Result<(), Failure> {
    let here = |text: String| fail(format!("{name}: {text}"));
    let format = formats::find(format_name)
        .ok_or_else(|| here(format!("Unknown file format '{format_name}'")))?;
    let protocol = protocol_of(name).map_err(|error| here(error.to_string()))?;
    if format.create.is_none() {
        return Err(here(format!("Format driver '{format_name}' does not support image creation")));
    }
    let specs = option_specs(format, protocol.create_options);
    options.validate(&[&specs]).map_err(|error| here(error.to_string()))?;
    if let Some(size) = size {
        if options.text("size").is_some() {
            return Err(here("The image size must be specified only once".into()));
        }
        options.set("size", size.to_string());
    }
    set_backing(format, options, backing).map_err(&here)?;
    if options.non_empty("backing_file") == Some(name) {
        return Err(here(
            "Error: Trying to create an image with the same filename as the backing file".into(),
        ));
    }
    complete_size(name, options, backing.unchecked)?;
    if !quiet {
        println!("Formatting '{name}', fmt={format_name}{}", shown(&specs, options));
    }
    let make = format.create.ok_or_else(|| here("cannot create".into()))?;
    make(name, options, &OpenContext::default()).map_err(|error| {
        if error.errno() == rustix::io::Errno::FBIG {
            return here(format!("The image size is too large for file format '{format_name}' (try using a larger cluster size)"));
        }
        here(error.to_string())
    })
}

fn set_backing(
    format: &Format,
    options: &mut CreateOptions,
    backing: &Backing<'_>,
) -> Result<(), String> {
    if let Some(file) = backing.name {
        if file.is_empty() {
            return Err("Expected backing file name, got empty string".into());
        }
        if !format.backing {
            return Err(format!("Backing file not supported for file format '{}'", format.name));
        }
        options.set("backing_file", file);
    }
    if let Some(kind) = backing.format {
        if !format.backing {
            return Err(format!("Backing format not supported for file format '{}'", format.name));
        }
        options.set("backing_fmt", kind);
    }
    if let Some(kind) = options.non_empty("backing_fmt")
        && formats::find(kind).is_none()
        && block::protocols::find(kind).is_none()
    {
        return Err(format!("Unknown backing file format '{kind}'"));
    }
    Ok(())
}

/// Looks at the backing file, and takes its size where none was given.
fn complete_size(name: &str, options: &mut CreateOptions, unchecked: bool) -> Result<(), Failure> {
    let here = |text: String| fail(format!("{name}: {text}"));
    let has_size = options.text("size").is_some();
    let Some(backing) = options.non_empty("backing_file").map(str::to_string) else {
        return if has_size {
            Ok(())
        } else {
            Err(here("Image creation needs a size parameter".into()))
        };
    };
    let format = options.non_empty("backing_fmt").map(str::to_string);
    if unchecked {
        return if has_size {
            Ok(())
        } else {
            Err(here("Image creation needs a size parameter".into()))
        };
    }
    let full = block::open::combine(name, &backing).map_err(|error| here(error.to_string()))?;
    let mut open = OpenOptions::new();
    if let Some(format) = &format {
        open.set("driver", format.clone());
    }
    let mode = OpenMode { no_data: true, ..OpenMode::default() };
    let node = match block::open::open(Some(&full), open, &mode) {
        Ok(node) => node,
        Err(error) if matches!(error, block::Error::Locked { .. }) => {
            return Err(here(format!("{error}\nCould not open backing image.")));
        }
        Err(error) => {
            return Err(here(format!("{error}\nCould not open backing image.")));
        }
    };
    if format.is_none() {
        return Err(here(format!(
            "Backing file specified without backing format\nDetected format of {}.",
            node.driver()
        )));
    }
    if !has_size {
        options.set("size", node.size().to_string());
    }
    Ok(())
}

/// The format's options and then the protocol's that it does not have itself.
pub fn option_specs(format: &Format, protocol: &[OptionSpec]) -> Vec<OptionSpec> {
    let mut specs = format.create_options.to_vec();
    for spec in protocol {
        if !specs.iter().any(|own| own.name == spec.name) {
            specs.push(*spec);
        }
    }
    specs
}

/// The options as the `Formatting` line shows them.
fn shown(specs: &[OptionSpec], options: &CreateOptions) -> String {
    let mut text = String::new();
    for spec in specs {
        let Some(value) = options.text(spec.name).or(spec.default) else { continue };
        let value = match spec.kind {
            block::options::OptionKind::Size => {
                block::options::parse_size(spec.name, value).unwrap_or(0).to_string()
            }
            _ => value.to_string(),
        };
        text.push_str(&format!(" {}={}", spec.name, quoted(&value)));
    }
    text
}

/// A value in quotes where it has to be.
fn quoted(value: &str) -> String {
    let plain = !value.is_empty() && !value.contains(['\'', ' ', '\t', '\n', '\\', '"', ',']);
    if plain { value.to_string() } else { value.replace(',', ",,") }
}

/// `-o help`.
pub fn print_options(format_name: &str, filename: Option<&str>) -> Result<(), Failure> {
    let format = formats::find(format_name)
        .ok_or_else(|| fail(format!("Unknown file format '{format_name}'")))?;
    if format.create.is_none() {
        return Err(fail(format!("Format driver '{format_name}' does not support image creation")));
    }
    let specs = match filename {
        Some(filename) => {
            let protocol = protocol_of(filename).map_err(|error| fail(error.to_string()))?;
            option_specs(format, protocol.create_options)
        }
        None => format.create_options.to_vec(),
    };
    if filename.is_some() {
        println!("Supported options:");
    } else {
        println!("Supported {format_name} options:");
    }
    print_specs(&specs);
    if filename.is_none() {
        println!(
            "\nThe protocol level may support further options.\nSpecify the target filename to include those options."
        );
    }
    Ok(())
}

/// Options in alphabetical order, with their kinds.
pub fn print_specs(specs: &[OptionSpec]) {
    use block::options::OptionKind;
    let mut rows: Vec<_> = specs.iter().collect();
    rows.sort_by_key(|spec| spec.name);
    for spec in rows {
        let kind = match spec.kind {
            OptionKind::Size => "<size>",
            OptionKind::Bool => "<bool (on/off)>",
            OptionKind::Text => "<str>",
            OptionKind::Number => "<num>",
        };
        let left = format!("{}={kind}", spec.name);
        println!("  {left:<22} - {}", spec.help);
    }
}
