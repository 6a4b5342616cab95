//! The same virsh commands against libvirtd and against us, in the same run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::fixture::{Daemon, Scratch, virsh};
use crate::need;

/// Gives what runs after it directories of its own, in a mount namespace: a libvirtd in system mode
/// keeps what it is told in the machine's, where another run or a real libvirtd would meet it. And
/// no KVM: libvirtd asks the emulator twice what it can do there, each time for half a minute where
/// KVM is only played by software.
const OWN_DIRECTORIES: &str = r#"set -e
for folder in /etc/libvirt /var/lib/libvirt /var/cache/libvirt /run/libvirt; do
    mkdir -p $folder; mount -t tmpfs -o mode=0755 tmpfs $folder
done
printf '%s\n' 'stdio_handler = "file"' 'namespaces = []' >/etc/libvirt/qemu.conf
devices=$(mktemp -d); mount -t tmpfs -o mode=0755 tmpfs $devices; mkdir $devices/pts $devices/shm
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ptmx $devices
mount --bind /dev/pts $devices/pts; mount --move $devices /dev; rmdir $devices
exec "$@""#;

/// A libvirtd with its own sockets and its own definitions.
struct Libvirtd {
    scratch: Scratch,
    child: Child,
}

impl Libvirtd {
    fn start() -> Option<Self> {
        let scratch = Scratch::new();
        let sockets = scratch.join("s");
        fs::create_dir_all(&sockets).unwrap();
        let configuration = scratch.join("libvirtd.conf");
        let text = format!(
            "unix_sock_dir = \"{}\"\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\nlisten_tls = 0\n",
            sockets.display()
        );
        fs::write(&configuration, text).unwrap();
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c", OWN_DIRECTORIES, "sh", "/usr/sbin/libvirtd", "-f"])
            .arg(&configuration)
            .arg("-p")
            .arg(scratch.join("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while UnixStream::connect(sockets.join("libvirt-sock")).is_err() {
            if Instant::now() > deadline || child.try_wait().is_ok_and(|ended| ended.is_some()) {
                _ = child.kill();
                return None;
            }
            thread::sleep(Duration::from_millis(50));
        }
        Some(Self { scratch, child })
    }

    fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.scratch.join("s/libvirt-sock").display())
    }
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// `@` stands for a folder that both sides use.
const TOUR: &[&str] = &[
    "define @/tq.xml",
    "dominfo tq",
    "domstate tq --reason",
    "domid tq",
    "domuuid tq",
    "dumpxml tq",
    "dumpxml tq --security-info --inactive --xpath //graphics",
    "vcpupin tq",
    "vcpupin tq 0 0 --config",
    "vcpupin tq",
    "vcpupin tq 7 0 --config",
    "domblklist tq --details",
    "domiflist tq",
    "vcpucount tq",
    "vcpucount tq --maximum",
    "setvcpus tq 2 --config",
    "vcpucount tq",
    "setvcpus tq 5 --config",
    "setvcpus tq 1 --config",
    "setmem tq 32M --config",
    "setmaxmem tq 128M --config",
    "dominfo tq",
    "setmem tq 1G --config",
    "setmem tq 32M --live",
    "desc tq --title hello --config",
    "desc tq --title",
    "desc tq some words",
    "desc tq",
    "metadata tq http://x/ --key k --set '<a><b/></a>' --config",
    "metadata tq http://x/",
    "metadata tq http://y/",
    "autostart tq",
    "list --all --autostart --name",
    "autostart tq --disable",
    "suspend tq",
    "resume tq",
    "shutdown tq",
    "reboot tq",
    "reset tq",
    "destroy tq",
    "managedsave tq",
    "save tq @/tq.save",
    "snapshot-list tq",
    "snapshot-current tq",
    "snapshot-info tq nope",
    "screenshot tq @/tq.png",
    "console tq",
    "domdisplay tq",
    "vncdisplay tq",
    "ttyconsole tq",
    "qemu-monitor-command tq --hmp info",
    "domblkstat tq vda",
    "dommemstat tq",
    "vcpuinfo tq",
    "domstats tq --state --balloon --vcpu",
    "attach-disk tq @/tq2.qcow2 vdb --subdriver qcow2 --config",
    "attach-disk tq @/tq2.qcow2 vdb --subdriver qcow2 --config",
    "domblklist tq",
    "detach-disk tq vdb --config",
    "detach-disk tq vdq --config",
    "attach-device tq @/nic.xml --config",
    "domiflist tq",
    "detach-interface tq user --mac 52:54:00:00:00:99 --config",
    "domiflist tq",
    "change-media tq hdc @/cd.iso --config",
    "domblklist tq",
    "dumpxml tq",
    "domrename tq tq3",
    "domrename tq3 tq",
    "start tq --paused",
    "domstate tq --reason",
    "resume tq",
    "domstate tq --reason",
    "start tq",
    "dominfo nope",
    "dumpxml tq --xpath //disk",
    "dumpxml tq --xpath //interface",
    "dumpxml tq --xpath //controller",
    "dumpxml tq --xpath //memballoon",
    "domblklist tq",
    "vcpupin tq 0 1 --live",
    "vcpupin tq",
    "setmem tq 1G --live",
    "setvcpus tq 9 --live",
    "setvcpus tq 2 --live",
    "vcpucount tq",
    "change-media tq hdc --eject --live",
    "change-media tq hdc @/cd.iso --live --insert",
    "domblklist tq",
    "qemu-monitor-command tq --hmp info status",
    "qemu-agent-command tq '{\"execute\":\"guest-ping\"}'",
    "domtime tq",
    "domfsinfo tq",
    "domhostname tq",
    "domfsfreeze tq",
    "domfstrim tq",
    "shutdown tq --mode agent",
    "reboot tq --mode agent",
    "domifaddr tq",
    "domifaddr tq --source agent",
    "send-key tq KEY_A KEY_B",
    "inject-nmi tq",
    "suspend tq",
    "domstate tq --reason",
    "suspend tq",
    "resume tq",
    "resume tq",
    "domcontrol tq",
    "domjobinfo tq",
    "undefine tq",
    "destroy tq",
    "dominfo tq",
    "net-dumpxml nope",
    "net-info nope",
    "net-start nope",
    "pool-info nope",
    "vol-list nope",
    "pool-define-as tqp dir --target @/tqp",
    "pool-start tqp",
    "pool-build tqp",
    "pool-start tqp",
    "vol-create-as tqp v1 10M --format qcow2",
    "vol-create-as tqp v1 10M",
    "vol-create-as tqp v2 5M",
    "vol-create-as tqp v3 5M --format qcow2 --backing-vol v1 --backing-vol-format qcow2",
    "vol-list tqp",
    "vol-info v2 tqp",
    "vol-path v1 tqp",
    "vol-pool @/tqp/v1",
    "vol-key v1 tqp",
    "vol-name @/tqp/v1",
    "vol-resize v2 10M tqp",
    "vol-resize v2 1M tqp",
    "vol-clone v1 v4 tqp",
    "vol-wipe v2 tqp",
    "vol-delete v4 tqp",
    "vol-delete nope tqp",
    "vol-delete v3 tqp",
    "vol-delete v2 tqp",
    "vol-delete v1 tqp",
    "pool-autostart tqp",
    "pool-refresh tqp",
    "pool-destroy tqp",
    "pool-delete tqp",
    "pool-undefine tqp",
    "pool-undefine tqp",
    "secret-get-value 33333333-1111-4111-8111-111111111119",
    "nodedev-dumpxml nope",
    "iface-dumpxml nope",
    "nwfilter-dumpxml nope",
    "net-define @/tnet.xml",
    "net-dumpxml tnet",
    "net-autostart tnet",
    "net-info tnet",
    "net-undefine tnet",
    "domcapabilities --machine nonsense",
    "domcapabilities --virttype nonsense",
    "iothreadinfo tq",
    "define @/tq.xml",
    "migrate-getspeed tq",
    "migrate-setspeed tq 10",
    "migrate-getspeed tq",
    "migrate-setspeed tq 99999999999999",
    "undefine tq",
    "dompmsuspend tq mem",
    "checkpoint-list tq",
    "nodedev-info nope",
    "iface-mac nope",
    "vol-info @/nope",
    "blkdeviotune tq vda",
    "cpu-baseline @/nope",
    "maxvcpus",
    "version",
    "hostname",
    "nodecpumap",
];

