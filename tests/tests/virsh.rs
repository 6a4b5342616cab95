//! Our own `virsh` beside the real one, on two domains that are alike: theirs acts on one, ours on
//! the other.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::user::User;

/// Two domains and what lies under them.
struct Pair {
    user: User,
    uri: String,
}

impl Pair {
    fn new(name: &str) -> Self {
        let user = User::new(name);
        user.good(&["list"]);
        let socket = user.home.join(".cache/libvirt/libvirt-sock");
        let uri = format!("qemu+unix:///session?socket={}", socket.display());
        let pair = Self { user, uri };
        for (side, number) in [("east", 1), ("west", 2)] {
            let folder = pair.user.home.join(side);
            fs::create_dir_all(&folder).unwrap();
            for disk in ["a", "b", "c"] {
                let path = folder.join(disk);
                let output = tests::hostel()
                    .args(["qemu-img", "create", "-f", "qcow2"])
                    .arg(&path)
                    .arg("1M")
                    .output();
                assert!(output.unwrap().status.success());
            }
            let document = folder.join("domain.xml");
            fs::write(&document, domain(side, number, &folder)).unwrap();
            pair.ours(&["define", document.to_str().unwrap()]);
        }
        pair
    }

    fn ours(&self, words: &[&str]) -> Output {
        let mut command = tests::hostel();
        command.args(["virsh", "-c", &self.uri]).args(words).stdin(Stdio::null());
        command.env("LC_ALL", "C").env("HOME", &self.user.home).output().unwrap()
    }

    /// The same line by both, each with its own domain for `{}` and its own folder for `@`.
    fn check(&self, line: &str) {
        let words = |side: &str| -> Vec<String> {
            let folder = self.user.home.join(side).display().to_string();
            let words = line.split(' ').map(|word| word.replace("{}", side).replace('@', &folder));
            words.collect()
        };
        let (left, right) = (words("east"), words("west"));
        let mut real = Command::new(tests::program("virsh").unwrap());
        real.args(["-c", &self.uri]).args(&left).env("LC_ALL", "C").stdin(Stdio::null());
        let theirs = real.output().unwrap();
        let right: Vec<&str> = right.iter().map(String::as_str).collect();
        let ours = self.ours(&right);
        assert_eq!(told(&theirs), told(&ours).replace("west", "east"), "virsh {line}");
    }
}

/// All that a command has said, without what no two calls have in common.
fn told(output: &Output) -> String {
    let text = format!(
        "{}\n{}{}",
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout),
        // Of a line that is drawn again and again only the last counts.
        String::from_utf8_lossy(&output.stderr).rsplit('\r').next().unwrap_or_default()
    );
    let mut told = String::new();
    let mut digits = String::new();
    for sign in text.chars().chain(['\n']) {
        if sign.is_ascii_digit() {
            digits.push(sign);
            continue;
        }
        // Times since 1970, and times of day.
        let is_moment =
            digits.len() == 10 || (digits.len() == 2 && (sign == ':' || told.ends_with(':')));
        told.push_str(if is_moment { "N" } else { &digits });
        digits.clear();
        told.push(sign);
    }
    told
}

fn domain(name: &str, number: u32, folder: &Path) -> String {
    format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory>\
         <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features><devices>\
         <disk type='file'><driver name='qemu' type='qcow2'/><source file='{0}/a'/>\
         <target dev='vda' bus='virtio'/></disk>\
         <disk type='file' device='cdrom'><target dev='hdc' bus='ide'/></disk>\
         <interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/>\
         </interface><serial type='null'/><graphics type='vnc' port='{1}' autoport='no'/>\
         </devices></domain>",
        folder.display(),
        5940 + number
    )
}

