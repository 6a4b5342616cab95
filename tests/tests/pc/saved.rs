//! A machine's state leaves the process, and goes on in another one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::monitor::{Machine, kernel};

const PATIENCE: Duration = Duration::from_secs(120);

/// Counts forever, in memory that it writes to and in an open file.
const COUNT: &str = "/bin/busybox mount -t proc proc /proc\n/bin/busybox mkdir /tmp\n\
    /bin/busybox mount -t tmpfs none /tmp\nexec 3>>/tmp/log\nn=0\n\
    while :; do n=$((n+1)); echo $n >&3; \
    echo COUNT $n OF $(/bin/busybox wc -l </tmp/log) ON $(/bin/busybox nproc); \
    /bin/busybox usleep 20000; done";

struct Rig {
    folder: PathBuf,
    kernel: String,
    initrd: String,
}

impl Rig {
    fn new(name: &str) -> Option<Self> {
        let (kernel, initrd) = kernel(name, COUNT)?;
        Some(Self { folder: tests::scratch(&format!("{name}-files")), kernel, initrd })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn image(&self, name: &str) -> PathBuf {
        let path = self.file(name);
        let made = tests::hostel()
            .args(["qemu-img", "create", "-q", "-f", "qcow2"])
            .arg(&path)
            .arg("64M")
            .status()
            .unwrap();
        assert!(made.success());
        path
    }

    /// A machine whose console is the file `name`.
    fn start(&self, name: &str, options: &[&str]) -> Machine {
        let console = format!("file:{}", self.file(name).display());
        let standard = [
            "-M",
            "q35",
            "-m",
            "256",
            "-serial",
            &console,
            "-kernel",
            &self.kernel,
            "-initrd",
            &self.initrd,
            "-append",
            "console=ttyS0 quiet",
            "-device",
            "VGA",
            "-device",
            "virtio-rng-pci",
            "-device",
            "virtio-balloon-pci",
            "-device",
            "qemu-xhci",
            "-device",
            "usb-tablet",
            "-netdev",
            "user,id=n",
            "-device",
            "virtio-net-pci,netdev=n",
        ];
        Machine::start(&format!("saved-{name}"), &[&standard[..], options].concat())
    }

    fn counts(&self, console: &str) -> Vec<(u32, u32)> {
        let text = fs::read(self.file(console)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let numbers = |line: &str| {
            let rest = line.trim().strip_prefix("COUNT ")?;
            let (count, rest) = rest.split_once(" OF ")?;
            let (lines, _) = rest.split_once(" ON ")?;
            Some((count.parse().ok()?, lines.parse().ok()?))
        };
        text.lines().filter_map(numbers).collect()
    }

    /// Waits until the guest has counted so far.
    fn wait(&self, console: &str, count: u32) {
        let until = Instant::now() + PATIENCE;
        while self.counts(console).last().is_none_or(|(last, _)| *last < count) {
            assert!(
                Instant::now() < until,
                "{}",
                String::from_utf8_lossy(&fs::read(self.file(console)).unwrap_or_default())
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What two machines have counted, one after the other, has no gap and no end.
    fn check(&self, first: &str, second: &str) {
        let (before, after) = (self.counts(first), self.counts(second));
        let (last, next) = (before.last().unwrap().0, after.first().unwrap().0);
        // The line on its way may have been cut.
        assert!((last..=last + 2).contains(&next), "{last}, then {next}");
        assert!(after.iter().all(|(count, lines)| count == lines), "{after:?}");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.folder);
    }
}

fn wait_for_migration(machine: &mut Machine) -> serde_json::Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let told = machine.good("query-migrate", json!({}));
        match told["status"].as_str() {
            Some("completed" | "failed" | "cancelled") => return told,
            _ => assert!(Instant::now() < until, "{told}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn line(machine: &mut Machine, line: &str) -> String {
    let answer = machine.good("human-monitor-command", json!({"command-line": line}));
    answer.as_str().unwrap().replace('\r', "")
}

#[test]
fn a_running_machine_moves_through_a_file_with_four_processors() {
    let Some(rig) = Rig::new("moves") else { tests::skip!("the assets are not fetched") };
    let mut first = rig.start("first", &["-smp", "4"]);
    rig.wait("first", 10);
    let capabilities = json!({"capabilities": [{"capability": "events", "state": true}]});
    first.good("migrate-set-capabilities", capabilities);
    first.good("migrate-set-parameters", json!({"max-bandwidth": 0}));
    let state = rig.file("state");
    first.good("migrate", json!({"uri": format!("file:{}", state.display())}));
    let told = wait_for_migration(&mut first);
    assert_eq!(told["status"], "completed", "{told}");
    assert!(told["ram"]["dirty-sync-count"].as_u64().unwrap() >= 2, "{told}");
    assert_eq!(first.good("query-status", json!({}))["status"], "postmigrate");
    let statuses: Vec<String> = (0..4)
        .map(|_| first.event("MIGRATION")["data"]["status"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(statuses, ["setup", "active", "device", "completed"]);
    assert!(line(&mut first, "info migrate").starts_with("Status: \t\tcompleted\n"));
    drop(first);
    let incoming = format!("file:{}", state.display());
    let mut second = rig.start("second", &["-smp", "4", "-incoming", &incoming]);
    rig.wait("second", 40);
    assert_eq!(second.good("query-status", json!({}))["status"], "running");
    assert_eq!(second.good("query-migrate", json!({}))["status"], "completed");
    rig.check("first", "second");
}

#[test]
fn sockets_commands_and_descriptors_carry_a_machine() {
    let Some(rig) = Rig::new("carried") else { tests::skip!("the assets are not fetched") };
    let mut first = rig.start("a", &[]);
    rig.wait("a", 5);
    first.good("stop", json!({}));
    let state = rig.file("state");
    let error = first.bad("migrate", json!({"uri": "nonsense"}));
    assert_eq!(error, "unknown migration protocol: nonsense");
    let error = first.bad("migrate", json!({"uri": "fd:nothing"}));
    assert_eq!(error, "File descriptor named 'nothing' has not been found");
    assert_eq!(first.good("query-migrate", json!({}))["status"], "failed");
    first.good("migrate", json!({"uri": format!("exec:cat > {}", state.display())}));
    assert_eq!(wait_for_migration(&mut first)["status"], "completed");

    // Deferred, then from a socket; a guest that stood still stands still.
    let socket = rig.file("socket");
    let mut second = rig.start("b", &["-incoming", "defer"]);
    assert_eq!(second.good("query-status", json!({}))["status"], "inmigrate");
    let uri = format!("unix:{}", socket.display());
    second.good("migrate-incoming", json!({"uri": uri}));
    first.good("migrate", json!({"uri": uri}));
    assert_eq!(wait_for_migration(&mut first)["status"], "completed");
    assert_eq!(wait_for_migration(&mut second)["status"], "completed");
    assert_eq!(second.good("query-status", json!({}))["status"], "paused");
    second.good("cont", json!({}));
    rig.wait("b", 15);
    rig.check("a", "b");

    // A source that goes on after all counts on, too.
    first.good("cont", json!({}));
    rig.wait("a", 15);

    let from_command = format!("exec:cat {}", state.display());
    let mut third = rig.start("c", &["-incoming", &from_command, "-S"]);
    wait_for_migration(&mut third);
    third.good("cont", json!({}));
    rig.wait("c", 15);
}

#[test]
fn streams_that_do_not_fit_end_the_program_and_say_why() {
    let Some(rig) = Rig::new("unfit") else { tests::skip!("the assets are not fetched") };
    let refused = |name: &str, bytes: &[u8]| {
        fs::write(rig.file(name), bytes).unwrap();
        let output = tests::hostel()
            .args(["qemu-system-x86_64", "-nodefaults", "-display", "none", "-M", "q35"])
            .args(["-kernel", &rig.kernel])
            .args(["-incoming", &format!("file:{}", rig.file(name).display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let qemu = refused("qemu", b"QEVM\0\0\0\x03\x10\0\0\0pc-q35-10.0");
    assert!(qemu.contains("load of migration failed: "), "{qemu}");
    assert!(qemu.contains("one of QEMU, which only QEMU can load"), "{qemu}");
    assert!(refused("empty", b"").contains("The state is cut off"));
    let mut machine = rig.start("source", &[]);
    rig.wait("source", 1);
    machine.good("stop", json!({}));
    let state = rig.file("state");
    machine.good("migrate", json!({"uri": format!("file:{}", state.display())}));
    assert_eq!(wait_for_migration(&mut machine)["status"], "completed");
    let other = refused("other", &fs::read(&state).unwrap());
    let text = "The state is of a machine with RAM 256 MiB, and this one has 128 MiB";
    assert!(other.contains(text), "{other}");
}

fn snapshots_of(image: &Path) -> String {
    let output =
        tests::hostel().args(["qemu-img", "snapshot", "-U", "-l"]).arg(image).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn snapshots_are_kept_in_an_image_and_gone_back_to() {
    let Some(rig) = Rig::new("snapshots") else { tests::skip!("the assets are not fetched") };
    let image = rig.image("disk.qcow2");
    let drive = format!("file={},format=qcow2,if=none,id=d", image.display());
    let options = ["-drive", &drive, "-device", "virtio-blk-pci,drive=d"];
    let mut machine = rig.start("one", &options);
    assert_eq!(line(&mut machine, "info snapshots"), "There is no snapshot available.\n");
    assert_eq!(
        line(&mut machine, "loadvm none"),
        "Error: Snapshot 'none' does not exist in one or more devices\n"
    );
    rig.wait("one", 10);
    assert_eq!(line(&mut machine, "savevm early"), "");
    let saved = rig.counts("one").last().unwrap().0;
    let list = line(&mut machine, "info snapshots");
    assert!(list.starts_with("List of snapshots present on all disks:\nID "), "{list}");
    assert!(list.contains("--      early"), "{list}");
    rig.wait("one", saved + 20);
    let length = rig.counts("one").len();
    assert_eq!(line(&mut machine, "loadvm early"), "");
    let until = Instant::now() + PATIENCE;
    while rig.counts("one").len() < length + 5 {
        assert!(Instant::now() < until, "it does not go on");
        std::thread::sleep(Duration::from_millis(20));
    }
    let after = rig.counts("one")[length..].to_vec();
    let first = after.iter().map(|(count, _)| *count).min().unwrap();
    assert!((saved..=saved + 3).contains(&first), "{saved}, then {after:?}");

    // A job does the same; it may not take a name twice.
    let job =
        |id: &str, tag: &str| json!({"job-id": id, "tag": tag, "vmstate": "d", "devices": ["d"]});
    machine.good("snapshot-save", job("j", "late"));
    let until = Instant::now() + PATIENCE;
    while !snapshots_of(&image).contains("late") {
        assert!(Instant::now() < until, "no snapshot");
        std::thread::sleep(Duration::from_millis(20));
    }
    machine.good("snapshot-save", job("k", "late"));
    let jobs = loop {
        let jobs = machine.good("query-jobs", json!({}));
        let k = jobs.as_array().unwrap().iter().find(|job| job["id"] == "k").unwrap().clone();
        if k["status"] == "concluded" {
            break k;
        }
    };
    assert_eq!(jobs["error"], "Snapshot 'late' already exists in one or more devices");
    assert_eq!(line(&mut machine, "delvm early"), "");
    assert!(!line(&mut machine, "info snapshots").contains("early"));
    let last = rig.counts("one").last().unwrap().0;
    machine.good("quit", json!({}));
    assert!(machine.child.wait().unwrap().success());
    drop(machine);

    let mut again = rig.start("two", &[&options[..], &["-loadvm", "late"]].concat());
    rig.wait("two", last);
    assert_eq!(again.good("query-status", json!({}))["status"], "running");
    again.good("quit", json!({}));
    assert!(again.child.wait().unwrap().success());
    let check = tests::hostel().args(["qemu-img", "check", "-q"]).arg(&image).status().unwrap();
    assert!(check.success(), "the image is sound");
}

#[test]
fn the_state_is_found_where_it_is_even_when_a_disk_has_come_before_it() {
    let folder = tests::scratch("keeper");
    let rom = folder.join("rom");
    fs::write(&rom, super::rom_with(&[0xf4])).unwrap();
    let image = |name: &str| {
        let path = folder.join(name);
        let create = ["qemu-img", "create", "-q", "-f", "qcow2"];
        let made = tests::hostel().args(create).arg(&path).arg("8M").status().unwrap();
        assert!(made.success());
        path.to_str().unwrap().to_owned()
    };
    let (first, second) = (image("first"), image("second"));
    let disk = |id: &str, file: &str| {
        let drive = format!("file={file},format=qcow2,if=none,id={id}");
        ["-drive".to_owned(), drive, "-device".to_owned(), format!("virtio-blk-pci,drive={id}")]
    };
    let options = |disks: &[[String; 4]]| {
        let fixed = ["-S", "-bios", rom.to_str().unwrap()].map(str::to_owned);
        [fixed.to_vec(), disks.concat()].concat()
    };
    let start = |name: &str, options: &[String]| {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        Machine::start(name, &options)
    };
    // One disk at the start, another by hot-plug: the state goes to the one whose name is first.
    let mut machine = start("keeper-one", &options(&[disk("m", &first)]));
    machine.good("cont", json!({}));
    let file = json!({"driver": "file", "filename": second});
    machine.good("blockdev-add", json!({"driver": "qcow2", "node-name": "z", "file": file}));
    machine.good("device_add", json!({"driver": "virtio-blk-pci", "drive": "z", "id": "two"}));
    assert_eq!(line(&mut machine, "savevm both"), "");
    assert_eq!(line(&mut machine, "loadvm both"), "");
    machine.good("quit", json!({}));
    drop(machine);
    // The same machine, whose drives are called so that the one without the state comes first.
    let mut again = options(&[disk("m", &first), disk("a", &second)]);
    again.last_mut().unwrap().push_str(",id=two");
    again.extend(["-loadvm".to_owned(), "both".to_owned()]);
    let mut machine = start("keeper-two", &again);
    assert_eq!(line(&mut machine, "loadvm both"), "");
    let list = line(&mut machine, "info snapshots");
    let both = list.lines().find(|line| line.contains("both")).unwrap();
    assert!(!both.contains(" 0 B "), "the size is that of the state: {list}");
    drop(machine);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_cannot_be_saved_says_so() {
    let folder = tests::scratch("blocked");
    let disk = folder.join("raw");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let rom = folder.join("rom");
    fs::write(&rom, super::rom_with(&[0xf4])).unwrap();
    let rom = rom.to_str().unwrap();
    let drive = format!("file={},format=raw,if=none,id=d", disk.display());
    let options = ["-S", "-bios", rom, "-drive", &drive, "-device", "virtio-blk-pci,drive=d"];
    let mut machine = Machine::start("blocked", &options);
    assert_eq!(
        line(&mut machine, "savevm x"),
        "Error: Device 'd' is writable but does not support snapshots\n"
    );
    drop(machine);
    let mut machine = Machine::start("diskless", &["-S", "-bios", rom]);
    assert_eq!(line(&mut machine, "savevm x"), "Error: No block device can accept snapshots\n");
    fs::remove_dir_all(folder).unwrap();
}
