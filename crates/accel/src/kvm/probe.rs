//! Whether KVM really works: a guest of a few bytes is run and timed. A KVM may open and be no
//! more than an interpreter, beside which the translator is fast.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memory::{AddressSpace, Owner, PAGE_SIZE, Ram, Region};
use parking_lot::{Condvar, Mutex};

pub use super::KvmError;
use super::{KvmMachine, Options, Vm};
use crate::jit::JitMachine;
use crate::{Board, Chipset, Identity, Processors, Topology, TranslatorOptions};

/// Turns of the guest's loop; two instructions each.
const TURNS: u32 = 300_000;
/// A guest that takes longer does not work.
const PATIENCE: Duration = Duration::from_secs(10);
/// Slower than this, KVM is no gain beside the translator. Real hardware is a hundred times
/// faster, an interpreter a hundred times slower.
const FAST_PER_SECOND: u64 = 100_000_000;
const DONE_PORT: u64 = 0xf4;

/// How the guest ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speed {
    /// Instructions per second.
    pub instructions_per_second: u64,
}

impl Speed {
    /// As fast as hardware is, give or take.
    #[must_use]
    pub fn is_fast(self) -> bool {
        self.instructions_per_second >= FAST_PER_SECOND
    }
}

/// Why the guest did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// KVM is not there for us.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The translator cannot start.
    #[error("Cannot start the translator")]
    Translator(#[source] io::Error),
    /// The guest was refused.
    #[error("The micro guest failed: {0}")]
    Guest(String),
    /// It neither ended nor failed.
    #[error("The micro guest did not end within {PATIENCE:?}")]
    Late,
    /// No memory for the guest.
    #[error("No memory for the micro guest")]
    Memory(#[from] memory::RamError),
}

/// Runs the micro guest on KVM.
pub fn kvm() -> Result<Speed, ProbeError> {
    let guest = Guest::new()?;
    let vm = Vm::new()?;
    let options = Options { vm, migratable: true };
    let machine = KvmMachine::start(&guest.board, &guest.processors, None, options)?;
    let result = guest.run();
    machine.join();
    result
}

/// Runs the micro guest on the translator.
pub fn translator() -> Result<Speed, ProbeError> {
    let guest = Guest::new()?;
    let options = TranslatorOptions { cache_bytes: 16 << 20, ..TranslatorOptions::detect() };
    let machine = JitMachine::start(&guest.board, &guest.processors, None, options)
        .map_err(ProbeError::Translator)?;
    let result = guest.run();
    machine.join();
    result
}

/// What the guest does: it counts down, and writes to a port at both ends of that.
fn rom() -> Result<Ram, memory::RamError> {
    let rom = Ram::new("micro", PAGE_SIZE)?;
    let mut code = vec![0xe6, DONE_PORT as u8]; // out DONE_PORT, al
    code.extend([0x66, 0xb9]); // mov ecx, TURNS
    code.extend(TURNS.to_le_bytes());
    code.extend([0x66, 0x49, 0x75, 0xfc]); // next: dec ecx; jnz next
    code.extend([0xe6, DONE_PORT as u8, 0xfa, 0xf4]); // out DONE_PORT, al; cli; hlt
    let mut fits = rom.write(0, &code);
    // The processor starts sixteen bytes below the end: jmp to the start of the page.
    let start = PAGE_SIZE - 16;
    let back = 0_u16.wrapping_sub(start as u16 + 3).to_le_bytes();
    fits &= rom.write(start, &[0xe9, back[0], back[1]]);
    assert!(fits, "a few bytes fit into a page");
    Ok(rom)
}

/// The micro guest and what it needs.
struct Guest {
    board: Board,
    processors: Processors,
    witness: Arc<Witness>,
}

impl Guest {
    fn new() -> Result<Self, ProbeError> {
        let (memory, ports) = (Arc::new(AddressSpace::new()), Arc::new(AddressSpace::new()));
        let rom = Owner::Rom(Arc::new(rom()?));
        memory.add(Region::new("rom", 0xffff_f000, PAGE_SIZE, rom));
        let witness = Arc::new(Witness::default());
        let port = Owner::Io(Arc::clone(&witness) as _);
        ports.add(Region::new("done", DONE_PORT, 1, port));
        let chipset = Arc::clone(&witness) as Arc<dyn Chipset>;
        let identity = Arc::new(Identity::native(Topology::of_cores(1)));
        let board = Board { memory, ports, chipset, identity };
        Ok(Self { board, processors: Processors::new(1), witness })
    }

    fn run(&self) -> Result<Speed, ProbeError> {
        self.processors.resume();
        let result = self.witness.wait();
        self.processors.quit();
        result
    }
}

/// Sees when the guest begins and ends.
#[derive(Default)]
struct Witness {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    began: Option<Instant>,
    took: Option<Duration>,
    failed: Option<String>,
}

impl Witness {
    fn wait(&self) -> Result<Speed, ProbeError> {
        let end = Instant::now() + PATIENCE;
        let mut seen = self.seen.lock();
        loop {
            if let Some(took) = seen.took {
                let took_ns = took.as_nanos().max(1);
                let per_second = u128::from(TURNS) * 2 * 1_000_000_000 / took_ns;
                let instructions_per_second = u64::try_from(per_second).unwrap_or(u64::MAX);
                return Ok(Speed { instructions_per_second });
            }
            if let Some(text) = seen.failed.take() {
                return Err(ProbeError::Guest(text));
            }
            if self.changed.wait_until(&mut seen, end).timed_out() {
                return Err(ProbeError::Late);
            }
        }
    }
}

impl memory::Io for Witness {
    fn read(&self, _offset: u64, size: u8) -> u64 {
        memory::ones(size)
    }

    fn write(&self, _offset: u64, _size: u8, _value: u64) {
        let mut seen = self.seen.lock();
        match seen.began {
            None => seen.began = Some(Instant::now()),
            Some(began) => seen.took = Some(began.elapsed()),
        }
        self.changed.notify_all();
    }
}

impl Chipset for Witness {
    fn stopped(&self, _: usize, _: crate::DebugStop) {}

    fn enter(&self, _number: usize) {}

    fn is_pending(&self, _number: usize) -> bool {
        false
    }

    fn acknowledge(&self, _number: usize) -> Option<u8> {
        None
    }

    fn read_apic(&self, _number: usize, _register: u32) -> u64 {
        0
    }

    fn write_apic(&self, _number: usize, _register: u32, _value: u64) {}

    fn clock_ns(&self) -> u64 {
        0
    }

    fn triple_fault(&self, _number: usize) {
        self.failed("it shut down");
    }

    fn ended(&self, _vector: u8) {}

    fn failed(&self, text: &str) {
        self.seen.lock().failed = Some(text.to_owned());
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_translator_runs_the_micro_guest() {
        let speed = translator().expect("the translator works everywhere");
        assert!(speed.instructions_per_second > 1_000_000, "{speed:?}");
    }

    #[test]
    fn kvm_runs_the_micro_guest_or_says_why_not() {
        match kvm() {
            Ok(speed) => assert!(speed.instructions_per_second > 1000, "{speed:?}"),
            Err(ProbeError::Kvm(error)) => ::tests::skip!("no KVM: {error}"),
            Err(error) => panic!("{error}"),
        }
    }
}
