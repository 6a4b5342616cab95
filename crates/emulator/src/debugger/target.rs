//! The machine as gdb's target: vCPUs are threads, numbered from 1.

use std::collections::{BTreeMap, BTreeSet};

use gdb::{Action, Description, Resume, Stop, Target, ThreadId, WatchKind};
use machine::inspect::{CR0, CR3, CR4, write_physical};
use machine::{DebugStop, Pace, Registers, Watch};

use super::registers;
use crate::emulator::Emulator;
use crate::monitor;

/// What outlives a packet.
#[derive(Default)]
pub struct Set {
    breakpoints: BTreeSet<u64>,
    /// By their first byte.
    watches: BTreeMap<u64, (Watch, WatchKind)>,
    /// Addresses are physical ones.
    physical: bool,
    /// What happens to interrupts and timers in a step, as gdb's user was told it.
    step_bits: u64,
}

impl Set {
    pub fn new() -> Self {
        Self { step_bits: STEP_BITS, ..Self::default() }
    }

    /// All is cleared in the machine.
    pub fn clear(&mut self, emulator: &Emulator) {
        let Some(translator) = emulator.machine.translator() else { return };
        for address in std::mem::take(&mut self.breakpoints) {
            translator.set_breakpoint(address, false);
        }
        for (watch, _) in std::mem::take(&mut self.watches).into_values() {
            translator.set_watch(watch, false);
        }
    }

    /// A vCPU's stop in gdb's terms.
    pub fn stop(&self, number: usize, stop: DebugStop) -> Stop {
        let thread = number as ThreadId + 1;
        match stop {
            DebugStop::Breakpoint => Stop::Breakpoint(thread),
            DebugStop::Stepped => Stop::Stepped(thread),
            DebugStop::Watch(address) => {
                let kind = self.watches.get(&address).map_or(WatchKind::Write, |(_, kind)| *kind);
                Stop::Watch(thread, address, kind)
            }
        }
    }
}

/// In a step interrupts wait. Stepping itself is the first bit, and the last one is for timers.
const STEP_BITS: u64 = 7;

/// What is to be done once gdb's packets are read and no lock is held.
#[derive(Default, PartialEq)]
pub enum After {
    #[default]
    Nothing,
    Resume(Resume),
    Interrupt,
    Kill,
}

/// The machine while a packet is answered.
pub struct Machine<'a> {
    pub emulator: &'a std::sync::Arc<Emulator>,
    pub description: &'a Description,
    pub set: &'a mut Set,
    pub after: &'a mut After,
    /// The vCPU that packets mean; memory is seen through its eyes.
    pub current: ThreadId,
}

impl Machine<'_> {
    fn registers(&self, thread: ThreadId) -> Option<Registers> {
        let index = usize::try_from(thread.checked_sub(1)?).ok()?;
        let processor = self.emulator.machine.processors().all().get(index)?;
        processor.inspect(|vcpu| vcpu.registers())
    }

    fn is_running(&self) -> bool {
        self.emulator.machine.control().state() == machine::RunState::Running
    }
}

