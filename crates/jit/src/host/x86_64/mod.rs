//! The x86-64 back end: emitter, register map, tier 1, and the stubs around translated code.

pub mod asm;
mod encode;
pub mod instructions;
pub mod map;
pub mod stubs;
pub mod tier1;
pub mod vcpu_block;

use std::arch::is_x86_feature_detected;

/// What the host can do beyond baseline x86-64 with SSE4.1.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// AVX2: three-operand vector instructions.
    pub avx2: bool,
    /// BMI1 and BMI2: shifts by any register, pext, pdep, andn.
    pub bmi2: bool,
    /// LZCNT and POPCNT.
    pub lzcnt: bool,
    /// FMA.
    pub fma: bool,
    /// F16C.
    pub f16c: bool,
    /// SHA.
    pub sha: bool,
    /// AES and PCLMULQDQ.
    pub aes: bool,
}

impl Features {
    /// Of this machine.
    pub fn detect() -> Self {
        Self {
            avx2: is_x86_feature_detected!("avx2"),
            bmi2: is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2"),
            lzcnt: is_x86_feature_detected!("lzcnt") && is_x86_feature_detected!("popcnt"),
            fma: is_x86_feature_detected!("fma"),
            f16c: is_x86_feature_detected!("f16c"),
            sha: is_x86_feature_detected!("sha"),
            aes: is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq"),
        }
    }

    /// What front ends must know of them.
    pub fn host(self) -> isa::Host {
        let Self { avx2, bmi2, fma, f16c, sha, aes, .. } = self;
        isa::Host { wide: avx2, fused: avx2 && fma, half: avx2 && f16c, sha, aes, bits: bmi2 }
    }
}
