//! The translator's kernel suite: one C program, a row for each kernel and architecture.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Row;

const SOURCE: &str = include_str!("kernels.c");

/// An architecture: the compiler with its options, and what the peers must be told.
struct Architecture {
    name: &'static str,
    group: &'static str,
    compiler: &'static str,
    options: &'static [&'static str],
    peer_options: &'static str,
}

const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        name: "x86_64",
        group: "x86_64 kernels",
        compiler: "gcc",
        options: &["-msse4.2", "-maes"],
        peer_options: "-cpu max",
    },
    Architecture {
        name: "aarch64",
        group: "aarch64 kernels",
        compiler: "aarch64-linux-gnu-gcc",
        options: &["-march=armv8.2-a+crypto+crc"],
        peer_options: "",
    },
    Architecture {
        name: "riscv64",
        group: "riscv64 kernels",
        compiler: "riscv64-linux-gnu-gcc",
        options: &[],
        peer_options: "",
    },
];

/// Names of the kernels, as the program knows them.
const KERNELS: &[&str] = &[
    "calls", "indirect", "sieve", "hash", "sorting", "bytecode", "chase", "scalar", "matrix",
    "bodies", "memory", "strings", "ciphers", "bigint", "pixels", "extended",
];

/// The releases of the reference that are compared with.
const PEERS: &[(&str, &str)] = &[("7.2", "-static"), ("10", "")];

/// Compiles the program for each architecture that has a compiler.
pub fn build(folder: &Path) -> Result<()> {
    let source = folder.join("kernels.c");
    fs::write(&source, SOURCE)?;
    for architecture in ARCHITECTURES {
        let Some(compiler) = tests::program(architecture.compiler) else { continue };
        let status = Command::new(compiler)
            .args(["-O3", "-static"])
            .args(architecture.options)
            .arg("-o")
            .arg(folder.join(format!("kernels-{}", architecture.name)))
            .arg(&source)
            .arg("-lm")
            .status()
            .context("Cannot start the compiler")?;
        ensure!(status.success(), "{} does not compile the kernels", architecture.compiler);
    }
    Ok(())
}

/// The rows.
pub fn rows() -> impl Iterator<Item = Row> {
    ARCHITECTURES.iter().flat_map(|architecture| {
        KERNELS.iter().map(move |kernel| {
            let Architecture { name, group, peer_options, .. } = architecture;
            let program = format!("target/bench/kernels-{name}");
            let peer = |(release, suffix): &(&str, &str)| {
                format!("target/assets/qemu-user-{release}/usr/bin/qemu-{name}{suffix}")
            };
            let peers: Vec<String> = PEERS.iter().map(peer).collect();
            let hostel = "target/release/hostel".to_owned();
            Row {
                name: format!("{name} {kernel}"),
                group: Some(group),
                ours: format!("{hostel} qemu-{name} {program} {kernel}"),
                theirs: peers
                    .iter()
                    .map(|peer| format!("{peer} {peer_options} {program} {kernel}"))
                    .collect(),
                needs: [hostel, program].into_iter().chain(peers).collect(),
                expect: kernel,
            }
        })
    })
}
