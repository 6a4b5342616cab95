//! Links the executable statically: it starts faster, and as an interpreter of foreign programs it
//! works in roots that have no libraries of this machine.
//!
//! Cargo knows static linking for whole builds only, in which procedural macros cannot be built.
//! So the linker is given other things to find where it would find the shared system libraries.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The system libraries that Rust's own ask for, and the archives that do their work.
const LIBRARIES: [(&str, &[&str]); 7] = [
    ("c", &["libc.a"]),
    ("dl", &["libdl.a"]),
    ("gcc_s", &["libgcc_eh.a", "libgcc.a", "libc.a"]),
    ("m", &["libm.a"]),
    ("pthread", &["libpthread.a"]),
    ("rt", &["librt.a"]),
    ("util", &["libutil.a"]),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("OS") != "linux" || target("ENV") != "gnu" {
        return; // another C library has ways of its own
    }
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    for (name, archives) in LIBRARIES {
        let Some(paths) = archives.iter().map(|name| find(name)).collect::<Option<Vec<_>>>() else {
            println!(
                "cargo::warning=no static C library here: the executable needs the shared ones"
            );
            return;
        };
        let script = format!("GROUP ( {} )\n", paths.join(" "));
        fs::write(folder.join(format!("lib{name}.so")), script).expect("the folder is ours");
    }
    for argument in ["-static-pie".to_owned(), format!("-L{}", folder.display())] {
        println!("cargo::rustc-link-arg-bin=hostel={argument}");
    }
}

/// Where the compiler finds this file.
fn find(name: &str) -> Option<String> {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(compiler).arg(format!("-print-file-name={name}")).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Path::new(&path).is_absolute().then_some(path)
}
