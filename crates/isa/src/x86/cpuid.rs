//! What CPUID answers: the features that this front end implements, and nothing else.

use super::helpers::TSC_HZ;
use super::helpers::xsave::{COMPONENTS, UPPER_BYTES, UPPER_HALVES, area_bytes};
use super::mode::control;
use super::state::State;
use crate::front_end::Host;

/// The highest basic leaf.
const BASIC_MAX: u32 = 0x16;
/// The highest extended leaf.
const EXTENDED_MAX: u32 = 0x8000_0008;

/// "GenuineIntel", in the order EBX, EDX, ECX.
const VENDOR: [u32; 3] = [0x756e_6547, 0x4965_6e69, 0x6c65_746e];

const BRAND: &[u8; 48] = b"Hostel Translated CPU                          \0";

/// Family 6, model 0x3c, stepping 3: a processor of the x86-64-v3 generation.
const SIGNATURE: u32 = 0x0003_06c3;

/// Leaf 1, EDX: FPU VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFLUSH MMX
/// FXSR SSE SSE2 SS.
const FEATURES_EDX: u32 = 0x0f8b_fbff & !(1 << 18) & !(1 << 21);

/// Leaf 1, ECX: SSE3 PCLMULQDQ SSSE3 CX16 SSE4.1 SSE4.2 MOVBE POPCNT AES XSAVE RDRAND.
/// The bit that tells a guest is clear: systems that see it distrust ARCH_CAPABILITIES and slow their calls down.
const FEATURES_ECX: u32 = 0xc6d8_2203;
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;

/// Leaf 7, EBX: FSGSBASE TSC_ADJUST BMI1 SMEP BMI2 ERMS INVPCID RDSEED ADX.
const STRUCTURED_EBX: u32 =
    1 | 1 << 1 | 1 << 3 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 18 | 1 << 19;
/// Leaf 7, EBX too, but only where it is asked for: each change of EFLAGS.AC is one of mode.
const SMAP: u32 = 1 << 20;
/// Leaf 7, ECX: RDPID.
const STRUCTURED_ECX: u32 = 1 << 22;
/// Leaf 7, EDX: FSRM, IBRS, and ARCH_CAPABILITIES, which says that none of the leaks exist here:
/// translated code does not speculate across privilege levels on guest state, and a system that
/// believes so need not switch page tables at every call.
const STRUCTURED_EDX: u32 = 1 << 4 | 1 << 26 | 1 << 29;

/// Leaf 0x80000001, EDX: SYSCALL NX PDPE1GB RDTSCP LM.
const EXTENDED_EDX: u32 = 1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29;
/// Leaf 0x80000001, ECX: LAHF in 64-bit code, LZCNT, PREFETCHW.
const EXTENDED_ECX: u32 = 1 | 1 << 5 | 1 << 8;

/// The features that depend on the back end: what it cannot do with the host's own instructions is
/// implemented all the same, but nobody should prefer it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abilities(pub u64);

impl Abilities {
    const WIDE: u64 = 1;
    const FUSED: u64 = 1 << 1;
    const HALF: u64 = 1 << 2;
    const SHA: u64 = 1 << 3;

    /// Of a back end.
    pub fn of(host: Host) -> Self {
        let bit = |ability: bool, bit: u64| if ability { bit } else { 0 };
        Self(
            bit(host.wide, Self::WIDE)
                | bit(host.fused, Self::FUSED)
                | bit(host.half, Self::HALF)
                | bit(host.sha, Self::SHA),
        )
    }

    fn feature(self, ability: u64, bit: u32) -> u32 {
        if self.0 & ability != 0 { 1 << bit } else { 0 }
    }

    /// Leaf 1, ECX: FMA AVX F16C.
    fn features_ecx(self) -> u32 {
        self.feature(Self::FUSED, 12) | self.feature(Self::WIDE, 28) | self.feature(Self::HALF, 29)
    }

    /// Leaf 7, EBX: AVX2 SHA.
    fn structured_ebx(self) -> u32 {
        self.feature(Self::WIDE, 5) | self.feature(Self::SHA, 29)
    }
}

/// EAX, EBX, ECX, EDX for a leaf.
#[must_use]
pub fn answer(state: &State, abilities: Abilities, leaf: u32, subleaf: u32) -> [u32; 4] {
    // Beyond the last leaf Intel's processors repeat the last basic one.
    let leaf = match leaf {
        0..=BASIC_MAX | 0x8000_0000..=EXTENDED_MAX => leaf,
        0x4000_0000..0x5000_0000 => return [0; 4],
        _ => BASIC_MAX,
    };
    let [number, count] = [state.msr.apic_id as u32, (state.msr.apic_count as u32).max(1)];
    match leaf {
        0 => [BASIC_MAX, VENDOR[0], VENDOR[2], VENDOR[1]],
        1 => {
            let xsave = if state.cr[4] & control::CR4_OSXSAVE != 0 { 1 << 27 } else { 0 };
            let count_shown = count.next_power_of_two().min(255);
            let multithreaded = if count > 1 { 1 << 28 } else { 0 };
            let system = if state.msr.apic_count > 0 { X2APIC | TSC_DEADLINE } else { 0 };
            [
                SIGNATURE,
                number << 24 | count_shown << 16 | 8 << 8,
                FEATURES_ECX | abilities.features_ecx() | xsave | system,
                FEATURES_EDX | multithreaded,
            ]
        }
        2 => [0x0076_0301, 0x00f0_b5ff, 0, 0x00c3_0000],
        4 => cache(subleaf, count),
        5 => [0; 4],
        6 => [4, 0, 0, 0], // the local APIC's timer never stops
        7 if subleaf == 0 => {
            let ebx = STRUCTURED_EBX | abilities.structured_ebx();
            [0, ebx, STRUCTURED_ECX, STRUCTURED_EDX]
        }
        0xb => topology(subleaf, number, count),
        0xd => saved_state(state, subleaf),
        // The time-stamp counter in terms of a 25 MHz crystal.
        0x15 => [1, (TSC_HZ / 25_000_000) as u32, 25_000_000, 0],
        0x16 => [(TSC_HZ / 1_000_000) as u32, (TSC_HZ / 1_000_000) as u32, 100, 0],
        0x8000_0000 => [EXTENDED_MAX, 0, 0, 0],
        0x8000_0001 => [0, 0, EXTENDED_ECX, EXTENDED_EDX],
        0x8000_0002..=0x8000_0004 => brand(leaf - 0x8000_0002),
        0x8000_0006 => [0, 0, 0x0100_6040, 0],
        0x8000_0007 => [0, 0, 0, 1 << 8], // the counter's rate never changes
        0x8000_0008 => [0x3028, 0, 0, 0], // 40 physical, 48 linear address bits
        _ => [0; 4],
    }
}

