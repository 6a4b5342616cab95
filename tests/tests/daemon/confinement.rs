//! A system's machines are kept from each other: a stand-in emulator does what one would do that a
//! guest has taken over, and what is refused to it is done by the same program when nothing is
//! confined, so that a refusal means something.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::fixture::{Daemon, is_root};
use super::networks::Namespaces;
use crate::need;

/// Answers the few commands of a start, and tries things before: each line of its log says what it
/// tried and whether that was done.
const STAND_IN: &str = include_str!("stand_in.py");

macro_rules! need_confinement {
    () => {
        need!("virsh", "ip", "qemu-system-x86_64", "qemu-img", "unshare");
        if !is_root() {
            tests::skip!("only root can give machines users of their own");
        }
        let made = Command::new("unshare").args(["-n", "-m", "true"]).status();
        if !made.is_ok_and(|status| status.success()) {
            tests::skip!("this container may not mount");
        }
    };
}

fn start_daemon(namespace: &str, driver: &str) -> Daemon {
    Daemon::start_in(Some(namespace), &["--system", "--security-driver", driver])
}

fn document(name: &str, disk: &Path, more: &str) -> String {
    format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>\
         <os><type>hvm</type></os><features><acpi/></features>{more}<devices>\
         <disk type='file'><driver name='qemu' type='qcow2'/><source file='{}'/>\
         <target dev='vda' bus='virtio'/></disk>\
         <disk type='file' device='cdrom'><target dev='hdc' bus='ide'/></disk>\
         <channel type='unix'><target type='virtio' name='org.hostel.test.0'/></channel>\
         <serial type='pty'/><graphics type='vnc'/></devices></domain>",
        disk.display()
    )
}

fn define(daemon: &Daemon, name: &str, document: &str) {
    let path = daemon.scratch.join(&format!("{name}.xml"));
    fs::write(&path, document).unwrap();
    daemon.ok(&format!("define {}", path.display()));
}

fn image(path: &Path, backing: Option<&Path>) -> PathBuf {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]);
    if let Some(backing) = backing {
        command.args(["-F", "qcow2", "-b"]).arg(backing);
    }
    assert!(command.arg(path).arg("4M").status().unwrap().success());
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_owned()
}

fn status(daemon: &Daemon, name: &str) -> (PathBuf, String) {
    let uuid = daemon.ok(&format!("domuuid {name}")).trim().to_owned();
    let folder = daemon.scratch.join(&format!("r/domains/{uuid}"));
    let text = fs::read_to_string(folder.join("status.xml")).unwrap();
    let pid = text.split("pid='").nth(1).unwrap().split('\'').next().unwrap();
    (folder, pid.to_owned())
}