#[test]
fn virsh_describes_devices_as_the_real_one_does() {
    if tests::program("virsh").is_none() {
        tests::skip!("there is no virsh");
    }
    let pair = Pair::new("vdev");
    fs::write(pair.user.home.join("east/device.xml"), "<frob/>").unwrap();
    fs::write(pair.user.home.join("west/device.xml"), "<frob/>").unwrap();
    for line in [
        "attach-disk {} @/b vdb --subdriver qcow2 --print-xml",
        "attach-disk {} @/b sdb --targetbus scsi --driver qemu --subdriver qcow2 --cache none --io native --serial abc --mode readonly --alias ua-x --print-xml",
        "attach-disk {} @/b vdb --type cdrom --mode shareable --wwn 5000c50015ea71ac --address pci:0.0.5.0 --iothread 1 --rawio --print-xml",
        "attach-disk {} @/b hda --type cdrom --address ide:0.1.0 --print-xml",
        "attach-disk {} @/b sda --address scsi:0.0.10 --print-xml",
        "attach-disk {} @/b sda --address usb:1.2 --print-xml",
        "attach-disk {} @/b sda --address sata:0.0.3 --print-xml",
        "attach-disk {} @/b sda --address pci:0.0.3.0 --print-xml",
        "attach-disk {} pool/x vdc --sourcetype network --source-protocol rbd --source-host-name mon:6789 --print-xml",
        "attach-disk {} x vdc --sourcetype network --source-protocol nbd --source-host-transport unix --source-host-socket /s --print-xml",
        "attach-disk {} /x vdc --sourcetype block --address pci:0.0.5.0 --multifunction --print-xml",
        "attach-disk {} /x vdc --sourcetype frob",
        "attach-disk {} /x vdc --mode frob",
        "attach-disk {} /x vdc --address frob",
        "attach-disk {} /x vdc --address pci:0.0",
        "attach-disk {} /x hdc --address pci:0.0.5.0 --print-xml",
        "attach-disk {} /x vdc --address ide:0.0.0 --print-xml",
        "attach-disk {} /x vdc --type frob",
        "attach-disk {} /x",
        "attach-disk {} @/b vdc --subdriver qcow2 --config",
        "attach-disk {} @/b vdc --subdriver qcow2 --config",
        "attach-disk {} @/b vdd --live",
        "attach-disk {} @/b vdd --live --current",
        "domblklist {} --details",
        "detach-disk {} vdz",
        "detach-disk {} vdc --live",
        "detach-disk {} vdc --config",
        "attach-interface {} network default --model virtio --mac 52:54:00:aa:bb:cc --print-xml",
        "attach-interface {} bridge br0 --target t0 --script /x --alias ua-n --inbound 100,200,300 --outbound 10 --print-xml",
        "attach-interface {} direct eth0 --print-xml",
        "attach-interface {} hostdev 0000:01:00.0 --managed --print-xml",
        "attach-interface {} hostdev frob --print-xml",
        "attach-interface {} frob x",
        "attach-interface {} bridge br0 --inbound x",
        "attach-interface {} bridge br0 --inbound 1,2,3,4,5",
        "attach-interface {} bridge br0 --inbound 0",
        "attach-interface {} bridge br0 --outbound 0",
        "attach-interface {} network x --persistent --current",
        "attach-interface {} network x --config --mac 52:54:00:aa:00:01",
        "attach-interface {} network x --config --mac 52:54:00:aa:00:02",
        "domiflist {}",
        "detach-interface {} network --config",
        "detach-interface {} bridge --config",
        "detach-interface {} network --config --mac 52:54:00:aa:00:03",
        "detach-interface {} network --config --mac 52:54:00:AA:00:02",
        "detach-interface {} network --config",
        "attach-device {} /nonexistent",
        "attach-device {} @/device.xml",
        "detach-device {} @/device.xml",
        "update-device {} @/device.xml",
        "detach-device-alias {} ua-x",
        "change-media {} hdc @/b --insert",
        "change-media {} hdc @/b --insert",
        "change-media {} hdc --eject",
        "change-media {} hdc --eject",
        "change-media {} hdc",
        "change-media {} hdc --eject --insert",
        "change-media {} vda --eject",
        "domif-getlink {} 52:54:00:11:22:33",
        "domif-setlink {} 52:54:00:11:22:33 down",
        "domif-getlink {} 52:54:00:11:22:33",
        "domif-getlink {} 52:54:00:11:22:99",
        "domif-getlink {} frob",
        "domif-setlink {} 52:54:00:11:22:99 down",
        "domif-setlink {} 52:54:00:11:22:33 frob",
        "desc {}",
        "desc {} some text",
        "desc {}",
        "desc {} --title a title",
        "desc {} --title",
        "desc {} --config --current",
        "metadata {} http://x.org/ --key x --set <a>b</a>",
        "metadata {} http://x.org/",
        "metadata {} http://x.org/ --remove",
        "metadata {} http://x.org/",
        "metadata {} http://x.org/ --set <a/>",
        "vcpuinfo {}",
        "vcpuinfo {} --pretty",
        "vcpupin {}",
        "vcpupin {} 0 0 --config",
        "vcpupin {} 0",
        "vcpupin {} 9",
        "vcpupin {} --vcpu x",
        "vcpupin {} 0 frob",
        "emulatorpin {}",
        "emulatorpin {} 0",
        "schedinfo {}",
        "domstats {}",
        "domstats {} --state --vcpu",
        "domstats nobody",
        "domblkinfo {} vda",
        "domblkinfo {} vda --human",
        "domblkinfo {} --all",
        "domblkinfo {}",
        "managedsave-remove {}",
        "managedsave-dumpxml {}",
        "snapshot-create-as {} one --description text",
        "snapshot-create-as {} two",
        "snapshot-create {}",
        "snapshot-create {} /nonexistent",
        "snapshot-create-as {} s --print-xml --memspec /x,snapshot=external --diskspec vda,file=/y,snapshot=external,driver=qcow2",
        "snapshot-create-as {} s --diskspec vda,frob=1",
        "snapshot-list {}",
        "snapshot-list {} --tree",
        "snapshot-list {} --parent",
        "snapshot-list {} --roots",
        "snapshot-list {} --leaves",
        "snapshot-list {} --no-leaves --name",
        "snapshot-list {} --from one",
        "snapshot-list {} --from one --descendants",
        "snapshot-list {} --tree --from one",
        "snapshot-list {} --external",
        "snapshot-list {} --parent --roots",
        "snapshot-info {} one",
        "snapshot-info {} --current",
        "snapshot-info {}",
        "snapshot-parent {} two",
        "snapshot-parent {} one",
        "snapshot-delete {} one --children-only",
        "snapshot-delete {} one",
    ] {
        pair.check(line);
    }
}

