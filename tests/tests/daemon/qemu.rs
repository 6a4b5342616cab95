//! The qemu driver with the reference emulator.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::fixture::Daemon;
use crate::need;

/// A machine whose boot sector writes to its serial port for ever.
fn define(daemon: &Daemon, name: &str) {
    let disk = daemon.scratch.join(&format!("{name}.img"));
    fs::write(&disk, greeter()).unwrap();
    let document = format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory>\
         <os><type>hvm</type></os><features><acpi/></features><devices>\
         <disk type='file'><source file='{}'/><target dev='vda' bus='virtio'/></disk>\
         <disk type='file' device='cdrom'><target dev='hdc' bus='ide'/></disk>\
         <interface type='user'><model type='virtio'/></interface><serial type='pty'/>\
         <graphics type='vnc' passwd='secret'/></devices></domain>",
        disk.display()
    );
    let path = daemon.scratch.join(&format!("{name}.xml"));
    fs::write(&path, document).unwrap();
    daemon.ok(&format!("define {}", path.display()));
}

/// A boot sector: `lodsb; out 0x3f8` over a greeting, then a delay, then again.
fn greeter() -> Vec<u8> {
    let mut code = vec![0xfa, 0x31, 0xc0, 0x8e, 0xd8]; // cli; ds = 0
    let start = code.len();
    code.extend([0xbe, 0x40, 0x7c, 0xba, 0xf8, 0x03]); // si = text; dx = COM1
    code.extend([0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8]); // until NUL: out
    code.extend([0x66, 0xb9, 0, 0, 0x40, 0, 0x66, 0x49, 0x75, 0xfc]); // wait
    let back = start as isize - (code.len() as isize + 2);
    code.extend([0xeb, back as u8]);
    code.resize(64, 0);
    code.extend(b"HELLO FROM THE GUEST\r\n\0");
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code.resize(1 << 20, 0);
    code
}

#[test]
fn a_domain_goes_through_its_whole_life() {
    need!("virsh", "qemu-system-x86_64");
    let daemon = Daemon::start();
    define(&daemon, "life");
    for (command, state) in [
        ("start life --paused", "paused (user)"),
        ("resume life", "running (unpaused)"),
        ("suspend life", "paused (user)"),
        ("resume life", "running (unpaused)"),
        ("reset life", "running (unpaused)"),
        ("destroy life", "shut off (destroyed)"),
        ("start life", "running (booted)"),
        ("managedsave life", "shut off (saved)"),
        ("start life", "running (restored)"),
    ] {
        daemon.ok(command);
        assert_eq!(daemon.ok("domstate life --reason").trim(), state, "after {command}");
    }
    let screen = daemon.scratch.join("screen.ppm");
    daemon.ok(&format!("screenshot life {}", screen.display()));
    assert!(fs::read(&screen).unwrap().starts_with(b"P6"));
    assert!(!daemon.ok("dumpxml life").contains("secret"), "passwords are hidden");
    assert!(daemon.ok("dumpxml life --security-info").contains("passwd='secret'"));
    let (ok, text) = daemon.virsh("start life");
    assert!(!ok && text.contains("Domain is already active"), "{text}");
    daemon.ok("undefine life");
    daemon.ok("destroy life");
    assert_eq!(daemon.ok("list --all --name").trim(), "", "a transient domain leaves no trace");
}

