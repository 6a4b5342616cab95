//! What CPUID tells the guest: what KVM can give, cut down to the model that was asked for.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

use super::{KvmError, failed};

/// What the processors look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// The host's processor, with everything that KVM can give.
    Host {
        /// Without what another host could not go on with: a TSC of constant rate.
        migratable: bool,
    },
    /// A plain 64-bit processor, the same on every host.
    Plain {
        /// What it calls itself: up to 47 bytes of ASCII.
        brand: &'static str,
    },
}

const HYPERVISOR: u32 = 1 << 31; // leaf 1, ECX
const DEADLINE_TIMER: u32 = 1 << 24; // leaf 1, ECX
const X2APIC: u32 = 1 << 21; // leaf 1, ECX
const INVARIANT_TSC: u32 = 1 << 8; // leaf 0x80000007, EDX
const HAS_THREADS: u32 = 1 << 28; // leaf 1, EDX

/// Leaf 1 of the plain model: SSE3 and CMPXCHG16B, with what KVM itself makes.
const PLAIN_ECX: u32 = 1 | 1 << 13 | X2APIC | DEADLINE_TIMER | HYPERVISOR;
const PLAIN_EDX: u32 = 0x078b_fbfd;
/// Leaf 0x80000001: LAHF in 64-bit mode; SYSCALL, NX and long mode over what leaf 1 has.
const PLAIN_EXTENDED_ECX: u32 = 1;
const PLAIN_EXTENDED_EDX: u32 = 0x0183_f3ff | 1 << 11 | 1 << 20 | 1 << 29;
/// Family 15, model 107, stepping 1.
const PLAIN_SIGNATURE: u32 = 0x0006_0fb1;
const PLAIN_LEAF_MAX: u32 = 0xd;
const PLAIN_EXTENDED_LEAF_MAX: u32 = 0x8000_0008;

/// CPUID for all vCPUs of a machine.
pub struct Identity {
    entries: Vec<kvm_cpuid_entry2>,
    count: u32,
}

impl Identity {
    /// Asks KVM what there is, and takes from it what the model has.
    pub fn new(kvm: &Kvm, model: Model, count: usize) -> Result<Self, KvmError> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("tell what processors it offers"))?;
        let mut entries = supported.as_slice().to_vec();
        let deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        for entry in entries.iter_mut().filter(|entry| entry.function == 1) {
            // The kernel leaves to us what depends on where the local APIC is: it is there.
            entry.ecx |= HYPERVISOR | X2APIC | if deadline { DEADLINE_TIMER } else { 0 };
        }
        if model == (Model::Host { migratable: true }) {
            for entry in entries.iter_mut().filter(|entry| entry.function == 0x8000_0007) {
                entry.edx &= !INVARIANT_TSC;
            }
        }
        if let Model::Plain { brand } = model {
            entries.retain(|entry| is_plain(entry.function));
            entries.iter_mut().for_each(|entry| make_plain(entry, brand.as_bytes()));
        }
        Ok(Self { entries, count: u32::try_from(count).unwrap_or(u32::MAX) })
    }

    /// What vCPU `number` says of itself. All are cores of one socket.
    pub fn of(&self, number: usize) -> CpuId {
        let number = number as u32;
        let bits = self.count.next_power_of_two().trailing_zeros();
        let mut entries = self.entries.clone();
        for entry in &mut entries {
            match entry.function {
                1 => {
                    let count = self.count.next_power_of_two().min(255);
                    entry.ebx = entry.ebx & 0xffff | number << 24 | count << 16;
                    entry.edx &= !HAS_THREADS;
                    if self.count > 1 {
                        entry.edx |= HAS_THREADS;
                    }
                }
                // Caches: the numbers of threads that share one, and of cores.
                4 => {
                    let shared = if entry.eax >> 5 & 7 == 3 { (1 << bits) - 1 } else { 0 };
                    entry.eax = entry.eax & 0x3fff | ((1 << bits) - 1) << 26 | shared << 14;
                }
                0xb | 0x1f => topology(entry, bits, self.count, number),
                0x8000_0008 => entry.ecx = entry.ecx & !0xf0ff | bits << 12 | (self.count - 1),
                _ => {}
            }
        }
        CpuId::from_entries(&entries).expect("no more entries than there were")
    }
}

/// A level of the topology: threads, of which a core has one, and cores.
fn topology(entry: &mut kvm_cpuid_entry2, bits: u32, count: u32, number: u32) {
    const THREADS: u32 = 1 << 8;
    const CORES: u32 = 2 << 8;
    let level = entry.index;
    let (shift, within, kind) = match level {
        0 => (0, 1, THREADS),
        1 => (bits, count, CORES),
        _ => (0, 0, 0),
    };
    (entry.eax, entry.ebx, entry.ecx, entry.edx) = (shift, within, kind | level & 0xff, number);
}

/// Leaves that the plain model has. Those of the hypervisor tell of KVM's own services.
fn is_plain(leaf: u32) -> bool {
    let hypervisor = (0x4000_0000..0x4001_0000).contains(&leaf);
    leaf <= 1 || hypervisor || (0x8000_0000..=PLAIN_EXTENDED_LEAF_MAX).contains(&leaf)
}

fn make_plain(entry: &mut kvm_cpuid_entry2, brand: &[u8]) {
    let word = |text: &[u8], at: usize| {
        let byte = |index: usize| text.get(at + index).copied().unwrap_or(0);
        u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
    };
    match entry.function {
        0 | 0x8000_0000 => {
            let last = if entry.function == 0 { PLAIN_LEAF_MAX } else { PLAIN_EXTENDED_LEAF_MAX };
            entry.eax = entry.eax.min(last);
            let vendor = b"AuthenticAMD";
            (entry.ebx, entry.edx, entry.ecx) = (word(vendor, 0), word(vendor, 4), word(vendor, 8));
        }
        1 => {
            entry.eax = PLAIN_SIGNATURE;
            entry.ebx &= !0xff;
            entry.ecx &= PLAIN_ECX;
            entry.edx &= PLAIN_EDX;
        }
        0x8000_0001 => {
            entry.eax = PLAIN_SIGNATURE;
            entry.ebx = 0;
            entry.ecx &= PLAIN_EXTENDED_ECX;
            entry.edx &= PLAIN_EXTENDED_EDX;
        }
        leaf @ 0x8000_0002..=0x8000_0004 => {
            let at = (leaf - 0x8000_0002) as usize * 16;
            entry.eax = word(brand, at);
            entry.ebx = word(brand, at + 4);
            entry.ecx = word(brand, at + 8);
            entry.edx = word(brand, at + 12);
        }
        0x8000_0007 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        0x8000_0008 => entry.ebx = 0,
        _ => {}
    }
}
