//! Jobs on the disks of a machine, next to the reference: the same commands, the same events, the
//! same contents.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::monitor::Machine;

const MIB: usize = 1 << 20;

/// The two emulators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Peer {
    Ours,
    Reference,
}

impl Peer {
    fn all() -> Vec<Self> {
        let reference = tests::asset("bin/qemu-system-x86_64").is_some();
        if reference { vec![Self::Ours, Self::Reference] } else { vec![Self::Ours] }
    }

    fn machine(self, name: &str) -> Machine {
        let command = match self {
            Self::Ours => {
                let mut command = tests::hostel();
                command.arg("qemu-system-x86_64");
                command
            }
            Self::Reference => Command::new(tests::asset("bin/qemu-system-x86_64").unwrap()),
        };
        // No machine at all would do; one that never runs needs firmware all the same.
        let firmware = tests::asset("qemu-system-10/usr/share/seabios");
        let firmware = firmware.map_or_else(String::new, |folder| folder.display().to_string());
        let options = ["-S", "-accel", "tcg", "-L", &firmware];
        Machine::start_command(command, &format!("{name}-{self:?}"), &options)
    }
}

fn tool(arguments: &[&str]) -> String {
    let output = tests::hostel().args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {text}{errors}");
    text
}

/// A disk of 8 MiB whose MiB number N is filled with N + 1, under an overlay that fills some anew.
fn chain(folder: &Path) -> (PathBuf, PathBuf) {
    let (base, top) = (folder.join("base"), folder.join("top"));
    let names = (base.display().to_string(), top.display().to_string());
    tool(&["qemu-img", "create", "-q", "-f", "qcow2", &names.0, "8M"]);
    let mut line = vec!["qemu-io".to_owned(), "-f".into(), "qcow2".into(), names.0.clone()];
    for number in 0..6 {
        line.extend(["-c".into(), format!("write -P {} {number}M 1M", number + 1)]);
    }
    tool(&line.iter().map(String::as_str).collect::<Vec<_>>());
    tool(&["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", &names.1]);
    tool(&[
        "qemu-io",
        "-f",
        "qcow2",
        "-c",
        "write -P 100 2M 1M",
        "-c",
        "write -z 3M 512k",
        &names.1,
    ]);
    (base, top)
}

fn raw(image: &Path) -> Vec<u8> {
    let out = image.with_extension("raw");
    let names = (image.display().to_string(), out.display().to_string());
    tool(&["qemu-img", "convert", "-U", "-O", "raw", &names.0, &names.1]);
    fs::read(out).unwrap()
}

/// The contents of [`chain`].
fn model() -> Vec<u8> {
    let mut bytes = vec![0; 8 * MIB];
    for number in 0..6 {
        bytes[number * MIB..][..MIB].fill(number as u8 + 1);
    }
    bytes[2 * MIB..3 * MIB].fill(100);
    bytes[3 * MIB..3 * MIB + MIB / 2].fill(0);
    bytes
}

impl Machine {
    fn add(&mut self, name: &str, file: &Path, more: &Value) {
        let mut options = json!({"driver": "qcow2", "node-name": name,
            "file": {"driver": "file", "filename": file, "node-name": format!("{name}-file")}});
        for (key, value) in more.as_object().unwrap() {
            options[key] = value.clone();
        }
        self.good("blockdev-add", options);
    }

    /// Serves a node for writing; a guest could not do more.
    fn serve(&mut self, node: &str) {
        let socket = self.folder.join("nbd").display().to_string();
        let address = json!({"type": "unix", "data": {"path": socket}});
        self.good("nbd-server-start", json!({"addr": address}));
        self.good("nbd-server-add", json!({"device": node, "name": "disk", "writable": true}));
    }

    fn write(&self, model: &mut [u8], at: usize, length: usize, with: u8) {
        let url = format!("nbd+unix:///disk?socket={}", self.folder.join("nbd").display());
        tool(&["qemu-io", "-f", "raw", "-c", &format!("write -P {with} {at} {length}"), &url]);
        model[at..at + length].fill(with);
    }

