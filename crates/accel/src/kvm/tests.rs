//! Guests of a few bytes in each mode of the processor. They say by port 0x70 how far they are.

use std::time::{Duration, Instant};

use memory::{AddressSpace, FlatView, Io, Listener, Owner, PAGE_SIZE, Ram, Region};
use parking_lot::Condvar;

use super::*;
use crate::identity::Features;
use crate::{Chipset, Identity, Topology};

const PATIENCE: Duration = Duration::from_secs(20);
const RAM_BYTES: u64 = 1 << 20;
/// Where guests in long mode begin; processors that others start begin a little lower.
const CODE: u64 = 0xa000;
const OTHER_CODE: u64 = 0x8000;
const HANDLER: u64 = 0xb000;
const TABLES: u64 = 0x1_0000;
const DESCRIPTORS: u64 = 0x1_6000;
const STACK: [u8; 5] = [0xbc, 0x00, 0x70, 0x00, 0x00]; // mov esp, 0x7000
/// mov ebx, 0xfee00000; mov dword [rbx + 0xf0], 0x1ff: the local APIC goes on.
const APIC_ON: [u8; 15] =
    [0xbb, 0x00, 0x00, 0xe0, 0xfe, 0xc7, 0x83, 0xf0, 0, 0, 0, 0xff, 0x01, 0, 0];
/// sti; mov al, 'R'; out 0x70, al; wait: hlt; jmp wait
const READY: [u8; 8] = [0xfb, 0xb0, b'R', 0xe6, 0x70, 0xf4, 0xeb, 0xfd];

/// What the guest did, and what the board is asked.
#[derive(Default)]
struct Witness {
    seen: Mutex<Vec<(u64, u8, u64)>>,
    changed: Condvar,
    external: Mutex<Option<u8>>,
}

impl Witness {
    fn note(&self, what: (u64, u8, u64)) {
        self.seen.lock().push(what);
        self.changed.notify_all();
    }

    fn wait(&self, what: (u64, u8, u64), times: usize) {
        let end = Instant::now() + PATIENCE;
        let mut seen = self.seen.lock();
        while seen.iter().filter(|other| **other == what).count() < times {
            assert!(!self.changed.wait_until(&mut seen, end).timed_out(), "{what:x?}: {seen:x?}");
        }
    }

    fn says(&self, letter: u8) {
        self.wait((0x70, 1, u64::from(letter)), 1);
    }
}

/// Registers that only want to know that they were written, and by whom.
#[derive(Default)]
struct Bells {
    rung: Mutex<Vec<(u64, String)>>,
}

impl Io for Bells {
    fn read(&self, _: u64, _: u8) -> u64 {
        0
    }

    fn write(&self, offset: u64, _: u8, _: u64) {
        let thread = thread::current().name().unwrap_or_default().to_owned();
        self.rung.lock().push((offset, thread));
    }

    fn doorbells(&self) -> Option<memory::Doorbells> {
        Some(memory::Doorbells { offset: 0x10, stride: 4, count: 3 })
    }
}

const SHUT_DOWN: u64 = u64::MAX;
const ENDED: u64 = u64::MAX - 1;

impl Io for Witness {
    fn read(&self, offset: u64, size: u8) -> u64 {
        (offset + 0x1234) & memory::ones(size)
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        self.note((offset, size, value));
    }
}

impl Chipset for Witness {
    fn stopped(&self, _: usize, _: crate::DebugStop) {}

    fn enter(&self, _: usize) {}

    fn is_pending(&self, number: usize) -> bool {
        number == 0 && self.external.lock().is_some()
    }

    fn acknowledge(&self, _: usize) -> Option<u8> {
        self.external.lock().take()
    }

    fn read_apic(&self, _: usize, _: u32) -> u64 {
        0
    }

    fn write_apic(&self, _: usize, _: u32, _: u64) {}

    fn clock_ns(&self) -> u64 {
        0
    }

    fn triple_fault(&self, number: usize) {
        self.note((SHUT_DOWN, 0, number as u64));
    }

    fn ended(&self, vector: u8) {
        self.note((ENDED, 0, u64::from(vector)));
    }

