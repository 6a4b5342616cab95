//! apt with a configuration, an index and a cache of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The archive's keyring on a Debian machine. Without it nothing is trusted.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt for one suite and architecture.
pub struct Apt {
    configuration: PathBuf,
    archives: PathBuf,
}

impl Apt {
    /// Whether this machine has apt and dpkg at all.
    pub fn is_installed() -> bool {
        let answers = |program: &str| {
            Command::new(program)
                .arg("--version")
                .output()
                .is_ok_and(|output| output.status.success())
        };
        answers("apt-get") && answers("dpkg-deb")
    }

    /// Makes the configuration below `cache` and brings the suite's index up to date.
    pub fn new(cache: &Path, suite: &str, architecture: &str) -> Result<Self> {
        let home = cache.join(format!("{suite}-{architecture}"));
        let archives = home.join("cache/archives");
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(home.join(folder))?;
        }
        fs::write(home.join("status"), "")?;
        ensure!(Path::new(KEYRING).exists(), "The archive's keyring {KEYRING} is not installed");
        let mirror = mirror()?;
        fs::write(
            home.join("sources.list"),
            format!(
                "deb [signed-by={KEYRING}] {mirror} {suite} main\n\
                 deb-src [signed-by={KEYRING}] {mirror} {suite} main\n"
            ),
        )?;
        let configuration = home.join("apt.conf");
        let home = home.display();
        let text = format!(
            "Dir::Etc::SourceList \"{home}/sources.list\";\n\
             Dir::Etc::SourceParts \"/dev/null\";\n\
             Dir::Etc::Parts \"/dev/null\";\n\
             Dir::State \"{home}/state\";\n\
             Dir::State::status \"{home}/status\";\n\
             Dir::Cache \"{home}/cache\";\n\
             APT::Architecture \"{architecture}\";\n\
             APT::Architectures {{ \"{architecture}\"; }};\n\
             APT::Install-Recommends \"false\";\n\
             APT::Sandbox::User \"\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::Retries \"3\";\n"
        );
        fs::write(&configuration, text)?;
        let apt = Self { configuration, archives };
        apt.run("apt-get", &["--quiet=2", "update"])?;
        Ok(apt)
    }

    /// Downloads the packages and all they depend on.
    pub fn download_closure(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let (without, packages): (Vec<&str>, Vec<&str>) =
            packages.iter().copied().partition(|name| name.starts_with('-'));
        let names = self.resolve(&packages)?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if !without.is_empty() {
            return self.download_without(&names, &without);
        }
        let install = [&["--quiet=2", "--yes", "--download-only", "install"], &*names].concat();
        self.run("apt-get", &install)?;
        let plan = [&["--yes", "--print-uris", "--no-download", "install"], &*names].concat();
        // With every archive in the cache the plan is empty, so what is there is what was planned.
        _ = self.run("apt-get", &plan)?;
        let simulated = [&["--yes", "--simulate", "install"], &*names].concat();
        let simulated = self.run("apt-get", &simulated)?;
        let installed = simulated.lines().filter_map(|line| line.strip_prefix("Inst "));
        installed.map(|line| self.archive(line)).collect()
    }

    /// The same but for packages that are named with a `-` before them.
    fn download_without(&self, names: &[&str], without: &[&str]) -> Result<Vec<PathBuf>> {
        let simulated = [&["--yes", "--simulate", "install"], names].concat();
        let simulated = self.run("apt-get", &simulated)?;
        let lines: Vec<&str> = simulated
            .lines()
            .filter_map(|line| line.strip_prefix("Inst "))
            .filter(|line| {
                let name = line.split(' ').next().unwrap_or_default();
                !without.iter().any(|other| other[1..] == *name)
            })
            .collect();
        let names = lines.iter().filter_map(|line| line.split(' ').next());
        let status = Command::new("apt-get")
            .args(["--quiet=2", "download"])
            .args(names)
            .env("APT_CONFIG", &self.configuration)
            .current_dir(&self.archives)
            .status()?;
        ensure!(status.success(), "apt-get download ended with {status}");
        lines.into_iter().map(|line| self.archive(line)).collect()
    }

    /// The downloaded archive behind `NAME (VERSION SUITE [ARCHITECTURE])`.
    fn archive(&self, line: &str) -> Result<PathBuf> {
        let mut words = line.split_whitespace();
        let name = words.next().context("apt plans a package without a name")?;
        let version = words.next().unwrap_or_default().trim_start_matches('(').replace(':', "%3a");
        let start = format!("{name}_{version}_");
        for entry in fs::read_dir(&self.archives)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&start) {
                return Ok(entry.path());
            }
        }
        bail!("apt did not download {name}")
    }

    /// Downloads just these packages.
    pub fn download_each(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let mut archives = Vec::new();
        for name in self.resolve(packages)? {
            let shown = self.run("apt-cache", &["show", "--no-all-versions", &name])?;
            let field = |field: &str| {
                let value = shown.lines().find_map(|line| line.strip_prefix(field));
                value.map(|value| value.trim().to_owned()).context("apt-cache shows no such field")
            };
            let (package, version) = (field("Package:")?, field("Version:")?);
            let status = Command::new("apt-get")
                .args(["--quiet=2", "download", &name])
                .env("APT_CONFIG", &self.configuration)
                .current_dir(&self.archives)
                .status()?;
            ensure!(status.success(), "apt-get download {name} ended with {status}");
            archives.push(self.archive(&format!("{package} {version}"))?);
        }
        Ok(archives)
    }

    /// Downloads a source package. Answers its description, beside which the rest of it lies.
    pub fn download_source(&self, package: &str) -> Result<PathBuf> {
        let status = Command::new("apt-get")
            .args(["--quiet=2", "--download-only", "source", package])
            .env("APT_CONFIG", &self.configuration)
            .current_dir(&self.archives)
            .status()
            .context("Cannot start apt-get")?;
        ensure!(status.success(), "apt-get source {package} ended with {status}");
        let start = format!("{package}_");
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.archives)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(&start) && name.ends_with(".dsc") {
                found.push(name);
            }
        }
        let newest = found.into_iter().max_by_key(|name| numbers(name));
        let newest = newest.with_context(|| format!("apt did not download {package}"))?;
        Ok(self.archives.join(newest))
    }

    /// Replaces a pattern `NAME*END` by the newest package that matches it.
    fn resolve(&self, packages: &[&str]) -> Result<Vec<String>> {
        packages
            .iter()
            .map(|package| {
                let Some((start, end)) = package.split_once('*') else {
                    return Ok((*package).to_owned());
                };
                let names = self.run("apt-cache", &["pkgnames", start])?;
                let matching = names.lines().filter(|name| {
                    let middle = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
                    // No letters: `-cloud-` is another flavour, not another version.
                    middle.is_some_and(|middle| {
                        middle.starts_with(|c: char| c.is_ascii_digit())
                            && !middle.contains(|c: char| c.is_ascii_alphabetic())
                    })
                });
                let newest = matching.max_by_key(|name| numbers(name));
                newest.map(str::to_owned).with_context(|| format!("No package matches {package}"))
            })
            .collect()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = Command::new(program)
            .args(arguments)
            .env("APT_CONFIG", &self.configuration)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
            .with_context(|| format!("Cannot start {program}"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), errors.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The numbers in a name, so that version 10 comes after version 9.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// The mirror that the machine's own apt uses for Debian.
fn mirror() -> Result<String> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(SITE) $(ORIGIN) $(LABEL)", "Created-By: Packages"])
        .output()
        .context("Cannot start apt-get")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let site = text.lines().find_map(|line| line.strip_suffix(" Debian Debian"));
    site.map(str::to_owned).context("The machine's apt knows no Debian mirror")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_name_is_by_number() {
        let names = ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-40-cloud-amd64"];
        assert_eq!(names.into_iter().max_by_key(|name| numbers(name)), Some(names[1]));
    }
}
