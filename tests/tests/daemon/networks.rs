//! Networks on bridges, in network namespaces: the daemon in one, guests and the world outside in
//! others, plugged together with veth pairs. Peers are busybox's DHCP client, the kernel's own IPv6
//! and a Linux guest on our emulator.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::fixture::{Daemon, is_root};
use crate::need;

/// Network namespaces that go away.
pub struct Namespaces(pub Vec<String>);

impl Namespaces {
    pub fn new(names: &[&str]) -> Self {
        let names = names.iter().map(|name| format!("{name}-{}", std::process::id()));
        let own = Self(names.collect());
        for name in &own.0 {
            run("ip", &["netns", "add", name]);
            run("ip", &["-n", name, "link", "set", "lo", "up"]);
        }
        own
    }

    /// Plugs a link of one namespace into a bridge of another.
    fn plug(&self, from: usize, link: &str, to: usize, port: &str, bridge: &str) {
        let (from, to) = (&self.0[from], &self.0[to]);
        run("ip", &["-n", to, "link", "add", port, "type", "veth", "peer", link, "netns", from]);
        if !bridge.is_empty() {
            run("ip", &["-n", to, "link", "set", port, "master", bridge]);
        }
        run("ip", &["-n", to, "link", "set", port, "up"]);
        run("ip", &["-n", from, "link", "set", link, "up"]);
    }

    /// Runs a program in a namespace.
    fn exec(&self, place: usize, arguments: &[&str]) -> (bool, String) {
        let command = [&["netns", "exec", self.0[place].as_str()], arguments].concat();
        output("ip", &command)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            output("ip", &["netns", "del", name]);
        }
    }
}

