//! What CPUID answers: the features that this front end implements, and nothing else.

use super::helpers::TSC_HZ;
use super::mode::control;
use super::state::State;

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

/// Leaf 1, ECX: SSE3 PCLMULQDQ SSSE3 CX16 SSE4.1 SSE4.2 MOVBE POPCNT AES, and that this is a guest.
const FEATURES_ECX: u32 =
    1 | 1 << 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 25 | 1 << 31;
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;

/// Leaf 7, EBX: FSGSBASE TSC_ADJUST BMI1 SMEP BMI2 ERMS INVPCID ADX.
const STRUCTURED_EBX: u32 = 1 | 1 << 1 | 1 << 3 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 19;
/// Leaf 7, ECX: RDPID.
const STRUCTURED_ECX: u32 = 1 << 22;
/// Leaf 7, EDX: FSRM, ARCH_CAPABILITIES is absent.
const STRUCTURED_EDX: u32 = 1 << 4;

/// Leaf 0x80000001, EDX: SYSCALL NX PDPE1GB RDTSCP LM.
const EXTENDED_EDX: u32 = 1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29;
/// Leaf 0x80000001, ECX: LAHF in 64-bit code, LZCNT, PREFETCHW.
const EXTENDED_ECX: u32 = 1 | 1 << 5 | 1 << 8;

/// EAX, EBX, ECX, EDX for a leaf.
#[must_use]
pub fn answer(state: &State, leaf: u32, subleaf: u32) -> [u32; 4] {
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
                FEATURES_ECX | xsave | system,
                FEATURES_EDX | multithreaded,
            ]
        }
        2 => [0x0076_0301, 0x00f0_b5ff, 0, 0x00c3_0000],
        4 => cache(subleaf, count),
        5 => [0; 4],
        6 => [4, 0, 0, 0], // the local APIC's timer never stops
        7 if subleaf == 0 => [0, STRUCTURED_EBX, STRUCTURED_ECX, STRUCTURED_EDX],
        0xb => topology(subleaf, number, count),
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
        let [.., edx] = answer(&State::default(), 1, 0);
        // FPU MSR PAE CX8 PGE CMOV FXSR SSE SSE2, as Linux asks for them.
        for bit in [0, 5, 6, 8, 13, 15, 24, 25, 26] {
            assert!(edx & 1 << bit != 0, "bit {bit}");
        }
        let [.., edx] = answer(&State::default(), 0x8000_0001, 0);
        assert!(edx & 1 << 29 != 0 && edx & 1 << 20 != 0);
    }
}
