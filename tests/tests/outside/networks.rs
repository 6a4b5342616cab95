//! Networks of a guest and the programs of the host that serve or watch them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::guest::{Guest, Running, appears, debian_program, program_files};
use crate::monitor::Machine;

/// A network card, and what DHCP clients need.
pub const NET: &[&str] =
    &["net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net"];

/// Asks for an address and sets it.
pub const DHCP: &str = "ip link set lo up; ip link set eth0 up\n\
    mkdir -p /etc; echo '#!/bin/sh\n[ -n \"$ip\" ] || exit 0\n\
    ip addr add $ip/$mask dev $interface 2>/dev/null\n\
    [ -n \"$router\" ] && ip route add default via $router\n\
    for d in $dns; do echo nameserver $d >> /etc/resolv.conf; done\n\
    echo address $ip router $router' > /dhcp; chmod +x /dhcp\n\
    udhcpc -q -n -t 20 -T 1 -i eth0 -s /dhcp 2>/dev/null\n";

/// A web server of the host that gives `bytes` to everybody; its port.
pub fn web_server(bytes: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut request = [0; 2048];
                _ = stream.read(&mut request);
                let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
                _ = stream.write_all(head.as_bytes());
                let body: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
                _ = stream.write_all(&body);
            });
        }
    });
    port
}

/// What a guest does that fetches a file from the host.
fn fetch(address: &str, port: u16) -> String {
    format!("wget -q -O - http://{address}:{port}/ | sha1sum\n")
}

