//! Ways into machines: the serial console, ports that are forwarded by themselves, ssh where there
//! is no agent; and images that come over a network.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha512};

use crate::user::{User, free_port, has_mirror, until};

/// A command on a pseudo-terminal.
struct Typed {
    child: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Typed {
    fn new(user: &User, words: &str) -> Self {
        let line = format!("{} {words}", tests::hostel_path().display());
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("HOME", &user.home).env("TERM", "dumb");
        command.env_remove("XDG_RUNTIME_DIR").env_remove("XDG_STATE_HOME");
        command.env_remove("XDG_CACHE_HOME");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, input, output, seen: String::new() }
    }

    fn sees(&mut self, expected: &str) {
        while !self.seen.contains(expected) {
            match self.output.recv_timeout(Duration::from_secs(60)) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("'{expected}' is not there: {}", self.seen),
            }
        }
    }

    fn types(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn a_console_is_typed_on_from_the_boot_on_and_left_by_its_key() {
    if !has_mirror() || tests::program("script").is_none() {
        tests::skip!("there is no Debian package source, or no 'script'");
    }
    let user = User::new("cons");
    // From the first word of the guest on.
    let mut first = Typed::new(&user, "launch --name web --console");
    first.sees("The key Ctrl-] leaves its console.");
    first.sees("root@web:~#");
    first.types("echo typed-$((40+2)) > /root/typed; tty\n");
    first.sees("/dev/ttyS0");
    // One at a time; the others may look.
    let (code, said) = user.bad(&["console", "web"]);
    assert!(code == 2 && said.contains("Active console session exists"), "{said}");
    assert!(user.good(&["logs", "web"]).contains("/dev/ttyS0"));
    first.types("\x1d");
    first.sees("Left the console of 'web', which goes on.");
    first.sees("Launched: web");
    assert_eq!(first.child.wait().unwrap().code(), Some(0));
    assert_eq!(user.good(&["exec", "web", "cat", "/root/typed"]), "typed-42\n");
    // Whoever comes back sees what was said before, and hears when the machine goes.
    let mut second = Typed::new(&user, "console --escape ^a web");
    second.sees("Ctrl-A");
    second.sees("/dev/ttyS0");
    user.good(&["stop", "--force", "web"]);
    second.sees("'web' has gone off.");
    assert!(user.bad(&["console", "web"]).1.contains("hostel start web"));
    user.good(&["delete", "--purge", "web"]);
    assert!(
        crate::user::names(&user.state().join("logs")).iter().all(|name| !name.starts_with("web-"))
    );
}

fn page(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn what_listens_in_a_machine_is_forwarded_by_itself() {
    if !has_mirror() {
        tests::skip!("there is no Debian package source");
    }
    let user = User::new("auto");
    user.good(&["launch", "--name", "web", "--port", "auto", "--network", "none"]);
    let (first, second) = (free_port(), free_port());
    let serve = format!(
        "mkdir -p /www; echo inside > /www/index.html; httpd -h /www -p 127.0.0.1:{first}; \
         httpd -h /www -p {second}"
    );
    user.good(&["exec", "web", "--", "sh", "-c", &serve]);
    until("both ports answer", || {
        [first, second]
            .iter()
            .all(|port| page(*port).is_some_and(|page| page.ends_with("inside\n")))
    });
    let list = user.good(&["port", "web", "--format", "json"]);
    assert!(
        list.contains("\"automatic\"") && list.contains(&format!("\"guest\": {first}")),
        "{list}"
    );
    // A port that somebody else has is another one here.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = taken.local_addr().unwrap().port();
    user.good(&["exec", "web", "--", "httpd", "-h", "/www", "-p", &number.to_string()]);
    until("it is forwarded from elsewhere", || {
        let list = user.good(&["port", "web"]);
        let line = list.lines().find(|line| line.contains(&format!(":{number} ")));
        let host = line.and_then(|line| line.split(':').next()?.parse::<u16>().ok());
        host.is_some_and(|host| host != number && page(host).is_some())
    });
    user.good(&["exec", "web", "killall", "httpd"]);
    until("nothing is forwarded", || user.good(&["port", "web"]).starts_with("Nothing listens"));
    assert!(TcpStream::connect(("127.0.0.1", first)).is_err());
    user.good(&["port", "web", "--remove", "auto"]);
    assert!(user.processes("forward-ports").is_empty());
    user.good(&["port", "web", "auto"]);
    user.good(&["delete", "--purge", "web"]);
    until("the process ends with the machine", || user.processes("forward-ports").is_empty());
}

/// A server of two files.
fn mirror(files: Vec<(String, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let line = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let name = line.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
            let found = files.iter().find(|(file, _)| *file == name);
            let (status, data) =
                found.map_or(("404 No", &[][..]), |(_, data)| ("200 Good", data.as_slice()));
            let length = data.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            _ = stream.write_all(head.as_bytes());
            _ = stream.write_all(data);
        }
    });
    base
}

