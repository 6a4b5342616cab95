//! A daemon in its own directories, and virsh.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A directory that goes away.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Socket paths are short: 108 bytes at most.
        let path = std::env::temp_dir().join(format!("hd-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A running daemon.
pub struct Daemon {
    pub scratch: Scratch,
    child: Child,
    options: Vec<String>,
    /// The network namespace that it runs in.
    namespace: Option<String>,
    /// Where it looks for programs, when not where everybody does.
    path: Option<String>,
}

impl Daemon {
    /// Starts one and waits for its socket.
    pub fn start() -> Self {
        Self::start_with(&["--session"])
    }

    /// Starts one with these options.
    pub fn start_with(options: &[&str]) -> Self {
        Self::start_in(None, options)
    }

    /// Starts a session's, which looks for programs there.
    pub fn start_with_path(path: &str) -> Self {
        Self::start_at(None, &["--session"], Some(path))
    }

    /// Starts one in a network namespace.
    pub fn start_in(namespace: Option<&str>, options: &[&str]) -> Self {
        Self::start_at(namespace, options, None)
    }

    fn start_at(namespace: Option<&str>, options: &[&str], path: Option<&str>) -> Self {
        let namespace = namespace.map(str::to_owned);
        let scratch = Scratch::new();
        let mut options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        // Fetched emulators lie where no installed one does, with their libraries.
        if options.iter().any(|option| option == "--system")
            && let Some(emulator) = tests::program("qemu-system-x86_64")
            && let Some(assets) = emulator.canonicalize().unwrap().ancestors().nth(2)
            && assets.join("qemu-system-10").is_dir()
        {
            options.extend(["--expose".to_owned(), assets.display().to_string()]);
        }
        let path = path.map(str::to_owned);
        let child = spawn(&scratch.0, namespace.as_deref(), &options, path.as_deref());
        Self { scratch, child, options, namespace, path }
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kills it without warning and starts another in the same directories.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        let (namespace, path) = (self.namespace.as_deref(), self.path.as_deref());
        self.child = spawn(&self.scratch.0, namespace, &self.options, path);
    }

    pub fn socket(&self) -> PathBuf {
        self.scratch.join("s/libvirt-sock")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn uri(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}+unix://{path}?socket={}", self.socket().display())
    }

    /// Runs one virsh with these commands; returns what it printed, and whether it succeeded.
    pub fn virsh(&self, commands: &str) -> (bool, String) {
        let system = self.options.iter().any(|option| option == "--system");
        virsh(&self.uri("qemu", if system { "/system" } else { "/session" }), commands)
    }

    /// The same, which has to succeed.
    pub fn ok(&self, commands: &str) -> String {
        let (ok, text) = self.virsh(commands);
        assert!(ok, "virsh {commands}: {text}");
        text
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let (_, names) = self.virsh("list --name");
        for name in names.split_whitespace() {
            self.virsh(&format!("destroy {name}"));
        }
        // Bridges outlive the daemon.
        if self.options.iter().any(|option| option == "--system") {
            let (_, names) = self.virsh("net-list --name");
            for name in names.split_whitespace() {
                self.virsh(&format!("net-destroy {name}"));
            }
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Whether this is root, who may have networks and a system's daemon.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn spawn(folder: &Path, namespace: Option<&str>, options: &[String], path: Option<&str>) -> Child {
    let mut command = match namespace {
        Some(namespace) => {
            // ip runs the program in its own stead, so the process is the daemon itself.
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(tests::hostel_path());
            command
        }
        None => tests::hostel(),
    };
    if let Some(path) = path {
        command.env("PATH", path);
    }
    // Where our emulator finds firmware when the host has none.
    if let Some(folder) = tests::asset("qemu-system-10/usr/share/seabios") {
        command.env("HOSTEL_FIRMWARE", folder);
    }
    let child = command
        .arg("daemon")
        .args(options)
        .arg("--socket-dir")
        .arg(folder.join("s"))
        .arg("--state-dir")
        .arg(folder.join("state"))
        .arg("--runtime-dir")
        .arg(folder.join("r"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(folder.join("s/libvirt-sock")).is_err() {
        assert!(Instant::now() < deadline, "the daemon does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    child
}

/// Runs one virsh.
pub fn virsh(uri: &str, commands: &str) -> (bool, String) {
    let output = Command::new("timeout")
        .args(["60", "virsh", "-q", "-c", uri, commands])
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.success(), text)
}

/// Whether these programs are all there.
pub fn missing(programs: &[&'static str]) -> Option<&'static str> {
    programs.iter().find(|program| tests::program(program).is_none()).copied()
}

/// Leaves the test when a program is missing.
#[macro_export]
macro_rules! need {
    ($($program:literal),*) => {
        if let Some(program) = $crate::daemon::fixture::missing(&[$($program),*]) {
            tests::skip!("{program} is not installed");
        }
    };
}
