//! Source packages: test suites of the tools that we replace, which are run from their source.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::MANIFEST;
use super::apt::Apt;

/// One source package, of which some folders are kept.
pub struct Source {
    /// The folder below `target/assets`.
    pub name: &'static str,
    pub suite: &'static str,
    pub package: &'static str,
    pub folders: &'static [&'static str],
}

pub const SOURCES: &[Source] = &[
    Source {
        name: "qemu-iotests",
        suite: "trixie",
        package: "qemu",
        // The tests, the Python package they speak QMP with, and what some of them start.
        folders: &["tests/qemu-iotests", "python", "scripts"],
    },
    Source {
        name: "virt-manager",
        suite: "trixie",
        package: "virt-manager",
        // The tests, the library that they test, and what they look into.
        folders: &[
            "tests",
            "virtinst",
            "virtManager",
            "ui",
            "data",
            "man",
            "po",
            "README.md",
            "virt-install",
        ],
    },
];

impl Source {
    /// What the asset is made from, as the manifest's first line.
    fn recipe(&self) -> String {
        format!("{} source: {} {}\n", self.suite, self.package, self.folders.join(" "))
    }

    /// Downloads and unpacks it, unless it is there.
    pub fn fetch(&self, cache: &Path) -> Result<()> {
        let folder = cache.join(self.name);
        let manifest = folder.join(MANIFEST);
        if fs::read_to_string(&manifest).is_ok_and(|text| text.starts_with(&self.recipe())) {
            return Ok(());
        }
        println!("fetch: {} (source package {}, {})", self.name, self.package, self.suite);
        let apt = Apt::new(&cache.join("apt"), self.suite, "amd64")?;
        let description = apt.download_source(self.package)?;
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let whole = cache.join(format!("{}.unpacked", self.name));
        if whole.exists() {
            fs::remove_dir_all(&whole)?;
        }
        let output = Command::new("dpkg-source")
            .args(["--no-check", "--extract"]) // apt has checked it against the archive's index
            .args([&description, &whole])
            .output()
            .context("Cannot run dpkg-source")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "dpkg-source: {}", errors.trim());
        for kept in self.folders {
            let target = folder.join(kept);
            let parent = target.parent().context("a kept folder has a parent")?;
            fs::create_dir_all(parent)?;
            fs::rename(whole.join(kept), &target)
                .with_context(|| format!("{} has no {kept}", self.package))?;
        }
        fs::remove_dir_all(&whole)?;
        let file = description.file_name().unwrap_or_default().to_string_lossy();
        fs::write(manifest, format!("{}{file}\n", self.recipe()))?;
        println!("fetch: {} is ready", self.name);
        Ok(())
    }
}