    fn failed(&self, text: &str) {
        panic!("{text}");
    }
}

struct Rig {
    ram: Arc<Ram>,
    board: Board,
    witness: Arc<Witness>,
    processors: Processors,
    machine: KvmMachine,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.processors.quit();
        self.machine.join();
    }
}

impl Rig {
    /// A machine with code at the reset vector's segment, or in long mode. None without KVM.
    fn new(count: usize, entry: Option<Entry>, reset_code: &[u8]) -> Option<Self> {
        let vm = Vm::new().ok()?;
        let ram = Arc::new(Ram::new("ram", RAM_BYTES).unwrap());
        let witness = Arc::new(Witness::default());
        let (memory, ports) = (Arc::new(AddressSpace::new()), Arc::new(AddressSpace::new()));
        memory.add(Region::new("ram", 0, RAM_BYTES, Owner::Ram(Arc::clone(&ram))));
        let registers = Owner::Io(Arc::clone(&witness) as Arc<dyn Io>);
        memory.add(Region::new("io", 0xb_8000, 0x1000, registers.clone()).with_priority(1));
        ports.add(Region::new("ports", 0, 0x1_0000, registers));
        let rom = Ram::new("rom", PAGE_SIZE).unwrap();
        assert!(rom.write(0, reset_code));
        assert!(rom.write(PAGE_SIZE - 16, &[0xe9, 0x0d, 0xf0])); // jmp to the page's start
        let rom = Owner::Rom(Arc::new(rom));
        memory.add(Region::new("rom", 0xffff_f000, PAGE_SIZE, rom));
        let chipset = Arc::clone(&witness) as Arc<dyn Chipset>;
        let identity = Arc::new(Identity::native(Topology::of_cores(count as u32)));
        let board = Board { memory, ports, chipset, identity };
        let processors = Processors::new(count);
        let options = Options { vm, migratable: true };
        let machine = KvmMachine::start(&board, &processors, entry, options).unwrap();
        Some(Self { ram, board, witness, processors, machine })
    }

    /// A machine that starts in long mode, with memory mapped to itself.
    fn long(count: usize, code: &[&[u8]]) -> Option<Self> {
        let entry =
            Entry { pc: CODE, parameters: 0, page_tables: Some(TABLES), descriptors: DESCRIPTORS };
        let rig = Self::new(count, Some(entry), &[0xf4])?;
        let put = |at: u64, value: u64| assert!(rig.ram.write(at, &value.to_le_bytes()));
        put(TABLES, (TABLES + 0x1000) | 3);
        for quarter in 0..4 {
            put(TABLES + 0x1000 + quarter * 8, (TABLES + 0x2000 + quarter * 0x1000) | 3);
        }
        for page in 0..2048 {
            put(TABLES + 0x2000 + page * 8, page << 21 | 0x83);
        }
        put(DESCRIPTORS + 0x10, 0x00af_9b00_0000_ffff);
        put(DESCRIPTORS + 0x18, 0x00cf_9300_0000_ffff);
        // Every vector leads to the handler. The table lies at zero, where resets put it.
        for vector in 0..256 {
            put(vector * 16, HANDLER & 0xffff | 0x10 << 16 | 0x8e00 << 32 | HANDLER >> 16 << 48);
            put(vector * 16 + 8, 0);
        }
        let code = [&[&STACK[..]], code].concat().concat();
        assert!(rig.ram.write(CODE, &code));
        Some(rig)
    }

    /// An interrupt is answered by a letter and its end.
    fn handle(&self, letter: u8) {
        // mov al, letter; out 0x70, al; mov dword [rbx + 0xb0], 0; iretq
        let code = [0xb0, letter, 0xe6, 0x70, 0xc7, 0x83, 0xb0, 0, 0, 0, 0, 0, 0, 0, 0x48, 0xcf];
        assert!(self.ram.write(HANDLER, &code));
    }
}

macro_rules! rig {
    ($rig:expr) => {
        match $rig {
            Some(rig) => rig,
            None => ::tests::skip!("no KVM that can be used here"),
        }
    };
}