    /// The events of jobs until one is gone, in short.
    fn until_gone(&mut self, id: &str) -> Vec<String> {
        let mut words = Vec::new();
        loop {
            let at = self.events.iter().position(|event| {
                let name = event["event"].as_str().unwrap();
                name.starts_with("BLOCK_JOB") || name == "JOB_STATUS_CHANGE"
            });
            let Some(at) = at else {
                let next = self.event_any();
                self.events.push(next);
                continue;
            };
            let event = self.events.remove(at);
            let status = event["data"]["status"].as_str();
            words.push(status.unwrap_or(event["event"].as_str().unwrap()).to_owned());
            if status == Some("null") && event["data"]["id"] == id {
                return words;
            }
        }
    }

    fn until_ready(&mut self) {
        self.event("BLOCK_JOB_READY");
    }
}

/// Runs a scenario on both emulators and holds the events against each other.
fn both(name: &str, scenario: impl Fn(&mut Machine) -> Vec<String>) {
    let mut seen: Option<Vec<String>> = None;
    for peer in Peer::all() {
        let mut machine = peer.machine(name);
        let events = scenario(&mut machine);
        match &seen {
            None => seen = Some(events),
            // The reference stops its jobs for a moment whenever the graph changes.
            Some(ours) => {
                let mut words = events.join(" ");
                for status in ["running paused", "ready standby"] {
                    let (on, _) = status.split_once(' ').unwrap();
                    words = words.replace(&format!("{status} {on}"), on);
                }
                assert_eq!(ours.join(" "), words, "ours, then the reference's");
            }
        }
    }
}

#[test]
fn a_disk_moves_while_it_is_written() {
    both("mirror", |machine| {
        let (_, top) = chain(&machine.folder);
        let target = machine.folder.join("target");
        tool(&["qemu-img", "create", "-q", "-f", "qcow2", &target.display().to_string(), "8M"]);
        machine.add("top", &top, &json!({}));
        machine.add("target", &target, &json!({}));
        machine.serve("top");
        let mut model = model();
        machine.write(&mut model, MIB, 65536, 50);
        let job = json!({"job-id": "j", "device": "top", "target": "target", "sync": "full"});
        machine.good("blockdev-mirror", job);
        machine.until_ready();
        machine.write(&mut model, 5 * MIB + 1000, 3000, 51);
        machine.good("job-complete", json!({"id": "j"}));
        let events = machine.until_gone("j");
        // What is written now goes to the copy alone.
        machine.write(&mut model, 0, 4096, 52);
        machine.good("nbd-server-stop", json!({}));
        machine.good("blockdev-del", json!({"node-name": "top"}));
        machine.good("blockdev-del", json!({"node-name": "target"}));
        assert!(raw(&target) == model, "the copy has other contents");
        events
    });
}

#[test]
fn a_copy_that_is_not_wanted_ends_at_one_moment() {
    both("mirror-cancel", |machine| {
        let (_, top) = chain(&machine.folder);
        let target = machine.folder.join("target");
        tool(&["qemu-img", "create", "-q", "-f", "qcow2", &target.display().to_string(), "8M"]);
        machine.add("top", &top, &json!({}));
        machine.add("target", &target, &json!({}));
        machine.serve("top");
        let mut copied = model();
        let job = json!({"job-id": "j", "device": "top", "target": "target", "sync": "full"});
        machine.good("blockdev-mirror", job);
        machine.until_ready();
        machine.write(&mut copied, 4 * MIB, 100, 60);
        machine.good("block-job-cancel", json!({"device": "j"}));
        let events = machine.until_gone("j");
        let mut after = copied.clone();
        machine.write(&mut after, 6 * MIB, 100, 61);
        machine.good("nbd-server-stop", json!({}));
        machine.good("blockdev-del", json!({"node-name": "target"}));
        machine.good("blockdev-del", json!({"node-name": "top"}));
        assert!(raw(&target) == copied && raw(&top) == after);
        events
    });
}

