//! Whether KVM is worth offering: our own doctor runs a micro guest and times it, and what it has
//! found is kept until the kernel, this program or the access to the device is another.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// What KVM is here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kvm {
    /// No guest can run on it.
    Absent,
    /// Guests run, slower than on the translator: for those who ask for it by name.
    Slow,
    /// It is the host's hardware.
    Fast,
}

impl Kvm {
    /// From the cache, or by running the micro guest.
    pub fn find_out(cache: &Path) -> Self {
        let file = cache.join("accelerator.json");
        let circumstances = circumstances();
        let known = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(known) = known.filter(|known: &Value| known["at"] == circumstances) {
            return Self::from_finding(&known["kvm"]);
        }
        let Some(finding) = examine() else { return Self::Absent };
        let text = json!({"at": circumstances, "kvm": finding}).to_string();
        if let Err(error) = crate::files::write_atomically(&file, text.as_bytes()) {
            eprintln!("warning: {error}");
        }
        Self::from_finding(&finding)
    }

    fn from_finding(finding: &Value) -> Self {
        match finding["data"]["fast"].as_bool() {
            Some(true) => Self::Fast,
            Some(false) => Self::Slow,
            None => Self::Absent,
        }
    }
}

/// What the finding depends on.
fn circumstances() -> Value {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let opens = OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    json!({"kernel": kernel.trim(), "hostel": env!("CARGO_PKG_VERSION"), "opens": opens})
}

/// Asks the doctor of this program; none where it cannot be asked.
fn examine() -> Option<Value> {
    let program = std::env::current_exe().ok()?;
    let output = Command::new(program)
        .args(["doctor", "kvm", "--format", "json"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let mut document: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(document["checks"][0].take()).filter(|finding| finding["check"] == "kvm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_guest_that_ran_at_speed_makes_it_fast() {
        for (finding, expected) in [
            (json!({"data": {"fast": true}}), Kvm::Fast),
            (json!({"data": {"fast": false}}), Kvm::Slow),
            (json!({"data": null, "text": "not there"}), Kvm::Absent),
        ] {
            assert_eq!(Kvm::from_finding(&finding), expected, "{finding}");
        }
    }

    #[test]
    fn a_finding_is_kept_until_something_changes() {
        let folder = std::env::temp_dir().join(format!("hostel-kvm-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("accelerator.json");
        let kept = |at: Value| json!({"at": at, "kvm": {"data": {"fast": true}}}).to_string();
        fs::write(&file, kept(circumstances())).unwrap();
        assert_eq!(Kvm::find_out(&folder), Kvm::Fast);
        fs::write(&file, kept(json!({"kernel": "another"}))).unwrap();
        // The test's own program has no doctor.
        assert_eq!(Kvm::find_out(&folder), Kvm::Absent);
        fs::remove_dir_all(folder).unwrap();
    }
}