#[test]
fn real_mode_reaches_ports_and_registers() {
    let code = [
        0xe4, 0x71, 0xfe, 0xc0, 0xe6, 0x70, // in al, 0x71; inc al; out 0x70, al
        0xb8, 0x00, 0xb8, 0x8e, 0xd8, // mov ax, 0xb800; mov ds, ax
        0xb8, 0xef, 0xbe, 0xa3, 0x10, 0x00, // mov ax, 0xbeef; mov [0x10], ax
        0xa1, 0x20, 0x00, 0xe7, 0x72, // mov ax, [0x20]; out 0x72, ax
        0xb9, 0x02, 0x00, 0x31, 0xf6, 0xba, 0x74, 0x00, // mov cx, 2; xor si, si; mov dx, 0x74
        0xb8, 0x00, 0x10, 0x8e, 0xd8, 0xfc, 0xf3,
        0x6f, // mov ax, 0x1000; mov ds, ax; rep outsw
        0xb0, 0x45, 0xe6, 0x70, 0xfa, 0xf4, // mov al, 'E'; out 0x70, al; cli; hlt
    ];
    let rig = rig!(Rig::new(1, None, &code));
    assert!(rig.ram.write(0x1_0000, &[1, 2, 3, 4]));
    rig.processors.resume();
    rig.witness.says(b'E');
    let expected = [
        (0x70, 1, (0x71 + 0x1234 + 1) & 0xff),
        (0x10, 2, 0xbeef),
        (0x72, 2, 0x1254),
        (0x74, 2, 0x0201),
        (0x74, 2, 0x0403),
        (0x70, 1, u64::from(b'E')),
    ];
    assert_eq!(*rig.witness.seen.lock(), expected);
}

#[test]
fn protected_mode_from_the_reset_vector() {
    // lgdt cs:[0xf040]; mov eax, cr0; or al, 1; mov cr0, eax; jmp 8:0xfffff020
    let mut code = vec![0x2e, 0x66, 0x0f, 0x01, 0x16, 0x40, 0xf0];
    code.extend([0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0]);
    code.extend([0x66, 0xea, 0x20, 0xf0, 0xff, 0xff, 0x08, 0x00]);
    code.resize(0x20, 0x90);
    // mov ax, 0x10; mov ds, ax; mov eax, [0xb8000]; out 0x70, eax; cli; hlt
    code.extend([0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, 0xa1, 0x00, 0x80, 0x0b, 0x00]);
    code.extend([0xe7, 0x70, 0xfa, 0xf4]);
    code.resize(0x40, 0x90);
    code.extend([0x17, 0x00, 0x48, 0xf0, 0xff, 0xff, 0, 0]);
    for descriptor in [0_u64, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff] {
        code.extend(descriptor.to_le_bytes());
    }
    let rig = rig!(Rig::new(1, None, &code));
    rig.processors.resume();
    rig.witness.wait((0x70, 4, 0x1234), 1);
}

#[test]
fn an_empty_interrupt_table_is_a_triple_fault_and_a_reset_revives() {
    // mov al, 'B'; out 0x70, al; ud2
    let rig = rig!(Rig::long(1, &[&[0xb0, b'B', 0xe6, 0x70, 0x0f, 0x0b]]));
    assert!(rig.ram.fill(0, 0x1000, 0));
    rig.processors.resume();
    rig.witness.wait((SHUT_DOWN, 0, 0), 1);
    for times in 2..4 {
        rig.processors.pause();
        rig.processors.reset();
        rig.processors.resume();
        rig.witness.wait((0x70, 1, u64::from(b'B')), times);
        rig.witness.wait((SHUT_DOWN, 0, 0), times);
    }
}

#[test]
fn the_timer_of_the_local_apic_interrupts() {
    // mov dword [rbx + 0x320], 0x40; [rbx + 0x3e0], 0xb; [rbx + 0x380], 100000
    let timer: [u8; 30] = [
        0xc7, 0x83, 0x20, 3, 0, 0, 0x40, 0, 0, 0, 0xc7, 0x83, 0xe0, 3, 0, 0, 0xb, 0, 0, 0, 0xc7,
        0x83, 0x80, 3, 0, 0, 0xa0, 0x86, 1, 0,
    ];
    let rig = rig!(Rig::long(1, &[&APIC_ON, &timer, &READY]));
    rig.handle(b'T');
    rig.processors.resume();
    rig.witness.says(b'T');
}

