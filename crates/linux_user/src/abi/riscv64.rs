//! RISC-V, 64 bits. Frames and registers as in the kernel's arch/riscv/include/uapi/asm.

use isa::riscv::{RiscV, State};
use jit::Vcpu;

use crate::call::{Row, generic64};
use crate::debug::riscv64;
use crate::guest::{Delivery, Guest, Machine};
use crate::memory;

/// See the module.
pub struct Riscv64;

const RA: usize = 1;
const SP: usize = 2;
const TP: usize = 4;
const A0: usize = 10;
const A7: usize = 17;

/// Offsets into the frame: `siginfo`, then `ucontext`.
const UCONTEXT: u64 = 128;
const STACK: u64 = UCONTEXT + 16;
const MASK: u64 = UCONTEXT + 40;
const REGISTERS: u64 = UCONTEXT + 176;
const FLOATS: u64 = REGISTERS + 256;
const FCSR: u64 = FLOATS + 256;
const FRAME_BYTES: u64 = FLOATS + 528;

/// Accrued exceptions: fflags bit, MXCSR bit.
pub const EXCEPTIONS: [(u32, u32); 5] = [(0, 5), (1, 4), (2, 3), (3, 2), (4, 0)];

/// Each is `li a7, NUMBER; ecall; ret`.
#[rustfmt::skip]
const VDSO: &[(&str, &[u8])] = &[
    ("__vdso_clock_gettime", &[0x93, 0x08, 0x10, 0x07, 0x73, 0x00, 0x00, 0x00, 0x67, 0x80, 0x00, 0x00]),
    ("__vdso_gettimeofday", &[0x93, 0x08, 0x90, 0x0a, 0x73, 0x00, 0x00, 0x00, 0x67, 0x80, 0x00, 0x00]),
    ("__vdso_clock_getres", &[0x93, 0x08, 0x20, 0x07, 0x73, 0x00, 0x00, 0x00, 0x67, 0x80, 0x00, 0x00]),
    ("__vdso_getcpu", &[0x93, 0x08, 0x80, 0x0a, 0x73, 0x00, 0x00, 0x00, 0x67, 0x80, 0x00, 0x00]),
    ("__vdso_flush_icache", &[0x93, 0x08, 0x30, 0x10, 0x73, 0x00, 0x00, 0x00, 0x67, 0x80, 0x00, 0x00]),
    ("__vdso_rt_sigreturn", &[0x93, 0x08, 0xb0, 0x08, 0x73, 0x00, 0x00, 0x00]),
];

/// A processor in /proc/cpuinfo.
const CPU_INFO: &str = "\
    processor\t: {}\n\
    hart\t\t: {}\n\
    isa\t\t: rv64imafdc_zicond_zicsr_zifencei_zacas_zba_zbb_zbs\n\
    mmu\t\t: sv57\n\
    \n\
";

impl Guest for Riscv64 {
    type FrontEnd = RiscV;

    const MACHINE: Machine = Machine {
        name: "riscv64",
        elf_machine: 243,
        pointer_bytes: 8,
        address_end: 1 << 47,
        hwcap: 0x112d, // I, M, A, F, D, C by letter
        platform: "riscv64",
        signal_stack_min: 2048,
        // li a7,139; ecall
        sigreturn_code: &[0x93, 0x08, 0xb0, 0x08, 0x73, 0x00, 0x00, 0x00],
        cpu_info: Some(CPU_INFO),
        vdso: VDSO,
        vdso_version: "LINUX_4.15",
        system_call_function: None,
        call_bytes: 4,
        cpus: &["rv64", "max", "any"],
    };

    type Local = ();

    fn calls() -> Vec<Row<Self>> {
        generic64()
    }

    fn front_end(cpu: Option<&str>) -> Option<RiscV> {
        let known = cpu.is_none_or(|cpu| Self::MACHINE.cpus.contains(&cpu));
        known.then(RiscV::default)
    }

    fn call_arguments(state: &State) -> (u64, [u64; 6]) {
        let x = &state.x;
        (x[A7], [x[A0], x[A0 + 1], x[A0 + 2], x[A0 + 3], x[A0 + 4], x[A0 + 5]])
    }

    fn set_result(state: &mut State, result: i64) {
        state.x[A0] = result as u64;
    }

