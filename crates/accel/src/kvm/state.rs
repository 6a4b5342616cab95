//! The whole state of a vCPU, taken out and put back: for resets, and for those who look.

// UNSAFETY: the kernel reads an extended state of whatever size it has.
#![expect(unsafe_code)]

use kvm_bindings::{
    CpuId, Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs,
    kvm_segment, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd};

use super::{KvmError, failed};
use crate::jit::Entry;
use crate::saved::{SavedError, SavedProcessor};

const CR0_PG_ET_PE: u64 = 1 << 31 | 1 << 4 | 1;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME_LMA: u64 = 1 << 8 | 1 << 10;
/// Model-specific registers that one call may have.
const MSRS_MAX: usize = 256;

/// Which registers there are on this host.
#[derive(Clone)]
pub struct Registers {
    msrs: Vec<u32>,
    has_xcrs: bool,
    has_debug: bool,
}

impl Registers {
    /// Asks the kernel.
    pub fn of(kvm: &Kvm) -> Result<Self, KvmError> {
        let list = kvm.get_msr_index_list().map_err(failed("list its registers"))?;
        Ok(Self {
            msrs: list.as_slice().to_vec(),
            has_xcrs: kvm.check_extension(Cap::Xcrs),
            has_debug: kvm.check_extension(Cap::Debugregs),
        })
    }
}

/// Everything that a vCPU knows.
pub struct State {
    pub general: kvm_regs,
    pub system: kvm_sregs,
    extended: kvm_xsave,
    extended_control: Option<kvm_xcrs>,
    debug: Option<kvm_debugregs>,
    msrs: Vec<kvm_msr_entry>,
    local_apic: kvm_lapic_state,
    pub activity: kvm_mp_state,
    events: kvm_vcpu_events,
}

impl State {
    /// Takes it out. The vCPU stands still, and no access of its waits to be finished.
    pub fn of(vcpu: &VcpuFd, registers: &Registers) -> Result<Self, KvmError> {
        let what = "tell a CPU's state";
        let extended_control = match registers.has_xcrs {
            true => Some(vcpu.get_xcrs().map_err(failed(what))?),
            false => None,
        };
        let debug = match registers.has_debug {
            true => Some(vcpu.get_debug_regs().map_err(failed(what))?),
            false => None,
        };
        Ok(Self {
            general: vcpu.get_regs().map_err(failed(what))?,
            system: vcpu.get_sregs().map_err(failed(what))?,
            extended: vcpu.get_xsave().map_err(failed(what))?,
            extended_control,
            debug,
            msrs: read_msrs(vcpu, &registers.msrs)?,
            local_apic: vcpu.get_lapic().map_err(failed(what))?,
            activity: vcpu.get_mp_state().map_err(failed(what))?,
            events: vcpu.get_vcpu_events().map_err(failed(what))?,
        })
    }

    /// Makes it one that starts in 64-bit code, as the Linux boot protocol wants it, or in 32-bit
    /// code, as PVH does.
    pub fn start_at(&mut self, entry: &Entry) {
        let long = entry.page_tables.is_some();
        let segment = |selector, code: bool| kvm_segment {
            limit: u32::MAX,
            selector,
            type_: if code { 11 } else { 3 },
            present: 1,
            s: 1,
            g: 1,
            l: u8::from(code && long),
            db: u8::from(!code || !long),
            ..Default::default()
        };
        let system = &mut self.system;
        system.cs = segment(0x10, true);
        for data in [&mut system.ds, &mut system.es, &mut system.fs, &mut system.gs, &mut system.ss]
        {
            *data = segment(0x18, false);
        }
        (system.gdt.base, system.gdt.limit) = (entry.descriptors, 31);
        self.general.rip = entry.pc;
        let Some(page_tables) = entry.page_tables else {
            system.cr0 = CR0_PG_ET_PE & !(1 << 31);
            self.general.rbx = entry.parameters;
            return;
        };
        system.cr0 = CR0_PG_ET_PE;
        system.cr3 = page_tables;
        system.cr4 = CR4_PAE;
        system.efer = EFER_LME_LMA;
        self.general.rsi = entry.parameters;
    }

    /// All of it as words, by name.
    pub fn to_words(&self) -> SavedProcessor {
        let mut saved = SavedProcessor::new();
        let mut put = |name: &str, words: Vec<u64>| _ = saved.insert(name.to_owned(), words);
        put("general", words_of(&self.general));
        put("system", words_of(&self.system));
        put("extended", words_of(&self.extended.region));
        if let Some(control) = &self.extended_control {
            put("extended_control", words_of(control));
        }
        if let Some(debug) = &self.debug {
            put("debug", words_of(debug));
        }
        put("msrs", self.msrs.iter().flat_map(|msr| [msr.index.into(), msr.data]).collect());
        put("local_apic", words_of(&self.local_apic));
        put("activity", words_of(&self.activity));
        put("events", words_of(&self.events));
        saved
    }

