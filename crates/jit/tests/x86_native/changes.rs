//! What changes under translated code: mappings, other processors' stores, the mode.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use isa::Event;
use isa::x86::{RAX, RBX, RCX, RDI, RDX, RSI, RSP, X86, exception};
use jit::{Engine, Exit, Options, Space, Vcpu};

use crate::system::{Board, Ram, Tables, engine, kernel_state};

const PAGE: u64 = 4096;
const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x50_0000;
/// Physical places, none next to another.
const FIRST: u64 = 20 * PAGE;
const SECOND: u64 = 30 * PAGE;
const OTHER: u64 = 40 * PAGE;
const CELLS: u64 = 50 * PAGE;

/// Memory with two pages of code and one of data.
fn memory() -> Arc<Ram> {
    let ram = Arc::new(Ram::new());
    let mut tables = Tables::new(&ram);
    tables.map(CODE, FIRST);
    tables.map(CODE + PAGE, SECOND);
    tables.map(DATA, CELLS);
    tables.map(DATA + PAGE, OTHER);
    tables.map(DATA + 2 * PAGE, FIRST);
    ram
}

fn vcpu(ram: &Arc<Ram>) -> Vcpu<X86> {
    Vcpu::new(&engine(ram, Options::detect())).expect("a vCPU")
}

/// Runs from `pc` with these registers and a stack.
fn run(vcpu: &mut Vcpu<X86>, pc: u64, registers: &[(usize, u64)]) -> Exit {
    let mut state = kernel_state(pc);
    state.gpr[RSP] = DATA + 0x800;
    for &(register, value) in registers {
        state.gpr[register] = value;
    }
    *vcpu.state_mut() = state;
    vcpu.run()
}

const HALTED: Exit = Exit::Event(Event::Halt);

#[test]
fn an_instruction_on_two_pages_follows_both() {
    let ram = memory();
    let mut vcpu = vcpu(&ram);
    let start = CODE + PAGE - 2;
    ram.write(FIRST + PAGE - 2, &[0xb8, 0x11]); // mov eax, 0x......11
    ram.write(FIRST + PAGE, &[0xff; 4]); // what lies behind the first page is another's
    ram.write(SECOND, &[0x22, 0x33, 0x44, 0xf4]);
    ram.write(OTHER, &[0x55, 0x66, 0x77, 0xf4]);
    ram.write(FIRST, &[0xc6, 0x07, 0x99, 0xf4]); // mov byte [rdi], 0x99; hlt
    for _ in 0..2 {
        assert_eq!(run(&mut vcpu, start, &[]), HALTED);
        assert_eq!(vcpu.state().gpr[RAX], 0x4433_2211);
    }
    Tables::again(&ram).map(CODE + PAGE, OTHER);
    vcpu.flush_tlb(Some(CODE + PAGE), None);
    assert_eq!(run(&mut vcpu, start, &[]), HALTED);
    assert_eq!(vcpu.state().gpr[RAX], 0x7766_5511, "the second page is another one");
    assert_eq!(run(&mut vcpu, CODE, &[(RDI, DATA + PAGE)]), HALTED);
    assert_eq!(run(&mut vcpu, start, &[]), HALTED);
    assert_eq!(vcpu.state().gpr[RAX], 0x7766_9911, "a store to the second page");
    assert_eq!(run(&mut vcpu, CODE, &[(RDI, DATA + 3 * PAGE - 1)]), HALTED);
    assert_eq!(run(&mut vcpu, start, &[]), HALTED);
    assert_eq!(vcpu.state().gpr[RAX], 0x7766_9999, "a store to the first page");
}

#[test]
fn a_loop_over_the_end_of_a_page_follows_its_second_page() {
    let ram = memory();
    let mut vcpu = vcpu(&ram);
    // FIRST: add eax, constant, over the border; then dec ecx; jne; hlt.
    ram.write(FIRST + PAGE - 4, &[0x90, 0x90, 0x05, 0x01]);
    let rest = |high: u8| [0, 0, high, 0xff, 0xc9, 0x75, 0xf5, 0xf4];
    ram.write(SECOND, &rest(0x10));
    ram.write(OTHER, &rest(0x20));
    let start = CODE + PAGE - 4;
    assert_eq!(run(&mut vcpu, start, &[(RCX, 5)]), HALTED);
    assert_eq!(vcpu.state().gpr[RAX], 0x5000_0005);
    Tables::again(&ram).map(CODE + PAGE, OTHER);
    vcpu.flush_tlb(Some(CODE + PAGE), None);
    assert_eq!(run(&mut vcpu, start, &[(RCX, 5)]), HALTED);
    assert_eq!(vcpu.state().gpr[RAX], 0xa000_0005);
}

