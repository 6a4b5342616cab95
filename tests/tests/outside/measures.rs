//! Our figures beside the reference's, of the same guest in the same run. Not tests: whoever wants
//! to know runs `HOSTEL_BIN=target/release/hostel cargo test -p tests measured -- --ignored
//! --nocapture --test-threads 1`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::guest::{Guest, Running, debian_program, program_files};
use super::networks::{DHCP, NET, web_server};

/// The card that both have: the reference's virtio-gpu is a package of its own.
const CARD: &[&str] = &[
    "drivers/gpu/drm/drm",
    "drivers/gpu/drm/drm_kms_helper",
    "drivers/gpu/drm/ttm/ttm",
    "drivers/gpu/drm/drm_ttm_helper",
    "drivers/gpu/drm/drm_vram_helper",
    "drivers/gpu/drm/tiny/bochs",
];

/// Both emulators, the reference last.
fn emulators() -> Option<[(&'static str, Command); 2]> {
    let reference = Command::new(tests::asset("bin/qemu-system-x86_64")?);
    let mut ours = tests::hostel();
    ours.arg("qemu-system-x86_64");
    Some([("ours", ours), ("reference", reference)])
}

/// A guest under way.
struct Measured<'a> {
    guest: &'a Guest,
    child: Running,
    last: (Instant, f64),
}

impl<'a> Measured<'a> {
    fn start(guest: &'a Guest, mut command: Command, options: &[&str]) -> Self {
        _ = fs::remove_file(guest.folder.join("console"));
        command.args(["-accel", "tcg", "-nodefaults", "-display", "none"]);
        command.args(guest.options()).args(options).stdin(Stdio::null());
        let child = Running(command.spawn().unwrap());
        Self { guest, child, last: (Instant::now(), 0.0) }
    }

    /// Seconds of the processor so far.
    fn processor_s(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.0.id())).unwrap();
        let fields = stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2);
        fields.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }

    /// Waits for the guest to say this; seconds since the time before, by clock and processor.
    fn until(&mut self, mark: &str) -> (f64, f64) {
        self.guest.says(mark);
        let (now, used) = (Instant::now(), self.processor_s());
        let (then, before) = std::mem::replace(&mut self.last, (now, used));
        ((now - then).as_secs_f64(), used - before)
    }
}

