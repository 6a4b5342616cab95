//! virt-manager's own tests, from Debian's source package, through our daemon's test world.
//!
//! One word of the suite is changed: its connections say `test+unix:` instead of `test:`, so that
//! they go to a daemon. `HOSTEL_VIRT_MANAGER=all` runs everything (half a minute) instead of a
//! sample, and what fails must be exactly what [`KNOWN`] lists.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::fixture::Scratch;

/// Tests of this newer suite that an older libvirt or an older database of systems fails, too: links that became
/// https, the order of controllers since libvirt 10.
const KNOWN: &[&str] = &[
    "testCLI0059virt_install_osinfo_url",
    "testCLI0085virt_install_osinfo_url_with_disk",
    "testCLI0122virt_install_osinfo_url_unattended",
    "testCLI0123virt_install_osinfo_unattended_treeapis",
    "testCLI0354virt_xml_edit_simple_controller",
    "testCLI0355virt_xml_edit_simple_controller",
    "testCLI0378virt_xml_edit_select_disk_path",
    "testCLI0380virt_xml_edit_select_disk_bootorder",
    "testCLI0404virt_xml_remove_disk_index",
];

/// What runs always: every small file, and commands of each program.
const SAMPLE: &str = "not test_cli or CLI030 or CLI040 or CLI043 or CLI001";

const FILES: &[&str] = &[
    "tests/test_capabilities.py",
    "tests/test_cli.py",
    "tests/test_cloner.py",
    "tests/test_conn.py",
    "tests/test_disk.py",
    "tests/test_nodedev.py",
    "tests/test_storage.py",
    "tests/test_xmlparse.py",
];

/// The suite keeps objects of a connection longer than the connection; with a connection to a
/// daemon Python then finds them dead. Whoever keeps the connections sees the tests pass.
const KEEP_CONNECTIONS: &str = "
import virtinst.connection
kept = []
was = virtinst.connection.VirtinstConnection.__init__
def init(self, *arguments, **named):
    was(self, *arguments, **named)
    kept.append(self)
virtinst.connection.VirtinstConnection.__init__ = init
";

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cp {}", from.display());
}

fn python(root: &Path, scratch: &Scratch, arguments: &[&str]) -> Output {
    let library = root.join("usr/lib/x86_64-linux-gnu");
    let libraries =
        format!("{}:{}", library.display(), root.join("lib/x86_64-linux-gnu").display());
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new("timeout")
        .arg("300")
        .arg(root.join("lib64/ld-linux-x86-64.so.2"))
        .args(["--library-path", &libraries])
        .arg(root.join("usr/bin/python3.11"))
        .args(arguments)
        .current_dir(scratch.join("suite"))
        .env("PATH", format!("{path}:{0}/usr/bin:{0}/bin", root.display()))
        .env("PYTHONHOME", root.join("usr"))
        .env("PYTHONPATH", format!("{0}:{0}/suite", scratch.0.display()))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("GI_TYPELIB_PATH", library.join("girepository-1.0"))
        // The machine's own modules must not be loaded beside the asset's libraries.
        .env("GIO_MODULE_DIR", scratch.join("none"))
        .env("GSETTINGS_BACKEND", "memory")
        .env("GIO_USE_VFS", "local")
        .env("OSINFO_SYSTEM_DIR", root.join("usr/share/osinfo"))
        .env("XDG_DATA_DIRS", root.join("usr/share"))
        .output()
        .unwrap()
}

#[test]
fn virt_managers_own_tests_pass() {
    let suite = tests::asset("virt-manager/tests");
    let root = tests::asset("virt-manager-python/usr/bin/python3.11");
    let (Some(suite), Some(root)) = (suite, root) else {
        tests::skip!("virt-manager's tests are not fetched");
    };
    let root = root.ancestors().nth(3).unwrap().to_path_buf();
    let daemon = super::fixture::Daemon::start();
    let scratch = Scratch::new();
    copy(suite.parent().unwrap(), &scratch.join("suite"));
    let utils = scratch.join("suite/tests/utils.py");
    let text = fs::read_to_string(&utils).unwrap();
    let line = "\"__virtinst_test__test://%s,predictable\"";
    assert!(text.contains(line), "the suite has changed");
    let place = format!(
        "\"__virtinst_test__test+unix://%s?socket={},predictable\"",
        daemon.socket().display()
    );
    fs::write(&utils, text.replace(line, &place)).unwrap();
    fs::write(scratch.join("keep.py"), KEEP_CONNECTIONS).unwrap();
    let all = std::env::var("HOSTEL_VIRT_MANAGER").is_ok_and(|wish| wish == "all");
    let mut arguments = vec!["-m", "pytest", "-p", "keep", "-p", "no:cacheprovider", "-q", "-rf"];
    if !all {
        arguments.extend(["-k", SAMPLE]);
    }
    arguments.extend(FILES);
    let output = python(&root, &scratch, &arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    let failed: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("FAILED ")?.split("::").nth(1)?.split(' ').next())
        .collect();
    let unexpected: Vec<&&str> = failed.iter().filter(|name| !KNOWN.contains(name)).collect();
    let last = text.lines().last().unwrap_or_default();
    assert!(last.contains("passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(unexpected.is_empty(), "{last}: {unexpected:?}\n{text}");
    eprintln!("{last}");
}
