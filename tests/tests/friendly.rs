//! The friendly command line beyond the first minutes: provisioning, mounts, snapshots, images, and
//! what happens when something is killed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::user::{User, free_port, has_mirror, until};

const USER_DATA: &str = "#cloud-config
hostname: chosen
users:
  - default
  - name: ann
    groups: [wheel]
    plain_text_passwd: secret
    ssh_authorized_keys: [ssh-ed25519 AAAA ann]
write_files:
  - {path: /etc/hello, content: aGVsbG8K, encoding: b64, owner: 'ann:ann', permissions: '0640'}
  - {path: /etc/late, content: 'late', defer: true}
bootcmd:
  - echo boot >> /etc/boots
runcmd:
  - [sh, -c, 'echo $(hostname) >> /root/ran']
  - echo two >> /root/ran
  - exit 3
";

#[test]
fn spark_obeys_its_seed_in_both_layouts() {
    if !has_mirror() {
        tests::skip!("there is no Debian package source");
    }
    let user = User::new("seed");
    let file = user.home.join("user-data");
    fs::write(&file, USER_DATA).unwrap();
    let file = file.to_str().unwrap();
    for layout in ["nocloud", "config-drive"] {
        user.good(&[
            "launch",
            "--name",
            layout,
            "--cloud-init",
            file,
            "--seed",
            layout,
            "--user",
            "bob",
        ]);
        user.good(&["wait", layout, "provisioned", "--timeout", "60"]);
        let root =
            |script: &str| user.good(&["exec", "--user", "root", layout, "--", "sh", "-c", script]);
        assert_eq!(root("cat /root/ran /etc/hello /etc/late"), "chosen\ntwo\nhello\nlate");
        assert_eq!(root("stat -c '%U %G %a' /etc/hello"), "ann ann 640\n");
        assert_eq!(root("id ann | tr ' ' '\\n' | grep -c wheel"), "1\n");
        assert_eq!(root("cat /home/ann/.ssh/authorized_keys"), "ssh-ed25519 AAAA ann\n");
        assert!(root("grep ^ann: /etc/shadow").starts_with("ann:$6$"));
        assert!(root("cat /home/bob/.ssh/authorized_keys").starts_with("ssh-ed25519 "));
        assert_eq!(root("stat -c %a /home/bob/.ssh/authorized_keys"), "600\n");
        // Who was named is who works in it.
        assert_eq!(user.good(&["exec", layout, "whoami"]), "bob\n");
        user.telling(&["info", layout], "exit 3: exit status: 3");
    }
    // Once for an instance, but for what is for each boot.
    user.good(&["restart", "nocloud"]);
    user.good(&["wait", "nocloud", "provisioned", "--timeout", "60"]);
    let script = "cat /root/ran /etc/boots";
    let said = user.good(&["exec", "--user", "root", "nocloud", "--", "sh", "-c", script]);
    assert_eq!(said, "chosen\ntwo\nboot\nboot\n");
    user.good(&["delete", "--all", "--purge"]);
    user.assert_clean();
}

