//! What CPUID tells the guest: what KVM can give, under the identity that the machine has.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_msr_entry};
use kvm_ioctls::{Cap, Kvm};

use super::{KvmError, failed};
use crate::identity;

const HYPERVISOR: u32 = 1 << 31; // leaf 1, ECX
const DEADLINE_TIMER: u32 = 1 << 24; // leaf 1, ECX
const X2APIC: u32 = 1 << 21; // leaf 1, ECX
const INVARIANT_TSC: u32 = 1 << 8; // leaf 0x80000007, EDX

/// `IA32_ARCH_CAPABILITIES`.
const ARCH_CAPABILITIES: u32 = 0x10a;

/// The subleaf counts.
const HAS_SUBLEAVES: u32 = 1;
/// No model has more basic leaves.
const BASIC_MAX: u32 = 0x24;
/// No model has more extended leaves.
const EXTENDED_MAX: u32 = 0x8000_0026;

/// What KVM can give on this host.
pub struct Supported {
    entries: Vec<kvm_cpuid_entry2>,
    /// `IA32_ARCH_CAPABILITIES`, where the host has it.
    capabilities: u64,
}

impl Supported {
    /// Asks KVM. What is `migratable` is left without what another host could not go on with: a TSC
    /// of constant rate.
    pub fn new(kvm: &Kvm, migratable: bool) -> Result<Self, KvmError> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("tell what processors it offers"))?;
        let mut entries = supported.as_slice().to_vec();
        let deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        for entry in entries.iter_mut().filter(|entry| entry.function == 1) {
            // The kernel leaves to us what depends on where the local APIC is: it is there.
            entry.ecx |= HYPERVISOR | X2APIC | if deadline { DEADLINE_TIMER } else { 0 };
        }
        if migratable {
            for entry in entries.iter_mut().filter(|entry| entry.function == 0x8000_0007) {
                entry.edx &= !INVARIANT_TSC;
            }
        }
        Ok(Self { entries, capabilities: capabilities(kvm) })
    }

    /// EAX to EDX.
    #[must_use]
    pub fn answer(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let is_it = |entry: &&kvm_cpuid_entry2| {
            let any = entry.flags & HAS_SUBLEAVES == 0;
            entry.function == leaf && (any || entry.index == subleaf)
        };
        let found = self.entries.iter().find(is_it);
        found.map_or([0; 4], |entry| [entry.eax, entry.ebx, entry.ecx, entry.edx])
    }

    /// A model-specific register that tells of features.
    #[must_use]
    pub fn register(&self, number: u32) -> u64 {
        if number == ARCH_CAPABILITIES { self.capabilities } else { 0 }
    }

    /// What vCPU `number` says of itself.
    pub fn of(&self, identity: &identity::Identity, number: usize) -> CpuId {
        let native = |leaf, subleaf| self.answer(leaf, subleaf);
        let mut entries = match identity.levels {
            None => self.entries.clone(),
            Some((last, extended)) => self.leaves(last.min(BASIC_MAX), extended.min(EXTENDED_MAX)),
        };
        for entry in &mut entries {
            if (0x4000_0000..0x5000_0000).contains(&entry.function) {
                continue; // KVM's own services
            }
            if let Some([a, b, c, d]) =
                identity.answer(&native, number, entry.function, entry.index)
            {
                (entry.eax, entry.ebx, entry.ecx, entry.edx) = (a, b, c, d);
            }
        }
        entries.truncate(KVM_MAX_CPUID_ENTRIES);
        CpuId::from_entries(&entries).expect("no more entries than there may be")
    }

    /// Entries for all leaves of a model; those of saved state as KVM has them.
    fn leaves(&self, last: u32, extended: u32) -> Vec<kvm_cpuid_entry2> {
        let known = |leaf: &u32| !(0x20..0x4000_0000).contains(leaf);
        let mut entries: Vec<kvm_cpuid_entry2> = Vec::new();
        for leaf in (0..=last).chain(0x8000_0000..=extended).filter(known) {
            let subleaves = match leaf {
                4 | 0x1f => 4,
                7 | 0xb => 3,
                0xd => {
                    entries.extend(self.entries.iter().filter(|entry| entry.function == leaf));
                    continue;
                }
                _ => 1,
            };
            let flags = if subleaves > 1 { HAS_SUBLEAVES } else { 0 };
            entries.extend((0..subleaves).map(|index| kvm_cpuid_entry2 {
                function: leaf,
                index,
                flags,
                ..Default::default()
            }));
        }
        let services = |entry: &&kvm_cpuid_entry2| entry.function >> 28 == 4;
        entries.extend(self.entries.iter().filter(services));
        entries
    }
}

/// What KVM would give a vCPU of the host's `IA32_ARCH_CAPABILITIES`.
fn capabilities(kvm: &Kvm) -> u64 {
    let entry = kvm_msr_entry { index: ARCH_CAPABILITIES, ..Default::default() };
    let mut msrs = Msrs::from_entries(&[entry]).expect("one entry is within the limit");
    match kvm.get_msrs(&mut msrs) {
        Ok(1) => msrs.as_slice()[0].data,
        _ => 0,
    }
}