    /// Fills in what was saved; what this host has beyond stays as it is.
    pub fn fill(&mut self, saved: &SavedProcessor) -> Result<(), SavedError> {
        fill(&mut self.general, saved, "general")?;
        fill(&mut self.system, saved, "system")?;
        fill(&mut self.extended.region, saved, "extended")?;
        if let Some(control) = &mut self.extended_control {
            fill(control, saved, "extended_control")?;
        }
        if let Some(debug) = &mut self.debug {
            fill(debug, saved, "debug")?;
        }
        fill(&mut self.local_apic, saved, "local_apic")?;
        fill(&mut self.activity, saved, "activity")?;
        fill(&mut self.events, saved, "events")?;
        let msrs = saved.get("msrs").ok_or(SavedError::Missing { name: "msrs" })?;
        let entry = |[index, data]: &[u64; 2]| kvm_msr_entry {
            index: *index as u32,
            data: *data,
            ..Default::default()
        };
        self.msrs = msrs.as_chunks().0.iter().take(MSRS_MAX * 8).map(entry).collect();
        Ok(())
    }

    /// Puts it back. The order matters: the base of the local APIC is among the system registers
    /// and decides what its registers mean; its timer's deadline is an MSR.
    pub fn put(&self, vcpu: &VcpuFd) -> Result<(), KvmError> {
        let what = "set a CPU's state";
        vcpu.set_mp_state(self.activity).map_err(failed(what))?;
        vcpu.set_regs(&self.general).map_err(failed(what))?;
        vcpu.set_sregs(&self.system).map_err(failed(what))?;
        if let Some(control) = &self.extended_control {
            vcpu.set_xcrs(control).map_err(failed(what))?;
        }
        // SAFETY: the state was read by the call without larger states, which a guest must ask
        // for by features that we never enable; so the kernel reads no more than it wrote.
        unsafe { vcpu.set_xsave(&self.extended) }.map_err(failed(what))?;
        if let Some(debug) = &self.debug {
            vcpu.set_debug_regs(debug).map_err(failed(what))?;
        }
        vcpu.set_lapic(&self.local_apic).map_err(failed(what))?;
        write_msrs(vcpu, &self.msrs);
        vcpu.set_vcpu_events(&self.events).map_err(failed(what))
    }
}

/// What the kernel's structures are made of: numbers, of which every value is one.
trait Plain {}

impl Plain for kvm_regs {}
impl Plain for kvm_sregs {}
impl Plain for [u32; 1024] {}
impl Plain for kvm_xcrs {}
impl Plain for kvm_debugregs {}
impl Plain for kvm_lapic_state {}
impl Plain for kvm_mp_state {}
impl Plain for kvm_vcpu_events {}

/// A structure's bytes as words; the last one is filled up with zeros.
fn words_of<T: Plain>(value: &T) -> Vec<u64> {
    let mut words = vec![0_u64; size_of::<T>().div_ceil(8)];
    // SAFETY: the words have room for the structure, whose bytes the kernel has filled in.
    unsafe {
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(value).cast::<u8>(),
            words.as_mut_ptr().cast::<u8>(),
            size_of::<T>(),
        );
    }
    words
}

/// The other way round.
fn fill<T: Plain>(
    value: &mut T,
    saved: &SavedProcessor,
    name: &'static str,
) -> Result<(), SavedError> {
    let words = saved.get(name).ok_or(SavedError::Missing { name })?;
    let expected = size_of::<T>().div_ceil(8);
    if words.len() != expected {
        return Err(SavedError::Length { name, found: words.len(), expected });
    }
    // SAFETY: there are as many bytes, and the structure takes any.
    unsafe {
        std::ptr::copy_nonoverlapping(
            words.as_ptr().cast::<u8>(),
            std::ptr::from_mut(value).cast::<u8>(),
            size_of::<T>(),
        );
    }
    Ok(())
}

/// Reads what can be read: the kernel lists registers that this vCPU's features do not have.
fn read_msrs(vcpu: &VcpuFd, numbers: &[u32]) -> Result<Vec<kvm_msr_entry>, KvmError> {
    let mut read = Vec::with_capacity(numbers.len());
    let mut rest = numbers;
    while !rest.is_empty() {
        let now = &rest[..rest.len().min(MSRS_MAX)];
        let entry = |index: &u32| kvm_msr_entry { index: *index, ..Default::default() };
        let entries: Vec<_> = now.iter().map(entry).collect();
        let mut msrs = Msrs::from_entries(&entries).expect("a list within the limit");
        let done = vcpu.get_msrs(&mut msrs).map_err(failed("read a CPU's registers"))?;
        read.extend_from_slice(&msrs.as_slice()[..done.min(now.len())]);
        // The kernel stops before the first that it cannot read.
        let skip = if done < now.len() { done + 1 } else { done };
        rest = &rest[skip..];
    }
    Ok(read)
}

/// Writes what can be written: some are only to be read.
fn write_msrs(vcpu: &VcpuFd, entries: &[kvm_msr_entry]) {
    let mut rest = entries;
    while !rest.is_empty() {
        let now = &rest[..rest.len().min(MSRS_MAX)];
        let msrs = Msrs::from_entries(now).expect("a list within the limit");
        let done = vcpu.set_msrs(&msrs).unwrap_or(0);
        rest = &rest[if done < now.len() { done + 1 } else { done }..];
    }
}

/// Gives a new vCPU its identity.
pub fn identify(vcpu: &VcpuFd, identity: &CpuId) -> Result<(), KvmError> {
    vcpu.set_cpuid2(identity).map_err(failed("give a CPU these features"))
}
