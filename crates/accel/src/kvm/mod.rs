//! KVM as an accelerator.
//!
//! The local APICs are in the kernel, and the other interrupt controllers are our own chips (what
//! KVM calls a split irqchip): interrupts between vCPUs and the timers of the local APICs cost no
//! exit, while the 8259, the I/O APIC, the HPET and the 8254 have one state, ours, whoever asks.
//! Our devices run in this process, so an interrupt message is one call into the kernel, as an
//! irqfd would be.

mod clock;
mod cpuid;
mod doorbells;
mod inspect;
mod interrupts;
mod kick;
pub mod probe;
mod slots;
mod state;
mod vcpu;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap};
use kvm_ioctls::{Cap, Kvm, VmFd};
use parking_lot::Mutex;

use crate::jit::Entry;
use crate::{Board, Processors};
pub use cpuid::Supported;
pub use interrupts::{Interrupts, Message};

/// Inputs of the I/O APIC, for which the kernel keeps routes.
const IOAPIC_PINS: u64 = 24;
/// The version of KVM's interface; there has been no other since 2007.
const API_VERSION: i32 = 12;
/// Three pages that VMX without unrestricted guests needs, and one for its page table: below the
/// firmware, where no board has anything.
const IDENTITY_MAP: u64 = 0xfeff_c000;
const TASK_STATE: usize = 0xfeff_d000;