#[test]
fn a_new_address_space_keeps_global_pages_only() {
    const GLOBAL: u64 = 1 << 8;
    let ram = memory();
    let mut vcpu = vcpu(&ram);
    // mov cr3, rdx; mov eax, [rdi]; call rbx; hlt
    ram.write(FIRST, &[0x0f, 0x22, 0xda, 0x8b, 0x07, 0xff, 0xd3, 0xf4]);
    ram.write(SECOND, &[0xb9, 1, 0, 0, 0, 0xc3]); // mov ecx, 1; ret
    ram.write(OTHER, &[0xb9, 2, 0, 0, 0, 0xc3]); // mov ecx, 2; ret
    ram.write(CELLS, &[3, 0, 0, 0]);
    let data = DATA + 3 * PAGE;
    let mut go = |global: u64, code: u64, cell: u64| {
        let mut tables = Tables::again(&ram);
        tables.map(CODE + PAGE, code | global);
        tables.map(data, cell | global);
        let mut state = kernel_state(CODE);
        state.cr[4] |= 1 << 7; // PGE
        state.gpr[RSP] = DATA + 0x800;
        (state.gpr[RDX], state.gpr[RDI], state.gpr[RBX]) = (state.cr[3], data, CODE + PAGE);
        *vcpu.state_mut() = state;
        assert_eq!(vcpu.run(), HALTED);
        (vcpu.state().gpr[RAX] as u32, vcpu.state().gpr[RCX])
    };
    let other_word = 0x02b9;
    for _ in 0..3 {
        assert_eq!(go(0, SECOND, CELLS), (3, 1));
        assert_eq!(go(0, OTHER, OTHER).1, 2, "code of the new space");
        assert_eq!(go(0, OTHER, OTHER).0 & 0xffff, other_word, "data of the new space");
    }
    assert_eq!(go(GLOBAL, SECOND, CELLS), (3, 1));
    assert_eq!(go(GLOBAL, OTHER, OTHER), (3, 1), "nobody told that global pages changed");
    vcpu.flush_tlb(Some(CODE + PAGE), None);
    vcpu.flush_tlb(Some(data), None);
    let mut state = kernel_state(CODE);
    state.cr[4] |= 1 << 7;
    state.gpr[RSP] = DATA + 0x800;
    (state.gpr[RDX], state.gpr[RDI], state.gpr[RBX]) = (state.cr[3], data, CODE + PAGE);
    *vcpu.state_mut() = state;
    assert_eq!(vcpu.run(), HALTED);
    assert_eq!(vcpu.state().gpr[RCX], 2, "a page that was named is another one");
}

/// Cells that two processors meet at.
const GO: u64 = 0x100;
const READY: u64 = 0x108;
const DONE: u64 = 0x110;

fn wait_for(ram: &Ram, cell: u64, for_at_most: Duration) {
    let start = Instant::now();
    while ram.byte(CELLS + cell) == 0 && start.elapsed() < for_at_most {
        thread::yield_now();
    }
}

/// A board that lets the other processor go when this thread asks for the code's page the `nth`
/// time, and gives it time to store.
fn meeting_board(ram: &Arc<Ram>, nth: u32) -> Board {
    let (seen_by, memory) = (thread::current().id(), Arc::clone(ram));
    let count = AtomicU32::new(0);
    let seen = move |physical| {
        if physical != FIRST || thread::current().id() != seen_by {
            return;
        }
        if count.fetch_add(1, Ordering::SeqCst) == nth {
            memory.write(CELLS + GO, &[1]);
            wait_for(&memory, DONE, Duration::from_millis(100));
        }
    };
    Board { ram: Arc::clone(ram), seen: Box::new(seen) }
}

#[test]
fn a_store_while_its_code_is_translated_is_not_lost() {
    for nth in 0..4 {
        let ram = memory();
        ram.write(FIRST, &[0xb8, 1, 0, 0, 0, 0xf4]); // mov eax, 1; hlt
        let storing = [
            &[0xc6, 0x46, 0x01, 0x01][..], // mov byte [rsi + 1], 1: the TLB knows the page
            &[0xc6, 0x87, 0x08, 0x01, 0, 0, 1], // mov byte [rdi + READY], 1
            &[0x80, 0xbf, 0x00, 0x01, 0, 0, 0], // cmp byte [rdi + GO], 0
            &[0x74, 0xf7],                 // je back
            &[0xc6, 0x46, 0x01, 0x02],     // mov byte [rsi + 1], 2
            &[0xc6, 0x87, 0x10, 0x01, 0, 0, 1], // mov byte [rdi + DONE], 1
            &[0xf4],
        ];
        ram.write(SECOND, &storing.concat());
        let space = Space::System(Box::new(meeting_board(&ram, nth)));
        let engine = Engine::new(X86::system(), space, Options::detect()).expect("an engine");
        let other = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || {
                let mut vcpu = Vcpu::new(&engine).expect("a vCPU");
                let registers = [(RSI, DATA + 2 * PAGE), (RDI, DATA)];
                assert_eq!(run(&mut vcpu, CODE + PAGE, &registers), HALTED);
            })
        };
        wait_for(&ram, READY, Duration::from_secs(10));
        let mut vcpu = Vcpu::new(&engine).expect("a vCPU");
        assert_eq!(run(&mut vcpu, CODE, &[]), HALTED);
        ram.write(CELLS + GO, &[1]);
        other.join().expect("the other processor halted");
        assert_eq!(run(&mut vcpu, CODE, &[]), HALTED);
        assert_eq!(vcpu.state().gpr[RAX], 2, "the store came when the page was asked for, {nth}");
    }
}

