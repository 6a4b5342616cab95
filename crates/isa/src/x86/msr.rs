//! Model-specific registers by number: the manual's volume 4.

use super::state::Msrs;

/// Time-stamp counter.
pub const TSC: u32 = 0x10;
/// Local APIC base.
pub const APIC_BASE: u32 = 0x1b;
/// Time-stamp adjustment.
pub const TSC_ADJUST: u32 = 0x3b;
/// Deadline of the local APIC's timer.
pub const TSC_DEADLINE: u32 = 0x6e0;
/// First of the x2APIC registers.
pub const X2APIC: u32 = 0x800;
/// Last of the x2APIC registers.
pub const X2APIC_LAST: u32 = 0x83f;
/// The task priority among them.
pub const X2APIC_TPR: u64 = 0x808;
/// Extended features.
pub const EFER: u32 = 0xc000_0080;
/// Base of FS.
pub const FS_BASE: u32 = 0xc000_0100;
/// Base of GS.
pub const GS_BASE: u32 = 0xc000_0101;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const FMASK: u32 = 0xc000_0084;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const TSC_AUX: u32 = 0xc000_0103;
const SYSENTER_CS: u32 = 0x174;
const SYSENTER_ESP: u32 = 0x175;
const SYSENTER_EIP: u32 = 0x176;
const PAT: u32 = 0x277;
const MISC_ENABLE: u32 = 0x1a0;
const MTRR_CAP: u32 = 0xfe;
const MTRR_DEFAULT: u32 = 0x2ff;
const MTRR_VARIABLE: u32 = 0x200;
const MTRR_FIXED: [u32; 11] =
    [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
const MCG_CAP: u32 = 0x179;
const MCG_STATUS: u32 = 0x17a;
const MICROCODE: u32 = 0x8b;
const PLATFORM_ID: u32 = 0x17;
const FEATURE_CONTROL: u32 = 0x3a;
const SMI_COUNT: u32 = 0x34;

/// Whether the local APIC answers.
#[must_use]
pub fn is_apic(number: u32) -> bool {
    matches!(number, APIC_BASE | TSC_DEADLINE | X2APIC..=X2APIC_LAST)
}

/// Whether only canonical addresses may be written.
#[must_use]
pub fn is_address(number: u32) -> bool {
    matches!(
        number,
        FS_BASE | GS_BASE | KERNEL_GS_BASE | LSTAR | CSTAR | SYSENTER_ESP | SYSENTER_EIP
    )
}

/// The register that just holds what was written.
pub fn plain(msrs: &mut Msrs, number: u32) -> Option<&mut u64> {
    Some(match number {
        STAR => &mut msrs.star,
        LSTAR => &mut msrs.lstar,
        CSTAR => &mut msrs.cstar,
        FMASK => &mut msrs.fmask,
        KERNEL_GS_BASE => &mut msrs.kernel_gs_base,
        TSC_AUX => &mut msrs.tsc_aux,
        SYSENTER_CS => &mut msrs.sysenter_cs,
        SYSENTER_ESP => &mut msrs.sysenter_esp,
        SYSENTER_EIP => &mut msrs.sysenter_eip,
        PAT => &mut msrs.pat,
        MISC_ENABLE => &mut msrs.misc_enable,
        MTRR_DEFAULT => &mut msrs.mtrr_default,
        MTRR_VARIABLE..0x210 => &mut msrs.mtrr_variable[(number - MTRR_VARIABLE) as usize],
        _ => {
            let at = MTRR_FIXED.iter().position(|fixed| *fixed == number)?;
            &mut msrs.mtrr_fixed[at]
        }
    })
}

/// What a read-only register says.
#[must_use]
pub fn constant(number: u32) -> Option<u64> {
    Some(match number {
        // Eight variable ranges, fixed ranges, write-combining.
        MTRR_CAP => 0x508,
        MCG_CAP | MCG_STATUS | PLATFORM_ID | SMI_COUNT => 0,
        FEATURE_CONTROL => 1,
        MICROCODE => 1 << 32,
        _ => return None,
    })
}

/// Registers that software writes without asking, and reads never.
#[must_use]
pub fn ignores_writes(number: u32) -> bool {
    // Microcode update trigger, machine-check control.
    matches!(number, 0x79 | 0x17b)
}
