//! Real systems, from Debian's packages, to their first screen or prompt.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tests::initramfs::{self, LINK, PLAIN};

use crate::monitor::Machine;

/// Generous for an unoptimised build on a busy machine; a hang is what it is for.
const PATIENCE: Duration = Duration::from_secs(200);

/// Waits until `done` gives something.
fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = done() {
            return result;
        }
        assert!(Instant::now() < until, "no {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Where firmware of the reference's packages is.
fn firmware() -> Option<[String; 2]> {
    let share = tests::asset("qemu-system-10/usr/share")?;
    Some(["seabios", "qemu"].map(|name| share.join(name).display().to_string()))
}

/// The letters of VGA's text screen.
fn letters(machine: &mut Machine) -> String {
    let line = json!({"command-line": "xp /4000xb 0xb8000"});
    let answer = machine.good("human-monitor-command", line);
    let bytes = answer.as_str().unwrap().lines().filter_map(|line| line.split_once(": "));
    let bytes = bytes.flat_map(|(_, bytes)| bytes.split_whitespace());
    let bytes = bytes.map(|byte| u8::from_str_radix(byte.trim_start_matches("0x"), 16).unwrap());
    bytes
        .step_by(2)
        .map(|byte| if byte.is_ascii_graphic() { char::from(byte) } else { ' ' })
        .collect()
}

#[test]
fn memtest_comes_to_its_first_screen() {
    let (Some(image), Some([seabios, roms])) =
        (tests::asset("memtest-12/boot/memtest86+x64.bin"), firmware())
    else {
        tests::skip!("memtest86+ or the firmware was not fetched");
    };
    let image = image.display().to_string();
    let options = [
        "-M",
        "q35",
        "-m",
        "128",
        "-device",
        "VGA",
        "-L",
        &seabios,
        "-L",
        &roms,
        "-bios",
        "bios-256k.bin",
        "-kernel",
        &image,
    ];
    let mut machine = Machine::start("memtest", &options);
    wait_for("pass", || {
        let screen = letters(&mut machine);
        (screen.contains("Memtest86+ v") && screen.contains("Pass")).then_some(())
    });
}

/// The colours of a screen and how many of a thousand pixels have them.
fn colours(machine: &mut Machine, path: &Path) -> Vec<([u8; 3], usize)> {
    machine.good("screendump", json!({"filename": path.display().to_string()}));
    let bytes = fs::read(path).unwrap();
    let header = bytes.split(|byte| *byte == b'\n').take(3).map(|line| line.len() + 1).sum();
    let pixels = &bytes[header..].as_chunks::<3>().0;
    let mut colours = std::collections::BTreeMap::<[u8; 3], usize>::new();
    for pixel in *pixels {
        *colours.entry(*pixel).or_default() += 1;
    }
    colours.iter().map(|(colour, count)| (*colour, count * 1000 / pixels.len())).collect()
}

#[test]
fn the_installer_shows_its_first_screen() {
    const PLACE: &str = "installer-12/usr/lib/debian-installer/images/12/amd64/text/\
        debian-installer/amd64";
    // Half a minute of a whole processor.
    if std::env::var("HOSTEL_SYSTEMS").is_err() {
        tests::skip!("HOSTEL_SYSTEMS=all runs the systems that take long");
    }
    let Some(images) = tests::asset(PLACE) else {
        tests::skip!("the installer was not fetched");
    };
    let file = |name: &str| images.join(name).display().to_string();
    let (kernel, initrd) = (file("linux"), file("initrd.gz"));
    let options = [
        "-M", "q35", "-m", "1024", "-device", "VGA", "-kernel", &kernel, "-initrd", &initrd,
        "-append", "quiet",
    ];
    let mut machine = Machine::start("installer", &options);
    let folder = tests::scratch("installer");
    // A grey window on blue, with a red button.
    wait_for("window", || {
        let colours = colours(&mut machine, &folder.join("screen"));
        let share = |wanted: [u8; 3]| {
            colours.iter().find(|(colour, _)| *colour == wanted).map_or(0, |(_, share)| *share)
        };
        let (blue, grey) = (share([0, 0, 0xaa]), share([0xaa; 3]));
        let has_red = colours.iter().any(|(colour, _)| *colour == [0xaa, 0, 0]);
        (blue > 100 && grey > 100 && has_red).then_some(())
    });
    fs::remove_dir_all(folder).unwrap();
}

/// What makes a root of unpacked packages, whose scripts did not run, one that can be logged into.
const SYSTEM: [(&str, u32, &[u8]); 7] = [
    ("etc/passwd", PLAIN, b"root::0:0:root:/root:/bin/bash\n"),
    ("etc/group", PLAIN, b"root:x:0:\ntty:x:5:\ndisk:x:6:\nutmp:x:43:\n"),
    ("etc/shadow", PLAIN, b"root::19000:0:99999:7:::\n"),
    ("etc/fstab", PLAIN, b""),
    ("etc/hostname", PLAIN, b"guest\n"),
    ("etc/machine-id", PLAIN, b"0123456789abcdef0123456789abcdef\n"),
    ("init", LINK, b"usr/lib/systemd/systemd"),
];

#[test]
fn systemd_comes_to_a_login_prompt() {
    let (Some(root), Some(kernel)) =
        (tests::asset("systemd-12"), tests::asset_file("kernel-12/boot", "vmlinuz"))
    else {
        tests::skip!("systemd or the kernel was not fetched");
    };
    let folder = tests::scratch("systemd");
    let (initrd, socket) = (folder.join("initrd"), folder.join("s"));
    let without =
        ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "manifest"];
    initramfs::write_root(&initrd, &root, &without, &SYSTEM).unwrap();
    let text = |path: &PathBuf| path.display().to_string();
    let serial = format!("unix:{},server=on,wait=off", text(&socket));
    let options = [
        "-S",
        "-M",
        "q35",
        "-m",
        "1024",
        "-smp",
        "2",
        "-serial",
        &serial,
        "-kernel",
        &text(&kernel),
        "-initrd",
        &text(&initrd),
        "-append",
        "console=ttyS0 quiet panic=-1",
        "-no-reboot",
    ];
    let mut machine = Machine::start("systemd", &options);
    let mut line = UnixStream::connect(&socket).unwrap();
    line.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    machine.good("cont", json!({}));
    let mut said = String::new();
    let mut wait = |wanted: &str| {
        let until = Instant::now() + PATIENCE;
        let mut bytes = [0; 4096];
        while !said.contains(wanted) {
            assert!(Instant::now() < until, "no '{wanted}' in {said}");
            match line.read(&mut bytes) {
                Ok(0) => panic!("it ends with {said}"),
                Ok(count) => said.push_str(&String::from_utf8_lossy(&bytes[..count])),
                Err(_) => {} // nothing is said for a while
            }
        }
    };
    wait("Debian GNU/Linux 12");
    wait("guest login: ");
    drop(machine);
    fs::remove_dir_all(folder).unwrap();
}

