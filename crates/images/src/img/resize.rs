//! `qemu-img resize`.

use block::Preallocation;
use block::open::OpenMode;
use block::options::parse_bytes;
use qemu_compat::image_tool::arguments::Typed;

use super::failure::{Failure, Outcome};
use super::{fail, opening};

pub fn run(typed: &Typed) -> Outcome {
    let [name, size] = typed.operands.as_slice() else {
        return Err(Failure::usage("Expecting image file name and size"));
    };
    let preallocation = match typed.value("preallocation") {
        None => Preallocation::Off,
        Some(mode) => Preallocation::parse(mode)
            .ok_or_else(|| fail(format!("Invalid preallocation mode '{mode}'")))?,
    };
    let (sign, digits) = match size.as_bytes().first() {
        Some(b'+') => (1, &size[1..]),
        Some(b'-') => (-1, &size[1..]),
        _ => (0, size.as_str()),
    };
    let amount = parse_bytes(digits, b'B').map_err(|_| {
        fail("Parameter 'size' expects a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.")
    })?;
    let mode = OpenMode { write: true, unmap: true, ..OpenMode::default() };
    let node = opening::open(typed, name, typed.value("format"), &mode)?;
    let current = node.size();
    let wanted = match sign {
        1 => current.checked_add(amount),
        -1 => current.checked_sub(amount),
        _ => Some(amount),
    };
    let wanted = wanted
        .filter(|size| *size > 0 && *size <= i64::MAX as u64)
        .ok_or_else(|| fail("New image size must be positive"))?;
    if wanted <= current && preallocation != Preallocation::Off {
        return Err(fail("Preallocation can only be used for growing images"));
    }
    if wanted < current && !typed.has("shrink") {
        return Err(fail(
            "Use the --shrink option to perform a shrink operation.\nqemu-img: warning: Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an operation, make sure there is no important data there.",
        )
        .code(1));
    }
    node.resize(wanted, preallocation)?;
    node.flush()?;
    if !typed.has("quiet") {
        println!("Image resized.");
    }
    Ok(0)
}