#[test]
fn an_overlay_goes_into_its_base_while_it_is_written() {
    both("commit", |machine| {
        let (base, top) = chain(&machine.folder);
        machine.add("base", &base, &json!({"read-only": true}));
        machine.add("top", &top, &json!({"backing": "base"}));
        machine.serve("top");
        let mut model = model();
        machine.write(&mut model, 7 * MIB, 10_000, 70);
        machine.good("block-commit", json!({"job-id": "j", "device": "top"}));
        machine.until_ready();
        machine.write(&mut model, 5, 10, 71);
        machine.good("block-job-complete", json!({"device": "j"}));
        let events = machine.until_gone("j");
        machine.write(&mut model, 3 * MIB, 512, 72);
        machine.good("nbd-server-stop", json!({}));
        machine.good("blockdev-del", json!({"node-name": "top"}));
        machine.good("blockdev-del", json!({"node-name": "base"}));
        assert!(raw(&base) == model, "the base has other contents");
        events
    });
}

#[test]
fn a_middle_image_goes_into_its_base() {
    both("commit-middle", |machine| {
        let (base, middle) = chain(&machine.folder);
        let top = machine.folder.join("over");
        let below = middle.display().to_string();
        let over = top.display().to_string();
        tool(&["qemu-img", "create", "-q", "-f", "qcow2", "-b", &below, "-F", "qcow2", &over]);
        machine.add("base", &base, &json!({"read-only": true}));
        machine.add("middle", &middle, &json!({"backing": "base", "read-only": true}));
        machine.add("over", &top, &json!({"backing": "middle"}));
        let job = json!({"job-id": "j", "device": "over", "top-node": "middle",
            "base-node": "base"});
        machine.good("block-commit", job);
        let events = machine.until_gone("j");
        machine.good("blockdev-del", json!({"node-name": "over"}));
        let info = tool(&["qemu-img", "info", "--output=json", &over]);
        let info: Value = serde_json::from_str(&info).unwrap();
        assert!(info["full-backing-filename"].as_str().unwrap().ends_with("base"), "{info}");
        machine.good("blockdev-del", json!({"node-name": "middle"}));
        machine.good("blockdev-del", json!({"node-name": "base"}));
        assert!(raw(&top) == model() && raw(&base) == model());
        events
    });
}

#[test]
fn an_overlay_takes_what_is_below_it() {
    both("stream", |machine| {
        let (_, top) = chain(&machine.folder);
        machine.add("top", &top, &json!({}));
        machine.serve("top");
        let mut model = model();
        machine.write(&mut model, 4 * MIB + 512, 512, 80);
        machine.good("block-stream", json!({"job-id": "j", "device": "top"}));
        let events = machine.until_gone("j");
        machine.write(&mut model, 7 * MIB, 512, 81);
        machine.good("nbd-server-stop", json!({}));
        machine.good("blockdev-del", json!({"node-name": "top"}));
        let info = tool(&["qemu-img", "info", "--output=json", &top.display().to_string()]);
        assert!(!info.contains("backing"), "{info}");
        assert!(raw(&top) == model);
        events
    });
}

#[test]
fn a_backup_is_of_one_moment_and_the_next_one_of_what_changed() {
    both("backup", |machine| {
        let (_, top) = chain(&machine.folder);
        let (full, more) = (machine.folder.join("full"), machine.folder.join("more"));
        for image in [&full, &more] {
            tool(&["qemu-img", "create", "-q", "-f", "qcow2", &image.display().to_string(), "8M"]);
        }
        machine.add("top", &top, &json!({}));
        machine.add("full", &full, &json!({}));
        machine.add("more", &more, &json!({}));
        machine.serve("top");
        let bitmap = json!({"node": "top", "name": "b"});
        let job = json!({"job-id": "j", "device": "top", "target": "full", "sync": "full",
            "speed": 2 * MIB});
        // The bitmap and the backup begin at the same moment.
        machine.good(
            "transaction",
            json!({"actions": [{"type": "block-dirty-bitmap-add", "data": bitmap},
                {"type": "blockdev-backup", "data": job}]}),
        );
        let before = model();
        let mut now = before.clone();
        machine.write(&mut now, 5 * MIB, 1000, 90);
        machine.write(&mut now, 100, 100, 91);
        machine.good("block-job-set-speed", json!({"device": "j", "speed": 0}));
        let mut events = machine.until_gone("j");
        let job = json!({"job-id": "k", "device": "top", "target": "more",
            "sync": "incremental", "bitmap": "b"});
        machine.good("blockdev-backup", job);
        events.extend(machine.until_gone("k"));
        machine.good("nbd-server-stop", json!({}));
        for node in ["more", "full", "top"] {
            machine.good("blockdev-del", json!({"node-name": node}));
        }
        assert!(raw(&full) == before, "the backup is not of its moment");
        let mut changed = vec![0; 8 * MIB];
        for at in [5 * MIB, 0] {
            changed[at..at + 65536].copy_from_slice(&now[at..at + 65536]);
        }
        assert!(raw(&more) == changed, "the second one holds something else");
        events
    });
}

