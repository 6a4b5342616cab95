//! Fences: words and attributes that must stay in their place.

use anyhow::Result;

use super::Tree;
use super::source::Source;

/// Words in code (strings included, comments not) and the places where they belong.
struct Fence {
    words: &'static [&'static str],
    homes: &'static [&'static str],
}

const FENCES: &[Fence] = &[
    // Other people's interfaces stay at the edge.
    Fence {
        words: &["qemu", "qmp"],
        homes: &[
            "crates/qemu_compat/",
            "crates/emulator/",
            "crates/images/",
            "crates/daemon/",
            "crates/hostel/",
            // libvirt's own name for a driver, a program and an error domain.
            "crates/libvirt_compat/",
            // The definitions it writes are libvirt's, and the disks are made by the image tool.
            "crates/cli/",
            // User mode is itself an applet: its name, options and environment are QEMU's.
            "crates/linux_user/",
            // What disk images, NBD exports and firmware call things by: formats, not surfaces.
            "crates/block/",
            "crates/machine/src/firmware",
            "crates/devices/src/fw_cfg",
            "tests/",
            "xtask/",
        ],
    },
    Fence {
        words: &["libvirt", "virsh"],
        homes: &[
            "crates/libvirt_compat/",
            "crates/daemon/",
            "crates/cli/",
            "crates/viewer/",
            "crates/hostel/",
            "tests/",
            "xtask/",
        ],
    },
];

/// Where the host's architecture may decide. The guest's is data, never `cfg`.
const ARCHITECTURE_HOMES: &[&str] =
    &["crates/jit/src/host/", "crates/accel/src/kvm", "crates/linux/"];

/// Codecs: bytes in, messages out. No sockets, no files, no runtime.
const CODECS: &[&str] = &["crates/libvirt_compat/", "crates/qemu_compat/", "crates/isa/"];
const INPUT_OUTPUT: &[&str] = &["std::net", "std::fs", "std::os::unix::net", "tokio::"];

pub fn check(tree: &Tree) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for source in tree.sources.iter().filter(|source| !source.is_in(&["xtask/"])) {
        for (number, line) in source.uncommented.iter().enumerate().take(source.tests_from) {
            let place = format!("{}:{}", source.path, number + 1);
            complaints.extend(words_out_of_place(source, line, &place));
            let code = &source.code[number];
            if code.contains("target_arch") && !source.is_in(ARCHITECTURE_HOMES) {
                complaints.push(format!("{place}: cfg(target_arch) outside its homes"));
            }
            let io = INPUT_OUTPUT.iter().find(|path| code.contains(*path));
            if let Some(path) = io.filter(|_| source.is_in(CODECS) && is_product(source)) {
                complaints.push(format!("{place}: '{path}' in a codec"));
            }
        }
    }
    Ok(complaints)
}

fn words_out_of_place(source: &Source, line: &str, place: &str) -> Vec<String> {
    let lower = line.to_lowercase();
    let strayed = FENCES.iter().filter(|fence| !source.is_in(fence.homes));
    strayed
        .flat_map(|fence| fence.words)
        .filter(|word| lower.contains(*word))
        .map(|word| format!("{place}: '{word}' belongs at the edge"))
        .collect()
}

fn is_product(source: &Source) -> bool {
    !source.path.contains("/tests/") && !source.path.contains("/benches/")
}