#[test]
fn images_of_a_users_own_catalogue_are_found_fetched_and_checked() {
    let user = User::new("cat");
    let disk = user.home.join("disk.qcow2");
    user.good(&["qemu-img", "create", "-q", "-f", "qcow2", disk.to_str().unwrap(), "64M"]);
    let data = fs::read(&disk).unwrap();
    let sum: String = Sha512::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect();
    let sums = format!("{sum}  good.qcow2\n{}  bad.qcow2\n", "0".repeat(128));
    let base = mirror(vec![
        ("good.qcow2".into(), data.clone()),
        ("bad.qcow2".into(), data),
        ("SUMS".into(), sums.into_bytes()),
    ]);
    let image = |name: &str| {
        format!(
            r#"{{"name": "{name}-linux", "aliases": ["{name}"], "title": "A {name} one", "version": "1",
                "base": "{base}", "image": "{name}.qcow2", "sums": "SUMS", "arches": {{"amd64": ""}}}}"#
        )
    };
    let folder = user.home.join(".config/hostel");
    fs::create_dir_all(&folder).unwrap();
    let images = [image("good"), image("bad"), image("absent")].join(",");
    fs::write(folder.join("images.json"), format!(r#"{{"schema": 1, "images": [{images}]}}"#))
        .unwrap();
    let found = user.good(&["find", "--offline", "good"]);
    assert!(found.contains("good-linux") && found.contains("A good one"), "{found}");
    let found = user.good(&["find", "--offline", "--format", "csv"]);
    for name in ["fedora-", "almalinux-", "rocky-", "opensuse-", "archlinux", "alpine-", "freebsd-"]
    {
        assert!(found.contains(name), "{name}: {found}");
    }
    assert_eq!(user.good(&["image", "pull", "good"]), "good-linux\n");
    assert!(user.good(&["image", "list"]).contains("good-linux"));
    let (_, said) = user.bad(&["image", "pull", "bad"]);
    assert!(said.contains("is not what its index announces") && said.contains("hint:"), "{said}");
    let (_, said) = user.bad(&["image", "pull", "absent"]);
    assert!(said.contains("there is no sum of absent.qcow2"), "{said}");
    let (code, said) = user.bad(&["launch", "fedora-41", "--offline"]);
    assert!(code == 1 && said.contains("did you mean 'fedora-43' or 'fedora-44'"), "{said}");
    let (code, said) = user.bad(&["launch", "--arch", "arm64"]);
    assert!(code == 1 && said.contains("amd64"), "{said}");
    fs::write(folder.join("images.json"), "{").unwrap();
    let (_, said) = user.bad(&["find", "--offline"]);
    assert!(said.contains("images.json cannot be read"), "{said}");
    user.assert_clean();
}

/// Builds whole systems and boots them: minutes on the translator.
const SYSTEMS: &str = "HOSTEL_TEST_SYSTEMS";

#[test]
fn debian_is_built_provisioned_and_reached_with_and_without_an_agent() {
    if !has_mirror() || std::env::var_os(SYSTEMS).is_none() {
        tests::skip!("{SYSTEMS} is not set, or there is no Debian package source");
    }
    // A release's number chooses it, any other word both.
    let chosen = std::env::var(SYSTEMS).unwrap_or_default();
    let is_chosen = |release: &str| chosen == release || !["12", "13"].contains(&chosen.as_str());
    for (release, seed) in [("12", "config-drive"), ("13", "nocloud")] {
        if !is_chosen(release) {
            continue;
        }
        let user = User::new(&format!("deb{release}"));
        let folder = user.home.join("shared");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("note"), "from outside\n").unwrap();
        let data = user.home.join("user-data");
        fs::write(&data, "#cloud-config\nruncmd:\n  - echo ran > /root/ran\n").unwrap();
        let image = format!("debian:{release}");
        let (data, mount) = (data.to_str().unwrap(), format!("{}:/mnt", folder.display()));
        let words = ["launch", &image, "--name", "d", "--user", "ann", "--mount", &mount];
        user.good(&[&words[..], &["--cloud-init", data, "--seed", seed]].concat());
        user.good(&["wait", "d", "provisioned", "--timeout", "600"]);
        let root = |line: &str| user.good(&["exec", "--user", "root", "d", "--", "sh", "-c", line]);
        assert_eq!(root("cat /root/ran"), "ran\n");
        assert_eq!(root(". /etc/os-release; echo $VERSION_ID"), format!("{release}\n"));
        let source = if seed == "nocloud" { "nocloud" } else { "config-disk" };
        let id = root("cat /run/cloud-init/instance-data.json");
        assert!(id.to_lowercase().contains(source), "{id}");
        assert_eq!(
            user.good(&["exec", "d", "--", "sh", "-c", "whoami; cat /mnt/note"]),
            "ann\nfrom outside\n"
        );
        // What the user of the machine makes is the user's here.
        user.good(&["exec", "d", "--", "touch", "/mnt/made"]);
        assert!(folder.join("made").is_file());
        assert!(user.good(&["info", "d"]).contains("Way in:    agent"));
        if tests::program("ssh").is_none() {
            continue;
        }
        // Without the agent it goes by ssh, whatever carries that.
        // A little later, so that this command's own end is still told.
        root(
            "systemctl disable hostel-agent; systemd-run --on-active=2 \
             --timer-property=AccuracySec=100ms systemctl stop hostel-agent",
        );
        until("the agent is gone", || !user.good(&["info", "d"]).contains("Way in:    agent"));
        let expected = if release == "13" { "ssh on the virtual socket" } else { "serial console" };
        user.telling(&["info", "d"], expected);
        assert_eq!(user.good(&["exec", "d", "--", "echo", "a  b", "$HOME"]), "a  b $HOME\n");
        assert_eq!(user.bad(&["exec", "d", "--", "sh", "-c", "exit 7"]).0, 7);
        if release == "12" {
            assert!(user.good(&["info", "d"]).contains("ssh on port"));
        }
        user.good(&["delete", "--all", "--purge"]);
        user.assert_clean();
    }
}