#[test]
#[ignore = "a measurement, which takes a minute and an idle machine"]
fn measured_networks() {
    let files = program_files("sharing", "usr/bin/iperf3");
    let Some((files, emulators)) = files.zip(emulators()) else {
        tests::skip!("iperf3 or the reference was not fetched");
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = debian_program("sharing", "usr/bin/iperf3").unwrap();
    server.args(["-s", "-B", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null());
    let _server = Running(server.spawn().unwrap());
    let web = web_server(1000);
    let iperf =
        format!("/ld-linux-x86-64.so.2 --library-path / /iperf3 -c 10.0.2.2 -p {port} -t 3 -J");
    let script = format!(
        "{DHCP}mkdir -p /tmp; sleep 1; echo mark0\n\
         {iperf} > /result; echo mark1; grep '\"bytes\"' /result | tail -1\n\
         {iperf} -R > /result; echo mark2; grep '\"bytes\"' /result | tail -1\n\
         n=0; while [ $n -lt 1000 ]; do wget -q -O /dev/null http://10.0.2.2:{web}/ || echo lost\n\
         n=$((n+1)); done; echo mark3; sleep 1; poweroff -f"
    );
    let Some(guest) = Guest::new("measured-networks", NET, &files, &script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    for (name, command) in emulators {
        let options = ["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n"];
        let mut measured = Measured::start(&guest, command, &options);
        measured.until("mark0");
        let [up, down, web] = ["mark1", "mark2", "mark3"].map(|mark| measured.until(mark));
        let console = guest.console();
        let bytes: Vec<f64> = console
            .lines()
            .filter_map(|line| line.trim().strip_prefix("\"bytes\":"))
            .map(|bytes| bytes.trim().trim_end_matches(',').parse().unwrap())
            .collect();
        for ((way, (_, processor)), bytes) in [("up", up), ("down", down)].into_iter().zip(bytes) {
            let (rate, cost) = (bytes * 8.0 / 3e9, processor / (bytes / 1e9));
            println!("{name}: iperf3 {way}: {rate:.2} Gbit/s, {cost:.2} CPU-s/GB");
        }
        let lost = console.matches("lost").count();
        println!("{name}: 1000 x HTTP: {:.0}/s, {:.2} CPU-s, {lost} lost", 1000.0 / web.0, web.1);
    }
}

#[test]
#[ignore = "a measurement, which takes a minute and an idle machine"]
fn measured_screens() {
    let Some(emulators) = emulators() else { tests::skip!("the reference was not fetched") };
    let script = "echo 0 > /sys/class/graphics/fbcon/cursor_blink\n\
        dd if=/dev/urandom bs=4096 count=6 of=/part 2>/dev/null\n\
        for n in 1 2; do i=0; while [ $i -lt 128 ]; do cat /part; i=$((i+1)); done > /p$n\n\
        dd if=/dev/urandom bs=4096 count=6 of=/part 2>/dev/null; done\n\
        echo ready; while :; do cat /p1 > /dev/fb0; cat /p2 > /dev/fb0; done";
    let Some(guest) = Guest::new("measured-screens", CARD, &[], script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    for (name, command) in emulators {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port = port.clamp(5900, 60_000);
        let vnc = format!("127.0.0.1:{}", port - 5900);
        let options = ["-device", "VGA", "-vnc", &vnc];
        let mut measured = Measured::start(&guest, command, &options);
        measured.until("ready");
        thread::sleep(Duration::from_secs(3));
        let without = {
            let before = measured.processor_s();
            thread::sleep(Duration::from_secs(5));
            measured.processor_s() - before
        };
        let address = format!("127.0.0.1:{port}");
        let mut viewer = display::viewer::Viewer::connect(&address, None).unwrap();
        viewer.look(Duration::from_secs(20)).unwrap();
        let (start, before) = (Instant::now(), measured.processor_s());
        let mut updates = 0;
        while start.elapsed() < Duration::from_secs(5) {
            viewer.request(true).unwrap();
            let deadline = Instant::now() + Duration::from_secs(5);
            while !viewer.wait(deadline).unwrap().contains(&display::viewer::Event::Updated) {}
            updates += 1;
        }
        let with = measured.processor_s() - before;
        println!(
            "{name}: {:.1} updates a second of 1024x768, {:.2} s of the processor in 5 s beside \
             {without:.2} s without a viewer",
            f64::from(updates) / 5.0,
            with
        );
    }
}

#[test]
#[ignore = "a measurement, which takes a minute and an idle machine"]
fn measured_shares() {
    const NINEP: &[&str] = &[
        "fs/netfs/netfs",
        "fs/fscache/fscache",
        "net/9p/9pnet",
        "net/9p/9pnet_virtio",
        "fs/9p/9p",
    ];
    let Some(emulators) = emulators() else { tests::skip!("the reference was not fetched") };
    let script = "mkdir -p /mnt; mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 tag /mnt\n\
        sleep 1; echo mark0; dd if=/mnt/large of=/dev/null bs=1M 2>/dev/null; echo mark1\n\
        dd if=/dev/zero of=/mnt/new bs=1M count=512 2>/dev/null; echo mark2\n\
        n=0; while [ $n -lt 2000 ]; do echo $n > /mnt/f$n; n=$((n+1)); done; echo mark3\n\
        sleep 1; poweroff -f";
    let Some(guest) = Guest::new("measured-shares", NINEP, &[], script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    let share = guest.folder.join("share");
    for (name, command) in emulators {
        _ = fs::remove_dir_all(&share);
        fs::create_dir(&share).unwrap();
        fs::write(share.join("large"), vec![7; 512 << 20]).unwrap();
        let virtfs = format!("local,path={},mount_tag=tag,security_model=none", share.display());
        let mut measured = Measured::start(&guest, command, &["-virtfs", &virtfs]);
        measured.until("mark0");
        let [read, write, files] = ["mark1", "mark2", "mark3"].map(|mark| measured.until(mark));
        println!(
            "{name}: 9p reads {:.0} MiB/s ({:.2} CPU-s), writes {:.0} MiB/s ({:.2} CPU-s), \
             makes {:.0} files/s",
            512.0 / read.0,
            read.1,
            512.0 / write.0,
            write.1,
            2000.0 / files.0
        );
    }
}
