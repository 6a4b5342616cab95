//! `cargo xtask try`: one command from a clone to a shell in a machine on the translator.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{fetch, workspace};

const KERNEL: &str = "kernel-12";
const BUSYBOX: &str = "busybox-amd64";

const INIT: &str = "\
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ PS1='hostel:\\w# '
echo
echo 'A Debian kernel on our own translator. poweroff -f (or Ctrl-A x) ends it.'
/bin/busybox setsid /bin/busybox cttyhack /bin/busybox sh
/bin/busybox poweroff -f";

/// Runs the task. Further arguments go to the emulator, `-smp 4` for example.
pub fn run(arguments: &[String]) -> Result<()> {
    fetch::run(&[KERNEL, BUSYBOX].map(str::to_owned))?;
    let missing = "was not fetched: is there a Debian mirror, and apt?";
    let busybox =
        tests::asset("busybox-amd64/bin/busybox").context(format!("busybox {missing}"))?;
    let kernel = tests::asset_file(&format!("{KERNEL}/boot"), "vmlinuz");
    let kernel = kernel.context(format!("the kernel {missing}"))?;
    let root = workspace::root();
    println!("try: building the release executable");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = ["build", "--release", "--quiet", "--package", "hostel"];
    let status = Command::new(cargo).args(build).current_dir(&root).status()?;
    ensure!(status.success(), "cargo build ended with {status}");
    let folder = root.join("target/try");
    fs::create_dir_all(&folder)?;
    let initrd = folder.join("initrd");
    tests::initramfs::write(&initrd, &busybox, INIT).context("Cannot write the RAM disk")?;
    let status = Command::new(root.join("target/release/hostel"))
        .args(["qemu-system-x86_64", "-nographic", "-no-reboot", "-m", "512", "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet loglevel=1"])
        .args(arguments)
        .status()
        .context("Cannot start the emulator")?;
    ensure!(status.success(), "the emulator ended with {status}");
    Ok(())
}