    fn restart(state: &mut State, _: u64, arguments: &[u64; 6]) {
        state.x[A0] = arguments[0];
        state.pc -= Self::MACHINE.call_bytes;
    }

    fn start(state: &mut State, (): &mut (), pc: u64, stack: u64) {
        state.pc = pc;
        state.x[SP] = stack;
    }

    fn description() -> gdb::Description {
        riscv64::description()
    }

    fn debug_registers(vcpu: &Vcpu<RiscV>) -> Vec<u8> {
        riscv64::read(vcpu)
    }

    fn set_debug_registers(vcpu: &mut Vcpu<RiscV>, values: &[u8]) {
        riscv64::write(vcpu, values);
    }

    fn breakpoint(bytes: u64) -> &'static [u8] {
        if bytes == 2 { &[0x02, 0x90] } else { &[0x73, 0x00, 0x10, 0x00] }
    }

    fn set_pc(state: &mut State, pc: u64) {
        state.pc = pc;
    }

    fn position(state: &State) -> (u64, u64) {
        (state.pc, state.x[SP])
    }

    fn set_thread(
        state: &mut State,
        (): &mut (),
        stack: Option<u64>,
        tls: Option<u64>,
    ) -> Result<(), i32> {
        if let Some(stack) = stack {
            state.x[SP] = stack;
        }
        if let Some(tls) = tls {
            state.x[TP] = tls;
        }
        Ok(())
    }

    fn enter_handler(vcpu: &mut Vcpu<RiscV>, delivery: &Delivery) -> Result<(), i32> {
        let mxcsr = vcpu.fp_control();
        let state = vcpu.state();
        let frame = (delivery.stack - FRAME_BYTES) & !15;
        memory::write(frame, &delivery.info)?;
        memory::write(frame + UCONTEXT, &[0; 176])?;
        for (place, word) in (0..).zip(delivery.alternate) {
            memory::write_word(frame + STACK + 8 * place, word, 8)?;
        }
        memory::write_word(frame + MASK, delivery.mask, 8)?;
        let mut words = vec![state.pc];
        words.extend(&state.x[1..]);
        words.extend(&state.f);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        memory::write(frame + REGISTERS, &bytes)?;
        let flags: u32 = EXCEPTIONS.iter().map(|(flag, bit)| (mxcsr >> bit & 1) << flag).sum();
        memory::write_word(frame + FCSR, u64::from(flags) | state.frm << 5, 4)?;
        let state = vcpu.state_mut();
        state.reserved_address = u64::MAX;
        state.x[RA] = delivery.return_address();
        state.x[SP] = frame;
        state.x[A0] = delivery.signal as u64;
        state.x[A0 + 1] = frame;
        state.x[A0 + 2] = frame + UCONTEXT;
        state.pc = delivery.handler;
        Ok(())
    }

    fn leave_handler(vcpu: &mut Vcpu<RiscV>, (): &mut ()) -> Result<(u64, [u64; 3]), i32> {
        let frame = vcpu.state().x[SP];
        let mask = memory::read_word(frame + MASK, 8)?;
        let mut alternate = [0; 3];
        for (place, word) in (0..).zip(&mut alternate) {
            *word = memory::read_word(frame + STACK + 8 * place, 8)?;
        }
        let mut bytes = [0; 512];
        memory::read(frame + REGISTERS, &mut bytes)?;
        let fcsr = memory::read_word(frame + FCSR, 4)? as u32;
        let state = vcpu.state_mut();
        for (index, word) in bytes.as_chunks().0.iter().enumerate() {
            let word = u64::from_le_bytes(*word);
            match index {
                0 => state.pc = word,
                1..32 => state.x[index] = word,
                _ => state.f[index - 32] = word,
            }
        }
        state.reserved_address = u64::MAX;
        state.frm = u64::from(fcsr >> 5 & 7);
        let rounding = [0, 3, 1, 2, 0, 0, 0, 0][state.frm as usize];
        let flags: u32 = EXCEPTIONS.iter().map(|(flag, bit)| (fcsr >> flag & 1) << bit).sum();
        vcpu.set_fp_control(flags | rounding << 13);
        Ok((mask, alternate))
    }
}