/// The same for disks that grow, shrink and move under a running domain.
const DISKS: &[&str] = &[
    "define @/tq.xml",
    "blockjob tq vda",
    "blockpull tq vda",
    "snapshot-create-as tq s0 --disk-only",
    "domblklist tq",
    "snapshot-info tq s0",
    "snapshot-delete tq s0 --metadata",
    "start tq",
    "snapshot-create-as tq s1 --disk-only",
    "snapshot-create-as tq s1 --disk-only",
    "domblklist tq",
    "domblklist tq --inactive",
    "snapshot-list tq --name",
    "snapshot-list tq --name --external",
    "snapshot-list tq --name --internal",
    "snapshot-list tq --name --disk-only",
    "snapshot-info tq s1",
    "snapshot-current tq --name",
    "snapshot-create-as tq s2 --disk-only --diskspec vda,file=@/over.qcow2",
    "snapshot-create-as tq s9 --disk-only --diskspec vda,file=@/over.qcow2",
    "snapshot-create-as tq s9 --disk-only --diskspec vda,snapshot=no",
    "snapshot-create-as tq s9 --disk-only --quiesce",
    "snapshot-list tq --tree",
    "domblklist tq",
    "snapshot-revert tq s1",
    "blockjob tq vda",
    "blockjob tq vda --abort",
    "blockjob tq vda --pivot",
    "blockjob tq vda 5",
    "blockjob tq vdq",
    "blockcommit tq vda",
    "blockcommit tq vda --top @/nope",
    "snapshot-delete tq s2",
    "domblklist tq",
    "snapshot-list tq --name",
    "snapshot-create-as tq s3 --disk-only --no-metadata --diskspec vda,file=@/s3.qcow2",
    "snapshot-list tq --name",
    "domblklist tq",
    "blockcommit tq vda --active --pivot --wait",
    "domblklist tq",
    "domblklist tq --inactive",
    "blockcopy tq vda @/copy.qcow2 --transient-job --wait --pivot",
    "domblklist tq",
    "blockcopy tq vda @/copy2.qcow2 --transient-job --wait --finish",
    "domblklist tq",
    "blockcopy tq vda @/copy2.qcow2",
    "blockcopy tq vda @/copy3.qcow2 --format raw --transient-job --wait --pivot",
    "domblklist tq",
    "dumpxml tq --inactive --xpath //disk[1]/source",
    "snapshot-create-as tq s4 --disk-only --no-metadata --diskspec vda,file=@/s4.qcow2",
    "blockpull tq vda --wait",
    "domblklist tq",
    "blockresize tq vda 30M",
    "destroy tq",
    "snapshot-list tq --name",
    "snapshot-delete tq s1 --metadata",
    "undefine tq",
];

