//! Ways to a daemon beside its own sockets: TLS with certificates, and sockets that somebody else
//! has opened.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::fixture::{Daemon, Scratch, virsh};
use crate::need;

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {errors}");
}

/// An authority, and a certificate of it for each name.
fn certificates(folder: &Path, names: &[&str]) {
    fs::create_dir_all(folder).unwrap();
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(folder, &format!("{new} -x509 -days 9 -subj /CN=ca -keyout cakey.pem -out cacert.pem"));
    fs::write(folder.join("extensions"), "subjectAltName=DNS:localhost\n").unwrap();
    for name in names {
        openssl(
            folder,
            &format!("{new} -subj /CN=localhost -keyout {name}key.pem -out {name}.csr"),
        );
        openssl(
            folder,
            &format!(
                "x509 -req -days 9 -CA cacert.pem -CAkey cakey.pem -CAcreateserial \
                 -extfile extensions -in {name}.csr -out {name}cert.pem"
            ),
        );
    }
}

#[test]
fn clients_with_certificates_come_by_tls_and_others_do_not() {
    need!("virsh", "openssl");
    let scratch = Scratch::new();
    certificates(&scratch.join("own"), &["server", "client"]);
    certificates(&scratch.join("other"), &["client"]);
    // The stranger believes in our authority, we do not believe in theirs.
    fs::copy(scratch.join("own/cacert.pem"), scratch.join("other/cacert.pem")).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (address, folder) = (format!("127.0.0.1:{port}"), scratch.join("own"));
    let folder = folder.display().to_string();
    let daemon = Daemon::start_with(&["--session", "--listen-tls", &address, "--pki-dir", &folder]);
    let uri = |folder: &str| {
        let folder = scratch.join(folder);
        format!("qemu+tls://localhost:{port}/session?pkipath={}", folder.display())
    };
    let (ok, text) = virsh(&uri("own"), "nodeinfo");
    assert!(ok && text.contains("CPU model"), "{text}");
    let (ok, text) = virsh(&uri("own"), "list --all");
    assert!(ok, "{text}");
    let (ok, text) = virsh(&uri("other"), "list");
    assert!(!ok, "a certificate of another authority: {text}");
    assert!(daemon.virsh("list").0, "the daemon goes on");
    // Bytes that are no TLS end that connection only.
    let (ok, _) = virsh(&format!("qemu+tcp://localhost:{port}/session"), "list");
    assert!(!ok);
    assert!(virsh(&uri("own"), "list").0);
}

/// Opens a socket as systemd does, and becomes the daemon.
const ACTIVATE: &str = "
import os, socket, sys
path = sys.argv[1]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ['LISTEN_FDS'] = '1'
os.environ['LISTEN_PID'] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
";

#[test]
fn a_socket_that_is_there_already_is_served() {
    need!("virsh", "python3");
    let scratch = Scratch::new();
    let socket = scratch.join("given-sock");
    let mut child = Command::new("python3")
        .args(["-c", ACTIVATE])
        .arg(&socket)
        .arg(tests::hostel_path())
        .args(["daemon", "--session", "--state-dir"])
        .arg(scratch.join("state"))
        .arg("--runtime-dir")
        .arg(scratch.join("r"))
        .arg("--socket-dir")
        .arg(scratch.join("s"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let uri = format!("qemu+unix:///session?socket={}", socket.display());
    let deadline = Instant::now() + Duration::from_secs(20);
    while !virsh(&uri, "uri").0 {
        assert!(Instant::now() < deadline, "nobody answers at the socket");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(!scratch.join("s/libvirt-sock").exists(), "no socket of its own");
    child.kill().unwrap();
    child.wait().unwrap();
}
