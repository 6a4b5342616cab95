//! What can run guests here, and how fast: a micro guest is run and timed.

use std::io::ErrorKind;

use emulator::micro_guest::{self, KvmError, ProbeError, Speed};
use serde_json::json;

use super::Finding;

const USE_TRANSLATOR: &str = "nothing: machines run on the translator";

fn millions(speed: Speed) -> u64 {
    speed.instructions_per_second / 1_000_000
}

fn data(speed: Speed) -> serde_json::Value {
    json!({"instructions_per_second": speed.instructions_per_second, "fast": speed.is_fast()})
}

/// Whether KVM is there, may be used, works, and works at speed.
pub fn kvm() -> Finding {
    match micro_guest::kvm() {
        Ok(speed) if speed.is_fast() => {
            let text = format!("works: {} million instructions a second", millions(speed));
            Finding::ok(text).with(data(speed))
        }
        Ok(speed) => {
            let text = format!(
                "works, but slowly: {:.1} million instructions a second; it is no hardware's",
                speed.instructions_per_second as f64 / 1e6
            );
            Finding::notice(text, USE_TRANSLATOR).with(data(speed))
        }
        Err(ProbeError::Kvm(KvmError::Open(error))) if error.kind() == ErrorKind::NotFound => {
            let advice = "where the processor can virtualize: switch it on in the firmware's \
                          set-up and load kvm_intel or kvm_amd; in a virtual machine: allow \
                          nested virtualization";
            Finding::notice("/dev/kvm is not there: machines run on the translator", advice)
        }
        Err(ProbeError::Kvm(KvmError::Open(error)))
            if error.kind() == ErrorKind::PermissionDenied =>
        {
            let advice = "add yourself to the group of /dev/kvm and log in anew: \
                          sudo usermod -aG kvm $USER";
            Finding::notice("/dev/kvm is there, but you may not open it", advice)
        }
        Err(error) => {
            let mut text = format!("does not work: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(inner) = source {
                text = format!("{text}: {inner}");
                source = inner.source();
            }
            Finding::notice(text, USE_TRANSLATOR)
        }
    }
}

/// How fast the translator runs the same guest.
pub fn translator() -> Finding {
    match micro_guest::translator() {
        Ok(speed) => {
            let text = format!("works: {} million instructions a second", millions(speed));
            Finding::ok(text).with(data(speed))
        }
        Err(error) => Finding::problem(
            format!("does not work: {error}"),
            "allow this program to map memory that is written and run (SELinux: execmem)",
        ),
    }
}
