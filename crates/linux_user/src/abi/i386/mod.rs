//! x86, 32 bits: what runs on an old PC's Linux, below 4 GiB.

mod frame;
mod segments;

use isa::Event;
use isa::x86::{RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, State, X86};
use jit::Vcpu;

use super::x86_64::X8664;
use crate::call::{Call, Row, narrow};
use crate::debug::x86;
use crate::guest::{Delivery, Exception, Guest, Machine};
use crate::signals::Info;
use segments::Descriptors;

/// See the module.
pub struct I386;

/// Each is `push ebx; arguments to EBX, ECX, EDX; mov eax, NUMBER; int 0x80; pop ebx; ret`.
#[rustfmt::skip]
const VDSO: &[(&str, &[u8])] = &[
    ("__vdso_clock_gettime", &[0x53, 0x8b, 0x5c, 0x24, 0x08, 0x8b, 0x4c, 0x24, 0x0c, 0xb8, 0x09, 0x01, 0x00, 0x00, 0xcd, 0x80, 0x5b, 0xc3]),
    ("__vdso_clock_gettime64", &[0x53, 0x8b, 0x5c, 0x24, 0x08, 0x8b, 0x4c, 0x24, 0x0c, 0xb8, 0x93, 0x01, 0x00, 0x00, 0xcd, 0x80, 0x5b, 0xc3]),
    ("__vdso_gettimeofday", &[0x53, 0x8b, 0x5c, 0x24, 0x08, 0x8b, 0x4c, 0x24, 0x0c, 0xb8, 0x4e, 0x00, 0x00, 0x00, 0xcd, 0x80, 0x5b, 0xc3]),
    ("__vdso_time", &[0x53, 0x8b, 0x5c, 0x24, 0x08, 0xb8, 0x0d, 0x00, 0x00, 0x00, 0xcd, 0x80, 0x5b, 0xc3]),
    ("__vdso_getcpu", &[0x53, 0x8b, 0x5c, 0x24, 0x08, 0x8b, 0x4c, 0x24, 0x0c, 0x8b, 0x54, 0x24, 0x10, 0xb8, 0x3e, 0x01, 0x00, 0x00, 0xcd, 0x80, 0x5b, 0xc3]),
    ("__vdso_clock_getres", &[0x53, 0x8b, 0x5c, 0x24, 0x08, 0x8b, 0x4c, 0x24, 0x0c, 0xb8, 0x0a, 0x01, 0x00, 0x00, 0xcd, 0x80, 0x5b, 0xc3]),
    ("__kernel_vsyscall", &[0xcd, 0x80, 0xc3]),
    ("__kernel_sigreturn", &[0x58, 0xb8, 0x77, 0x00, 0x00, 0x00, 0xcd, 0x80]),
    ("__kernel_rt_sigreturn", &[0xb8, 0xad, 0x00, 0x00, 0x00, 0xcd, 0x80]),
];

impl Guest for I386 {
    type FrontEnd = X86;

    const MACHINE: Machine = Machine {
        name: "i386",
        elf_machine: 3,
        pointer_bytes: 4,
        address_end: 0xffff_e000,
        hwcap: 0x0781_abfd, // CPUID 1, EDX
        platform: "i686",
        signal_stack_min: 2048,
        sigreturn_code: frame::RETURN_CODE,
        cpu_info: None,
        vdso: VDSO,
        vdso_version: "LINUX_2.6",
        system_call_function: Some("__kernel_vsyscall"),
        call_bytes: 2,
        cpus: &["max", "qemu32", "pentium3", "coreduo", "n270"],
    };

    const HAS_RESTORER: bool = true;

    type Local = Descriptors;

    fn calls() -> Vec<Row<Self>> {
        let mut rows = narrow::calls::rows();
        let own = |number, name, call| Row { number, name, call: Call::Own(call) };
        rows.push(own(119, "sigreturn", frame::sigreturn));
        rows.push(own(123, "modify_ldt", segments::modify_ldt));
        rows.push(own(243, "set_thread_area", segments::set_thread_area));
        rows.push(own(244, "get_thread_area", segments::get_thread_area));
        rows
    }

    fn front_end(cpu: Option<&str>) -> Option<X86> {
        let known = cpu.is_none_or(|cpu| Self::MACHINE.cpus.contains(&cpu));
        known.then(X86::user)
    }

    fn call_arguments(state: &State) -> (u64, [u64; 6]) {
        let r = |number: usize| state.gpr[number] & 0xffff_ffff;
        (r(RAX), [r(RBX), r(RCX), r(RDX), r(RSI), r(RDI), r(RBP)])
    }

    fn set_result(state: &mut State, result: i64) {
        state.gpr[RAX] = u64::from(result as u32);
    }

    fn restart(state: &mut State, number: u64, _: &[u64; 6]) {
        state.gpr[RAX] = number;
        state.pc -= Self::MACHINE.call_bytes;
    }

    fn start(state: &mut State, descriptors: &mut Descriptors, pc: u64, stack: u64) {
        *state = X86::user_state(false);
        state.x87_control = 0x37f;
        state.x87_empty = 0xff;
        state.pc = pc;
        state.gpr[RSP] = stack;
        descriptors.install(state);
    }

    fn description() -> gdb::Description {
        x86::description(false)
    }

    fn debug_registers(vcpu: &Vcpu<X86>) -> Vec<u8> {
        x86::read(vcpu, false)
    }

    fn set_debug_registers(vcpu: &mut Vcpu<X86>, values: &[u8]) {
        x86::write(vcpu, values, false);
    }

    fn breakpoint(_: u64) -> &'static [u8] {
        &[0xcc]
    }

    fn set_pc(state: &mut State, pc: u64) {
        state.pc = pc;
    }

    fn position(state: &State) -> (u64, u64) {
        (state.pc, state.gpr[RSP] & 0xffff_ffff)
    }

    fn set_thread(
        state: &mut State,
        descriptors: &mut Descriptors,
        stack: Option<u64>,
        tls: Option<u64>,
    ) -> Result<(), i32> {
        if let Some(stack) = stack {
            state.gpr[RSP] = stack;
        }
        descriptors.install(state);
        match tls {
            Some(description) => descriptors.describe(state, description, false).map(|_| ()),
            None => Ok(()),
        }
    }

    fn enter_handler(vcpu: &mut Vcpu<X86>, delivery: &Delivery) -> Result<(), i32> {
        frame::enter(vcpu, delivery)
    }

    fn leave_handler(
        vcpu: &mut Vcpu<X86>,
        descriptors: &mut Descriptors,
    ) -> Result<(u64, [u64; 3]), i32> {
        frame::leave(vcpu, descriptors)
    }

    fn info(host: &Info) -> Info {
        narrow::narrow_info(host)
    }

    fn exception(event: &Event, state: &State) -> Exception {
        super::x86_64::exception_of(event, state)
    }

    fn signal_of(event: &Event, state: &State) -> (i32, i32, u64) {
        X8664::signal_of(event, state)
    }
}