/// What the stand-in could do to a neighbour, by the names that it gives them.
fn cross(driver: &str, mark: &str) -> Vec<(String, bool)> {
    let namespaces = Namespaces::new(&[mark]);
    let daemon = start_daemon(&namespaces.0[0], driver);
    let victim = image(&daemon.scratch.join("victim.qcow2"), None);
    define(&daemon, "victim", &document("victim", &victim, ""));
    daemon.ok("start victim");
    let (folder, pid) = status(&daemon, "victim");

    // Sockets of Linux's abstract kind have no file whose rights could keep anybody away.
    let name = format!("hostel-outside-{}", std::process::id());
    let listener = Command::new("ip")
        .args(["netns", "exec", &namespaces.0[0], "python3", "-c"])
        .arg(format!(
            "import socket,time; s=socket.socket(socket.AF_UNIX); s.bind(chr(0)+'{name}'); \
             s.listen(); print(flush=True); time.sleep(60)"
        ))
        .stdout(Stdio::piped())
        .spawn();
    let mut listener = listener.unwrap();
    _ = listener.stdout.as_mut().unwrap().read(&mut [0]).unwrap();
    let own = daemon.scratch.join("own.raw");
    fs::write(&own, vec![7; 1 << 20]).unwrap();
    let tools = daemon.scratch.join("tools");
    fs::create_dir(&tools).unwrap();
    let facts = serde_json::json!({
        "own": own, "disk": victim, "folder": folder, "pid": pid.parse::<i32>().unwrap(),
        "daemon": daemon.pid(), "state": daemon.scratch.join("state"), "abstract": name,
    });
    let program = tools.join("stand-in");
    fs::write(&program, STAND_IN.replace("FACTS", &facts.to_string())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let text = format!(
        "<domain type='qemu'><name>thief</name><memory unit='MiB'>32</memory><os>\
         <type machine='pc'>hvm</type></os><devices><emulator>{}</emulator>\
         <disk type='file'><source file='{}'/><target dev='vda' bus='virtio'/></disk>\
         <memballoon model='none'/></devices></domain>",
        program.display(),
        own.display()
    );
    define(&daemon, "thief", &text);
    daemon.ok("start thief");
    _ = listener.kill();
    _ = listener.wait();
    assert_eq!(daemon.ok("domstate victim").trim(), "running", "nothing has happened to it");
    let log = fs::read_to_string(daemon.scratch.join("state/logs/thief.log")).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let results = lines.filter_map(|line| Some((line[0].as_str()?.to_owned(), line[1].as_bool()?)));
    results.collect()
}

/// What a machine must be able to do, wherever it runs.
const OWN: [&str; 3] = ["read the own disk", "write to the own disk", "make a socket"];

#[test]
fn a_machine_that_was_taken_over_reaches_no_other() {
    need_confinement!();
    need!("python3");
    let confined = cross("dac", "cc");
    for name in OWN {
        assert!(confined.contains(&(name.to_owned(), true)), "{name}: {confined:?}");
    }
    let done: Vec<&str> = confined
        .iter()
        .filter(|(name, done)| *done && !OWN.contains(&name.as_str()))
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(done.is_empty(), "the stand-in could {done:?}");

    // The same program, not confined: what was refused above can be done at all.
    let free = cross("none", "cf");
    assert_eq!(free.len(), confined.len());
    let refused: Vec<_> = free.iter().filter(|(_, done)| !done).collect();
    assert!(refused.is_empty(), "nobody could do this anyway: {refused:?}");
}

#[test]
fn everything_that_is_done_with_a_machine_is_done_with_a_confined_one() {
    need_confinement!();
    let reference = tests::program("qemu-system-x86_64").unwrap();
    tour("ct", &reference.display().to_string());
}

#[test]
fn our_own_emulator_does_everything_confined_too() {
    need_confinement!();
    let folder = super::fixture::Scratch::new();
    let link = folder.join("qemu-system-x86_64");
    symlink(tests::hostel_path(), &link).unwrap();
    tour("co", &link.display().to_string());
}

fn tour(mark: &str, emulator: &str) {
    let namespaces = Namespaces::new(&[mark]);
    let mut daemon =
        Daemon::start_in(Some(&namespaces.0[0]), &["--system", "--emulator", emulator]);
    let base = image(&daemon.scratch.join("base.qcow2"), None);
    let disk = image(&daemon.scratch.join("top.qcow2"), Some(&base));
    let second = image(&daemon.scratch.join("second.qcow2"), None);
    let other = image(&daemon.scratch.join("other.qcow2"), Some(&base));
    let iso = daemon.scratch.join("cd.iso");
    fs::write(&iso, vec![0; 1 << 20]).unwrap();
    define(&daemon, "tour", &document("tour", &disk, ""));
    define(&daemon, "twin", &document("twin", &other, ""));
    daemon.ok("start twin");

    let copy = daemon.scratch.join("backup.qcow2");
    let backup = format!(
        "<domainbackup><disks><disk name='vda' type='file'><target file='{}'/></disk></disks>\
         </domainbackup>",
        copy.display()
    );
    fs::write(daemon.scratch.join("backup.xml"), backup).unwrap();
    let pull = format!(
        "<domainbackup mode='pull'><server transport='unix' socket='{}'/></domainbackup>",
        daemon.scratch.join("nbd").display()
    );
    fs::write(daemon.scratch.join("pull.xml"), pull).unwrap();
    let file = |name: &str| daemon.scratch.join(name).display().to_string();
    for command in [
        "start tour".to_owned(),
        "snapshot-create-as tour inside".to_owned(),
        "snapshot-revert tour inside".to_owned(),
        format!("backup-begin tour {}", file("backup.xml")),
        "event tour --event lifecycle --timeout 1".to_owned(),
        format!("backup-begin tour {}", file("pull.xml")),
        "domjobabort tour".to_owned(),
        "event tour --event lifecycle --timeout 1".to_owned(),
        format!("attach-disk tour {} vdb --subdriver qcow2 --live", second.display()),
        format!("change-media tour hdc {} --live --insert", iso.display()),
        "change-media tour hdc --eject --live".to_owned(),
        "detach-disk tour vdb --live --config".to_owned(),
        format!("screenshot tour {}", file("screen.ppm")),
        "suspend tour".to_owned(),
        "resume tour".to_owned(),
        format!("snapshot-create-as tour over --disk-only --diskspec vda,file={}", file("over")),
        "blockcommit tour vda --shallow --active --pivot --wait".to_owned(),
        format!("blockcopy tour vda {} --wait --pivot --transient-job", file("copy")),
        "managedsave tour".to_owned(),
        "start tour".to_owned(),
        format!("save tour {}", file("saved")),
        format!("restore {}", file("saved")),
        "reset tour".to_owned(),
    ] {
        let (ok, text) = daemon.virsh(&command);
        let unplugging = command.starts_with("detach");
        // There is no guest that would let the disk go.
        let pausing = command.starts_with("event");
        assert!(ok || unplugging || pausing, "{command}: {text}");
    }

    if mark == "ct" {
        // Ours does not write guests' memory as ELF.
        daemon.ok(&format!("dump tour {} --memory-only --live", file("core")));
    }
    let label = |name: &str, daemon: &Daemon| {
        let text = daemon.ok(&format!("dumpxml {name}"));
        text.split("<label>").nth(1).unwrap().split('<').next().unwrap().to_owned()
    };
    let before = label("tour", &daemon);
    assert_ne!(before, label("twin", &daemon), "each has a user of its own");
    daemon.kill_and_restart();
    assert_eq!(label("tour", &daemon), before, "the next daemon knows it");
    let (_, pid) = status(&daemon, "tour");
    let user = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    assert_eq!(before, format!("+{user}:+{user}"));
    let third = image(&daemon.scratch.join("third.qcow2"), None);
    daemon.ok(&format!("attach-disk tour {} vdc --subdriver qcow2 --live", third.display()));

    daemon.ok("destroy tour");
    daemon.ok("destroy twin");
    for path in [&base, &disk, &second, &third, &other] {
        let facts = fs::metadata(path).unwrap();
        assert_eq!((facts.uid(), facts.mode() & 0o777), (0, 0o600), "{}", path.display());
    }
    assert_eq!(fs::read_dir(daemon.scratch.join("state/confined")).unwrap().count(), 0);
}

#[test]
fn labels_say_who_a_machine_runs_as() {
    need_confinement!();
    let namespaces = Namespaces::new(&["cl"]);
    let daemon = start_daemon(&namespaces.0[0], "dac");
    let disk = image(&daemon.scratch.join("disk.qcow2"), None);
    let given = "<seclabel type='static' model='dac' relabel='yes'><label>+4242:+4343</label>\
                 </seclabel>";
    for (name, label, user) in
        [("given", given, 4242), ("nobody", "<seclabel type='none' model='dac'/>", 0)]
    {
        define(&daemon, name, &document(name, &disk, label));
        daemon.ok(&format!("start {name}"));
        let (_, pid) = status(&daemon, name);
        assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), user, "{name}");
        daemon.ok(&format!("destroy {name}"));
    }
    let foreign = "<seclabel type='dynamic' model='selinux'/>";
    define(&daemon, "foreign", &document("foreign", &disk, foreign));
    let (ok, text) = daemon.virsh("start foreign");
    assert!(!ok && text.contains("Unable to find security driver for model selinux"), "{text}");
    let text = daemon.ok("capabilities");
    assert!(text.contains("<model>dac</model>"), "{text}");
}

#[test]
fn what_a_lost_machine_was_given_is_taken_back() {
    need_confinement!();
    let namespaces = Namespaces::new(&["cx"]);
    let mut daemon = start_daemon(&namespaces.0[0], "dac");
    let disk = image(&daemon.scratch.join("disk.qcow2"), None);
    define(&daemon, "lost", &document("lost", &disk, ""));
    daemon.ok("start lost");
    assert_ne!(fs::metadata(&disk).unwrap().mode() & 0o777, 0o600, "it has an access list now");
    let (_, pid) = status(&daemon, "lost");
    daemon.kill();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    daemon.kill_and_restart();
    assert_eq!(fs::metadata(&disk).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(daemon.scratch.join("state/confined")).unwrap().count(), 0);
}
