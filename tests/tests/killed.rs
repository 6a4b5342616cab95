//! A program that is killed while it writes: all that was flushed is there, and the image can be
//! repaired to be clean.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::images::Random;

const DISK_BYTES: u64 = 16 << 20;
const UNIT: u64 = 4096;
const KILLS: u64 = 12;

/// What each unit may hold.
struct Model {
    flushed: Vec<u8>,
    since: Vec<HashSet<u8>>,
}

/// Writes until it is killed; answers with what may be there.
fn killed_load(image: &Path, format: &str, random: &mut Random) -> Model {
    let mut child = tests::hostel()
        .args(["qemu-io", "-t", "writeback", "-f", format])
        .arg(image)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut commands = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    let units = (DISK_BYTES / UNIT) as usize;
    let mut model = Model { flushed: vec![0; units], since: vec![HashSet::new(); units] };
    let mut latest = vec![0; units];
    let until = Instant::now() + Duration::from_millis(100 + random.below(400));
    while Instant::now() < until {
        if random.below(6) == 0 {
            // The prompt stands before each answer; a length says that the flush has ended.
            commands.write_all(b"flush\nlength\n").unwrap();
            while !answers.next().unwrap().unwrap().ends_with("MiB") {}
            model.flushed.copy_from_slice(&latest);
            model.since.iter_mut().for_each(HashSet::clear);
            continue;
        }
        let length = 1 + random.below(40);
        let at = random.below(units as u64 - length);
        let with = 1 + random.below(250) as u8;
        let units = at as usize..(at + length) as usize;
        latest[units.clone()].fill(with);
        model.since[units].iter_mut().for_each(|since| _ = since.insert(with));
        let line = format!("write -q -P {with} {} {}\n", at * UNIT, length * UNIT);
        commands.write_all(line.as_bytes()).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    model
}

fn tool(mut command: Command, arguments: &[&str]) -> (i32, String) {
    let output = command.args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), text + &errors)
}

fn check(format: &str, options: &str, can_check: bool) {
    let folder = tests::scratch(&format!("killed-{format}-{}", options.len()));
    let image = folder.join("disk");
    let name = image.display().to_string();
    let raw = folder.join("raw").display().to_string();
    let mut random = Random(0x1234_5678_9abc_def1);
    for round in 0..KILLS {
        _ = fs::remove_file(&image); // there is none at first
        let size = DISK_BYTES.to_string();
        let mut line = vec!["qemu-img", "create", "-q", "-f", format];
        if !options.is_empty() {
            line.extend(["-o", options]);
        }
        line.extend([name.as_str(), &size]);
        assert_eq!(tool(tests::hostel(), &line).0, 0, "{format}");
        let model = killed_load(&image, format, &mut random);
        if can_check {
            let repair = ["qemu-img", "check", "-q", "-r", "all", "-f", format, &name];
            let (code, text) = tool(tests::hostel(), &repair);
            assert_eq!(code, 0, "{format} {options}, round {round}: {text}");
            if tests::program("qemu-img").is_some() {
                let line = ["check", "-f", format, &name];
                let (code, text) = tool(Command::new("qemu-img"), &line);
                assert_eq!(code, 0, "{format} {options}, round {round}, the reference: {text}");
            }
        }
        let line = ["qemu-img", "convert", "-f", format, "-O", "raw", &name, &raw];
        let (code, text) = tool(tests::hostel(), &line);
        assert_eq!(code, 0, "{format} {options}, round {round}: {text}");
        let bytes = fs::read(&raw).unwrap();
        for (unit, contents) in bytes.chunks(UNIT as usize).enumerate() {
            let found = contents[0];
            assert!(
                contents.iter().all(|byte| *byte == found),
                "{format}, round {round}: unit {unit} is mixed"
            );
            assert!(
                found == model.flushed[unit] || model.since[unit].contains(&found),
                "{format} {options}, round {round}: unit {unit} has {found}, flushed was {}",
                model.flushed[unit]
            );
        }
    }
}

#[test]
fn qcow2_survives() {
    check("qcow2", "", true);
    check("qcow2", "cluster_size=4096,lazy_refcounts=on", true);
}

#[test]
fn other_formats_survive() {
    check("vdi", "", false);
    check("vmdk", "", false);
    check("vpc", "force_size=on", false);
    check("vhdx", "", true);
    check("parallels", "", true);
}