fn output(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("timeout").arg("40").arg(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
}

fn run(program: &str, arguments: &[&str]) -> String {
    let (ok, text) = output(program, arguments);
    assert!(ok, "{program} {arguments:?}: {text}");
    text
}

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn busybox() -> Option<PathBuf> {
    tests::asset("busybox-amd64/bin/busybox")
}

/// What a DHCP client does with what it is told.
fn client_script(daemon: &Daemon) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = daemon.scratch.join("client.sh");
    let script = "#!/bin/sh\necho \"$1 $ip $subnet $router $dns $domain\"\n\
                  [ \"$1\" = bound ] || exit 0\nip address add $ip/24 dev $interface\n\
                  ip route add default via $router\n";
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// Whether the machine and its packages let the tests of this file run.
macro_rules! need_networks {
    () => {
        need!("virsh", "ip");
        if !is_root() {
            tests::skip!("networks are root's");
        }
        if !output("ip", &["netns", "list"]).0 {
            tests::skip!("there are no network namespaces");
        }
        if busybox().is_none() {
            tests::skip!("busybox is not fetched");
        }
    };
}

fn dhcp(namespaces: &Namespaces, daemon: &Daemon, name: &str) -> String {
    let busybox = busybox().unwrap().display().to_string();
    let script = client_script(daemon);
    let own = format!("hostname:{name}");
    let arguments = [
        &busybox, "udhcpc", "-i", "g0", "-n", "-q", "-t", "20", "-T", "1", "-s", &script, "-x",
        &own,
    ];
    let (ok, text) = namespaces.exec(1, &arguments);
    assert!(ok, "{text}");
    text
}

#[test]
fn the_default_network_gives_addresses_names_and_a_way_out() {
    need_networks!();
    let namespaces = Namespaces::new(&["hh", "hg", "ho"]);
    let mut daemon = Daemon::start_in(Some(&namespaces.0[0]), &["--system"]);
    assert!(daemon.ok("net-list --name").contains("default"), "it is there from the first start");
    // The world outside knows nothing of the guests' addresses, and can answer the host alone.
    namespaces.plug(2, "o0", 0, "up0", "");
    run("ip", &["-n", &namespaces.0[0], "address", "add", "203.0.113.1/24", "dev", "up0"]);
    run("ip", &["-n", &namespaces.0[2], "address", "add", "203.0.113.2/24", "dev", "o0"]);
    namespaces.plug(1, "g0", 0, "p0", "virbr0");
    run("ip", &["-n", &namespaces.0[1], "link", "set", "g0", "address", "52:54:00:00:00:77"]);
    daemon.ok("net-update default add ip-dhcp-host \
         \"<host mac='52:54:00:00:00:77' name='fixed' ip='192.168.122.77'/>\" --live --config");
    let told = dhcp(&namespaces, &daemon, "myguest");
    let expected = "bound 192.168.122.77 255.255.255.0 192.168.122.1 192.168.122.1";
    assert!(told.contains(expected), "{told}");
    let leases = daemon.ok("net-dhcp-leases default");
    assert!(leases.contains("192.168.122.77/24") && leases.contains("fixed"), "{leases}");
    let busybox = busybox().unwrap().display().to_string();
    let ping = |to| namespaces.exec(1, &[&busybox, "ping", "-c", "1", "-W", "2", to]).0;
    assert!(ping("192.168.122.1"), "the host");
    assert!(ping("203.0.113.2"), "the world outside, by translation");
    let asked = namespaces.exec(1, &[&busybox, "nslookup", "fixed", "192.168.122.1"]);
    assert!(asked.1.contains("192.168.122.77"), "{}", asked.1);
    // Connections from outside are refused.
    let by = ["-n", &namespaces.0[2], "route", "add", "192.168.122.0/24", "via", "203.0.113.1"];
    run("ip", &by);
    let inward = ["ping", "-c", "1", "-W", "1", "192.168.122.77"];
    let inward = [&[busybox.as_str()], &inward[..]].concat();
    assert!(!namespaces.exec(2, &inward).0, "nobody gets in");
    a_flush_is_repaired(&namespaces, &busybox);
    daemon.kill_and_restart();
    assert!(daemon.ok("net-list --name").contains("default"), "it outlives the daemon");
    assert!(daemon.ok("net-dhcp-leases default").contains("192.168.122.77/24"));
    assert!(ping("203.0.113.2"));
    daemon.ok("net-destroy default");
    let links = run("ip", &["-n", &namespaces.0[0], "link"]);
    assert!(!links.contains("virbr0"), "{links}");
}

/// nft of Debian's package, in a namespace.
fn nft(namespaces: &Namespaces, arguments: &[&str]) -> Option<String> {
    let program = tests::asset("nftables/usr/sbin/nft")?;
    let root: &Path = program.ancestors().nth(3)?;
    let loader = root.join("lib64/ld-linux-x86-64.so.2").display().to_string();
    let libraries =
        format!("{0}/usr/lib/x86_64-linux-gnu:{0}/lib/x86_64-linux-gnu", root.display());
    let program = program.display().to_string();
    let own = [&[loader.as_str(), "--library-path", &libraries, &program], arguments].concat();
    let (ok, text) = namespaces.exec(0, &own);
    assert!(ok, "{text}");
    Some(text)
}

fn a_flush_is_repaired(namespaces: &Namespaces, busybox: &str) {
    let Some(rules) = nft(namespaces, &["list", "ruleset"]) else { return };
    for part in ["table inet hostel_virbr0", "masquerade", "reject", "ct state"] {
        assert!(rules.contains(part), "{part}: {rules}");
    }
    nft(namespaces, &["flush", "ruleset"]);
    until("the rules come back", || {
        nft(namespaces, &["list", "ruleset"]).is_some_and(|now| now == rules)
    });
    assert!(namespaces.exec(1, &[busybox, "ping", "-c", "1", "-W", "2", "203.0.113.2"]).0);
}

#[test]
fn hosts_of_an_ipv6_network_make_addresses_of_their_own() {
    need_networks!();
    let namespaces = Namespaces::new(&["sh", "sg"]);
    let daemon = Daemon::start_in(Some(&namespaces.0[0]), &["--system"]);
    let path = daemon.scratch.join("six.xml");
    let text = "<network><name>six</name><forward mode='route'/><bridge name='six0' stp='off'/>\
                <ip family='ipv6' address='fd00:7::1' prefix='64'/></network>";
    fs::write(&path, text).unwrap();
    daemon.ok(&format!("net-define {}; net-start six", path.display()));
    namespaces.plug(1, "g0", 0, "p0", "six0");
    until("an address of the network", || {
        run("ip", &["-n", &namespaces.0[1], "-6", "address", "show", "g0"]).contains("fd00:7::")
    });
    let routes = run("ip", &["-n", &namespaces.0[1], "-6", "route"]);
    assert!(routes.contains("default via fe80::"), "{routes}");
}

#[test]
fn networks_of_all_modes_start_and_conflicts_are_refused() {
    need_networks!();
    let namespaces = Namespaces::new(&["mh"]);
    let daemon = Daemon::start_in(Some(&namespaces.0[0]), &["--system"]);
    let file = |name: &str, inside: &str| {
        let path = daemon.scratch.join(&format!("{name}.xml"));
        fs::write(&path, format!("<network><name>{name}</name>{inside}</network>")).unwrap();
        path.display().to_string()
    };
    for (name, inside) in [
        ("isolated", "<bridge name='m0'/><ip address='10.5.0.1' prefix='24'/>"),
        (
            "routed",
            "<forward mode='route'/><bridge name='m1'/><ip address='10.5.1.1' prefix='24'/>",
        ),
        ("open", "<forward mode='open'/><bridge name='m2'/><ip address='10.5.2.1' prefix='24'/>"),
        ("plugged", "<forward mode='bridge'/><bridge name='m0'/>"),
    ] {
        daemon.ok(&format!("net-create {}", file(name, inside)));
    }
    let again = "<bridge name='m9'/><ip address='10.5.1.9' prefix='24'/>";
    for (name, inside, message) in [
        ("again", again, "Network is already in use by interface m1"),
        ("taken", "<bridge name='m1'/>", "error creating bridge interface m1: File exists"),
        ("absent", "<forward mode='bridge'/><bridge name='none0'/>", "none0"),
    ] {
        let (ok, text) = daemon.virsh(&format!("net-create {}", file(name, inside)));
        assert!(!ok && text.contains(message), "{name}: {text}");
    }
    let links = run("ip", &["-n", &namespaces.0[0], "link"]);
    assert!(!links.contains("m9"), "what has failed leaves nothing: {links}");
    daemon.ok("net-destroy plugged; net-destroy isolated; net-destroy routed; net-destroy open");
    let links = run("ip", &["-n", &namespaces.0[0], "link"]);
    assert!(!links.contains("m0") && !links.contains("m2"), "{links}");
}

#[test]
fn a_guest_on_the_default_network_gets_an_address() {
    need_networks!();
    let modules = "kernel-12/lib/modules";
    let version = tests::asset_file(modules, "6.").and_then(|p| Some(p.file_name()?.to_owned()));
    let (Some(kernel), Some(version)) = (tests::asset_file("kernel-12/boot", "vmlinuz"), version)
    else {
        tests::skip!("the kernel is not fetched");
    };
    let module = |name: &str| {
        let version = version.to_string_lossy();
        tests::asset(&format!("{modules}/{version}/kernel/{name}.ko")).unwrap()
    };
    let names = [
        "drivers/virtio/virtio_ring",
        "drivers/virtio/virtio",
        "drivers/virtio/virtio_pci_modern_dev",
        "drivers/virtio/virtio_pci_legacy_dev",
        "drivers/virtio/virtio_pci",
        "net/core/failover",
        "drivers/net/net_failover",
        "drivers/net/virtio_net",
    ];
    let files: Vec<PathBuf> = names.iter().map(|name| module(name)).collect();
    let loads: String = names
        .iter()
        .map(|name| format!("busybox insmod /{}.ko\n", name.rsplit('/').next().unwrap()))
        .collect();
    let script = format!(
        "export PATH=/bin\nbusybox mount -t proc proc /proc\nbusybox mount -t sysfs sys /sys\n{loads}\
         busybox ip link set eth0 up\nbusybox udhcpc -i eth0 -n -q -t 30 -T 1 -s /bin/busybox\n\
         echo asked; busybox sleep 1000"
    );
    let namespaces = Namespaces::new(&["dh"]);
    let daemon = Daemon::start_in(Some(&namespaces.0[0]), &["--system"]);
    let disk = daemon.scratch.join("initrd");
    tests::initramfs::write_with(&disk, &busybox().unwrap(), &script, &files).unwrap();
    let emulator = daemon.scratch.join("qemu-system-x86_64");
    symlink(tests::hostel_path(), &emulator).unwrap();
    let document = daemon.scratch.join("guest.xml");
    let text = format!(
        "<domain type='qemu'><name>guest</name><memory unit='MiB'>256</memory><os>\
         <type arch='x86_64' machine='q35'>hvm</type><kernel>{}</kernel><initrd>{}</initrd>\
         <cmdline>console=ttyS0 quiet</cmdline></os><features><acpi/></features><devices><emulator>{}</emulator>\
         <interface type='network'><mac address='52:54:00:00:00:42'/><source network='default'/>\
         <model type='virtio'/></interface><controller type='pci' model='pcie-root-port'/>\
         <controller type='pci' model='pcie-root-port'/></devices></domain>",
        kernel.display(),
        disk.display(),
        emulator.display()
    );
    fs::write(&document, text).unwrap();
    daemon.ok(&format!("create {}", document.display()));
    let list = daemon.ok("domiflist guest");
    assert!(list.contains("vnet0") && list.contains("default"), "{list}");
    let ports = run("ip", &["-n", &namespaces.0[0], "link", "show", "master", "virbr0"]);
    assert!(ports.contains("vnet0"), "{ports}");
    until("a lease", || daemon.ok("domifaddr guest").contains("192.168.122."));
    assert!(daemon.ok("net-dhcp-leases default").contains("52:54:00:00:00:42"));
    daemon.ok("attach-interface guest bridge virbr0 --model virtio --live");
    let list = daemon.ok("domiflist guest");
    assert!(list.contains("vnet1") && list.contains("virbr0"), "a card plugged in later: {list}");
    assert!(daemon.ok("domifstat guest vnet0").contains("rx_bytes"));
    daemon.ok("destroy guest");
    until("the tap device goes", || {
        !run("ip", &["-n", &namespaces.0[0], "link"]).contains("vnet0")
    });
}
