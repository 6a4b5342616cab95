//! A user who types commands.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A user with a home of its own, and the daemon that is started for it.
pub struct User {
    pub home: PathBuf,
}

impl User {
    pub fn new(name: &str) -> Self {
        // Paths of sockets are short.
        let home = std::env::temp_dir().join(format!("h-{name}-{}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        Self { home }
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = tests::hostel();
        command.args(words).env("HOME", &self.home).env_remove("XDG_RUNTIME_DIR");
        command.env_remove("XDG_STATE_HOME").env_remove("XDG_CACHE_HOME");
        command.env_remove("LIBVIRT_DEFAULT_URI");
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).stdin(Stdio::null()).output().expect("hostel starts")
    }

    /// Runs what must succeed: its standard output.
    pub fn good(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs what must succeed until it tells `what`: what it printed at last. What a guest is
    /// asked in passing stays untold while the host is too busy for a quick answer.
    pub fn telling(&self, words: &[&str], what: &str) -> String {
        let mut said = String::new();
        for _ in 0..20 {
            said = self.good(words);
            if said.contains(what) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        assert!(said.contains(what), "{words:?} does not tell {what:?}: {said}");
        said
    }

    /// Runs what must fail: the exit code, and what it says.
    pub fn bad(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words);
        assert!(!output.status.success(), "{words:?}");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), errors)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        _ = self.run(&["delete", "--all", "--purge"]);
        // The daemon was started with this home, and no other process was.
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
            let mark = format!("HOME={}\0", self.home.display());
            let is_ours = environment.windows(mark.len()).any(|window| window == mark.as_bytes());
            if let (true, Some(number)) = (is_ours, entry.file_name().to_str()) {
                _ = Command::new("kill").arg(number).status();
            }
        }
        _ = fs::remove_dir_all(&self.home);
    }
}

/// A port that nobody has now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether `spark` can be made here.
pub fn has_mirror() -> bool {
    let lists = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let texts = lists.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let list = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    texts.chain([list]).any(|text| text.contains("/debian"))
}

impl User {
    /// What the daemon and we keep for this user.
    pub fn state(&self) -> PathBuf {
        self.home.join(".local/state/hostel")
    }

    /// Processes that were started with this home.
    pub fn processes(&self, name: &str) -> Vec<u32> {
        let mark = format!("HOME={}\0", self.home.display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            let has = |bytes: &[u8], mark: &[u8]| bytes.windows(mark.len()).any(|w| w == mark);
            let is_ours = has(&read("environ"), mark.as_bytes());
            if is_ours
                && has(&read("cmdline"), name.as_bytes())
                && let Some(number) = entry.file_name().to_str()
            {
                found.extend(number.parse::<u32>());
            }
        }
        found
    }

    /// Nothing of any machine is left.
    pub fn assert_clean(&self) {
        for folder in ["disks", "seeds"] {
            let left = names(&self.state().join(folder));
            assert!(left.is_empty(), "{folder}: {left:?}");
        }
        assert_eq!(self.good(&["list"]), "No machines. 'hostel launch' makes one.\n");
        assert!(self.processes("guest=").is_empty());
    }
}

/// What lies in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Waits until something holds, for as long as a slow machine may need.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it never held: {what}");
}