/// Why KVM cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// No device, or no permission.
    #[error("Could not access KVM kernel module")]
    Open(#[source] io::Error),
    /// Not a KVM that we know.
    #[error("KVM has interface version {0}, and not {API_VERSION}")]
    Version(i32),
    /// It is too old, or no real one.
    #[error("KVM on this host has no {0}")]
    Lacks(&'static str),
    /// The guest has more processors than the host can give it.
    #[error("KVM on this host supports {most} CPUs, and not {count}")]
    Processors {
        /// What was asked for.
        count: usize,
        /// What there can be.
        most: usize,
    },
    /// A call failed.
    #[error("KVM cannot {what}")]
    Call {
        /// What was to be done.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("Cannot start a thread for a CPU")]
    Thread(#[source] io::Error),
}

/// An error of KVM's, with what was to be done.
fn failed(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Call { what, source: io::Error::from_raw_os_error(error.errno()) }
}

/// What we cannot do without.
const NEEDED: &[(Cap, &str)] = &[
    (Cap::UserMemory, "memory slots (KVM_CAP_USER_MEMORY)"),
    (Cap::ReadonlyMem, "read-only memory (KVM_CAP_READONLY_MEM)"),
    (Cap::Irqchip, "interrupt controllers in the kernel (KVM_CAP_IRQCHIP)"),
    (Cap::SplitIrqchip, "split interrupt controllers (KVM_CAP_SPLIT_IRQCHIP)"),
    (Cap::SignalMsi, "interrupt messages (KVM_CAP_SIGNAL_MSI)"),
    (Cap::IrqRouting, "interrupt routes (KVM_CAP_IRQ_ROUTING)"),
    (Cap::ExtCpuid, "processor identification (KVM_CAP_EXT_CPUID)"),
    (Cap::MpState, "start-up states (KVM_CAP_MP_STATE)"),
    (Cap::VcpuEvents, "processor events (KVM_CAP_VCPU_EVENTS)"),
    (Cap::Xsave, "extended states (KVM_CAP_XSAVE)"),
    (Cap::ImmediateExit, "immediate exits (KVM_CAP_IMMEDIATE_EXIT)"),
];

/// A virtual machine of KVM's without memory and processors: that it exists shows that KVM is
/// there for us.
pub struct Vm {
    kvm: Kvm,
    fd: Arc<VmFd>,
}

impl Vm {
    /// Opens KVM and makes a machine.
    pub fn new() -> Result<Self, KvmError> {
        let kvm = Kvm::new()
            .map_err(|error| KvmError::Open(io::Error::from_raw_os_error(error.errno())))?;
        let version = kvm.get_api_version();
        if version != API_VERSION {
            return Err(KvmError::Version(version));
        }
        if let Some((_, name)) = NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
            return Err(KvmError::Lacks(name));
        }
        let fd = kvm.create_vm().map_err(failed("make a virtual machine"))?;
        // Only VMX asks for these; where they are not known they are not needed.
        if kvm.check_extension(Cap::SetIdentityMapAddr) {
            fd.set_identity_map_address(IDENTITY_MAP).map_err(failed("place its page table"))?;
        }
        if kvm.check_extension(Cap::SetTssAddr) {
            fd.set_tss_address(TASK_STATE).map_err(failed("place its task state"))?;
        }
        let mut split = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
        split.args[0] = IOAPIC_PINS;
        fd.enable_cap(&split).map_err(failed("make local APICs"))?;
        Ok(Self { kvm, fd: Arc::new(fd) })
    }

    /// What processors KVM offers.
    pub fn supported(&self, migratable: bool) -> Result<Supported, KvmError> {
        Supported::new(&self.kvm, migratable)
    }
}

/// What an accelerator on KVM is asked for.
pub struct Options {
    /// The machine.
    pub vm: Vm,
    /// The processors are as another host could have them.
    pub migratable: bool,
}

/// A machine whose vCPUs run on KVM.
pub struct KvmMachine {
    fd: Arc<VmFd>,
    interrupts: Arc<Interrupts>,
    slots: Arc<slots::Slots>,
    clock: clock::GuestClock,
    doorbells: Option<Arc<doorbells::Doorbells>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl KvmMachine {
    /// Starts a thread for each processor. They stand still until the machine resumes them.
    pub fn start(
        board: &Board,
        processors: &Processors,
        entry: Option<Entry>,
        options: Options,
    ) -> Result<Self, KvmError> {
        let Options { vm: Vm { kvm, fd }, migratable } = options;
        let (count, most) = (processors.all().len(), kvm.get_max_vcpus());
        if count > most {
            return Err(KvmError::Processors { count, most });
        }
        let slots = slots::Slots::new(&fd, kvm.get_nr_memslots(), &board.chipset);
        board.memory.listen(Arc::clone(&slots) as _);
        let supported = Supported::new(&kvm, migratable)?;
        let saved = state::Registers::of(&kvm)?;
        let mut vcpus = Vec::with_capacity(count);
        for processor in processors.all() {
            vcpus.push(vcpu::Vcpu::new(&fd, board, processor, &supported, &saved, entry)?);
        }
        kick::install().map_err(KvmError::Thread)?;
        let mut threads = Vec::with_capacity(count);
        for (number, vcpu) in vcpus.into_iter().enumerate() {
            let thread = thread::Builder::new()
                .name(format!("CPU {number}/KVM"))
                .spawn(move || vcpu.run())
                .map_err(KvmError::Thread)?;
            threads.push(thread);
        }
        // What vCPUs would otherwise do themselves.
        let wildcards =
            kvm.check_extension(Cap::Ioeventfd) && kvm.check_extension(Cap::IoeventfdNoLength);
        let doorbells = match wildcards {
            true => {
                let started = doorbells::Doorbells::start(&fd, &board.memory);
                let (doorbells, thread) = started.map_err(KvmError::Thread)?;
                threads.push(thread);
                Some(doorbells)
            }
            false => None,
        };
        let interrupts = Arc::new(Interrupts::new(&fd));
        let clock = clock::GuestClock::new(&kvm);
        Ok(Self { fd, interrupts, slots, clock, doorbells, threads: Mutex::new(threads) })
    }

    /// Where interrupt messages go.
    #[must_use]
    pub fn interrupts(&self) -> &Arc<Interrupts> {
        &self.interrupts
    }

    /// What the guest's clock shows while it stands.
    #[must_use]
    pub fn clock_ns(&self) -> Option<u64> {
        self.clock.stopped_ns()
    }

    /// The guest's clock goes on from here.
    pub fn set_clock_ns(&self, clock_ns: u64) {
        self.clock.set_stopped_ns(clock_ns);
    }

    /// The machine goes on, or stands still: so does the clock that guests read from KVM.
    pub fn set_running(&self, running: bool) {
        self.clock.set_running(&self.fd, running);
    }

    /// From now on the kernel notes which pages vCPUs write, or no more.
    pub fn log_writes(&self, on: bool) {
        self.slots.log_writes(on);
    }

    /// Marks the pages that vCPUs have written since the last call in their blocks' bitmaps.
    pub fn collect_writes(&self) {
        self.slots.collect_writes();
    }

    /// Waits until all threads have ended, after [`Processors::quit`].
    pub fn join(&self) {
        if let Some(doorbells) = &self.doorbells {
            doorbells.quit();
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A vCPU thread that panicked has said so itself.
            _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
