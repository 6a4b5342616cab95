//! go-libvirt's integration tests, as Debian packages them, against our daemon over TCP. The
//! suite's address is fixed: 127.0.0.1:16509.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::fixture::{Daemon, Scratch};
use crate::need;

/// The tests of `libvirt_integration_test.go`; the others talk to a server of their own.
const TESTS: &str = "Integration|Capabilities|TestUsing|TestLostConnection|\
                     TestMultipleConnections|Test_concurrentWrite";

/// They want that no other pool than theirs exists, and fail with libvirtd's default pool, too.
const FAIL_WITH_A_DEFAULT_POOL: [&str; 2] =
    ["TestStoragePoolsIntegration", "TestStoragePoolsAutostartIntegration"];

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-rL").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cp {}", from.display());
}

#[test]
fn go_libvirts_integration_tests_pass() {
    need!("virsh");
    let sources = tests::asset("go-libvirt/usr/share/gocode/src");
    let (tools, library) =
        (tests::asset("go/usr/lib/go-1.19"), tests::asset("go/usr/share/go-1.19/src"));
    let (Some(sources), Some(tools), Some(library)) = (sources, tools, library) else {
        tests::skip!("go and go-libvirt are not fetched");
    };
    if !super::fixture::is_root() {
        tests::skip!("go-libvirt opens qemu:///system, which is root's");
    }
    if TcpListener::bind("127.0.0.1:16509").is_err() {
        tests::skip!("port 16509 is in use");
    }
    let daemon = Daemon::start_with(&["--system", "--listen", "127.0.0.1:16509"]);
    let scratch = Scratch::new();
    // Go wants its library inside its own folder; packages have it elsewhere.
    fs::create_dir_all(scratch.join("go")).unwrap();
    for part in ["VERSION", "bin", "pkg"] {
        copy(&tools.join(part), &scratch.join("go"));
    }
    copy(&library, &scratch.join("go"));
    copy(&sources, &scratch.0);
    let emulator = scratch.join("qemu-system-x86_64");
    symlink(tests::hostel_path(), &emulator).unwrap();
    let suite = scratch.join("src/github.com/digitalocean/go-libvirt");
    let uri = daemon.uri("qemu", "/system");
    for (kind, file) in [("", "domain"), ("pool-", "pool"), ("secret-", "secret")] {
        let path = suite.join(format!("testdata/test-{file}.xml"));
        let text = fs::read_to_string(&path).unwrap();
        let own = emulator.display().to_string();
        fs::write(&path, text.replace("/usr/bin/qemu-system-x86_64", &own)).unwrap();
        let (ok, text) = super::fixture::virsh(&uri, &format!("{kind}define {}", path.display()));
        assert!(ok, "{text}");
    }
    let (ok, text) = super::fixture::virsh(&uri, "pool-start test");
    assert!(ok, "{text}");
    let output = Command::new("timeout")
        .arg("300")
        .arg(scratch.join("go/bin/go"))
        .args(["test", "-tags", "integration", "-run", TESTS, "-v", "."])
        .current_dir(&suite)
        .env("GOROOT", scratch.join("go"))
        .env("GOPATH", &scratch.0)
        .env("GOCACHE", scratch.join("cache"))
        .env("GO111MODULE", "off")
        .env("CGO_ENABLED", "0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let named = |start: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(start));
        lines.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
    };
    let (passed, failed) = (named("--- PASS: "), named("--- FAIL: "));
    let other: Vec<&String> =
        failed.iter().filter(|name| !FAIL_WITH_A_DEFAULT_POOL.contains(&name.as_str())).collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(other.is_empty() && passed.len() >= 17, "{text}{errors}");
}
