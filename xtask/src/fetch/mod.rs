//! `cargo xtask fetch`: what the tests need from Debian's archive, unpacked without root.
//!
//! An asset is a folder `target/assets/NAME` that holds unpacked packages. apt finds and downloads
//! them through a configuration of its own, checks them against the archive's signed index, and
//! the machine's own package database is neither read nor changed. The mirror is the one that the
//! machine's apt uses.

mod apt;
mod assets;
mod python;
mod sources;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace;
use apt::Apt;
use assets::{ASSETS, Asset};
use python::PYTHON_PROGRAMS;
use sources::{SOURCES, Source};

/// Stands in a finished asset's folder and lists what it was made from.
const MANIFEST: &str = "manifest";

/// Runs the task: the named assets, or all that are marked as needed by tests.
pub fn run(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|word| word == "--list") {
        for Asset { name, suite, architecture, packages, .. } in ASSETS {
            println!("{name:<20} {suite} {architecture}: {}", packages.join(" "));
        }
        for Source { name, suite, package, .. } in SOURCES {
            println!("{name:<20} {suite} source: {package}");
        }
        for program in PYTHON_PROGRAMS {
            println!("{:<20} pip: {}", program.name, program.requirement);
        }
        return Ok(());
    }
    for word in arguments {
        let known = ASSETS.iter().any(|asset| asset.name == word)
            || SOURCES.iter().any(|source| source.name == word)
            || PYTHON_PROGRAMS.iter().any(|program| program.name == word);
        ensure!(known, "There is no asset '{word}'; 'cargo xtask fetch --list' shows them");
    }
    let chosen = |name: &str| arguments.is_empty() || arguments.iter().any(|word| word == name);
    let cache = workspace::root().join("target/assets");
    for program in PYTHON_PROGRAMS.iter().filter(|program| chosen(program.name)) {
        if let Err(error) = program.fetch(&cache) {
            println!("fetch: {} is not to be had, its tests skip: {error:#}", program.name);
        }
    }
    if !Apt::is_installed() {
        println!("fetch: no apt-get on this machine, so tests that need Debian packages skip");
        return Ok(());
    }
    for asset in ASSETS.iter().filter(|asset| chosen(asset.name)) {
        // One asset that cannot be had must not keep the other tests from running.
        if let Err(error) = fetch(asset, &cache) {
            println!("fetch: {} is not to be had, its tests skip: {error:#}", asset.name);
        }
    }
    for source in SOURCES.iter().filter(|source| chosen(source.name)) {
        if let Err(error) = source.fetch(&cache) {
            println!("fetch: {} is not to be had, its tests skip: {error:#}", source.name);
        }
    }
    Ok(())
}

fn fetch(asset: &Asset, cache: &Path) -> Result<()> {
    let folder = cache.join(asset.name);
    let wanted = asset.recipe();
    let manifest = folder.join(MANIFEST);
    if fs::read_to_string(&manifest).is_ok_and(|text| text.starts_with(&wanted)) {
        return Ok(());
    }
    println!("fetch: {} ({} {})", asset.name, asset.suite, asset.architecture);
    let apt = Apt::new(&cache.join("apt"), asset.suite, asset.architecture)?;
    let packages = if asset.closure {
        apt.download_closure(asset.packages)?
    } else {
        apt.download_each(asset.packages)?
    };
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let mut text = wanted;
    for package in &packages {
        unpack(package, &folder)?;
        text += &checksum(package)?;
    }
    fs::write(manifest, text).context("Cannot write the manifest")?;
    for (program, options) in asset.programs {
        offer(asset, &folder, cache, program, options)?;
    }
    println!("fetch: {} is ready, {} packages", asset.name, packages.len());
    Ok(())
}

/// The archive's SHA-256 and name: which very packages the asset was made from. That they are what
/// the archive signed, apt has checked.
fn checksum(package: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(package).output().context("Cannot run sha256sum")?;
    ensure!(output.status.success(), "sha256sum cannot read {}", package.display());
    let line = String::from_utf8_lossy(&output.stdout);
    let sum = line.split_whitespace().next().context("sha256sum printed nothing")?;
    let name = package.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("{sum}  {name}\n"))
}

/// A script in `target/assets/bin` that runs a program of the asset: one with its libraries through
/// its own loader, so that the machine's libraries do not matter.
fn offer(asset: &Asset, folder: &Path, cache: &Path, program: &str, options: &str) -> Result<()> {
    let root = folder.display().to_string();
    let loader = format!(
        "{root}/usr/lib64/ld-linux-x86-64.so.2 --library-path \
         {root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu "
    );
    let loader = if asset.closure { loader.as_str() } else { "" };
    let options = options.replace("{root}", &root);
    let bin = cache.join("bin");
    fs::create_dir_all(&bin)?;
    let script = bin.join(program);
    let line = format!("#!/bin/sh\nexec {loader}{root}/usr/bin/{program} {options} \"$@\"\n");
    fs::write(&script, line).context("Cannot write a script into target/assets/bin")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn unpack(package: &Path, folder: &Path) -> Result<()> {
    let status = Command::new("dpkg-deb").arg("--extract").arg(package).arg(folder).status()?;
    ensure!(status.success(), "dpkg-deb cannot unpack {}", package.display());
    Ok(())
}