/// The same for domains that are saved and come back.
const SAVES: &[&str] = &[
    "define @/tq.xml",
    "start tq",
    "save tq @/saved1 --paused",
    "domstate tq --reason",
    "restore @/saved1",
    "domstate tq --reason",
    "save tq @/saved2",
    "save-image-define @/saved2 @/tq.xml --running",
    "save-image-define @/nope @/tq.xml",
    "restore @/saved2",
    "domstate tq --reason",
    "save tq @/saved3 --running --paused",
    "managedsave tq --paused",
    "managedsave-dumpxml tq --xpath //domain/name",
    "start tq",
    "domstate tq --reason",
    "resume tq",
    "managedsave tq",
    "managedsave-define tq @/tq.xml --paused",
    "start tq",
    "domstate tq --reason",
    "destroy tq",
    "undefine tq",
];

/// The same for checkpoints, and for backups that the emulator writes.
const BACKUPS: &[&str] = &[
    "define @/tq.xml",
    "checkpoint-create-as tq c0",
    "checkpoint-list tq",
    "backup-begin tq @/full.xml",
    "start tq",
    "checkpoint-create-as tq c1 --description first",
    "checkpoint-create-as tq c1",
    "checkpoint-create-as tq c2 --diskspec vda,bitmap=own",
    "checkpoint-create-as tq c2 --diskspec vda",
    "checkpoint-create-as tq c9 --diskspec hdc",
    "checkpoint-list tq --name",
    "checkpoint-list tq --tree",
    "checkpoint-list tq --name --roots",
    "checkpoint-list tq --name --leaves",
    "checkpoint-list tq --name --no-leaves",
    "checkpoint-list tq --name --from c1",
    "checkpoint-parent tq c2",
    "checkpoint-parent tq c1",
    "checkpoint-info tq c2",
    "checkpoint-info tq nope",
    "checkpoint-dumpxml tq c2 --no-domain --xpath //disks",
    "checkpoint-dumpxml tq c2 --no-domain --xpath //parent",
    "checkpoint-dumpxml tq c1 --no-domain --xpath //description",
    "backup-dumpxml tq",
    "domjobabort tq",
    "backup-begin tq @/full.xml @/c3.xml",
    "event tq --event lifecycle --timeout 1",
    "backup-dumpxml tq",
    "backup-begin tq @/full.xml",
    "backup-begin tq @/full.xml --reuse-external",
    "event tq --event lifecycle --timeout 1",
    "backup-begin tq @/since.xml",
    "event tq --event lifecycle --timeout 1",
    "backup-begin tq @/unknown.xml",
    "backup-begin tq @/pull.xml",
    "backup-dumpxml tq --xpath //server",
    "backup-dumpxml tq --xpath //scratch",
    "domjobabort tq",
    "event tq --event lifecycle --timeout 1",
    "backup-dumpxml tq",
    "checkpoint-list tq --name",
    "checkpoint-delete tq c2",
    "checkpoint-parent tq c3",
    "checkpoint-delete tq nope",
    "checkpoint-list tq --tree",
    "destroy tq",
    "checkpoint-delete tq c3",
    "undefine tq",
    "checkpoint-delete tq c3 --metadata",
    "checkpoint-list tq --name",
    "undefine tq --checkpoints-metadata",
];

