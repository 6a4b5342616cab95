//! Builds the agent as a static program, to be put into guests.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let home = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let agent = home.join("../agent");
    println!("cargo::rerun-if-changed={}", agent.join("src").display());
    println!("cargo::rerun-if-changed={}", agent.join("Cargo.toml").display());
    // A folder that outlives changes of this crate's own fingerprint.
    let target_dir = shared_folder(&out).join("guest-agent");
    let triple = "x86_64-unknown-linux-gnu";
    let status = Command::new(env::var_os("CARGO").expect("cargo sets it"))
        .current_dir(&agent)
        .args(["build", "--quiet", "--release", "--package", "agent", "--bin", "hostel-agent"])
        .args(["--target", triple, "--target-dir"])
        .arg(&target_dir)
        // What this build was started with is not for the guest.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_LTO", "true")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_STRIP", "true")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .status()
        .expect("cargo can be started");
    assert!(status.success(), "the guest agent cannot be built");
    let built = target_dir.join(triple).join("release/hostel-agent");
    println!("cargo::rustc-env=HOSTEL_AGENT={}", built.display());
}

/// The build folder that holds `build/guests-HASH/out`.
fn shared_folder(out: &Path) -> PathBuf {
    out.ancestors().nth(3).unwrap_or(out).to_owned()
}