/// What a processor of a machine says of itself on a back end, if nobody says otherwise.
#[must_use]
pub fn native(host: Host, leaf: u32, subleaf: u32) -> [u32; 4] {
    let mut state = State::default();
    state.msr.apic_count = 1;
    let mut answer = answer(&state, Abilities::of(host), leaf, subleaf);
    if (leaf, subleaf) == (7, 0) {
        answer[1] |= SMAP;
    }
    answer
}

fn brand(part: u32) -> [u32; 4] {
    let bytes = &BRAND[part as usize * 16..][..16];
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    [word(0), word(4), word(8), word(12)]
}

/// Leaf 4: 32 KiB of data and of code, 256 KiB and 8 MiB of both.
fn cache(subleaf: u32, count: u32) -> [u32; 4] {
    // type, level, ways, sets
    let (kind, level, ways, sets) = match subleaf {
        0 => (1, 1, 8, 64),
        1 => (2, 1, 8, 64),
        2 => (3, 2, 8, 512),
        3 => (3, 3, 16, 8192),
        _ => return [0; 4],
    };
    let sharing = if level == 3 { count.next_power_of_two() - 1 } else { 0 };
    let packages = (count.next_power_of_two() - 1) << 26;
    [kind | level << 5 | 1 << 8 | sharing << 14 | packages, (ways - 1) << 22 | 63, sets - 1, 0]
}

/// Leaf 0xd: the components that XSAVE knows, and where they lie.
fn saved_state(state: &State, subleaf: u32) -> [u32; 4] {
    const OPTIMISED_AND_COMPACTED: u32 = 1 | 1 << 1;
    const USED_COMPONENTS: u32 = 1 << 2; // XGETBV with 1
    let now = area_bytes(state.xcr0);
    match subleaf {
        0 => [COMPONENTS as u32, now, area_bytes(COMPONENTS), 0],
        1 => [OPTIMISED_AND_COMPACTED | USED_COMPONENTS, now, 0, 0],
        2 => [UPPER_BYTES as u32, UPPER_HALVES as u32, 0, 0],
        _ => [0; 4],
    }
}

/// Leaf 0xb: one thread a core, all cores in one package.
fn topology(subleaf: u32, number: u32, count: u32) -> [u32; 4] {
    match subleaf {
        0 => [0, 1, 1 << 8, number],
        1 => [count.next_power_of_two().trailing_zeros(), count, 2 << 8 | 1, number],
        _ => [0, 0, subleaf, number],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_required_features_are_there() {
        let [.., edx] = answer(&State::default(), Abilities(0), 1, 0);
        // FPU MSR PAE CX8 PGE CMOV FXSR SSE SSE2, as Linux asks for them.
        for bit in [0, 5, 6, 8, 13, 15, 24, 25, 26] {
            assert!(edx & 1 << bit != 0, "bit {bit}");
        }
        let [.., edx] = answer(&State::default(), Abilities(0), 0x8000_0001, 0);
        assert!(edx & 1 << 29 != 0 && edx & 1 << 20 != 0);
    }

    #[test]
    fn wide_vectors_are_promised_where_the_host_has_them() {
        let host = Host { wide: true, fused: true, ..Host::default() };
        for (abilities, there) in [(Abilities::of(host), true), (Abilities(0), false)] {
            let [_, _, ecx, _] = answer(&State::default(), abilities, 1, 0);
            let [_, ebx, ..] = answer(&State::default(), abilities, 7, 0);
            let bits = [ecx & 1 << 28, ecx & 1 << 12, ebx & 1 << 5].map(|bit| bit != 0);
            assert_eq!(bits, [there; 3]);
            assert_eq!(ecx & 1 << 29, 0, "F16C is not the host's");
        }
    }

    #[test]
    fn the_saved_area_ends_with_the_upper_halves() {
        let [components, now, most, _] =
            answer(&State { xcr0: 3, ..State::default() }, Abilities(0), 0xd, 0);
        assert_eq!((components, now, most), (7, 576, 832));
        let [bytes, offset, ..] = answer(&State::default(), Abilities(0), 0xd, 2);
        assert_eq!(offset + bytes, most);
    }
}