#[test]
fn messages_interrupt_and_the_ends_of_level_interrupts_are_told() {
    let rig = rig!(Rig::long(1, &[&APIC_ON, &READY]));
    rig.handle(b'M');
    rig.processors.resume();
    rig.witness.says(b'R');
    let edge = Message { address: 0xfee0_0000, data: 0x41 };
    rig.machine.interrupts().send(edge);
    rig.witness.wait((0x70, 1, u64::from(b'M')), 1);
    let level = Message { address: 0xfee0_0000, data: 0x59 | 1 << 15 | 1 << 14 };
    rig.machine.interrupts().set_route(9, Some(level));
    rig.machine.interrupts().send(level);
    rig.witness.wait((0x70, 1, u64::from(b'M')), 2);
    rig.witness.wait((ENDED, 0, 0x59), 1);
    assert!(!rig.witness.seen.lock().contains(&(ENDED, 0, 0x41)));
}

#[test]
fn a_vector_of_the_8259_wakes_a_halted_processor() {
    let rig = rig!(Rig::long(1, &[&READY]));
    rig.handle(b'X');
    rig.processors.resume();
    rig.witness.says(b'R');
    for times in 1..4 {
        *rig.witness.external.lock() = Some(0x20);
        rig.processors.all()[0].kick();
        rig.witness.wait((0x70, 1, u64::from(b'X')), times);
    }
}

#[test]
fn a_second_processor_is_started_by_the_first() {
    // mov dword [rbx + 0x300], 0xc4500 (INIT to all others); 0xc4608 (start at page 8); jmp $
    let start: [u8; 22] = [
        0xc7, 0x83, 0, 3, 0, 0, 0, 0x45, 0x0c, 0, 0xc7, 0x83, 0, 3, 0, 0, 0x08, 0x46, 0x0c, 0,
        0xeb, 0xfe,
    ];
    let rig = rig!(Rig::long(2, &[&APIC_ON, &start]));
    // mov eax, 1; cpuid; shr ebx, 24; mov al, bl; add al, 'A'; out 0x70, al; cli; hlt
    let other = [
        0x66, 0xb8, 1, 0, 0, 0, 0x0f, 0xa2, 0x66, 0xc1, 0xeb, 24, 0x88, 0xd8, 0x04, b'A', 0xe6,
        0x70, 0xfa, 0xf4,
    ];
    assert!(rig.ram.write(OTHER_CODE, &other));
    rig.processors.resume();
    rig.witness.says(b'B');
}

#[test]
fn a_pause_comes_in_time_and_loses_nothing() {
    // again: inc qword [0x9000]; jmp again
    let count = [0x48, 0xff, 0x04, 0x25, 0x00, 0x90, 0, 0, 0xeb, 0xf6];
    let rig = rig!(Rig::long(1, &[&count]));
    let now = || rig.ram.read_value(0x9000, 8);
    for _ in 0..5 {
        let before = now();
        rig.processors.resume();
        let end = Instant::now() + PATIENCE;
        while now() == before {
            assert!(Instant::now() < end, "the guest does not run");
            thread::yield_now();
        }
        let asked = Instant::now();
        rig.processors.pause();
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        let stopped = now();
        thread::sleep(Duration::from_millis(5));
        assert_eq!(now(), stopped, "it stands still");
    }
}

#[test]
fn written_pages_are_told() {
    // mov byte [0x5000], 1; mov byte [0x7008], 1; mov al, 'D'; out 0x70, al; cli; hlt
    let code = [
        0xc6, 0x04, 0x25, 0, 0x50, 0, 0, 1, 0xc6, 0x04, 0x25, 8, 0x70, 0, 0, 1, 0xb0, b'D', 0xe6,
        0x70, 0xfa, 0xf4,
    ];
    let rig = rig!(Rig::long(1, &[&code]));
    rig.ram.dirty().drain(|_| {});
    rig.machine.log_writes(true);
    rig.processors.resume();
    rig.witness.says(b'D');
    rig.machine.collect_writes();
    let mut pages = Vec::new();
    rig.ram.dirty().drain(|page| pages.push(page));
    // Page tables may be written by the walk itself: accessed and dirty bits.
    assert!(pages.contains(&5) && pages.contains(&7) && !pages.contains(&6), "{pages:?}");
}