fn checksum(bytes: usize) -> String {
    let body: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
    let mut child =
        Command::new("sha1sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&body).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// Debian's passt, which serves one machine by a socket.
fn passt(socket: &Path, options: &[&str]) -> Option<Running> {
    let mut command = debian_program("sharing", "usr/bin/passt")?;
    command.args(["-f", "-q", "--runas", "0", "-a", "10.9.8.7", "-n", "24", "-g", "10.9.8.1"]);
    command.args(["--map-host-loopback", "10.9.8.1", "-m", "1500", "-s"]).arg(socket);
    command.args(options).stderr(Stdio::null());
    let mut daemon = Running(command.spawn().unwrap());
    let start = std::time::Instant::now();
    while !socket.exists() && start.elapsed() < Duration::from_secs(20) {
        if daemon.0.try_wait().unwrap().is_some() {
            return None; // it may not make its own namespaces here
        }
        thread::sleep(Duration::from_millis(10));
    }
    appears(socket);
    Some(daemon)
}

const BODY_BYTES: usize = 3_000_000;

fn through_passt(name: &str, passt_options: &[&str], options: impl Fn(&str) -> Vec<String>) {
    let port = web_server(BODY_BYTES);
    let script = format!("{DHCP}{}poweroff -f", fetch("10.9.8.1", port));
    let Some(guest) = Guest::new(name, NET, &[], &script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    let socket = guest.folder.join("passt");
    let Some(_passt) = passt(&socket, passt_options) else {
        tests::skip!("passt was not fetched or cannot run here");
    };
    let options = options(&socket.display().to_string());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let console = guest.run(&options);
    assert!(console.contains("address 10.9.8.7 router 10.9.8.1"), "{console}");
    assert!(console.contains(&checksum(BODY_BYTES)), "{console}");
}

#[test]
fn passt_serves_a_guest_by_a_stream() {
    through_passt("passt-stream", &[], |socket| {
        let netdev = format!("stream,id=n,server=off,addr.type=unix,addr.path={socket}");
        ["-netdev", &netdev, "-device", "virtio-net-pci,netdev=n"].map(str::to_owned).to_vec()
    });
}

#[test]
fn passt_serves_a_guest_by_shared_memory() {
    through_passt("passt-vhost", &["--vhost-user"], |socket| {
        let chardev = format!("socket,id=c,path={socket}");
        let netdev = ["-netdev", "vhost-user,id=n,chardev=c", "-device"];
        let mut options = vec!["-chardev".to_owned(), chardev];
        options.extend(netdev.map(str::to_owned));
        options.push("virtio-net-pci,netdev=n".to_owned());
        options
    });
}

#[test]
fn passt_is_started_and_ends_with_its_machine() {
    let Some(program) = tests::asset("bin/passt") else {
        tests::skip!("passt was not fetched");
    };
    // Whether it may run here at all.
    let folder = tests::scratch("passt-own");
    let runs = passt(&folder.join("socket"), &[]).is_some();
    fs::remove_dir_all(&folder).unwrap();
    if !runs {
        tests::skip!("passt cannot run here");
    }
    let port = web_server(BODY_BYTES);
    let script = format!("{DHCP}{}sleep 1; poweroff -f", fetch("10.9.8.1", port));
    for vhost in ["off", "on"] {
        let Some(guest) = Guest::new("passt-started", NET, &[], &script) else {
            tests::skip!("the kernel with modules or busybox was not fetched");
        };
        let mark = format!("guest-{vhost}-{}.example", std::process::id());
        let netdev = format!(
            "passt,id=n,path={},vhost-user={vhost},address=10.9.8.7,netmask=24,gateway=10.9.8.1,\
             map-host-loopback=10.9.8.1,mtu=1500,fqdn={mark},param=--runas,param=0",
            program.display()
        );
        let console = guest.run(&["-netdev", &netdev, "-device", "virtio-net-pci,netdev=n"]);
        assert!(console.contains("address 10.9.8.7 router 10.9.8.1"), "{console}");
        assert!(console.contains(&checksum(BODY_BYTES)), "{console}");
        let lives = |entry: fs::DirEntry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&mark)
        };
        let start = std::time::Instant::now();
        while fs::read_dir("/proc").unwrap().flatten().any(lives) {
            assert!(start.elapsed() < Duration::from_secs(10), "passt lives on");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The lines that tshark makes of a capture.
fn decoded(capture: &Path, fields: &[&str]) -> Option<String> {
    let mut command = debian_program("tshark", "usr/bin/tshark")?;
    let home = capture.parent().unwrap();
    command.env("HOME", home).arg("-r").arg(capture).args(["-o", "tcp.check_checksum:FALSE"]);
    command.args(fields).stderr(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "tshark reads the file");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn tshark_decodes_what_filter_dump_wrote() {
    let port = web_server(100_000);
    let script = format!("{DHCP}ping -c 2 10.0.2.2; {}poweroff -f", fetch("10.0.2.2", port));
    let Some(guest) = Guest::new("filter-dump", NET, &[], &script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    let (all, sent) = (guest.folder.join("all.pcap"), guest.folder.join("sent.pcap"));
    let filters = [
        format!("filter-dump,id=d,netdev=n,file={}", all.display()),
        format!("filter-dump,id=e,netdev=n,queue=rx,maxlen=96,file={}", sent.display()),
    ];
    let console = guest.run(&[
        "-netdev",
        "user,id=n",
        "-device",
        "virtio-net-pci,netdev=n",
        "-object",
        &filters[0],
        "-object",
        &filters[1],
    ]);
    assert!(console.contains("address 10.0.2.15") && console.contains(&checksum(100_000)));
    let Some(text) = decoded(&all, &[]) else { tests::skip!("tshark was not fetched") };
    for word in ["DHCP Discover", "DHCP ACK", "Echo (ping) reply", "GET / HTTP", "200 OK"] {
        assert!(text.contains(word), "no {word}: {text}");
    }
    assert!(!text.contains("Malformed"), "{text}");
    let sources = decoded(&sent, &["-Y", "ip", "-T", "fields", "-e", "ip.src"]).unwrap();
    let from_guest = |line: &str| line == "10.0.2.15" || line == "0.0.0.0";
    assert!(sources.lines().count() > 5 && sources.lines().all(from_guest), "{sources}");
}

#[test]
fn captures_come_and_go_while_the_machine_runs() {
    let mut machine = Machine::start("captures", &["-M", "none", "-netdev", "user,id=n"]);
    let file = machine.folder.join("file.pcap");
    let filter = json!({"qom-type": "filter-dump", "id": "f", "netdev": "n", "file": file});
    machine.good("object-add", filter.clone());
    assert_eq!(fs::metadata(&file).unwrap().len(), 24, "the head of the file");
    assert!(machine.bad("object-add", filter).contains("duplicate property 'f'"));
    machine.good("object-del", json!({"id": "f"}));
    assert_eq!(machine.bad("object-del", json!({"id": "f"})), "object 'f' not found");
    let nowhere = json!({"qom-type": "filter-dump", "id": "g", "netdev": "x", "file": "y"});
    let refused = machine.bad("object-add", nowhere);
    assert_eq!(refused, "Parameter 'netdev' expects a network backend id");
}

#[test]
fn a_guest_is_reached_through_the_old_short_form_and_its_hub() {
    let script = format!(
        "{DHCP}echo words of the guest > /index.html; httpd -p 80 -h /; echo serving; sleep 100"
    );
    let Some(guest) = Guest::new("net-hub", NET, &[], &script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let user = format!("user,hostfwd=tcp:127.0.0.1:{port}-:80");
    let nets = ["-net", "nic,macaddr=52:54:00:00:00:09", "-net", &user];
    let options = guest.options();
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.extend(nets);
    let mut machine = Machine::start("net-hub", &options);
    guest.says("serving");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("words of the guest\n"), "{text}");
    machine.good("quit", json!({}));
}

#[test]
fn wrong_networks_are_refused_in_the_words_of_the_reference() {
    let Some(reference) = tests::asset("bin/qemu-system-x86_64") else {
        tests::skip!("the reference QEMU 10 was not fetched");
    };
    let smbd = Path::new("/usr/sbin/smbd").exists();
    let lines = [
        "-netdev user,id=a,smb=/tmp",
        "-net foo",
        "-nic foo",
        "-netdev hubport,id=a",
        "-net nic,netdev=u",
    ];
    for line in lines.into_iter().filter(|line| !(smbd && line.contains("smb"))) {
        let said = [tests::hostel(), Command::new(&reference)].map(|mut command| {
            if command.get_program() != reference.as_os_str() {
                command.arg("qemu-system-x86_64");
            }
            command.args(["-display", "none", "-nodefaults", "-accel", "tcg"]);
            let output = command.args(line.split(' ')).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{line}");
            String::from_utf8_lossy(&output.stderr).into_owned()
        });
        assert_eq!(said[0], said[1], "{line}");
    }
}

/// A shell in network and user namespaces of its own, whose root may make interfaces.
fn namespaced(script: &str) -> Option<std::process::Output> {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "--mount", "sh", "-c"]);
    let can = Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-c", "ip tuntap add dev t0 mode tap"])
        .output();
    if !can.is_ok_and(|output| output.status.success()) {
        return None;
    }
    Some(command.arg(script).output().unwrap())
}

#[test]
fn scripts_set_a_tap_interface_up_and_down() {
    let folder = tests::scratch("tap-scripts");
    let hostel = tests::hostel_path();
    let (own, hostel) = (folder.display(), hostel.display());
    let script = format!(
        "cd {own}; printf '#!/bin/sh\\necho up $1 >> log; ip link set $1 up\\n' > up\n\
         printf '#!/bin/sh\\necho down $1 >> log\\n' > down\n\
         printf '#!/bin/sh\\nexit 7\\n' > wrong; chmod +x up down wrong\n\
         q() {{ {hostel} qemu-system-x86_64 -M none -display none -nodefaults -monitor stdio \
         -netdev tap,id=n,ifname=guest0,$1; }}\n\
         (sleep 1; ip -o link show guest0 >> log; echo quit) | q script={own}/up,downscript={own}/down\n\
         echo quit | q script={own}/wrong,downscript=no; echo quit | q script=/none,downscript=no"
    );
    let Some(output) = namespaced(&script) else {
        tests::skip!("no namespaces, no tap interfaces or no ip here");
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.len() == 3, "{log} {errors}");
    assert_eq!((lines[0], lines[2]), ("up guest0", "down guest0"));
    assert!(lines[1].contains("guest0") && lines[1].contains("UP"), "{log}");
    assert!(
        errors.contains(&format!("network script {own}/wrong failed with status 7")),
        "{errors}"
    );
    assert!(errors.contains("could not launch network script /none: No such file"), "{errors}");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_helper_with_rights_opens_the_interface() {
    let folder = tests::scratch("tap-helper");
    let hostel = tests::hostel_path();
    // The reference's helper does the same; it needs a file in /etc that allows the bridge.
    let helper = "import os, socket, struct, sys, fcntl, array\n\
        words = dict(w.lstrip('-').split('=', 1) for w in sys.argv[1:] if '=' in w)\n\
        assert words['br'] == 'br7' and '--use-vnet' in sys.argv\n\
        tap = os.open('/dev/net/tun', os.O_RDWR)\n\
        name = b'tap%d'.ljust(16, b'\\0')\n\
        fcntl.ioctl(tap, 0x400454ca, name + struct.pack('H22x', 0x0002 | 0x1000 | 0x4000))\n\
        s = socket.socket(fileno=int(words['fd']))\n\
        s.sendmsg([b'\\0'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [tap]))])\n";
    fs::write(folder.join("helper.py"), helper).unwrap();
    let (own, hostel) = (folder.display(), hostel.display());
    let script = format!(
        "cd {own}; printf '#!/bin/sh\\nexec python3 {own}/helper.py \"$@\"\\n' > helper\n\
         printf '#!/bin/sh\\nexit 1\\n' > wrong; chmod +x helper wrong\n\
         q() {{ echo 'info network\nquit' | {hostel} qemu-system-x86_64 -M none -display none \
         -nodefaults -monitor stdio -netdev tap,id=n,br=br7,helper={own}/$1; }}\n\
         q helper; q wrong"
    );
    let Some(output) = namespaced(&script) else {
        tests::skip!("no namespaces, no tap interfaces or no ip here");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("type=tap,ifname=tap0"), "{text} {errors}");
    assert!(errors.contains("bridge helper failed"), "{errors}");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn iperf3_runs_both_ways_through_the_user_mode_network() {
    let Some(files) = program_files("sharing", "usr/bin/iperf3") else {
        tests::skip!("iperf3 was not fetched");
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port_text = port.to_string();
    let mut server = debian_program("sharing", "usr/bin/iperf3").unwrap();
    server.args(["-s", "-B", "127.0.0.1", "-p", &port_text]).stdout(Stdio::null());
    let _server = Running(server.spawn().unwrap());
    let run = "/ld-linux-x86-64.so.2 --library-path / /iperf3 -c 10.0.2.2";
    let script = format!(
        "{DHCP}mkdir -p /tmp; for way in '' -R '-u -b 20M'; do {run} -p {port} -t 2 -J $way > /result \\\n\
         || cat /result; grep -A9 '\"end\"' /result > /dev/null && echo \"way '$way' ended\"\n\
         grep bits_per_second /result | tail -1; done; poweroff -f"
    );
    let Some(guest) = Guest::new("iperf3", NET, &files, &script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    let options = ["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n"];
    let console = guest.run(&options);
    let rates: Vec<f64> = console
        .lines()
        .filter_map(|line| line.trim().strip_prefix("\"bits_per_second\":"))
        .filter_map(|rate| rate.trim().trim_end_matches(',').parse().ok())
        .collect();
    assert!(!console.contains("\"error\"") && rates.len() == 3, "{console}");
    // Far below what it is, and far above what a network that loses and repeats would carry.
    assert!(rates[0] > 50e6 && rates[1] > 50e6 && rates[2] > 15e6, "{rates:?} {console}");
}

#[test]
fn what_two_guests_cannot_share_and_what_is_not_there_is_told() {
    let refused = |options: &[&str]| {
        let mut command = tests::hostel();
        command.args(["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none"]);
        let output = command.args(options).stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let folder = tests::scratch("contexts");
    let socket = |name: &str| {
        format!("vhost-vsock-pci,id={name},guest-cid=7,path={}", folder.join(name).display())
    };
    let text = refused(&["-device", &socket("one"), "-device", &socket("two")]);
    let expected =
        "Property 'vhost-vsock-pci.guest-cid' can't take value '7', it's in use by 'one'";
    assert!(text.contains(expected), "{text}");
    for (options, expected) in [
        (["-device", "vhost-vsock-pci,guest-cid=3"], "programs of the host meet the guest at unix"),
        (["-device", "vhost-vsock-pci,guest-cid=2,path=x"], "it must be from 3 to 4294967294"),
        (["-netdev", "tap,id=n,vhostforce=on"], "the kernel's vhost is not built in Hostel"),
        (["-netdev", "tap,id=n,queues=4"], "a tap has one queue"),
        (["-netdev", "passt,id=n,path=/nowhere/passt"], "install passt, or name it by path="),
    ] {
        let text = refused(&options);
        assert!(text.contains(expected), "{options:?}: {text}");
    }
    fs::remove_dir_all(folder).unwrap();
}