#[test]
fn the_console_shows_what_the_guest_writes() {
    need!("virsh", "qemu-system-x86_64", "script");
    let daemon = Daemon::start();
    define(&daemon, "talk");
    daemon.ok("start talk");
    let line = format!("virsh -c '{}' console talk", daemon.uri("qemu", "/session"));
    let mut console = Command::new("timeout")
        .args(["20", "script", "-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    // The escape character ends the console.
    console.stdin.take().unwrap().write_all(b"\x1d").unwrap();
    let output = console.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("HELLO FROM THE GUEST"), "{text}");
}

#[test]
fn a_running_domain_survives_the_daemon() {
    need!("virsh", "qemu-system-x86_64");
    let mut daemon = Daemon::start();
    define(&daemon, "survivor");
    define(&daemon, "sleeper");
    daemon.ok("start survivor");
    let before = daemon.ok("dumpxml survivor");

    daemon.kill_and_restart();

    assert_eq!(daemon.ok("domstate survivor").trim(), "running");
    assert_eq!(daemon.ok("dumpxml survivor"), before);
    assert_eq!(daemon.ok("domstate sleeper").trim(), "shut off");
    daemon.ok("suspend survivor");
    daemon.ok("destroy survivor");
    daemon.ok("start survivor");
}

#[test]
fn a_domain_that_died_without_a_daemon_is_found_dead() {
    need!("virsh", "qemu-system-x86_64");
    let mut daemon = Daemon::start();
    define(&daemon, "mortal");
    daemon.ok("start mortal");
    let uuid = daemon.ok("domuuid mortal").trim().to_owned();

    let status = daemon.scratch.join(&format!("r/domains/{uuid}/status.xml"));
    let status = fs::read_to_string(status).unwrap();
    let pid = status.split("pid='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    end_process(pid);
    daemon.kill_and_restart();

    assert_eq!(daemon.ok("domstate mortal").trim(), "shut off");
    daemon.ok("start mortal");
}

#[test]
fn a_corrupt_definition_is_set_aside_and_harms_no_other() {
    need!("virsh", "qemu-system-x86_64");
    let mut daemon = Daemon::start();
    define(&daemon, "good");
    define(&daemon, "bad");
    let uuid = daemon.ok("domuuid bad").trim().to_owned();
    let file = daemon.scratch.join(&format!("state/domains/{uuid}/domain.xml"));
    fs::write(&file, "<domain><name>half a docu").unwrap();

    daemon.kill_and_restart();

    assert_eq!(daemon.ok("list --all --name").split_whitespace().collect::<Vec<_>>(), ["good"]);
    assert!(file.with_extension("broken").exists());
}

#[test]
fn devices_come_and_media_change_while_it_runs() {
    need!("virsh", "qemu-system-x86_64", "qemu-img");
    let daemon = Daemon::start();
    define(&daemon, "plug");
    let (disk, iso) = (daemon.scratch.join("d.qcow2"), daemon.scratch.join("cd.iso"));
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&disk)
        .arg("1M")
        .status();
    assert!(made.unwrap().success());
    fs::write(&iso, vec![0; 1 << 20]).unwrap();
    daemon.ok("start plug");
    daemon.ok(&format!("attach-disk plug {} vdb --subdriver qcow2 --live", disk.display()));
    daemon.ok(&format!("change-media plug hdc {} --live --insert", iso.display()));
    let list = daemon.ok("domblklist plug");
    assert!(list.contains("d.qcow2") && list.contains("cd.iso"), "{list}");
    daemon.ok("change-media plug hdc --eject --live");
    assert!(!daemon.ok("domblklist plug").contains("cd.iso"));
    assert!(!daemon.ok("domblklist plug --inactive").contains("vdb"), "only the machine changed");
    let monitor = daemon.ok("qemu-monitor-command plug --hmp info block");
    assert!(monitor.contains("d.qcow2"), "{monitor}");
}

#[test]
fn virt_install_imports_a_disk() {
    need!("virt-install", "virsh", "qemu-system-x86_64");
    let daemon = Daemon::start();
    let disk = daemon.scratch.join("import.img");
    fs::write(&disk, greeter()).unwrap();
    let output = Command::new("timeout")
        .args(["120", "virt-install", "--connect", &daemon.uri("qemu", "/session")])
        .args(["--name", "fresh", "--memory", "64", "--import", "--osinfo", "generic"])
        .args(["--graphics", "none", "--noautoconsole", "--disk"])
        .arg(format!("{},format=raw", disk.display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert_eq!(daemon.ok("domstate fresh").trim(), "running");
}

const EVENTS: &str = "
import libvirt, sys, threading, time
libvirt.virEventRegisterDefaultImpl()
def loop():
    while True: libvirt.virEventRunDefaultImpl()
threading.Thread(target=loop, daemon=True).start()
connection = libvirt.open(sys.argv[1])
seen = []
connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
    lambda c, d, event, detail, o: seen.append((event, detail)), None)
domain = connection.lookupByName('events')
domain.create(); domain.suspend(); domain.resume()
stream = connection.newStream(0)
domain.openConsole(None, stream, 0)
text = b''
while b'GUEST' not in text: text += stream.recv(1024)
stream.abort()
domain.destroy(); domain.undefine(); time.sleep(0.5)
print(seen)
";

#[test]
fn python_gets_events_and_a_stream() {
    need!("qemu-system-x86_64", "virsh");
    let python = "/usr/bin/python3";
    let imports = Command::new(python).args(["-c", "import libvirt"]).output();
    if !imports.is_ok_and(|output| output.status.success()) {
        tests::skip!("python3-libvirt is not installed");
    }
    let daemon = Daemon::start();
    define(&daemon, "events");
    let output = Command::new("timeout")
        .args(["60", python, "-c", EVENTS, &daemon.uri("qemu", "/session")])
        .output()
        .unwrap();
    let (text, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // As recorded from libvirtd 9.0.
    let order = "[(4, 0), (2, 0), (3, 0), (4, 0), (6, 2), (5, 1), (1, 0)]";
    assert_eq!(text.trim(), order, "{error}");
}

#[test]
fn starting_is_fast() {
    need!("virsh", "qemu-system-x86_64");
    let daemon = Daemon::start();
    define(&daemon, "fast");
    // The first start asks the emulator what it can do.
    daemon.ok("start fast; destroy fast");
    let begun = Instant::now();
    daemon.ok("start fast");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// Ends the processes whose runtime directory this is, each by its id.
fn end_processes_in(folder: &Path) {
    let mark = format!("XDG_RUNTIME_DIR={}", folder.display());
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()) {
            end_process(&entry.file_name().to_string_lossy());
        }
    }
}

fn end_process(pid: &str) {
    Command::new("kill").args(["-9", pid]).status().unwrap();
}

#[test]
fn the_ssh_helper_connects_to_a_session_and_starts_its_daemon() {
    need!("virsh", "qemu-system-x86_64");
    let scratch = super::fixture::Scratch::new();
    let helper = scratch.join("virt-ssh-helper");
    symlink(tests::hostel_path(), &helper).unwrap();
    let ssh = scratch.join("ssh");
    // A stand-in for ssh: runs its last argument, the remote command, here.
    let script = "#!/bin/sh\nfor last; do :; done\neval \"exec $last\"\n";
    fs::write(&ssh, script).unwrap();
    fs::set_permissions(&ssh, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", scratch.0.display(), std::env::var("PATH").unwrap());
    let uri = format!("qemu+ssh://host/session?command={}&proxy=native", ssh.display());
    let output = Command::new("timeout")
        .args(["30", "virsh", "-q", "-c", &uri, "uri; list --all"])
        .env("PATH", path)
        .env("XDG_RUNTIME_DIR", &scratch.0)
        .env("XDG_STATE_HOME", scratch.join("state"))
        .env("XDG_DATA_HOME", scratch.join("data"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    // Its directories are about to go.
    end_processes_in(&scratch.0);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("qemu+ssh://host/session"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn backups_hold_all_or_what_was_written_since() {
    need!("virsh", "qemu-system-x86_64", "qemu-img", "qemu-io");
    let daemon = Daemon::start();
    let here = daemon.scratch.0.display().to_string();
    let disk = daemon.scratch.join("disk.qcow2");
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {text}");
        text
    };
    run("qemu-img", &["create", "-q", "-f", "qcow2", &disk.display().to_string(), "4M"]);
    let document = format!(
        "<domain type='qemu'><name>kept</name><memory unit='MiB'>32</memory><os>\
         <type>hvm</type></os><devices><disk type='file'><driver name='qemu' type='qcow2'/>\
         <source file='{}'/><target dev='vda' bus='virtio'/></disk></devices></domain>",
        disk.display()
    );
    let files = [
        ("kept.xml", document),
        ("full.xml", backup(&here, "full", "")),
        ("since.xml", backup(&here, "since", "<incremental>first</incremental>")),
        ("first.xml", "<domaincheckpoint><name>first</name></domaincheckpoint>".to_owned()),
    ];
    for (name, text) in files {
        fs::write(daemon.scratch.join(name), text).unwrap();
    }
    daemon.ok(&format!("define {here}/kept.xml"));
    daemon.ok("start kept");
    let write = |pattern: &str, place: &str| {
        let command = format!(
            "qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend \\\"write -P {pattern} {place} 64k\\\""
        );
        let said = daemon.ok(&format!("qemu-monitor-command kept --hmp \"{command}\""));
        assert!(!said.contains("rror"), "{command}: {said}");
    };
    write("1", "0");
    daemon.ok(&format!("backup-begin kept {here}/full.xml {here}/first.xml"));
    ended(&daemon);
    write("2", "1M");
    // Bitmaps are in the image: they are there after another start.
    daemon.ok("destroy kept");
    daemon.ok("start kept");
    daemon.ok(&format!("backup-begin kept {here}/since.xml"));
    ended(&daemon);
    served(&daemon, &here, &write);
    daemon.ok("destroy kept");
    for (name, pattern, place, there) in [
        ("full", 1, "0", true),
        ("full", 2, "1M", false),
        ("since", 1, "0", false),
        ("since", 2, "1M", true),
    ] {
        let read = format!("read -P {pattern} {place} 64k");
        let image = format!("{here}/{name}.qcow2");
        let output = Command::new("qemu-io").args(["-f", "qcow2", "-c", &read, &image]).output();
        let text = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
        assert_eq!(!text.contains("verification failed"), there, "{name}: {read}: {text}");
    }
}

/// Disks are served as they were when the backup began, with what was written since a checkpoint.
fn served(daemon: &Daemon, here: &str, write: &dyn Fn(&str, &str)) {
    let document = format!(
        "<domainbackup mode='pull'><incremental>first</incremental>\
         <server transport='unix' socket='{here}/nbd'/><disks><disk name='vda' type='file'>\
         <scratch file='{here}/scratch.qcow2'/></disk></disks></domainbackup>"
    );
    fs::write(format!("{here}/pull.xml"), document).unwrap();
    daemon.ok(&format!("backup-begin kept {here}/pull.xml"));
    assert!(daemon.ok("backup-dumpxml kept").contains("exportname='vda'"));
    write("9", "0");
    let export = format!("driver=nbd,export=vda,server.type=unix,server.path={here}/nbd");
    let output = Command::new("timeout")
        .args(["20", "qemu-io", "-r", "--image-opts", "-c", "read -P 1 0 64k", &export])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !text.contains("failed"), "{text}");
    let export = format!("{export},x-dirty-bitmap=qemu:dirty-bitmap:backup-vda");
    let output = Command::new("timeout")
        .args(["20", "qemu-img", "map", "--output=json", "--image-opts", &export])
        .output()
        .unwrap();
    let map: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let dirty = map.as_array().unwrap().iter().filter(|part| part["data"] == false);
    let dirty: Vec<_> =
        dirty.map(|part| (part["start"].as_u64(), part["length"].as_u64())).collect();
    assert_eq!(dirty, [(Some(1 << 20), Some(64 << 10))], "{map}");
    daemon.ok("domjobabort kept");
    ended(daemon);
    assert!(!Path::new(&format!("{here}/scratch.qcow2")).exists());
}

fn backup(here: &str, name: &str, since: &str) -> String {
    format!(
        "<domainbackup>{since}<disks><disk name='vda' type='file'>\
         <target file='{here}/{name}.qcow2'/></disk></disks></domainbackup>"
    )
}

/// Waits until no backup is being made.
fn ended(daemon: &Daemon) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while daemon.virsh("backup-dumpxml kept").0 {
        assert!(Instant::now() < deadline, "the backup does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn without_qemu_the_daemon_has_an_emulator_of_its_own() {
    need!("virsh");
    if Path::new("/usr/bin/qemu-system-x86_64").exists() {
        tests::skip!("QEMU is installed where every daemon finds it");
    }
    let daemon = Daemon::start_with_path("/usr/sbin:/usr/bin:/sbin:/bin");
    define(&daemon, "own");
    let document = daemon.ok("dumpxml own");
    assert!(document.contains("/qemu-system-x86_64</emulator>"), "{document}");
    let capabilities = daemon.ok("capabilities");
    assert!(capabilities.contains("<arch name='x86_64'>"), "{capabilities}");
    assert!(daemon.ok("domcapabilities").contains("<domain>"));
    daemon.ok("start own");
    let version = daemon.ok("qemu-monitor-command own --hmp info version");
    assert!(version.contains("Hostel"), "{version}");
}