#[test]
fn a_return_arrives_in_the_mode_it_left() {
    let ram = memory();
    let mut vcpu = vcpu(&ram);
    // again: call f; movaps xmm0, xmm0; dec ecx; jne again; hlt
    ram.write(FIRST, &[0xe8, 0x3b, 0, 0, 0, 0x0f, 0x28, 0xc0, 0xff, 0xc9, 0x75, 0xf4, 0xf4]);
    // f: cmp ecx, 1; jne over; mov cr0, rax; over: ret
    ram.write(FIRST + 0x40, &[0x83, 0xf9, 1, 0x75, 3, 0x0f, 0x22, 0xc0, 0xc3]);
    let cr0 = kernel_state(0).cr[0];
    assert_eq!(run(&mut vcpu, CODE, &[(RCX, 6), (RAX, cr0)]), HALTED);
    let task_switched = cr0 | 1 << 3;
    let exit = run(&mut vcpu, CODE, &[(RCX, 6), (RAX, task_switched)]);
    assert_ne!(exit, HALTED, "the device is not available any more");
    assert_eq!(vcpu.state().gpr[RCX], 1);
}

#[test]
fn an_interrupt_is_due_behind_sti_and_ret() {
    let ram = memory();
    let mut vcpu = vcpu(&ram);
    ram.write(FIRST, &[0xe8, 0x3b, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf7, 0xf4]); // call f; dec; jne; hlt
    ram.write(FIRST + 0x40, &[0x83, 0xf9, 1, 0x75, 1, 0xfb, 0xc3]); // cmp ecx, 1; jne; sti; ret
    let mut state = kernel_state(CODE);
    (state.gpr[RSP], state.gpr[RCX], state.interrupt_waits) = (DATA + 0x800, 6, 1);
    *vcpu.state_mut() = state;
    let due = Event::Exception { number: exception::INTERRUPT_DUE, info: 0 };
    assert_eq!(vcpu.run(), Exit::Event(due));
    assert_eq!((vcpu.state().pc, vcpu.state().gpr[RSP]), (CODE + 5, DATA + 0x800));
}

#[test]
fn a_return_under_single_step_traps() {
    let ram = memory();
    let mut vcpu = vcpu(&ram);
    ram.write(FIRST, &[0xe8, 0x3b, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf7, 0xf4]); // call f; dec; jne; hlt
    // f: cmp ecx, 1; jne over; push rbx; popfq; over: ret
    ram.write(FIRST + 0x40, &[0x83, 0xf9, 1, 0x75, 2, 0x53, 0x9d, 0xc3]);
    let exit = run(&mut vcpu, CODE, &[(RCX, 6), (RBX, 0x102)]);
    assert_ne!(exit, HALTED, "without an IDT the trap ends it");
    assert_eq!(vcpu.state().gpr[RCX], 1);
}

#[test]
fn no_address_is_another_modes() {
    let ram = memory();
    let mut vcpu = vcpu(&ram);
    // jmp rbx
    ram.write(FIRST, &[0xff, 0xe3]);
    ram.write(FIRST + 0x40, &[0xf4]);
    // mov cr0, rax: another mode; jmp rbx
    ram.write(FIRST + 0x80, &[0x0f, 0x22, 0xc0, 0xff, 0xe3]);
    let task_switched = kernel_state(0).cr[0] | 1 << 3;
    for mode in 1..8 {
        // Often enough for the jump cache to know it.
        for _ in 0..4 {
            assert_eq!(run(&mut vcpu, CODE, &[(RBX, CODE + 0x40)]), HALTED);
        }
        let foreign = (CODE + 0x40) ^ mode << 48;
        let exit = run(&mut vcpu, CODE + 0x80, &[(RAX, task_switched), (RBX, foreign)]);
        assert_ne!(exit, HALTED, "{foreign:#x} is not canonical");
    }
}

#[test]
fn no_address_is_an_empty_place_in_the_jump_cache() {
    let ram = memory();
    let mut vcpu = vcpu(&ram);
    ram.write(FIRST, &[0xff, 0xe3]); // jmp rbx
    for target in [u64::MAX, u64::MAX - 1, 0x8000_0000_0000_0001] {
        assert_ne!(run(&mut vcpu, CODE, &[(RBX, target)]), HALTED);
    }
}