const FULL: &str = "<domainbackup><disks><disk name='vda' type='file'>
  <driver type='qcow2'/><target file='@/full.qcow2'/></disk></disks></domainbackup>";
const SINCE: &str = "<domainbackup mode='push'><incremental>c1</incremental><disks>
  <disk name='vda' type='file'><driver type='qcow2'/><target file='@/since.qcow2'/></disk>
  </disks></domainbackup>";
const PULL: &str = "<domainbackup mode='pull'>
  <server transport='tcp' name='localhost' port='10977'/><disks><disk name='vda' type='file'>
  <scratch file='@/scratch.qcow2'/></disk></disks></domainbackup>";
const C3: &str = "<domaincheckpoint><name>c3</name></domaincheckpoint>";

const DOMAIN: &str = "<domain type='qemu'><name>tq</name>
  <uuid>33333333-1111-4111-8111-111111111111</uuid><memory unit='MiB'>64</memory>
  <vcpu current='1'>2</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features><devices>
  <disk type='file'><driver name='qemu' type='qcow2'/><source file='@/tq.qcow2'/>
    <target dev='vda' bus='virtio'/></disk>
  <disk type='file' device='cdrom'><target dev='hdc' bus='ide'/></disk>
  <interface type='user'><mac address='52:54:00:00:00:31'/><model type='virtio'/></interface>
  <serial type='pty'/><graphics type='vnc' passwd='abc'/></devices></domain>";

const NIC: &str = "<interface type='user'><mac address='52:54:00:00:00:99'/>
  <model type='virtio'/></interface>";

const NETWORK: &str = "<network><name>tnet</name>
  <uuid>44444444-1111-4111-8111-111111111111</uuid><mac address='52:54:00:11:22:33'/>
  <forward mode='nat'/><bridge name='virbr77'/><ip address='10.9.8.1' netmask='255.255.255.0'>
  <dhcp><range start='10.9.8.2' end='10.9.8.9'/></dhcp></ip></network>";