#[test]
fn slots_follow_the_memory_map() {
    let rig = rig!(Rig::new(1, None, &[0xf4]));
    let numbers = || rig.machine.slots.snapshot();
    assert_eq!(numbers(), [(0, 0xb_8000), (0xb_9000, 0x4_7000), (0xffff_f000, 0x1000)]);
    let rom = Owner::Rom(Arc::new(Ram::new("other", PAGE_SIZE).unwrap()));
    let id = rig.board.memory.add(Region::new("rom", 0xe_0000, 0x1000, rom).with_priority(1));
    assert_eq!(numbers()[1..4], [(0xb_9000, 0x2_7000), (0xe_0000, 0x1000), (0xe_1000, 0x1_f000)]);
    rig.board.memory.update(|change| change.set_enabled(id, false));
    assert_eq!(numbers().len(), 3);
    rig.machine.slots.changed(&FlatView::default(), &rig.board.memory.view());
    assert_eq!(numbers().len(), 3, "nothing has changed");
}

#[test]
fn a_named_model_hides_the_host() {
    let Ok(vm) = Vm::new() else {
        ::tests::skip!("no KVM that can be used here");
    };
    let word = |leaf, register, bits| Features { leaf, subleaf: 0, register, bits };
    let identity = Identity {
        vendor: Some(*b"AuthenticAMD"),
        signature: Some(0x60fb1),
        brand: Some(*b"A plain processor                              \0"),
        levels: Some((0xd, 0x8000_000a)),
        features: Some(vec![word(1, 2, 1), word(1, 3, 1), word(7, 1, 0)]),
        hypervisor: None,
        topology: Topology::of_cores(4),
    };
    let leaves = vm.supported(true).unwrap().of(&identity, 3);
    let leaf = |number: u32| {
        *leaves.as_slice().iter().find(|entry| entry.function == number).expect("the leaf is there")
    };
    assert_eq!(leaf(0x8000_0002).eax.to_le_bytes(), *b"A pl");
    assert_eq!(leaf(0).edx.to_le_bytes(), *b"enti");
    assert_eq!((leaf(1).ebx >> 24, leaf(1).ebx >> 16 & 0xff), (3, 4), "number and count");
    assert_eq!((leaf(7).ebx, leaf(1).ecx), (0, 1), "no newer features");
}

#[test]
fn doorbells_ring_beside_the_guest() {
    // mov ebx, 0xc0000000; mov word [rbx + 0x14], 1; mov [rbx + 0x20], 1 (no bell); say 'D'; hlt
    let code = [
        0xbb, 0, 0, 0, 0xc0, 0x66, 0xc7, 0x43, 0x14, 1, 0, 0x66, 0xc7, 0x43, 0x20, 1, 0, 0xb0,
        b'D', 0xe6, 0x70, 0xfa, 0xf4,
    ];
    let rig = rig!(Rig::long(1, &[&code]));
    if rig.machine.doorbells.is_none() {
        ::tests::skip!("this KVM has no ioeventfd");
    }
    let bells = Arc::new(Bells::default());
    let owner = Owner::Io(Arc::clone(&bells) as Arc<dyn Io>);
    rig.board.memory.add(Region::new("bells", 0xc000_0000, 0x1000, owner));
    rig.processors.resume();
    rig.witness.says(b'D');
    let end = Instant::now() + PATIENCE;
    while bells.rung.lock().len() < 2 {
        assert!(Instant::now() < end, "{:?}", bells.rung.lock());
        thread::yield_now();
    }
    let mut rung = bells.rung.lock().clone();
    rung.sort_unstable();
    let by = |offset, thread: &str| (offset, thread.to_owned());
    assert_eq!(rung, [by(0x14, "doorbells"), by(0x20, "CPU 0/KVM")]);
}
