//! A machine that exists only as a state.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use libvirt_compat::constants::{lifecycle, state};
use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Result};

use crate::drivers::{MemoryStats, Report, Reporter, Vcpu};

/// Obeys at once.
pub struct Machine {
    reporter: Reporter,
    started: Instant,
    vcpus: AtomicU32,
}

impl Machine {
    pub fn new(reporter: Reporter) -> Self {
        Self { reporter, started: Instant::now(), vcpus: AtomicU32::new(1) }
    }
}

impl crate::drivers::Machine for Machine {
    fn suspend(&self) -> Result<()> {
        Ok(())
    }

    fn resume(&self) -> Result<()> {
        Ok(())
    }

    fn shutdown(&self, _mode: u32) -> Result<()> {
        let (reason, detail) = (state::shutoff::SHUTDOWN, lifecycle::stopped::SHUTDOWN);
        (self.reporter)(Report::Stopped { reason, detail });
        Ok(())
    }

    fn reboot(&self, _mode: u32) -> Result<()> {
        (self.reporter)(Report::Rebooted);
        Ok(())
    }

    fn reset(&self) -> Result<()> {
        (self.reporter)(Report::Rebooted);
        Ok(())
    }

    fn kill(&self, _graceful: bool) -> Result<()> {
        Ok(())
    }

    fn cpu_time(&self) -> (u64, u64, u64) {
        let ns = self.started.elapsed().as_nanos() as u64;
        (ns, ns / 2, ns / 2)
    }

    fn set_memory(&self, kib: u64) -> Result<()> {
        (self.reporter)(Report::Balloon(kib));
        Ok(())
    }

    fn memory_stats(&self) -> Result<MemoryStats> {
        Ok(Vec::new())
    }

    fn set_memory_stats_period(&self, _seconds: i32) -> Result<()> {
        Ok(())
    }

    fn set_vcpus(&self, count: u32) -> Result<()> {
        self.vcpus.store(count, Ordering::Relaxed);
        Ok(())
    }

    fn vcpus(&self) -> Result<Vec<Vcpu>> {
        let time_ns = self.cpu_time().0;
        let count = self.vcpus.load(Ordering::Relaxed);
        Ok((0..count).map(|number| Vcpu { number, time_ns, host_cpu: 0 }).collect())
    }

    fn pin_vcpu(&self, _vcpu: u32, _cpus: &[usize]) -> Result<()> {
        Ok(())
    }

    fn attach(&self, _domain: &Element, _device: &mut Element) -> Result<()> {
        Ok(())
    }

    fn detach(&self, _domain: &Element, _device: &Element) -> Result<bool> {
        Ok(true)
    }

    fn update(&self, _domain: &Element, _old: &Element, _new: &mut Element) -> Result<()> {
        Ok(())
    }

    fn send_keys(&self, _codes: &[u32], _hold_ms: u32) -> Result<()> {
        Ok(())
    }

    fn inject_nmi(&self) -> Result<()> {
        Ok(())
    }

    fn save(&self, file: OwnedFd) -> Result<()> {
        write(file)
    }

    fn dump(&self, file: OwnedFd, _memory_only: bool) -> Result<()> {
        write(file)
    }

    fn snapshot_save(&self, _name: &str) -> Result<()> {
        Ok(())
    }

    fn snapshot_delete(&self, _name: &str) -> Result<()> {
        Ok(())
    }
}

fn write(file: OwnedFd) -> Result<()> {
    File::from(file)
        .write_all(b"test")
        .map_err(|error| Error::new(Code::SystemError, crate::files::reason(&error)))
}
