//! The layering: which crate may import which of ours, and where a foreign crate may be used.
//!
//! ARCHITECTURE.md explains the layers. Development dependencies are free, so that tests may look
//! at a crate from above.

use anyhow::Result;

use super::Tree;

/// A crate and those of ours it may import. Lowest layer first.
const LAYERS: &[(&str, &[&str])] = &[
    // ground
    ("linux", &[]),
    // core
    ("memory", &["linux"]),
    ("isa", &[]),
    ("jit", &["isa", "memory", "linux"]),
    ("gdb", &[]),
    ("accel", &["memory", "isa", "jit", "linux"]),
    ("device", &["memory"]),
    ("block", &["linux"]),
    ("net", &["linux"]),
    ("display", &["linux"]),
    ("devices", &["device", "memory", "block", "net", "display"]),
    ("spec", &[]),
    (
        "machine",
        &[
            "spec", "accel", "device", "devices", "block", "net", "display", "memory", "isa",
            "linux",
        ],
    ),
    ("linux_user", &["jit", "isa", "memory", "linux", "gdb"]),
    // contracts
    ("qemu_compat", &["spec"]),
    ("libvirt_compat", &[]),
    // products
    (
        "emulator",
        &["machine", "device", "block", "net", "display", "qemu_compat", "spec", "linux", "gdb"],
    ),
    ("images", &["block", "qemu_compat", "linux"]),
    ("daemon", &["libvirt_compat", "qemu_compat", "spec", "block", "net", "linux"]),
    ("agent", &[]),
    ("guests", &["agent", "block", "linux"]),
    ("cli", &["libvirt_compat", "agent", "guests", "linux"]),
    ("viewer", &["display", "libvirt_compat"]),
    ("hostel", &["emulator", "images", "daemon", "cli", "viewer", "linux_user"]),
    // automation
    ("tests", &[]),
    ("xtask", &["tests"]),
];

/// Foreign crates that have their place, and the crates where they may be used.
const PLACED: &[(&str, &[&str])] = &[
    ("tokio", &["daemon", "cli"]),
    ("clap", &["cli"]),
    ("libc", &["linux", "memory", "jit", "accel", "linux_user"]),
];

pub fn check(tree: &Tree) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for member in &tree.members {
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == member.name) else {
            complaints.push(format!(
                "{} is in no layer: give it a row in xtask/src/tidy/imports.rs and ARCHITECTURE.md",
                member.name
            ));
            continue;
        };
        for dependency in &member.dependencies {
            let ours = LAYERS.iter().any(|(name, _)| name == dependency);
            if ours && !allowed.contains(&dependency.as_str()) {
                complaints.push(format!("{} may not import {dependency}", member.name));
            }
            let place = PLACED.iter().find(|(name, _)| name == dependency);
            if place.is_some_and(|(_, homes)| !homes.contains(&member.name.as_str())) {
                complaints
                    .push(format!("{} may not use the foreign crate {dependency}", member.name));
            }
        }
        let folder = member.folder.file_name().unwrap_or_default().to_string_lossy();
        if folder != member.name {
            complaints.push(format!("the folder {folder} holds the crate {}", member.name));
        }
    }
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate may import only crates that stand above it in the table, so there is no cycle.
    #[test]
    fn the_table_is_a_layering() {
        for (at, (name, allowed)) in LAYERS.iter().enumerate() {
            for import in *allowed {
                let lower = LAYERS[..at].iter().any(|(lower, _)| lower == import);
                assert!(lower, "{name} imports {import}, which stands no lower");
            }
        }
    }
}
