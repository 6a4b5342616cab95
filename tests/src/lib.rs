//! What tests need: the executable under test, the assets that `cargo xtask fetch` brought, and a
//! way to skip that is reported by name and reason and is never counted as passed.

pub mod initramfs;

use std::fs;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, thread};

/// The workspace's root folder.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("tests/ lies in the workspace").to_path_buf()
}

/// The `hostel` executable under test: `HOSTEL_BIN`, or the one beside this test's own program.
pub fn hostel() -> Command {
    Command::new(hostel_path())
}

/// The path behind [`hostel`].
pub fn hostel_path() -> PathBuf {
    if let Some(path) = env::var_os("HOSTEL_BIN") {
        return PathBuf::from(path);
    }
    let own = env::current_exe().expect("a running program has a path");
    let profile = own.ancestors().nth(2).expect("a test lies in target/PROFILE/deps");
    let path = profile.join("hostel");
    assert!(path.exists(), "{} is missing: build it with 'cargo build'", path.display());
    path
}

/// A file or folder of a fetched asset, as `cargo xtask fetch ASSET` laid it out
/// under `target/assets` (or `HOSTEL_ASSETS`).
///
/// `None` when it was not fetched; the caller then skips with [`skip!`].
pub fn asset(relative: &str) -> Option<PathBuf> {
    let assets = env::var_os("HOSTEL_ASSETS").map(PathBuf::from);
    let path = assets.unwrap_or_else(|| workspace().join("target/assets")).join(relative);
    path.exists().then_some(path)
}

/// The one file in a folder of an asset whose name starts like this: packages put versions there.
pub fn asset_file(folder: &str, start: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(asset(folder)?).ok()?.filter_map(Result::ok);
    let found = entries.find(|entry| entry.file_name().to_string_lossy().starts_with(start))?;
    Some(found.path())
}

/// A fresh folder for one test's files, below the target folder.
pub fn scratch(name: &str) -> PathBuf {
    let folder = workspace().join("target/scratch").join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

/// A program on this machine's `PATH`.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Notes that the running test was skipped. Use [`skip!`], which also returns.
pub fn note_skip(reason: &str) {
    let current = thread::current();
    let name = current.name().unwrap_or("(a test without a name)");
    eprintln!("SKIPPED {name}: {reason}");
    let Some(log) = env::var_os("HOSTEL_SKIP_LOG") else { return };
    let line = format!("{name}\t{reason}\n");
    let written = OpenOptions::new().create(true).append(true).open(&log);
    written
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the skip log can be written, or a skip would count as passed");
}

/// Leaves the test and reports it as skipped, with the reason.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::note_skip(&format!($($reason)*));
        return;
    }};
}
