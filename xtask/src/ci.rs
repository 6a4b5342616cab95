//! `cargo xtask ci`: the stages, in order. It is the README's test command and all that CI runs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::claims::{CLAIMS, Claim};
use crate::{fetch, tidy, workspace};

/// A stage's name and what it runs.
type Stage = (&'static str, fn(&mut Tally) -> Result<()>);

const STAGES: &[Stage] = &[
    ("fetch", |_| fetch::run(&[])),
    ("packages", packages),
    ("tidy", |_| tidy::run(&[])),
    ("fmt", |tally| component(tally, "fmt", &["fmt", "--all", "--check"])),
    ("clippy", |tally| {
        let lint = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
        component(tally, "clippy", &lint)
    }),
    ("build", |_| cargo(&["build", "--workspace", "--bins", "--quiet"])),
    ("test", test),
];

/// What the tests came to.
#[derive(Default)]
struct Tally {
    /// Every test's outcome by name. Crates may share a name, so the worst one counts.
    outcomes: BTreeMap<String, Outcome>,
    passed: usize,
    failed: usize,
    /// Name and reason.
    skipped: Vec<(String, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Passed,
    Skipped,
    Failed,
}

/// Runs the task: all stages, or those named.
pub fn run(arguments: &[String]) -> Result<()> {
    for word in arguments {
        let names: Vec<_> = STAGES.iter().map(|(name, _)| *name).collect();
        ensure!(names.contains(&word.as_str()), "No stage '{word}' among {}", names.join(", "));
    }
    let chosen = |name: &str| arguments.is_empty() || arguments.iter().any(|word| word == name);
    let mut tally = Tally::default();
    let mut broken = Vec::new();
    for (name, stage) in STAGES.iter().filter(|(name, _)| chosen(name)) {
        println!("== {name}");
        let start = Instant::now();
        if let Err(error) = stage(&mut tally) {
            println!("{name}: {error:#}");
            broken.push(*name);
        }
        println!("== {name} took {:.0} s", start.elapsed().as_secs_f64());
    }
    if chosen("test") && !broken.contains(&"test") {
        broken.extend(unproven(&tally).then_some("claims"));
    }
    for (name, reason) in &tally.skipped {
        println!("skipped {name}: {reason}");
    }
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped.len());
    ensure!(broken.is_empty(), "failed: {}", broken.join(", "));
    Ok(())
}

/// Services and compilers that tests use as peers, and that must be installed to work.
const PACKAGES: &[&str] = &[
    "gcc-aarch64-linux-gnu",
    "gcc-i686-linux-gnu",
    "gcc-riscv64-linux-gnu",
    "gdb-multiarch",
    "libc6-dev-arm64-cross",
    "libc6-dev-i386-cross",
    "libc6-dev-riscv64-cross",
    "libvirt-clients",
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt-daemon-system",
    "python3-libvirt",
    "virtinst",
];

/// Installs what is missing, where that is possible; the tests that need the rest skip.
fn packages(_: &mut Tally) -> Result<()> {
    let is_installed = |package: &&&str| {
        let query = ["--show", "--showformat=${Status}", **package];
        let output = Command::new("dpkg-query").args(query).output();
        output.is_ok_and(|output| output.stdout.ends_with(b"ok installed"))
    };
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|package| !is_installed(package)).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let user = Command::new("id").arg("-u").output();
    let root = user.is_ok_and(|output| output.stdout == b"0\n");
    println!("packages: {} are missing", missing.join(", "));
    if !root {
        println!("packages: only root can install them, so their tests skip");
        return Ok(());
    }
    let apt = |arguments: &[&str]| {
        let status = Command::new("apt-get")
            .args(["--quiet=2", "--yes", "--no-install-recommends"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status();
        status.is_ok_and(|status| status.success())
    };
    if !apt(&["update"]) || !apt(&[&["install"], &*missing].concat()) {
        println!("packages: apt cannot install them here, so their tests skip");
    }
    Ok(())
}

/// The fetched peers come after the machine's own.
fn search_path(root: &Path) -> OsString {
    let own = env::var_os("PATH").unwrap_or_default();
    let fetched = root.join("target/assets/bin");
    env::join_paths(env::split_paths(&own).chain([fetched])).unwrap_or(own)
}

fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let status =
        Command::new(cargo_program()).args(arguments).current_dir(workspace::root()).status()?;
    ensure!(status.success(), "cargo {} ended with {status}", arguments.join(" "));
    Ok(())
}

/// A stage on a part of the toolchain that a minimal installation lacks.
fn component(tally: &mut Tally, name: &str, arguments: &[&str]) -> Result<()> {
    let probe = Command::new(cargo_program()).args([name, "--version"]).output()?;
    if !probe.status.success() {
        let reason = format!("the toolchain lacks it, 'rustup component add {name}' brings it");
        tally.skipped.push((format!("stage {name}"), reason));
        return Ok(());
    }
    cargo(arguments)
}

/// All tests of the workspace: beside the code, goldens, differential, short fuzzing, black box.
fn test(tally: &mut Tally) -> Result<()> {
    let root = workspace::root();
    let log = root.join("target/skipped-tests");
    fs::create_dir_all(root.join("target"))?;
    _ = fs::remove_file(&log);
    let mut child = Command::new(cargo_program())
        .args(["test", "--workspace", "--no-fail-fast"])
        .env("HOSTEL_SKIP_LOG", &log)
        .env("PATH", search_path(&root))
        .current_dir(&root)
        .stdout(Stdio::piped())
        .spawn()
        .context("Cannot start cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        note(tally, &line);
        if !line.trim().is_empty() && !line.ends_with("... ok") {
            println!("{line}");
        }
    }
    let status = child.wait()?;
    read_skips(tally, &log)?;
    if !status.success() {
        bail!("{} tests failed", tally.failed);
    }
    Ok(())
}

/// Takes one line of the test runner's output.
fn note(tally: &mut Tally, line: &str) {
    let Some((name, outcome)) =
        line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
    else {
        return;
    };
    let outcome = match outcome {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        ignored => {
            tally.skipped.push((name.to_owned(), ignored.to_owned()));
            return;
        }
    };
    tally.passed += usize::from(outcome == Outcome::Passed);
    tally.failed += usize::from(outcome == Outcome::Failed);
    let entry = tally.outcomes.entry(name.to_owned()).or_insert(outcome);
    *entry = outcome.max(*entry);
}

/// A skipped test returned early, so the runner called it passed: put that right.
fn read_skips(tally: &mut Tally, log: &Path) -> Result<()> {
    if !log.exists() {
        return Ok(());
    }
    for line in fs::read_to_string(log)?.lines() {
        let (name, reason) = line.split_once('\t').unwrap_or((line, "no reason given"));
        tally.passed = tally.passed.saturating_sub(1);
        tally.outcomes.insert(name.to_owned(), Outcome::Skipped);
        tally.skipped.push((name.to_owned(), reason.to_owned()));
    }
    Ok(())
}

/// Whether the README claims something that this run has disproven. Skipped proofs are only said.
fn unproven(tally: &Tally) -> bool {
    let mut disproven = false;
    for Claim { what, test } in CLAIMS {
        match tally.outcomes.get(*test) {
            Some(Outcome::Passed) => {}
            Some(Outcome::Skipped) => println!("claim not proven in this run: {what}"),
            Some(Outcome::Failed) | None => {
                println!("claim without proof: {what} ({test})");
                disproven = true;
            }
        }
    }
    disproven
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_test_is_not_counted_as_passed() {
        let folder = workspace::root().join("target/xtask-test");
        fs::create_dir_all(&folder).unwrap();
        let log = folder.join(format!("skips-{}", std::process::id()));
        fs::write(&log, "a::b\tno peer\n").unwrap();
        let mut tally = Tally::default();
        for line in ["running 3 tests", "test a::b ... ok", "test a::c ... ok", "test d ... FAILED"]
        {
            note(&mut tally, line);
        }

        read_skips(&mut tally, &log).unwrap();

        assert_eq!((tally.passed, tally.failed), (1, 1));
        assert_eq!(tally.skipped, [("a::b".to_owned(), "no peer".to_owned())]);
        assert!(tally.outcomes["a::b"] == Outcome::Skipped);
        fs::remove_file(&log).unwrap();
    }
}
