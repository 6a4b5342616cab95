//! A vCPU's registers as KVM tells them.

use kvm_bindings::{kvm_fpu, kvm_segment};
use kvm_ioctls::VcpuFd;

use super::KvmError;
use super::state::{Registers as KnownRegisters, State};
use crate::inspect::{Inspect, Registers, SegmentRegister};
use crate::saved::{SavedError, SavedProcessor};

/// Looks at a vCPU that stands.
pub struct Look<'a>(pub &'a VcpuFd, pub &'a KnownRegisters);

fn segment(segment: &kvm_segment) -> SegmentRegister {
    let kvm_segment { type_, s, dpl, present, avl, l, db, g, .. } = *segment;
    let bits = [(type_, 0), (s, 4), (dpl, 5), (present, 7), (avl, 12), (l, 13), (db, 14), (g, 15)];
    SegmentRegister {
        selector: segment.selector,
        base: segment.base,
        limit: segment.limit,
        attributes: bits.iter().map(|&(value, shift)| u32::from(value) << shift).sum(),
    }
}

fn system(error: &KvmError) -> SavedError {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    SavedError::System { text: format!("{error}{}", source.unwrap_or_default()) }
}

/// What a call gives, or nothing known.
fn known<T: Default>(result: Result<T, kvm_ioctls::Error>) -> T {
    result.unwrap_or_default()
}

impl Inspect for Look<'_> {
    fn registers(&mut self) -> Registers {
        let (general, system) = (known(self.0.get_regs()), known(self.0.get_sregs()));
        let (fpu, debug) = (known(self.0.get_fpu()), known(self.0.get_debug_regs()));
        let kvm_fpu { fpr, fcw, fsw, ftwx, xmm, mxcsr, .. } = fpu;
        let half = |bytes: &[u8; 16], at: usize| {
            bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
        };
        let mut db = [0; 8];
        db[..4].copy_from_slice(&debug.db);
        (db[6], db[7]) = (debug.dr6, debug.dr7);
        let g = general;
        Registers {
            general: [
                g.rax, g.rcx, g.rdx, g.rbx, g.rsp, g.rbp, g.rsi, g.rdi, g.r8, g.r9, g.r10, g.r11,
                g.r12, g.r13, g.r14, g.r15,
            ],
            rip: general.rip,
            rflags: general.rflags,
            segments: [&system.es, &system.cs, &system.ss, &system.ds, &system.fs, &system.gs]
                .map(segment),
            ldt: segment(&system.ldt),
            task: segment(&system.tr),
            gdt: (system.gdt.base, system.gdt.limit.into()),
            idt: (system.idt.base, system.idt.limit.into()),
            control: [system.cr0, system.cr2, system.cr3, system.cr4, system.cr8],
            efer: system.efer,
            kernel_gs_base: 0,
            debug: db,
            x87: fpr.map(|register| [half(&register, 0), half(&register, 8) & 0xffff]),
            x87_control: fcw,
            x87_status: fsw,
            x87_valid: ftwx,
            vectors: xmm.map(|register| [half(&register, 0), half(&register, 8)]),
            mxcsr,
            halted: self.0.get_mp_state().is_ok_and(|state| state.mp_state == HALTED),
        }
    }

    fn set_registers(&mut self, registers: &Registers) {
        let Ok(mut general) = self.0.get_regs() else { return };
        let r = registers.general;
        [
            general.rax,
            general.rcx,
            general.rdx,
            general.rbx,
            general.rsp,
            general.rbp,
            general.rsi,
            general.rdi,
            general.r8,
            general.r9,
            general.r10,
            general.r11,
            general.r12,
            general.r13,
            general.r14,
            general.r15,
        ] = r;
        (general.rip, general.rflags) = (registers.rip, registers.rflags);
        // A vCPU that stands takes its own registers back.
        _ = self.0.set_regs(&general);
    }

    fn save(&mut self) -> Result<SavedProcessor, SavedError> {
        State::of(self.0, self.1).map(|state| state.to_words()).map_err(|error| system(&error))
    }

    fn load(&mut self, saved: &SavedProcessor) -> Result<(), SavedError> {
        let mut state = State::of(self.0, self.1).map_err(|error| system(&error))?;
        state.fill(saved)?;
        state.put(self.0).map_err(|error| system(&error))
    }
}

/// `KVM_MP_STATE_HALTED`.
const HALTED: u32 = 3;
