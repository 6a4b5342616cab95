//! Images over images: what lies beneath one, and new ones on top.

use std::path::{Path, PathBuf};

use libvirt_compat::{Code, Error, Result};

use super::images::{probe, run};

/// Longer chains are a loop, or will be no fun anyway; libvirt's own limit.
const IMAGES_MAX: usize = 200;

/// The files beneath an image, the next first, with their formats.
pub fn chain(path: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut list = Vec::new();
    let mut here = path.to_path_buf();
    while let Some((name, format)) = probe(&here)?.backing {
        let next = here.parent().map_or_else(|| PathBuf::from(&name), |dir| dir.join(&name));
        let format = match format {
            Some(format) => format,
            None => probe(&next)?.format,
        };
        list.push((next.clone(), format.name().to_owned()));
        here = next;
        if list.len() > IMAGES_MAX {
            let text = format!("backing store chain of '{}' is too long", path.display());
            return Err(Error::new(Code::OperationFailed, text));
        }
    }
    Ok(list)
}

/// Makes an image of a size in bytes, alone or over a backing file with its format.
pub fn create(path: &Path, format: &str, backing: Option<(&Path, &str)>, size: u64) -> Result<()> {
    let mut arguments: Vec<String> = ["create", "-q", "-f", format].map(str::to_owned).to_vec();
    if let Some((backing, format)) = backing {
        // A backing file that a machine has open cannot be opened here, and need not be.
        arguments.extend(["-u".into(), "-F".into(), format.into()]);
        arguments.extend(["-b".into(), backing.display().to_string()]);
    }
    arguments.extend([path.display().to_string(), size.to_string()]);
    run(&arguments)
}

/// Brings what was written to an image into the one beneath. `above` is the image over it, which
/// then lies over the lower one.
pub fn merge(path: &Path, base: &Path, above: Option<&Path>, format: &str) -> Result<()> {
    let text = |path: &Path| path.display().to_string();
    let word = str::to_owned;
    run(&[word("commit"), word("-q"), word("-b"), text(base), word("-d"), text(path)])?;
    let Some(above) = above else { return Ok(()) };
    let options = ["rebase", "-q", "-u", "-F", format, "-b"].map(word);
    run(&[&options[..], &[text(base), text(above)]].concat())
}