impl Target for Machine<'_> {
    fn description(&self) -> &Description {
        self.description
    }

    fn threads(&mut self) -> Vec<ThreadId> {
        (1..=self.emulator.machine.processors().all().len() as ThreadId).collect()
    }

    fn thread_name(&mut self, thread: ThreadId) -> Option<String> {
        let halted = self.registers(thread)?.halted;
        let state = if halted { "halted " } else { "running" };
        Some(format!("CPU#{} [{state}]", thread - 1))
    }

    fn choose(&mut self, thread: ThreadId) {
        self.current = thread;
    }

    fn read_registers(&mut self, thread: ThreadId) -> Option<Vec<u8>> {
        self.registers(thread).map(|registers| registers::to_bytes(&registers))
    }

    fn write_registers(&mut self, thread: ThreadId, values: &[u8]) -> bool {
        let Some(mut registers) = self.registers(thread) else { return false };
        let before = registers.clone();
        registers::from_bytes(&mut registers, values);
        if !registers.is_long_code() {
            // What such code cannot name stays: the upper halves, and the newer registers.
            for (number, value) in registers.general.iter_mut().enumerate() {
                let old = before.general[number];
                let low = if number < 8 { *value } else { old };
                *value = old & !0xffff_ffff | low & 0xffff_ffff;
            }
        }
        // Bits that decide what code means: a wrong one is the guest's end, but it is asked for.
        let keeps = |place: usize| registers.control[place] == before.control[place];
        if !(keeps(CR0) && keeps(CR3) && keeps(CR4)) && self.is_running() {
            return false;
        }
        let processors = self.emulator.machine.processors();
        let processor = processors.all().get(thread as usize - 1);
        let written = processor
            .and_then(|processor| processor.inspect(move |vcpu| vcpu.set_registers(&registers)));
        written.is_some()
    }

    fn read_memory(&mut self, address: u64, bytes: usize) -> Vec<u8> {
        let memory = self.emulator.machine.memory();
        if self.set.physical {
            let mut contents = vec![0; bytes];
            memory.view().read(address, &mut contents);
            return contents;
        }
        let registers = self.registers(self.current);
        registers.map(|registers| registers.read(&memory, address, bytes)).unwrap_or_default()
    }

    fn write_memory(&mut self, address: u64, contents: &[u8]) -> bool {
        let memory = self.emulator.machine.memory();
        if self.set.physical {
            write_physical(&memory, address, contents);
            return true;
        }
        let registers = self.registers(self.current);
        registers.is_some_and(|registers| registers.write(&memory, address, contents))
    }

    fn breakpoint(&mut self, address: u64, _bytes: u64, set: bool) -> bool {
        let Some(translator) = self.emulator.machine.translator() else { return false };
        let changes = match set {
            true => self.set.breakpoints.insert(address),
            false => self.set.breakpoints.remove(&address),
        };
        if changes {
            translator.set_breakpoint(address, set);
        }
        changes || set
    }

    fn can_watch(&self, _: WatchKind) -> bool {
        true
    }

    fn watch(&mut self, kind: WatchKind, address: u64, bytes: u64, set: bool) -> bool {
        /// More is no variable; every page of it is slow.
        const BYTES_MAX: u64 = 1 << 16;
        let Some(translator) = self.emulator.machine.translator() else { return false };
        if let Some((old, _)) = self.set.watches.remove(&address) {
            translator.set_watch(old, false);
        } else if !set {
            return false;
        }
        if !set {
            return true;
        }
        if bytes == 0 || bytes > BYTES_MAX {
            return false;
        }
        let (reads, writes) = (kind != WatchKind::Write, kind != WatchKind::Read);
        let watch = Watch { start: address, bytes, reads, writes };
        self.set.watches.insert(address, (watch, kind));
        translator.set_watch(watch, true);
        true
    }

    fn object(&mut self, _name: &str) -> Option<Vec<u8>> {
        None
    }

    fn was_there(&self) -> bool {
        true
    }

    fn command(&mut self, line: &str) -> Option<String> {
        Some(monitor::execute_line(self.emulator, line))
    }

    fn vendor(&mut self, packet: &str) -> Option<String> {
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        Some(match packet.split_once(':').unwrap_or((packet, "")) {
            ("qqemu.sstepbits", _) => "ENABLE=1,NOIRQ=2,NOTIMER=4".to_owned(),
            ("qqemu.sstep", _) => format!("0x{:x}", self.set.step_bits),
            // Interrupts always wait in a step; who wants them is told that it is not to be had.
            ("Qqemu.sstep", value) if number(value) == Some(STEP_BITS) => "OK".to_owned(),
            ("Qqemu.sstep", _) => "E22".to_owned(),
            ("qqemu.PhyMemMode", _) => u8::from(self.set.physical).to_string(),
            ("Qqemu.PhyMemMode", value) => {
                self.set.physical = number(value)? != 0;
                "OK".to_owned()
            }
            _ => return None,
        })
    }

    fn resume(&mut self, resume: Resume) {
        *self.after = After::Resume(resume);
    }

    fn interrupt(&mut self) {
        *self.after = After::Interrupt;
    }

    fn detach(&mut self) {
        self.set.clear(self.emulator);
        let others = Action::Continue(None);
        *self.after = After::Resume(Resume { threads: Vec::new(), others });
    }

    fn kill(&mut self) {
        *self.after = After::Kill;
    }
}

/// How the vCPU of a number goes on.
pub fn pace(resume: &Resume, number: usize) -> Pace {
    match resume.action(number as ThreadId + 1) {
        Action::Continue(_) => Pace::Free,
        Action::Step(_) => Pace::Step,
        Action::Stay => Pace::Hold,
    }
}
