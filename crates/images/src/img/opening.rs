//! Opening images the way every command does.

use block::open::{OpenMode, parse_cache};
use block::{CreateOptions, Error, NodeRef, OpenOptions};
use qemu_compat::image_tool::arguments::Typed;
use qemu_compat::options::parse_opts;

use super::fail;
use super::failure::Failure;

/// Makes the objects of `--object`.
pub fn make_objects(typed: &Typed) -> Result<(), Failure> {
    typed.values("object").try_for_each(|text| make_object(text).map_err(fail))
}

/// Makes an object: a secret, from its data or from a file.
pub fn make_object(text: &str) -> Result<(), String> {
    let pairs = parse_opts(text, Some("qom-type")).map_err(|error| error.to_string())?;
    let get =
        |key: &str| pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let kind = get("qom-type").unwrap_or_default();
    if kind != "secret" {
        return Err(format!("The object type '{kind}' is not supported"));
    }
    let id = get("id").ok_or("Parameter 'id' is missing")?.to_owned();
    let properties: Vec<_> =
        pairs.into_iter().filter(|(name, _)| name != "qom-type" && name != "id").collect();
    block::secrets::define(&id, &properties).map_err(|error| error.to_string())
}

/// Opens the image of an operand: a name, or a specification with `--image-opts`.
pub fn open(
    typed: &Typed,
    name: &str,
    format: Option<&str>,
    mode: &OpenMode,
) -> Result<NodeRef, Failure> {
    let mut mode = mode.clone();
    mode.force_share |= typed.has("force-share");
    if typed.has("image-opts") || typed.has("source-image-opts") {
        if format.is_some() {
            return Err(fail("--image-opts and --format are mutually exclusive"));
        }
        open_spec(name, &mode)
    } else {
        open_named(name, format, &mode)
    }
}

/// Opens an image by its name.
pub fn open_named(name: &str, format: Option<&str>, mode: &OpenMode) -> Result<NodeRef, Failure> {
    let mut options = OpenOptions::new();
    if let Some(format) = format {
        options.set("driver", format);
    }
    let node = block::open::open(Some(name), options, mode);
    let node = node.map_err(|error| could_not_open(name, &error))?;
    Ok(node)
}

/// Opens an image by a specification `key=value,...`.
pub fn open_spec(spec: &str, mode: &OpenMode) -> Result<NodeRef, Failure> {
    let pairs = parse_opts(spec, Some("file")).map_err(|error| fail(error.to_string()))?;
    let mut options = OpenOptions::new();
    for (key, value) in pairs {
        options.set(&key, value);
    }
    if mode.force_share && options.contains("force-share") {
        return Err(fail("--force-share/-U conflicts with image options"));
    }
    block::open::open(None, options, mode).map_err(|error| could_not_open(spec, &error))
}

pub fn could_not_open(name: &str, error: &Error) -> Failure {
    fail(format!("Could not open '{name}': {error}"))
}

/// A cache option; the default is `writeback`. Says whether every write is to be flushed.
pub fn cache(
    typed: &Typed,
    option: &str,
    mode: &mut OpenMode,
    error: &str,
) -> Result<bool, Failure> {
    let Some(name) = typed.value(option) else { return Ok(false) };
    parse_cache(mode, name).ok_or_else(|| fail(format!("{error}: {name}")))
}

/// Whether a cache option that was accepted wants every write flushed.
pub fn writes_through(typed: &Typed, option: &str) -> bool {
    matches!(typed.value(option), Some("writethrough" | "directsync"))
}

/// What a command line may not have, because nothing here would obey it.
pub fn refuse(typed: &Typed, options: &[&str]) -> Result<(), Failure> {
    match options.iter().find(|option| typed.has(option)) {
        Some(option) => Err(fail(format!("The option --{option} is not supported"))),
        None => Ok(()),
    }
}

/// The way of input and output: threads is the only one there is.
pub fn check_aio(typed: &Typed, invalid: impl Fn(&str) -> String) -> Result<(), String> {
    match typed.value("aio") {
        None | Some("threads") => Ok(()),
        Some(mode @ ("native" | "io_uring")) => {
            Err(format!("The aio mode '{mode}' is not supported, only 'threads' is"))
        }
        Some(other) => Err(invalid(other)),
    }
}

/// The one file name of a command.
pub fn one_operand(typed: &Typed) -> Result<&str, Failure> {
    match typed.operands.as_slice() {
        [name] => Ok(name),
        _ => Err(Failure::usage("Expecting one image file name")),
    }
}

/// Whether `--output` asks for JSON.
pub fn wants_json(typed: &Typed) -> Result<bool, Failure> {
    match typed.value("output") {
        None | Some("human") => Ok(false),
        Some("json") => Ok(true),
        Some(_) => Err(fail("--output must be used with human or json as argument.")),
    }
}

/// Adds `-o` options; several of them are one list.
pub fn creation_options<'a>(
    lists: impl Iterator<Item = &'a str>,
    options: &mut CreateOptions,
) -> Result<(), Failure> {
    for list in lists {
        if list.is_empty() || list.starts_with(',') || list.ends_with(',') && !list.ends_with(",,")
        {
            return Err(fail(format!("Invalid option list: {list}")));
        }
        let pairs = parse_opts(list, None).map_err(|error| fail(error.to_string()))?;
        for (key, value) in pairs {
            options.set(&key, value);
        }
    }
    Ok(())
}

/// Whether an option list asks for help.
pub fn asks_for_help<'a>(mut lists: impl Iterator<Item = &'a str>) -> bool {
    lists.any(|list| list.split(',').any(|word| word == "help" || word == "?"))
}
