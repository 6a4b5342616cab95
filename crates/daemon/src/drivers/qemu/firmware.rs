//! Choosing UEFI firmware: by the descriptors that distributions install for every tool
//! (QEMU's `docs/interop/firmware.json` explains them).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use libvirt_compat::Result;
use libvirt_compat::xml::Element;
use serde_json::Value;

use super::complete::unsupported;

/// The code, and the fresh variables that every machine gets a copy of.
pub struct Firmware {
    pub code: String,
    pub template: String,
}

/// Later folders override files of the same name in earlier ones.
const FOLDERS: [&str; 2] = ["/usr/share/qemu/firmware", "/etc/qemu/firmware"];

/// Of the features only this one is a demand, and boards here have no SMM.
const IMPOSSIBLE: &str = "requires-smm";

/// The first firmware, in the distribution's own order, that boots this board.
pub fn choose(arch: &str, board: &str) -> Option<Firmware> {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            files.insert(entry.file_name().to_string_lossy().into_owned(), entry.path());
        }
    }
    files.values().find_map(|path| {
        let text = fs::read(path).ok()?;
        fits(&serde_json::from_slice(&text).ok()?, arch, board)
    })
}

fn fits(descriptor: &Value, arch: &str, board: &str) -> Option<Firmware> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let uefi = list(&descriptor["interface-types"]).iter().any(|kind| kind == "uefi");
    let target = list(&descriptor["targets"]).iter().any(|target| {
        target["architecture"] == arch
            && list(&target["machines"])
                .iter()
                .any(|machine| machine.as_str().is_some_and(|pattern| matches(pattern, board)))
    });
    let impossible = list(&descriptor["features"]).iter().any(|feature| feature == IMPOSSIBLE);
    let mapping = &descriptor["mapping"];
    if !uefi || !target || impossible || mapping["device"] != "flash" {
        return None;
    }
    let file = |part: &str| mapping[part]["filename"].as_str().map(str::to_owned);
    let firmware = Firmware { code: file("executable")?, template: file("nvram-template")? };
    let there = Path::new(&firmware.code).exists() && Path::new(&firmware.template).exists();
    there.then_some(firmware)
}

/// `pc-q35-*` and the like: only a star at the end is in use.
fn matches(pattern: &str, board: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => board.starts_with(start),
        None => pattern == board,
    }
}

/// Names the firmware of a definition that only says it wants one.
pub fn fill(os: &mut Element, arch: &str, name: &str, folder: &Path) -> Result<()> {
    match os.attribute("firmware") {
        None => return Ok(()),
        Some("efi") => {}
        Some(other) => {
            return Err(unsupported(format!(
                "firmware auto selection of '{other}' is not supported"
            )));
        }
    }
    if os.child("loader").is_some_and(|loader| !loader.text().trim().is_empty()) {
        return Ok(());
    }
    let board = os.attribute_at("type", "machine").unwrap_or_default();
    let firmware = choose(arch, board)
        .ok_or_else(|| unsupported("Unable to find any firmware to satisfy 'efi'"))?;
    os.remove(|element| element.name == "loader");
    let loader = Element::with_text("loader", &firmware.code);
    os.push(loader.with("readonly", "yes").with("type", "pflash"));
    let nvram = os.ensure("nvram");
    nvram.set_default("template", &firmware.template);
    if nvram.text().trim().is_empty() {
        nvram.set_text(folder.join(format!("{name}_VARS.fd")).display());
    }
    Ok(())
}

/// Gives a machine its own variables at its first start.
pub fn prepare(document: &Element) -> Result<()> {
    let Some(nvram) = document.at("os/nvram") else { return Ok(()) };
    let path = PathBuf::from(nvram.text().trim());
    let Some(template) = nvram.attribute("template").filter(|_| !path.exists()) else {
        return Ok(());
    };
    if let Some(folder) = path.parent() {
        crate::files::make_private_directory(folder)?;
    }
    let content = fs::read(template).map_err(|error| {
        crate::files::system(format!("Failed to open file '{template}'"), &error)
    })?;
    crate::files::write_atomically(&path, &content)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_firmware_that_boots_the_board_fits() {
        let file = std::env::current_exe().unwrap().display().to_string();
        let descriptor = |features: &[&str], machines: &[&str]| {
            json!({
                "interface-types": ["uefi"],
                "mapping": {
                    "device": "flash",
                    "executable": {"filename": file},
                    "nvram-template": {"filename": file}
                },
                "targets": [{"architecture": "x86_64", "machines": machines}],
                "features": features
            })
        };
        for (features, machines, expected) in [
            (["acpi-s3", "amd-sev"].as_slice(), ["pc-q35-*"].as_slice(), true),
            (&["requires-smm"], &["pc-q35-*"], false),
            (&[], &["pc-i440fx-*"], false),
            (&[], &["pc-q35-7.2"], true),
        ] {
            let found = fits(&descriptor(features, machines), "x86_64", "pc-q35-7.2");
            assert_eq!(found.is_some(), expected, "{features:?} {machines:?}");
        }
    }
}