#[test]
fn wrong_configurations_are_told_by_line_and_column() {
    let user = User::new("yaml");
    let file = user.home.join("user-data");
    let path = file.to_str().unwrap().to_owned();
    for (text, places) in [
        ("#cloud-config\nusers:\n  - name: x\n   y: 1\n", &["line 4, column", "in:    y: 1"][..]),
        ("#cloud-config\nruncmd: [a\n", &["line "]),
        ("#cloud-config\na: 1\na: 2\n", &["line 3, column 1", "twice"]),
        ("users: []\n", &["line 1, column 1", "#cloud-config"]),
        ("#cloud-config\npackages: [htop]\n", &["cannot do 'packages'", "'debian'"]),
    ] {
        fs::write(&file, text).unwrap();
        let (code, said) = user.bad(&["launch", "--cloud-init", &path]);
        assert_eq!(code, 1, "{said}");
        for place in places {
            assert!(said.contains(place), "{text:?}: {said}");
        }
    }
    let (code, said) = user.bad(&["launch", "--cloud-init", "/nonexistent"]);
    assert!(code == 1 && said.contains("'/nonexistent' cannot be read"), "{said}");
    let key = user.home.join("key");
    fs::write(&key, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
    let (_, said) = user.bad(&["launch", "--ssh-key", key.to_str().unwrap()]);
    assert!(said.contains("no public key"), "{said}");
    user.assert_clean();
}

#[test]
fn folders_are_mounted_live_and_after_a_start() {
    if !has_mirror() {
        tests::skip!("there is no Debian package source");
    }
    let user = User::new("mount");
    let folder = user.home.join("project");
    fs::create_dir_all(folder.join("src")).unwrap();
    fs::write(folder.join("src/file"), "from the host\n").unwrap();
    fs::write(user.home.join("secret"), "beside").unwrap();
    let source = folder.to_str().unwrap();
    user.good(&["launch", "--name", "m"]);
    user.good(&["mount", source, "m"]);
    let sh = |script: &str| user.good(&["exec", "m", "--", "sh", "-c", script]);
    assert_eq!(sh(&format!("cat {source}/src/file")), "from the host\n");
    // Everything that programs do with files.
    let script = format!(
        "cd {source} && echo inside > new && cp new copy && mv copy src/moved && ln -s new link && \
         ln new hard && chmod 600 new && mkdir d && rmdir d && echo more >> new && cat link && \
         dd if=/dev/urandom of=big bs=64k count=40 2>/dev/null && sha256sum big | cut -d' ' -f1"
    );
    let said = sh(&script);
    let sum = said.lines().last().unwrap().to_owned();
    assert!(said.starts_with("inside\nmore\n"), "{said}");
    let counted = Command::new("sha256sum").arg(folder.join("big")).output().unwrap();
    assert!(String::from_utf8_lossy(&counted.stdout).starts_with(&sum));
    assert_eq!(fs::read_to_string(folder.join("src/moved")).unwrap(), "inside\n");
    // A link of the guest's leads nowhere but in the guest.
    sh(&format!("cd {source} && ln -s ../secret out"));
    assert!(user.bad(&["exec", "m", "cat", &format!("{source}/out")]).1.contains("No such file"));
    // Where the user stands is where the program stands.
    let here =
        user.command(&["exec", "m", "pwd"]).current_dir(folder.join("src")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&here.stdout).trim(), format!("{source}/src"));
    let (code, said) = user.bad(&["mount", source, "m"]);
    assert!(code == 1 && said.contains("already"), "{said}");
    let (code, said) = user.bad(&["mount", "/nonexistent", "m:/x"]);
    assert!(code == 1 && said.contains("cannot be mounted"), "{said}");
    user.good(&["umount", "m"]);
    assert_eq!(sh(&format!("ls {source}")), "");
    until("the serving process ends", || user.processes("share-folder").is_empty());
    // Mounted while it is off, read-only, and there after each start.
    user.good(&["stop", "m"]);
    user.good(&["mount", "--read-only", source, "m:/mnt/p"]);
    user.good(&["start", "m"]);
    assert_eq!(sh("cat /mnt/p/src/file"), "from the host\n");
    assert!(user.bad(&["exec", "m", "touch", "/mnt/p/x"]).1.contains("Read-only"));
    user.good(&["delete", "--purge", "m"]);
    until("the serving process ends", || user.processes("share-folder").is_empty());
    user.assert_clean();
}

/// The first ten minutes of a newcomer, typed on a terminal.
#[test]
fn the_first_ten_minutes_on_a_terminal() {
    let (true, Some(script)) = (has_mirror(), tests::program("script")) else {
        tests::skip!("there is no Debian package source, or no 'script'");
    };
    let user = User::new("ten");
    let folder = user.home.join("work");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("note"), "from outside\n").unwrap();
    let mut terminal = Terminal::new(&script, &user);
    let port = free_port();
    terminal.types("hostel launch --name web", "Launched: web");
    terminal.types("hostel shell web", "root@web:~# ");
    terminal.types("echo precious > data; hostname", "web\r\n");
    terminal.types("exit", "% ");
    terminal.types("hostel mount work web:/mnt/work", "% ");
    terminal.types("hostel exec web cat /mnt/work/note", "from outside");
    terminal.types(
        "hostel exec web -- sh -c 'mkdir -p /www; echo served > /www/index.html; httpd -h /www'",
        "% ",
    );
    terminal.types(&format!("hostel port web {port}:80"), "% ");
    terminal.types("hostel port web", &format!("{port}:80"));
    let fetch = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    );
    terminal.types(&format!("({fetch})"), "served");
    terminal.types("hostel snapshot web --name live", "Snapshot taken: web.live");
    terminal
        .types("hostel stop web && hostel snapshot web --name good", "Snapshot taken: web.good");
    terminal.types("hostel start web && hostel exec web rm /root/data && hostel stop web", "% ");
    // It asks before it forgets.
    terminal.types("hostel restore web.good", "(Yes/no): ");
    terminal.types("no", "Snapshot restored: web.good");
    terminal.types("hostel start web && hostel exec web cat /root/data", "precious");
    terminal.types("hostel stop web && hostel clone web --name copy", "Cloned from web to copy");
    terminal.types(
        "hostel start copy && hostel exec copy -- sh -c 'hostname; cat data'",
        "copy\r\nprecious",
    );
    terminal.types("hostel snapshots", "web       good");
    terminal.types("hostel delete web", "% ");
    terminal.types("hostel list", "Deleted");
    terminal
        .types("hostel recover web && hostel start web && hostel exec web cat data", "precious");
    terminal.types("hostel rename copy other", "hostel stop copy");
    terminal.types("hostel delete web copy && hostel purge && hostel list", "No machines.");
    terminal.types("exit", "");
    user.assert_clean();
}