/// A variable of ours, with the attributes that make it last.
const VARIABLE: &str = "/sys/firmware/efi/efivars/Hostel-12345678-1234-1234-1234-123456789abc";

#[test]
fn uefi_starts_four_processors_and_keeps_variables() {
    let (Some(code), Some(variables), Some([_, roms])) = (
        tests::asset("qemu-system-10/usr/share/OVMF/OVMF_CODE_4M.fd"),
        tests::asset("qemu-system-10/usr/share/OVMF/OVMF_VARS_4M.fd"),
        firmware(),
    ) else {
        tests::skip!("OVMF was not fetched");
    };
    let (Some(busybox), Some(kernel), Some(modules)) = (
        tests::asset("busybox-amd64/bin/busybox"),
        tests::asset_file("kernel-12/boot", "vmlinuz"),
        tests::asset_file("kernel-12/lib/modules", "6"),
    ) else {
        tests::skip!("the kernel or busybox was not fetched");
    };
    let folder = tests::scratch("uefi");
    let store = folder.join("variables");
    fs::copy(variables, &store).unwrap();
    let run = |script: &str, wanted: &str| {
        let script = format!(
            "/bin/busybox mount -t proc proc /proc\n/bin/busybox mount -t sysfs sysfs /sys\n\
             /bin/busybox insmod /efivarfs.ko\n\
             /bin/busybox mount -t efivarfs none /sys/firmware/efi/efivars\n{script}\n\
             exec /bin/busybox sleep 1000"
        );
        let (initrd, console) = (folder.join("initrd"), folder.join("console"));
        let module = modules.join("kernel/fs/efivarfs/efivarfs.ko");
        initramfs::write_with(&initrd, &busybox, &script, &[module]).unwrap();
        _ = fs::remove_file(&console);
        let flash =
            |path: &Path, more: &str| format!("if=pflash,format=raw,file={}{more}", path.display());
        let text = |path: &Path| path.display().to_string();
        let options = [
            "-M",
            "q35",
            "-m",
            "256",
            "-smp",
            "4",
            "-L",
            &roms,
            "-drive",
            &flash(&code, ",readonly=on"),
            "-drive",
            &flash(&store, ""),
            "-serial",
            &format!("file:{}", text(&console)),
            "-kernel",
            &text(&kernel),
            "-initrd",
            &text(&initrd),
            "-append",
            "console=ttyS0 quiet",
        ];
        let machine = Machine::start("uefi", &options);
        let said = || String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
        wait_for(wanted, || said().contains(wanted).then_some(()));
        drop(machine);
    };
    let write = format!(
        "printf '\\007\\000\\000\\000kept' > {VARIABLE}; echo WROTE $? ON $(/bin/busybox nproc)"
    );
    run(&write, "WROTE 0 ON 4");
    run(&format!("echo READ $(/bin/busybox tail -c 4 {VARIABLE})"), "READ kept");
    fs::remove_dir_all(folder).unwrap();
}