fn prepare(folder: &Scratch, emulator: Option<&Path>) {
    let here = folder.0.display().to_string();
    let own =
        emulator.map_or(String::new(), |own| format!("<emulator>{}</emulator>", own.display()));
    let domain = DOMAIN.replace('@', &here).replace("<devices>", &format!("<devices>{own}"));
    fs::write(folder.join("tq.xml"), domain).unwrap();
    fs::write(folder.join("nic.xml"), NIC).unwrap();
    fs::write(folder.join("tnet.xml"), NETWORK).unwrap();
    fs::write(folder.join("cd.iso"), vec![0; 1 << 20]).unwrap();
    for (name, text) in [
        ("full.xml", FULL),
        ("since.xml", SINCE),
        ("unknown.xml", &SINCE.replace("c1", "c99")),
        ("c3.xml", C3),
        ("pull.xml", PULL),
    ] {
        fs::write(folder.join(name), text.replace('@', &here)).unwrap();
    }
    for name in [
        "full.qcow2",
        "since.qcow2",
        "scratch.qcow2",
        "over.qcow2",
        "tq.s0",
        "tq.s1",
        "copy.qcow2",
        "copy2.qcow2",
        "copy3.qcow2",
        "s3.qcow2",
        "s4.qcow2",
    ] {
        _ = fs::remove_file(folder.join(name));
    }
    for name in ["tq.qcow2", "tq2.qcow2"] {
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(folder.join(name))
            .arg("20M")
            .status();
        assert!(made.unwrap().success());
    }
}

#[test]
fn virsh_prints_the_same_as_with_libvirtd() {
    compare(TOUR, None);
}

#[test]
fn disks_grow_shrink_and_move_as_with_libvirtd() {
    compare(DISKS, None);
}

#[test]
fn disks_of_our_emulator_grow_shrink_and_move_likewise() {
    let scratch = Scratch::new();
    if let Some(emulator) = our_emulator(&scratch) {
        compare(DISKS, Some(&emulator));
    }
}

/// Our emulator with the firmware that was fetched.
fn our_emulator(scratch: &Scratch) -> Option<PathBuf> {
    let emulator = scratch.join("qemu-system-x86_64");
    let Some(firmware) = tests::asset("qemu-system-10/usr/share/seabios") else {
        tests::note_skip("SeaBIOS is not fetched");
        return None;
    };
    let (own, firmware) = (tests::hostel_path(), firmware.display().to_string());
    let own = own.display();
    let script = format!("#!/bin/sh\nexec {own} qemu-system-x86_64 -L {firmware} \"$@\"\n");
    fs::write(&emulator, script).unwrap();
    fs::set_permissions(&emulator, fs::Permissions::from_mode(0o755)).unwrap();
    Some(emulator)
}

#[test]
fn saved_domains_come_back_as_with_libvirtd() {
    compare(SAVES, None);
}

#[test]
fn checkpoints_and_backups_are_those_of_libvirtd() {
    compare(BACKUPS, None);
}

#[test]
fn checkpoints_and_backups_of_our_emulator_are_likewise() {
    let scratch = Scratch::new();
    if let Some(emulator) = our_emulator(&scratch) {
        compare(BACKUPS, Some(&emulator));
    }
}

fn compare(tour: &[&str], own_emulator: Option<&Path>) {
    /// Two libvirtd take the same ports for screens.
    static ONE_LIBVIRTD: Mutex<()> = Mutex::new(());
    need!("virsh", "qemu-system-x86_64", "qemu-img");
    let _only = ONE_LIBVIRTD.lock();
    let root = fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t");
    if !root || !std::path::Path::new("/usr/sbin/libvirtd").exists() {
        tests::skip!("libvirtd in system mode needs root and Debian's libvirt-daemon");
    }
    let Some(libvirtd) = Libvirtd::start() else { tests::skip!("libvirtd does not start here") };
    if !virsh(&libvirtd.uri(), "domcapabilities --virttype qemu").0 {
        tests::skip!("libvirtd cannot run an emulator here");
    }
    let daemon = Daemon::start();
    let folder = Scratch::new();
    let mut different = Vec::new();
    let ours_uri = daemon.uri("qemu", "/session");
    let run = |uri: &str, emulator: Option<&Path>| -> Vec<String> {
        prepare(&folder, emulator);
        let here = folder.0.display().to_string();
        tour.iter().map(|commands| virsh(uri, &commands.replace('@', &here)).1).collect()
    };
    let reference = run(&libvirtd.uri(), None);
    assert!(!reference[0].contains("error"), "libvirtd: {}", reference[0]);
    let ours = run(&ours_uri, own_emulator);
    for ((command, reference), ours) in tour.iter().zip(reference).zip(ours) {
        if reference != ours {
            different.push(format!("{command}\n--- libvirtd\n{reference}--- ours\n{ours}"));
        }
    }
    assert!(different.is_empty(), "{} differ\n{}", different.len(), different.join("\n"));
}
