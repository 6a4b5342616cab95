//! `qemu-img amend`.

use block::CreateOptions;
use block::formats;
use block::open::OpenMode;
use qemu_compat::image_tool::arguments::Typed;

use super::failure::{Failure, Outcome};
use super::progress::Progress;
use super::{create, fail, opening};

pub fn run(typed: &Typed) -> Outcome {
    if !typed.has("options") {
        return Err(Failure::usage("Must specify options (-o)"));
    }
    let format = typed.value("format");
    if let Some(format) = format
        && opening::asks_for_help(typed.values("options"))
    {
        return help(format);
    }
    let name = match typed.operands.as_slice() {
        [name] => name,
        _ => return Err(fail("Expecting one image file name")),
    };
    let mut mode = OpenMode { write: true, unmap: true, ..OpenMode::default() };
    let write_through = opening::cache(typed, "cache", &mut mode, "Invalid cache option")?;
    let node = opening::open(typed, name, format, &mode)?;
    let format = node.driver();
    if opening::asks_for_help(typed.values("options")) {
        return help(format);
    }
    let specs = formats::find(format).map_or(&[][..], |format| format.amend_options);
    if specs.is_empty() {
        return Err(fail(format!("Format driver '{format}' does not support option amendment")));
    }
    let mut options = CreateOptions::new();
    opening::creation_options(typed.values("options"), &mut options)?;
    let created = formats::find(format).map_or(&[][..], |format| format.create_options);
    let only_created = |name: &&str| {
        !specs.iter().any(|spec| spec.name == *name)
            && created.iter().any(|spec| spec.name == *name)
    };
    if let Some(name) = options.names().find(only_created) {
        return Err(fail(format!(
            "Invalid parameter '{name}'\nThis option is only supported for image creation"
        )));
    }
    options.validate(&[specs])?;
    let progress = Progress::new(typed.has("progress"));
    node.amend(&options, typed.has("force"), &|done, all| progress.set(done, all))?;
    if write_through {
        node.flush()?;
    }
    progress.end(true);
    Ok(0)
}

fn help(name: &str) -> Outcome {
    let format =
        formats::find(name).ok_or_else(|| fail(format!("Unknown file format '{name}'")))?;
    if format.amend_options.is_empty() {
        return Err(fail(format!("Format driver '{name}' does not support option amendment")));
    }
    println!("Amend options for '{name}':");
    create::print_specs(format.amend_options);
    Ok(0)
}
