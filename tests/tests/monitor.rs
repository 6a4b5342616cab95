//! QMP and the devices behind it: a machine that is steered from outside.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);

/// A machine with a monitor.
pub struct Machine {
    pub child: Child,
    pub folder: PathBuf,
    reader: BufReader<UnixStream>,
    pub events: Vec<Value>,
}

impl Machine {
    pub fn start(name: &str, options: &[&str]) -> Self {
        let mut command = tests::hostel();
        command.arg("qemu-system-x86_64");
        Self::start_command(command, name, options)
    }

    /// The same with all that a board has by default.
    pub fn start_whole(name: &str, options: &[&str]) -> Self {
        let mut command = tests::hostel();
        command.arg("qemu-system-x86_64");
        Self::start_as_it_is(command, name, options)
    }

    /// As `start`, for any emulator.
    pub fn start_command(mut command: Command, name: &str, options: &[&str]) -> Self {
        command.arg("-nodefaults");
        Self::start_as_it_is(command, name, options)
    }

    fn start_as_it_is(mut command: Command, name: &str, options: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("q-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("q");
        let mut child = command
            .args(["-display", "none", "-qmp"])
            .arg(format!("unix:{},server=on,wait=off", socket.display()))
            .args(options)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + PATIENCE;
        let stream = loop {
            assert!(child.try_wait().unwrap().is_none(), "the emulator has ended");
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut machine =
            Self { child, folder, reader: BufReader::new(stream), events: Vec::new() };
        let greeting = machine.line();
        assert!(greeting["QMP"]["version"]["qemu"]["major"].is_u64(), "{greeting}");
        machine.good("qmp_capabilities", json!({}));
        machine
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        assert!(self.reader.read_line(&mut line).unwrap() > 0, "the monitor closed");
        serde_json::from_str(&line).unwrap()
    }

    pub fn ask(&mut self, command: &str, arguments: &Value) -> Value {
        let text = json!({"execute": command, "arguments": arguments}).to_string();
        self.reader.get_mut().write_all(text.as_bytes()).unwrap();
        loop {
            let line = self.line();
            if line.get("event").is_none() {
                return line;
            }
            self.events.push(line);
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers write the arguments in place")]
    pub fn good(&mut self, command: &str, arguments: Value) -> Value {
        let answer = self.ask(command, &arguments);
        assert!(answer.get("return").is_some(), "{command}: {answer}");
        answer["return"].clone()
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers write the arguments in place")]
    pub fn bad(&mut self, command: &str, arguments: Value) -> String {
        let answer = self.ask(command, &arguments);
        answer["error"]["desc"].as_str().unwrap_or_else(|| panic!("{command}: {answer}")).to_owned()
    }

    /// Waits for an event of this name.
    pub fn event(&mut self, name: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.events.iter().position(|event| event["event"] == name) {
                return self.events.remove(at);
            }
            assert!(Instant::now() < until, "no {name}");
            let line = self.line();
            self.events.push(line);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        _ = fs::remove_dir_all(&self.folder);
    }
}

pub fn kernel(name: &str, script: &str) -> Option<(String, String)> {
    let busybox = tests::asset("busybox-amd64/bin/busybox")?;
    let kernel = tests::asset_file("kernel-12/boot", "vmlinuz")?;
    let initrd = tests::scratch(name).join("initrd");
    tests::initramfs::write(&initrd, &busybox, script).unwrap();
    Some((kernel.display().to_string(), initrd.display().to_string()))
}

#[test]
fn a_guest_is_held_and_let_go_and_tells_what_it_does() {
    let Some((kernel, initrd)) = kernel("held", "echo up; exec /bin/busybox sleep 1000") else {
        tests::skip!("the assets are not fetched");
    };
    let mut machine = Machine::start(
        "held",
        &[
            "-S",
            "-m",
            "128",
            "-smp",
            "2",
            "-kernel",
            &kernel,
            "-initrd",
            &initrd,
            "-no-shutdown",
            "-append",
            "console=ttyS0 quiet panic=-1",
            "-name",
            "guest=held",
            "-chardev",
            "ringbuf,id=log,size=64k",
            "-serial",
            "chardev:log",
        ],
    );
    assert_eq!(machine.good("query-status", json!({}))["status"], "prelaunch");
    assert_eq!(machine.good("query-name", json!({}))["name"], "held");
    assert_eq!(machine.good("query-cpus-fast", json!({})).as_array().unwrap().len(), 2);
    machine.good("cont", json!({}));
    machine.event("RESUME");
    let until = Instant::now() + PATIENCE;
    let mut seen = String::new();
    while !seen.contains("up") {
        assert!(Instant::now() < until, "the guest says only: {seen}");
        let read = machine.good("ringbuf-read", json!({"device": "log", "size": 4096}));
        seen.push_str(read.as_str().unwrap());
        std::thread::sleep(Duration::from_millis(50));
    }
    machine.good("stop", json!({}));
    machine.event("STOP");
    let used = || fs::read_to_string(format!("/proc/{}/stat", machine.child.id())).unwrap();
    let ticks = |stat: String| -> u64 {
        let rest = stat.rsplit_once(')').unwrap().1.to_owned();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks(used());
    std::thread::sleep(Duration::from_millis(500));
    assert!(ticks(used()) - before <= 5, "a machine that stands still takes no time");
    let status = json!({"command-line": "info status"});
    assert_eq!(machine.good("human-monitor-command", status), "VM status: paused\r\n");
    machine.good("cont", json!({}));
    machine.good("system_reset", json!({}));
    assert_eq!(machine.event("RESET")["data"]["reason"], "host-qmp-system-reset");
    machine.good("quit", json!({}));
    assert_eq!(
        machine.event("SHUTDOWN")["data"],
        json!({"guest": false, "reason": "host-qmp-quit"})
    );
    assert!(machine.child.wait().unwrap().success());
}

#[test]
fn devices_come_and_go_with_their_back_ends() {
    let mut machine = Machine::start("plug", &["-S", "-M", "none"]);
    let image = machine.folder.join("disk");
    fs::write(&image, vec![0; 1 << 20]).unwrap();
    let file = json!({"driver": "file", "filename": image, "node-name": "f"});
    machine.good("blockdev-add", file);
    machine.good("blockdev-add", json!({"driver": "raw", "file": "f", "node-name": "d"}));
    machine.good("device_add", json!({"driver": "virtio-blk-pci", "drive": "d", "id": "disk0"}));
    let drives = machine.good("query-block", json!({}));
    assert_eq!(drives[0]["inserted"]["node-name"], "d", "{drives}");
    assert!(machine.bad("blockdev-del", json!({"node-name": "d"})).contains("in use"));
    let again = json!({"driver": "virtio-blk-pci", "drive": "d", "id": "disk1"});
    assert!(machine.bad("device_add", again).contains("in use by 'disk0'"));
    let unknown = json!({"driver": "virtio-blk-pci", "nonsense": 1});
    let said = machine.bad("device_add", unknown);
    assert_eq!(said, "Property 'virtio-blk-pci.nonsense' not found");
    let said = machine.bad("device_add", json!({"driver": "nonsense"}));
    assert_eq!(said, "'nonsense' is not a valid device model name");
    machine.good("netdev_add", json!({"type": "user", "id": "n"}));
    let card = json!({"driver": "virtio-net-pci", "netdev": "n", "id": "net0",
        "mac": "52:54:00:00:00:01"});
    machine.good("device_add", card);
    let mac = json!({"path": "/machine/peripheral/net0", "property": "mac"});
    assert_eq!(machine.good("qom-get", mac), "52:54:00:00:00:01");
    assert!(machine.bad("netdev_del", json!({"id": "n"})).contains("used by 'net0'"));
    machine.good("set_link", json!({"name": "net0", "up": false}));
    let forward = json!({"command-line": "hostfwd_add n tcp:127.0.0.1:0-:22"});
    assert_eq!(machine.good("human-monitor-command", forward), "");
    let usernet = json!({"command-line": "info usernet"});
    let shown = machine.good("human-monitor-command", usernet);
    assert!(shown.as_str().unwrap().contains("HOST_FORWARD"), "{shown}");
    let place = machine.folder.join("wire");
    let wire = json!({"type": "stream", "id": "w", "server": true,
        "addr": {"type": "unix", "path": place}});
    machine.good("netdev_add", wire);
    drop(UnixStream::connect(&place).unwrap());
    machine.good("netdev_add", json!({"type": "hubport", "id": "h", "hubid": 1}));
    let said = machine.bad("netdev_add", json!({"type": "vde", "id": "v"}));
    assert_eq!(said, "network backend 'vde' is not built in Hostel");
    machine.good("netdev_del", json!({"id": "w"}));
    for wrong in [json!({"id": 1}), json!({}), json!({"id": "x", "y": 1})] {
        machine.bad("device_del", wrong);
    }
}

#[test]
fn the_reference_virsh_manages_a_machine_of_our_emulator() {
    let (Some(virsh), Some((kernel, initrd))) =
        (tests::program("virsh"), kernel("virsh", "echo up; exec /bin/busybox sleep 1000"))
    else {
        tests::skip!("there is no virsh, or the assets are not fetched");
    };
    let folder = std::env::temp_dir().join(format!("v-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let emulator = folder.join("qemu-system-x86_64");
    symlink(tests::hostel_path(), &emulator).unwrap();
    let place = |name: &str| folder.join(name).display().to_string();
    let mut daemon = tests::hostel()
        .args(["daemon", "--session", "--socket-dir", &place("s"), "--state-dir", &place("t")])
        .args(["--runtime-dir", &place("r"), "--emulator"])
        .arg(&emulator)
        .spawn()
        .unwrap();
    let image = folder.join("disk.qcow2");
    let made = tests::hostel()
        .args(["qemu-img", "create", "-q", "-f", "qcow2"])
        .arg(&image)
        .arg("64M")
        .status();
    assert!(made.unwrap().success());
    let xml = format!(
        "<domain type='qemu'><name>ours</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
        <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel>
        <initrd>{initrd}</initrd><cmdline>console=ttyS0 quiet panic=-1</cmdline></os>
        <features><acpi/></features><devices><emulator>{}</emulator>
        <controller type='usb' model='none'/>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
        <source file='{}'/><target dev='vda' bus='virtio'/></disk>
        <interface type='user'><model type='virtio'/></interface><serial type='pty'/>
        <memballoon model='virtio'/></devices></domain>",
        emulator.display(),
        image.display()
    );
    let definition = folder.join("ours.xml");
    fs::write(&definition, xml).unwrap();
    let until = Instant::now() + PATIENCE;
    while !folder.join("s/libvirt-sock").exists() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    let uri = format!("qemu+unix:///session?socket={}/s/libvirt-sock", folder.display());
    let said = |words: &[&str]| {
        let output = Command::new(&virsh).args(["-c", &uri]).args(words).output().unwrap();
        let both = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&both).trim().to_owned())
    };
    let mut steps = Vec::new();
    for (words, expected) in [
        (&["define", definition.to_str().unwrap()][..], "defined"),
        (&["start", "ours"], "started"),
        (&["domstate", "ours"], "running"),
        (&["suspend", "ours"], "suspended"),
        (&["domstate", "ours"], "paused"),
        (&["resume", "ours"], "resumed"),
        (&["domblklist", "ours"], "vda"),
        (&["domblkstat", "ours", "vda"], "rd_req"),
        (&["dommemstat", "ours"], "actual"),
        (&["vcpuinfo", "ours"], "running"),
        (&["qemu-monitor-command", "ours", "--hmp", "info status"], "running"),
        (&["save", "ours", &place("state")], "saved"),
        (&["domstate", "ours"], "shut off"),
        (&["restore", &place("state")], "restored"),
        (&["domstate", "ours", "--reason"], "running (restored)"),
        (&["managedsave", "ours"], "saved"),
        (&["start", "ours"], "started"),
        (&["domstate", "ours", "--reason"], "running (restored)"),
        (&["snapshot-create-as", "ours", "one"], "created"),
        (&["domstate", "ours"], "running"),
        (&["snapshot-list", "ours"], "one"),
        (&["snapshot-revert", "ours", "one"], ""),
        (&["domstate", "ours", "--reason"], "running (from snapshot)"),
        (&["snapshot-delete", "ours", "one"], "deleted"),
        (&["reset", "ours"], "reset"),
        (&["destroy", "ours"], "destroyed"),
        (&["undefine", "ours"], "undefined"),
    ] {
        let (good, text) = said(words);
        steps.push((words.join(" "), good && text.contains(expected), text));
    }
    _ = daemon.kill();
    _ = daemon.wait();
    _ = fs::remove_dir_all(&folder);
    let failed: Vec<_> = steps.iter().filter(|(_, good, _)| !good).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

impl Machine {
    /// Waits for any event.
    pub fn event_any(&mut self) -> Value {
        loop {
            let line = self.line();
            if line.get("event").is_some() {
                return line;
            }
        }
    }
}
