//! `hostel launch` and the verbs around it: the first minutes of a newcomer, without any privilege.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::user::{User, free_port, has_mirror};

#[test]
fn the_first_minutes_of_a_newcomer() {
    if !has_mirror() {
        tests::skip!("there is no Debian package source");
    }
    let user = User::new("new");
    let port = free_port();
    let forward = format!("{port}:80");
    assert_eq!(user.good(&["list"]), "No machines. 'hostel launch' makes one.\n");
    let launched = user.good(&["launch", "--name", "web", "--memory", "256M", "--port", &forward]);
    assert_eq!(launched, "Launched: web\n");
    // Streams, arguments and exit codes go through as they are.
    assert_eq!(user.good(&["exec", "web", "--", "echo", "a  b", "$HOME"]), "a  b $HOME\n");
    assert_eq!(
        user.bad(&["exec", "web", "--", "sh", "-c", "echo no >&2; exit 7"]),
        (7, "no\n".into())
    );
    let (code, said) = user.bad(&["exec", "web", "nonsense"]);
    assert!(code == 127 && said.contains("nonsense"), "{code} {said}");
    let data: Vec<u8> = (0..200_000_u32).map(|number| (number * 7) as u8).collect();
    let mut cat = user.command(&["exec", "web", "cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = cat.stdin.take().unwrap();
    let sent = data.clone();
    let writer = std::thread::spawn(move || input.write_all(&sent));
    let output = cat.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.stdout == data, "binary data comes back as it was");
    // Files both ways.
    let file = user.home.join("file");
    fs::write(&file, &data).unwrap();
    user.good(&["transfer", file.to_str().unwrap(), "web:/root/"]);
    let back = user.home.join("back");
    user.good(&["transfer", "web:/root/file", back.to_str().unwrap()]);
    assert!(fs::read(&back).unwrap() == data, "the file is the same on its way back");
    // A service of the guest on a port of the host.
    user.good(&["wait", "web", "reachable", "--timeout", "60"]);
    let serve = "mkdir -p /www; echo hello from inside > /www/index.html; httpd -h /www -p 80";
    user.good(&["exec", "web", "--", "sh", "-c", serve]);
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    connection.read_to_string(&mut page).unwrap();
    assert!(page.ends_with("hello from inside\n"), "{page}");
    let list = user.telling(&["list", "--format", "json"], "\"10.0.2.15\"");
    assert!(list.contains("\"Running\""), "{list}");
    // What was changed is there after a restart.
    user.good(&["restart", "web"]);
    assert_eq!(user.good(&["exec", "web", "cat", "/www/index.html"]), "hello from inside\n");
    let (code, said) = user.bad(&["launch", "--name", "web"]);
    assert!(code == 1 && said.contains("There is a machine 'web' already"), "{said}");
    // Deleted, brought back, deleted for good.
    user.good(&["delete", "web"]);
    assert!(user.bad(&["start", "web"]).1.contains("hostel recover web"));
    user.good(&["recover", "web"]);
    user.good(&["start", "web"]);
    assert_eq!(user.good(&["exec", "web", "cat", "/www/index.html"]), "hello from inside\n");
    user.good(&["delete", "web"]);
    user.good(&["purge"]);
    assert_eq!(user.good(&["list"]), "No machines. 'hostel launch' makes one.\n");
    let disks = fs::read_dir(user.home.join(".local/state/hostel/disks")).unwrap();
    assert_eq!(disks.count(), 0, "nothing is left of it");
}

#[test]
fn a_machine_that_runs_is_kept_with_its_memory_and_brought_back() {
    if !has_mirror() {
        tests::skip!("there is no Debian package source");
    }
    let user = User::new("kept");
    user.good(&["launch", "--name", "web", "--memory", "256M"]);
    let shell = |line: &str| user.good(&["exec", "web", "--", "sh", "-c", line]);
    // In memory alone: a process, and a file that no disk has.
    shell("setsid sleep 4321 </dev/null >/dev/null 2>&1 & sleep 1; echo early > /run/kept");
    let running = "ps | grep -c '[s]leep 4321'; true";
    assert_eq!(shell(running), "1\n");
    assert_eq!(user.good(&["snapshot", "web", "--name", "one"]), "Snapshot taken: web.one\n");
    shell("kill $(pidof sleep); sleep 1; echo late > /run/kept");
    assert_eq!(shell("cat /run/kept; ps | grep -c '[s]leep 4321'; true"), "late\n0\n");
    user.good(&["restore", "web.one", "--destructive"]);
    assert_eq!(shell("cat /run/kept; ps | grep -c '[s]leep 4321'; true"), "early\n1\n");
    user.good(&["delete", "web"]);
    user.good(&["purge"]);
}

#[test]
fn a_shell_is_a_terminal_of_its_own() {
    let (true, Some(script)) = (has_mirror(), tests::program("script")) else {
        tests::skip!("there is no Debian package source, or no 'script'");
    };
    let user = User::new("tty");
    // The machine is made because it is not there.
    let hostel = tests::hostel_path();
    let line = format!("{} shell", hostel.display());
    let mut shell = Command::new(script)
        .args(["-qec", &line, "/dev/null"])
        .env("HOME", &user.home)
        .env_remove("XDG_RUNTIME_DIR")
        .env("TERM", "vt220")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    let mut output = shell.stdout.take().unwrap();
    let mut seen = String::new();
    let mut bytes = [0; 4096];
    let until = Instant::now() + Duration::from_secs(240);
    while !seen.contains("root@primary") {
        let count = output.read(&mut bytes).unwrap();
        assert!(count > 0 && Instant::now() < until, "no prompt: {seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    input.write_all(b"tty; stty size; exit 5\n").unwrap();
    output.read_to_string(&mut seen).unwrap();
    assert!(seen.contains("/dev/pts/"), "{seen}");
    assert_eq!(shell.wait().unwrap().code(), Some(5), "{seen}");
}

#[test]
fn mistakes_get_one_clear_error_and_leave_nothing() {
    let user = User::new("bad");
    for (words, code, text) in [
        (&["launch", "--name", "a b"][..], 1, "cannot be the name of a machine"),
        (&["launch", "nonsense"], 1, "There is no image 'nonsense'"),
        (&["launch", "--memory", "8M"], 1, "too little memory"),
        (&["launch", "--disk", "1M"], 1, "too small a disk"),
        (&["launch", "--memory", "much"], 1, "is no size"),
        (&["info", "nobody"], 2, "There is no machine 'nobody'"),
        (&["exec", "nobody", "true"], 2, "There is no machine 'nobody'"),
        (&["frobnicate"], 1, "no applet or command 'frobnicate'"),
    ] {
        let (found, said) = user.bad(words);
        assert!(said.contains(text) && found == code, "{words:?}: {found} {said}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("{}:80", taken.local_addr().unwrap().port());
    let (_, said) = user.bad(&["launch", "--port", &forward]);
    assert!(said.contains("cannot be had") && said.contains("hint:"), "{said}");
    assert_eq!(user.good(&["list"]), "No machines. 'hostel launch' makes one.\n");
    assert!(!user.home.join(".local/state/hostel/disks").exists());
}

/// Named networks, the home, and the clock of a machine that was held.
#[test]
fn a_machine_has_the_networks_and_the_home_that_it_was_given_and_the_time() {
    if !has_mirror() {
        tests::skip!("there is no Debian package source");
    }
    let user = User::new("given");
    for (words, said, hint) in [
        (&["--bridged"][..], "Nobody has said which network 'bridged' is", "local.bridged-network"),
        (&["--network", "defaul"], "There is no network 'defaul'", "did you mean 'default'?"),
        (&["--network", "lo"], "'lo' of this host is no bridge", "'hostel networks'"),
        (&["--network", "none", "--network", "default"], "no network or some", "--network none"),
        (&["--network", "none", "--port", "8080:80"], "Ports are forwarded by", ""),
    ] {
        let (code, errors) = user.bad(&[&["launch"], words].concat());
        assert!(code == 1 && errors.contains(said) && errors.contains(hint), "{errors}");
    }
    user.assert_clean();
    user.good(&["set", "local.bridged-network=default"]);
    fs::write(user.home.join("note"), "mine\n").unwrap();
    let mac = "52:54:00:12:34:56";
    let network = format!("name=default,mac={mac}");
    let launched =
        user.run(&["launch", "--name", "g", "--bridged", "--network", &network, "--mount-home"]);
    let errors = String::from_utf8_lossy(&launched.stderr);
    assert!(launched.status.success(), "{errors}");
    // What lasts is told, a line each, where no terminal shows it.
    assert!(errors.contains("s  Booting\n") && !errors.contains('\r'), "{errors}");
    let inside = |line: &str| user.good(&["exec", "g", "--", "sh", "-c", line]);
    assert_eq!(inside("cat /sys/class/net/eth1/address").trim(), mac);
    assert!(inside("cat /sys/class/net/eth2/address").starts_with("52:54:00:"));
    let home = user.home.display();
    assert_eq!(inside(&format!("cat {home}/note")), "mine\n");
    assert!(inside(&format!("touch {home}/x 2>&1 || true")).contains("Read-only"));
    user.good(&["suspend", "g"]);
    std::thread::sleep(Duration::from_secs(3));
    user.good(&["resume", "g"]);
    let theirs: f64 = inside("date +%s").trim().parse().unwrap();
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((ours - theirs).abs() < 2.0, "the machine is {} s behind", ours - theirs);
    user.good(&["delete", "--all", "--purge"]);
    user.assert_clean();
}

/// Whatever is wrong is told once, with what to do about it, and leaves nothing.
#[test]
fn bad_input_is_one_error_with_a_hint_and_leaves_nothing() {
    let user = User::new("wrong");
    let file = |name: &str, bytes: &[u8]| {
        let path = user.home.join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let no_kind = file("kind.yaml", b"users: []\n");
    let tab = file("tab.yaml", b"#cloud-config\nusers:\n  - name: x\n\t bad\n");
    let network = file("network.yaml", b"version: [\n");
    let broken = file("broken.qcow2", &[b"QFI\xfb".as_slice(), &[0xaa; 4096]].concat());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("{}:80", taken.local_addr().unwrap().port());
    for (words, code, said) in [
        (&["--name", "a b"][..], 1, "cannot be the name"),
        (&["--disk", "1M"], 1, "too small a disk"),
        (&["--memory", "10M"], 1, "too little memory"),
        (&["debain"], 1, "no image 'debain'"),
        (&["--offline", "spark"], 2, "cannot be had"),
        (&["https://127.0.0.1:9/x.qcow2"], 2, "cannot be had"),
        (&["/nonexistent.qcow2"], 1, "cannot be used"),
        (&[&broken], 2, "Unsupported qcow2 version"),
        (&["--cloud-init", &no_kind], 1, "line 1, column 1"),
        (&["--cloud-init", &tab], 1, "line 3, column 11"),
        (&["--cloud-init", "/nonexistent"], 1, "cannot be read"),
        (&["--network-config", &network], 1, "is wrong"),
        (&["--network", "frob"], 1, "no network 'frob'"),
        (&["--port", &port], 2, "cannot be had"),
        (&["--mount", "/nonexistent"], 1, "cannot be mounted"),
    ] {
        let words = [&["launch"], words].concat();
        let (found, errors) = user.bad(&words);
        assert!(found == code && errors.contains(said), "{words:?}: {found}: {errors}");
        assert_eq!(errors.matches("error:").count(), 1, "{errors}");
        assert_eq!(errors.matches("  hint: ").count(), 1, "{errors}");
    }
    user.assert_clean();
}
