//! Which guest register lives in which host register.

use isa::ir::Type;
use isa::ir::fpu::Fpu;
use isa::{Layout, Pin, Prefer};

use super::Features;
use super::asm::reg;

/// No register.
pub const NONE: u8 = 0xff;

/// General registers in which temporary values live.
pub const SCRATCH_GPRS: usize = 4;
/// Vector registers in which temporary values live: the last ones.
pub const SCRATCH_XMMS: u8 = 4;

/// The map of one front end.
pub struct HostMap {
    /// By word of guest state: the general register that holds it, or `NONE`.
    gpr_of: Vec<u8>,
    /// By word of guest state: the vector register whose *first* word it is, or `NONE`.
    xmm_of: Vec<u8>,
    /// Pinned general registers: state offset, host register.
    pub gprs: Vec<(u16, u8)>,
    /// Pinned vector registers: state offset, host register, type.
    pub xmms: Vec<(u16, u8, Type)>,
    /// General registers for temporary values.
    pub scratch: [u8; SCRATCH_GPRS],
    /// Bit set of `scratch`.
    pub scratch_mask: u16,
    /// Where the guest's FPU is.
    pub fpu: Option<Fpu>,
}

impl HostMap {
    /// Distributes the host's registers.
    pub fn new(layout: &Layout, features: Features) -> Self {
        let words = layout.bytes.div_ceil(8) + 1;
        // The order in which registers without preference are given: those without a role last
        // become scratch, so that multiplication, division and shifts find RAX, RCX, RDX free.
        let order = [3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, reg::RDX, reg::RCX, reg::RAX];
        let mut free: Vec<u8> = order.to_vec();
        let room = free.len() - SCRATCH_GPRS;
        let wanted: &[Pin] = &layout.general[..layout.general.len().min(room)];
        let mut gprs = Vec::new();
        for pin in wanted {
            if let Prefer::Number(number) = pin.prefer {
                free.retain(|&register| register != number);
                gprs.push((pin.reg.offset, number));
            }
        }
        for pin in wanted.iter().filter(|pin| pin.prefer == Prefer::Any) {
            gprs.push((pin.reg.offset, free.remove(0)));
        }
        let xmms: Vec<_> = layout
            .vectors
            .iter()
            .zip(0..16 - SCRATCH_XMMS)
            .map(|(pin, host)| {
                // Without 256-bit registers the upper halves stay in memory.
                let narrow = pin.reg.ty == Type::V256 && !features.avx2;
                (pin.reg.offset, host, if narrow { Type::V128 } else { pin.reg.ty })
            })
            .collect();
        // Prefer registers with roles as scratch.
        free.reverse();
        let scratch = [free[0], free[1], free[2], free[3]];
        let mut map = Self {
            gpr_of: vec![NONE; words],
            xmm_of: vec![NONE; words],
            gprs,
            xmms,
            scratch,
            fpu: layout.fpu,
            scratch_mask: scratch.iter().fold(0, |mask, register| mask | 1 << register),
        };
        for &(offset, host) in &map.gprs {
            map.gpr_of[usize::from(offset) / 8] = host;
        }
        for &(offset, host, ty) in &map.xmms {
            for word in 0..(ty.bytes() as usize / 8) {
                map.xmm_of[usize::from(offset) / 8 + word] = host;
            }
        }
        map
    }

    /// The general register that holds the state at this offset.
    pub fn gpr(&self, offset: u32) -> Option<u8> {
        self.gpr_of.get(offset as usize / 8).copied().filter(|&register| register != NONE)
    }

    /// The vector register that holds the state at this offset, and where in it.
    pub fn xmm(&self, offset: u32) -> Option<(u8, u32)> {
        let host = self.xmm_of.get(offset as usize / 8).copied().filter(|&r| r != NONE)?;
        let (start, ..) = self.xmms[usize::from(host)];
        Some((host, offset - u32::from(start)))
    }

    /// Whether a host register holds temporaries.
    pub fn is_scratch(&self, register: u8) -> bool {
        self.scratch_mask & 1 << register != 0
    }
}
