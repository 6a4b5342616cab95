//! A machine's clock, and what a machine costs while its guest has nothing to do.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Three stretches of time, told as they begin and end.
const SCRIPT: &str = "/bin/busybox mount -t proc proc /proc\n/bin/busybox sleep 3\n\
    for i in 1 2 3 4; do read up rest < /proc/uptime; echo AT $up; /bin/busybox sleep 5; done\n\
    /bin/busybox poweroff -f";

/// Ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// The time that a process has computed.
fn computed(process: u32) -> Duration {
    /// The unit, by the kernel's contract with programs.
    const TICK: Duration = Duration::from_millis(10);
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = text[text.rfind(')').unwrap() + 2..].split(' ').collect();
    TICK * (fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap())
}

/// The guest's clock and ours, and what has been computed.
struct Sample {
    guest_s: f64,
    host: Instant,
    computed: Duration,
}

fn samples(name: &str, mut command: Command, options: &[&str]) -> Option<Vec<Sample>> {
    let (kernel, initrd) = crate::monitor::kernel(name, SCRIPT)?;
    let started = command
        .args(["-display", "none", "-nodefaults", "-m", "512", "-serial", "stdio"])
        .args(options)
        .args(["-kernel", &kernel, "-initrd", &initrd])
        .args(["-append", "console=ttyS0 quiet"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut running = Running(started.unwrap());
    let reader = BufReader::new(running.0.stdout.take().unwrap());
    let lines = reader.lines().map_while(Result::ok);
    let found = lines.filter_map(|line| {
        let guest_s = line.trim().strip_prefix("AT ")?.parse().ok()?;
        Some(Sample { guest_s, host: Instant::now(), computed: computed(running.0.id()) })
    });
    Some(found.collect())
}

/// What others do on this host disturbs a stretch: one of three that is good proves it.
fn check(name: &str, options: &[&str], load_max: f64) {
    let mut command = tests::hostel();
    command.arg("qemu-system-x86_64");
    let Some(samples) = samples(name, command, options) else {
        tests::skip!("the kernel or busybox was not fetched");
    };
    assert_eq!(samples.len(), 4);
    let stretches = samples.windows(2).map(|two| {
        let passed_s = (two[1].host - two[0].host).as_secs_f64();
        let drift = (two[1].guest_s - two[0].guest_s) / passed_s - 1.0;
        (drift.abs(), (two[1].computed - two[0].computed).as_secs_f64() / passed_s)
    });
    let stretches: Vec<_> = stretches.collect();
    println!("drift and load: {stretches:?}");
    assert!(stretches.iter().any(|(drift, _)| *drift < 0.01), "{stretches:?}");
    assert!(stretches.iter().any(|(_, load)| *load < load_max), "{stretches:?}");
}

#[test]
fn a_guests_clock_keeps_time_and_an_idle_guest_costs_nothing() {
    check("time-pc", &["-machine", "pc"], 0.01);
}

#[test]
fn four_processors_keep_time_and_cost_little_while_idle() {
    check("time-q35", &["-machine", "q35", "-smp", "4"], 0.03);
}