/// A shell on a pseudo-terminal.
struct Terminal {
    child: std::process::Child,
    input: std::process::ChildStdin,
    output: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn new(script: &std::path::Path, user: &User) -> Self {
        let folder = tests::hostel_path().parent().unwrap().to_owned();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(script);
        command.args(["-qec", "bash --norc --noprofile", "/dev/null"]).current_dir(&user.home);
        command.env("HOME", &user.home).env("PATH", path).env("TERM", "dumb");
        command.env_remove("XDG_RUNTIME_DIR").env_remove("XDG_STATE_HOME");
        command.env_remove("XDG_CACHE_HOME").env_remove("ENV");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let output = receiver;
        let mut terminal = Self { child, input, output, seen: String::new() };
        terminal.input.write_all(b"PS1='% '\n").unwrap();
        terminal.sees("PS1='% '");
        terminal.sees("% ");
        terminal
    }

    /// Types a line, and waits for what must then be there.
    fn types(&mut self, line: &str, expected: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).unwrap();
        // The terminal shows what is typed first.
        let echo = line.rsplit(' ').next().unwrap_or(line).to_owned();
        self.sees(&echo);
        self.sees(expected);
        if !expected.ends_with("% ") && !expected.ends_with(": ") && !expected.ends_with("# ") {
            self.sees(if expected == "web\r\n" || line == "exit" { "" } else { "% " });
        }
    }

    fn sees(&mut self, expected: &str) {
        loop {
            if let Some(at) = self.seen.find(expected) {
                self.seen.drain(..at + expected.len());
                return;
            }
            match self.output.recv_timeout(Duration::from_secs(40)) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("'{expected}' is not there: {}", self.seen),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Whoever is killed, and whenever: what is left is seen and can be cleared.
#[test]
fn whatever_is_killed_nothing_is_left_that_cannot_be_cleared() {
    if !has_mirror() {
        tests::skip!("there is no Debian package source");
    }
    let user = User::new("kill");
    user.good(&["launch", "--name", "warm", "--user", "bob"]); // the image is made
    user.good(&["delete", "--purge", "warm"]);
    for (number, (victim, after_ms)) in [
        ("launch", 5),
        ("launch", 40),
        ("launch", 90),
        ("launch", 300),
        ("daemon", 40),
        ("daemon", 120),
        ("daemon", 400),
        ("guest=", 250),
        ("guest=", 1500),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("k{number}");
        let mut command = user.command(&["launch", "--name", &name, "--user", "bob"]);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut launch = command.spawn().unwrap();
        thread::sleep(Duration::from_millis(after_ms));
        match victim {
            "launch" => _ = launch.kill(),
            victim => {
                let word = if victim == "daemon" { "\0daemon\0" } else { victim };
                for process in user.processes(word) {
                    _ = Command::new("kill").args(["-9", &process.to_string()]).status();
                }
            }
        }
        _ = launch.wait();
        let listed = user.good(&["list"]);
        user.good(&["delete", "--all", "--purge"]);
        // A program that the killed one had started may still have been at work.
        until(&format!("disks are cleared ({victim}, {after_ms} ms): {listed}"), || {
            user.good(&["purge"]);
            crate::user::names(&user.state().join("disks")).is_empty()
        });
        until(&format!("no emulator is left ({victim}, {after_ms} ms)"), || {
            user.processes("guest=").is_empty()
        });
        user.assert_clean();
    }
    // And a machine can be launched as if nothing had been.
    user.good(&["launch", "--name", "after"]);
    assert_eq!(user.good(&["exec", "after", "echo", "fine"]), "fine\n");
}

#[test]
fn several_launches_at_once_are_all_usable() {
    if !has_mirror() {
        tests::skip!("there is no Debian package source");
    }
    let user = User::new("many");
    thread::scope(|scope| {
        for number in 0..5 {
            let user = &user;
            scope.spawn(move || {
                let name = format!("n{number}");
                user.good(&["launch", "--name", &name]);
                assert_eq!(user.good(&["exec", &name, "hostname"]), format!("{name}\n"));
            });
        }
    });
    assert_eq!(user.good(&["list", "--format", "csv"]).matches("Running").count(), 5);
}

#[test]
fn settings_aliases_networks_and_completions() {
    if !has_mirror() {
        tests::skip!("there is no Debian package source");
    }
    let user = User::new("set");
    user.good(&["launch", "--name", "web"]);
    assert_eq!(user.good(&["get", "local.web.memory"]), "256.0MiB\n");
    assert_eq!(user.good(&["get", "--raw", "local.web.memory"]), "268435456\n");
    assert!(user.bad(&["set", "local.web.cpus=2"]).1.contains("'hostel stop web' first"));
    user.good(&["set", "local.web.autostart=true"]);
    assert_eq!(user.good(&["get", "local.web.autostart"]), "true\n");
    user.good(&["stop", "web"]);
    user.good(&["set", "local.web.cpus=2"]);
    user.good(&["set", "local.web.memory=300M"]);
    user.good(&["start", "web"]);
    assert_eq!(user.good(&["exec", "web", "nproc"]), "2\n");
    assert_eq!(user.good(&["get", "local.web.memory"]), "300.0MiB\n");
    for (pair, text) in [
        ("local.web.cpus=0", "no number of processors"),
        ("local.web.memory=x", "is no size"),
        ("local.web.frob=1", "There is no setting"),
        ("client.primary-nam=x", "did you mean 'client.primary-name'"),
    ] {
        user.good(&["stop", "web"]);
        let (code, said) = user.bad(&["set", pair]);
        assert!(code == 1 && said.contains(text), "{pair}: {said}");
    }
    user.good(&["set", "client.primary-name=web"]);
    user.good(&["alias", "web:echo", "say"]);
    let said = Command::new(user.state().join("aliases/say"))
        .args(["a  b", "$HOME"])
        .env("HOME", &user.home)
        .env_remove("XDG_RUNTIME_DIR")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "a  b $HOME\n");
    assert!(user.good(&["aliases"]).contains("say     web       echo"));
    user.good(&["unalias", "say"]);
    assert!(user.good(&["aliases"]).starts_with("No aliases"));
    assert!(user.good(&["networks"]).contains("user      user"));
    assert!(user.good(&["top"]).contains("web "));
    let words = user.good(&["completion", "words", "--", "stop", "w"]);
    assert_eq!(words, "web\n");
    assert!(user.good(&["completion", "bash"]).contains("complete -F _hostel hostel"));
    let pages = user.home.join("man");
    user.good(&["man", pages.to_str().unwrap()]);
    assert!(pages.join("hostel-launch.1").is_file() && !pages.join("hostel-proxy.1").exists());
    let (code, said) = user.bad(&["view", "web"]);
    assert!(code == 2 && said.contains("has no screen"), "{said}");
    // Events, as they happen.
    let mut command = user.command(&["events", "--count", "2"]);
    let events = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_millis(300));
    user.good(&["suspend", "web"]);
    user.good(&["resume", "web"]);
    let said = events.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "web suspended\nweb resumed\n");
}