#[test]
fn virsh_acts_on_running_domains_as_the_real_one_does() {
    if tests::program("virsh").is_none() {
        tests::skip!("there is no virsh");
    }
    let Some(firmware) = tests::asset("qemu-system-10/usr/share/seabios") else {
        tests::skip!("there is no firmware");
    };
    let pair = Pair::new("vrun");
    // Where the daemon of a session looks for firmware.
    let folder = pair.user.home.join(".cache/hostel/firmware");
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    _ = symlink(firmware, &folder);
    for line in [
        "vncdisplay {}",
        "domblkstat {} vda",
        "blockjob {} vda",
        "send-key {} 1",
        "checkpoint-create-as {} x",
        "start {}",
        "domblkstat {} vda --human",
        "domifstat {} nothing",
        "domifaddr {}",
        "domifaddr {} --source arp --full",
        "domifaddr {} --source agent",
        "domifaddr {} --source frob",
        "domcontrol {}",
        "domjobabort {}",
        "domdisplay {} --type spice",
        "ttyconsole {}",
        "cpu-stats {}",
        "vcpupin {}",
        "vcpupin {} 0 0-0",
        "vcpupin {} 0",
        "vcpupin {} 9",
        "domfsfreeze {}",
        "domfsthaw {}",
        "domfsinfo {}",
        "domfstrim {}",
        "domhostname {}",
        "domtime {}",
        "domtime {} --now --sync",
        "set-user-password {} a b",
        "qemu-agent-command {} x",
        "qemu-agent-command {} x --async --block",
        "qemu-agent-command {} x --timeout 0",
        "qemu-agent-command {}",
        "qemu-monitor-command {} info status --hmp",
        "qemu-monitor-command {} query-status --return-value --pretty",
        "qemu-monitor-command {} query-status --return-value",
        "qemu-monitor-command {} frob --return-value",
        "qemu-monitor-command {} frob --hmp --pretty",
        "send-key {} KEY_LEFTCTRL KEY_LEFTALT KEY_DELETE",
        "send-key {} 29 0x38",
        "send-key {} frob",
        "send-key {} --codeset frob 1",
        "send-key {} --codeset usb 4",
        "send-key {} --holdtime x 1",
        "send-key {} --holdtime 10 KEY_F12",
        "send-key {}",
        "send-key {} 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17",
        "inject-nmi {}",
        "screenshot {} @/screen",
        "screenshot {} /nonexistent/x",
        "screenshot {} --screen 5 --file @/screen",
        "screenshot {} --screen x",
        "attach-disk {} @/b vdb --subdriver qcow2",
        "attach-disk {} @/b vdb --subdriver qcow2",
        "attach-interface {} network nothing --current --live",
        "detach-interface {} user --mac 52:54:00:11:22:99",
        "change-media {} hdc @/c --insert",
        "change-media {} hdc --eject",
        "domif-setlink {} 52:54:00:11:22:33 down",
        "domif-getlink {} 52:54:00:11:22:33",
        "blockjob {} frob",
        "blockjob {} vda --abort",
        "blockjob {} vda --abort --info",
        "blockjob {} vda 10",
        "blockpull {} vda",
        "blockpull {} vda --wait",
        "blockpull {} vda --base x",
        "blockpull {} vda --async",
        "blockcommit {} vda --wait",
        "blockcommit {} vda --active --wait --pivot",
        "blockcommit {} vda --pivot --keep-overlay",
        "blockcopy {} vda",
        "blockcopy {} vda @/copy --print-xml --format raw",
        "blockcopy {} vda @/copy --wait --verbose --transient-job",
        "blockjob {} vda --raw",
        "blockjob {} vda --bandwidth 5",
        "blockjob {} vda --raw --bytes",
        "blockjob {} vda --bandwidth x",
        "blockjob {} vda --abort",
        "blockjob {} vda",
        "blockcopy {} vda @/copy --wait --pivot --reuse-external --transient-job",
        "blockcopy {} vda @/other --wait --finish --transient-job",
        "blockcopy {} vda @/x --pivot --finish",
        "blockresize {} vda 2M",
        "blockresize {} vda x",
        "blockresize {} zzz 2048",
        "checkpoint-create-as {} c1 --print-xml --description x --diskspec vda,checkpoint=bitmap --diskspec hdc,checkpoint=no",
        "checkpoint-create-as {} c1",
        "checkpoint-create-as {} c1",
        "checkpoint-create {}",
        "checkpoint-create {} /nonexistent",
        "checkpoint-list {}",
        "checkpoint-list {} --name",
        "checkpoint-list {} --parent",
        "checkpoint-list {} --roots",
        "checkpoint-list {} --leaves",
        "checkpoint-list {} --tree",
        "checkpoint-list {} --topological",
        "checkpoint-list {} --from c1",
        "checkpoint-list {} --tree --parent",
        "checkpoint-info {} c1",
        "checkpoint-parent {} c1",
        "checkpoint-dumpxml {} nothing",
        "checkpoint-dumpxml {}",
        "backup-begin {}",
        "backup-begin {} /nonexistent",
        "checkpoint-delete {} c1 --children-only",
        "checkpoint-delete {} c1",
        "snapshot-create {}",
        "snapshot-list {}",
        "snapshot-list {} --tree",
        "snapshot-info {} --current",
        "dump {} /nonexistent/core",
        "dump {} @/core --live --crash",
        "domstats {} --state --interface",
        "destroy {}",
    ] {
        pair.check(line);
        if line.starts_with("screenshot {} @") {
            assert!(fs::read(pair.user.home.join("west/screen")).unwrap().starts_with(b"P6"));
        }
    }
}