#[test]
fn two_disks_go_on_in_overlays_at_one_moment_or_neither_does() {
    both("snapshot", |machine| {
        let (base, top) = chain(&machine.folder);
        let over = ["one", "two"].map(|name| machine.folder.join(name));
        machine.add("base", &base, &json!({"read-only": true}));
        machine.add("top", &top, &json!({"backing": "base"}));
        machine.serve("top");
        let mut model = model();
        let action = |file: &Path, name: &str| {
            json!({"type": "blockdev-snapshot-sync", "data": {"node-name": "top",
                "snapshot-file": file, "snapshot-node-name": name, "format": "qcow2"}})
        };
        let abort = json!({"type": "abort", "data": {}});
        let error =
            machine.bad("transaction", json!({"actions": [action(&over[0], "one"), abort]}));
        machine.write(&mut model, 0, 512, 110);
        machine.good("transaction", json!({"actions": [action(&over[1], "two")]}));
        let before = model.clone();
        machine.write(&mut model, 2 * MIB, 512, 111);
        let nodes = machine.good("query-named-block-nodes", json!({"flat": false}));
        let two = nodes.as_array().unwrap().iter().find(|node| node["node-name"] == "two");
        assert_eq!(two.unwrap()["backing_file_depth"], 2);
        machine.good("nbd-server-stop", json!({}));
        // The reference lets it go when the last user has gone.
        machine.ask("blockdev-del", &json!({"node-name": "two"}));
        machine.good("blockdev-del", json!({"node-name": "top"}));
        assert!(raw(&top) == before && raw(&over[1]) == model);
        vec![error]
    });
}

#[test]
fn jobs_that_wait_for_their_user_say_so_and_refuse_what_they_cannot() {
    both("waiting", |machine| {
        let file = machine.folder.join("made");
        let options = json!({"driver": "file", "filename": file, "size": 0});
        machine.good("blockdev-create", json!({"job-id": "c", "options": options}));
        let mut words = Vec::new();
        loop {
            let event = machine.event("JOB_STATUS_CHANGE");
            let status = event["data"]["status"].as_str().unwrap().to_owned();
            words.push(status.clone());
            if status == "concluded" {
                break;
            }
        }
        let jobs = machine.good("query-jobs", json!({}));
        words.push(jobs[0]["status"].to_string());
        words.push(machine.bad("job-complete", json!({"id": "c"})));
        machine.good("job-dismiss", json!({"id": "c"}));
        let file = json!({"driver": "file", "filename": file, "node-name": "f"});
        machine.good("blockdev-add", file);
        let options = json!({"driver": "qcow2", "file": "f", "size": MIB, "cluster-size": 4096});
        machine.good("blockdev-create", json!({"job-id": "d", "options": options}));
        loop {
            let event = machine.event("JOB_STATUS_CHANGE");
            if event["data"] == json!({"status": "concluded", "id": "d"}) {
                break;
            }
        }
        let jobs = machine.good("query-jobs", json!({}));
        assert_eq!(jobs[0].get("error"), None, "{jobs}");
        machine.good("job-dismiss", json!({"id": "d"}));
        let disk = json!({"driver": "qcow2", "file": "f", "node-name": "q"});
        machine.good("blockdev-add", disk);
        words.push(machine.bad("job-cancel", json!({"id": "none"})));
        words.push(machine.bad("block-job-cancel", json!({"device": "none"})));
        words
    });
}
