//! Debian's qemu-guest-agent in a guest, by a port of virtio-serial.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use base64::prelude::*;
use serde_json::{Value, json};

use super::guest::{Guest, program_files};
use crate::monitor::Machine;

const MODULES: &[&str] = &[
    "drivers/char/virtio_console",
    "drivers/block/virtio_blk",
    "lib/crc16",
    "crypto/crc32c_generic",
    "fs/mbcache",
    "fs/jbd2/jbd2",
    "fs/ext4/ext4",
];

/// The host's end.
struct Agent(BufReader<UnixStream>);

impl Agent {
    fn ask(&mut self, command: &str, arguments: &Value) -> Value {
        let text = json!({"execute": command, "arguments": arguments}).to_string() + "\n";
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer.get("return").is_some(), "{command}: {answer}");
        answer["return"].clone()
    }
}

#[test]
fn debians_agent_tells_runs_and_freezes() {
    let Some(files) = program_files("sharing", "usr/sbin/qemu-ga") else {
        tests::skip!("the guest agent was not fetched");
    };
    let script = "mke2fs /dev/vda > /dev/null; mkdir -p /mnt /run /var/run\n\
        mount -t ext2 /dev/vda /mnt || echo no file system\n\
        (i=0; while :; do i=$((i+1)); echo $i > /mnt/counter; echo count $i; sleep 0.05; done) &\n\
        port=$(basename $(dirname $(grep -l org.qemu /sys/class/virtio-ports/*/name)))\n\
        /ld-linux-x86-64.so.2 --library-path / /qemu-ga -m virtio-serial -p /dev/$port \
        -t /run -f /run/pid\necho the agent ended";
    let Some(guest) = Guest::new("agent", MODULES, &files, script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    let (socket, disk) = (guest.folder.join("agent"), guest.folder.join("disk"));
    fs::write(&disk, vec![0; 4 << 20]).unwrap();
    let chardev = format!("socket,id=a,path={},server=on,wait=off", socket.display());
    let drive = format!("file={},format=raw,if=virtio", disk.display());
    let mut options = guest.options();
    for option in [
        "-drive",
        &drive,
        "-chardev",
        &chardev,
        "-device",
        "virtio-serial-pci",
        "-device",
        "virtserialport,chardev=a,name=org.qemu.guest_agent.0",
    ] {
        options.push(option.to_owned());
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut machine = Machine::start("agent", &options);
    let opened = machine.event("VSERPORT_CHANGE");
    assert_eq!(opened["data"]["open"], true, "the agent has opened its port");
    let stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut agent = Agent(BufReader::new(stream));

    assert_eq!(agent.ask("guest-sync", &json!({"id": 4711})), 4711);
    let info = agent.ask("guest-info", &json!({}));
    assert!(info["version"].as_str().unwrap().starts_with("10."), "{info}");

    let run = json!({"path": "/bin/busybox", "arg": ["uname", "-r"], "capture-output": true});
    let pid = agent.ask("guest-exec", &run)["pid"].clone();
    let until = Instant::now() + Duration::from_secs(60);
    let ended = loop {
        let status = agent.ask("guest-exec-status", &json!({"pid": pid}));
        if status["exited"] == true {
            break status;
        }
        assert!(Instant::now() < until, "{status}");
        thread::sleep(Duration::from_millis(50));
    };
    let output = BASE64_STANDARD.decode(ended["out-data"].as_str().unwrap()).unwrap();
    assert_eq!(ended["exitcode"], 0, "{ended}");
    let output = String::from_utf8(output).unwrap();
    assert!(output.starts_with("6.1.0-"), "{output}");

    guest.says("count 3");
    let frozen = agent.ask("guest-fsfreeze-freeze", &json!({}));
    assert_eq!(frozen, 1, "one file system is frozen: {}", guest.console());
    assert_eq!(agent.ask("guest-fsfreeze-status", &json!({})), "frozen");
    thread::sleep(Duration::from_millis(300)); // what was under way
    let frozen = guest.console().matches("count ").count();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(guest.console().matches("count ").count(), frozen, "the writer stands still");
    assert_eq!(agent.ask("guest-fsfreeze-thaw", &json!({})), 1);
    guest.says(&format!("count {}", frozen + 2));
}