#[test]
fn images_are_imported_launched_and_removed() {
    let user = User::new("image");
    let disk = user.home.join("disk.qcow2");
    let path = disk.to_str().unwrap();
    user.good(&["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"]);
    assert_eq!(user.good(&["image", "import", path, "--name", "mine"]), "mine\n");
    assert!(user.good(&["image", "list"]).contains("mine"));
    assert!(user.good(&["images"]).contains("mine"));
    let (code, said) = user.bad(&["launch", "minr", "--offline"]);
    assert!(code == 1 && said.contains("did you mean 'mine'"), "{said}");
    let (code, said) = user.bad(&["launch", "/nonexistent.img"]);
    assert!(code == 1 && said.contains("cannot be used"), "{said}");
    if has_mirror() {
        user.good(&["launch", "mine", "--name", "m", "--no-wait", "--memory", "128M"]);
        let (_, said) = user.bad(&["image", "remove", "mine"]);
        assert!(said.contains("lies over"), "{said}");
        // A disk that does not boot says so on its own; the machine is there all the same.
        assert!(user.good(&["info", "m"]).contains("mine"));
        // What firmware boots has a screen.
        assert!(user.good(&["view", "--address", "m"]).starts_with("vnc://127.0.0.1:59"));
        user.good(&["delete", "--purge", "m"]);
    }
    user.good(&["image", "remove", "mine"]);
    assert!(user.good(&["image", "list"]).starts_with("No images"));
    assert!(user.bad(&["image", "remove", "mine"]).1.contains("no image 'mine'"));
    user.assert_clean();
}
