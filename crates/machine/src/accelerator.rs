//! The machine's side of whatever runs its processors.

use std::sync::Arc;

use accel::jit::{Entry, JitMachine};
use accel::kvm::{Interrupts, KvmMachine, Message};
use accel::{Board, Chipset, DebugStop, Processors};
use device::{Clock, Fields, HostClock, StateError};
use devices::lapic::{self, Apics, OutsideApics};
use parking_lot::Mutex;

use crate::config::{Accelerator, MachineError};
use crate::main_loop::{Request, Requests};
use crate::run_state::Cause;

/// The threads of the processors.
#[derive(Clone)]
pub enum Vcpus {
    Jit(Arc<JitMachine>),
    Kvm(Arc<KvmMachine>),
}

impl Vcpus {
    /// Starts them. They stand still until the machine resumes them.
    pub fn start(
        board: &Board,
        apics: &Arc<Apics>,
        processors: &Processors,
        entry: Option<Entry>,
        accelerator: Accelerator,
    ) -> Result<Self, MachineError> {
        match accelerator {
            Accelerator::Translator(options) => {
                let machine = JitMachine::start(board, processors, entry, options);
                Ok(Self::Jit(Arc::new(machine.map_err(MachineError::Translator)?)))
            }
            Accelerator::Kvm(options) => {
                let machine = KvmMachine::start(board, processors, entry, options)?;
                apics.move_outside(Arc::new(InKernel(Arc::clone(machine.interrupts()))));
                Ok(Self::Kvm(Arc::new(machine)))
            }
        }
    }

    /// RAM has changed behind the processors' back.
    pub fn invalidate_all(&self) {
        match self {
            Self::Jit(machine) => machine.invalidate(0, u64::MAX),
            Self::Kvm(_) => {} // nothing is remembered of it
        }
    }

    /// The translator's, for debuggers; KVM has none.
    pub fn translator(&self) -> Option<&JitMachine> {
        match self {
            Self::Jit(machine) => Some(machine),
            Self::Kvm(_) => None,
        }
    }

    /// The machine goes on, or stands still.
    pub fn set_running(&self, running: bool) {
        if let Self::Kvm(machine) = self {
            machine.set_running(running);
        }
    }

    /// Saves or loads the clock that guests read from the accelerator, where it has one.
    pub fn transfer_clock(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let Self::Kvm(machine) = self else { return Ok(()) };
        let mut clock_ns = machine.clock_ns();
        fields.item("accelerator_ns", &mut clock_ns)?;
        if let Some(clock_ns) = clock_ns.filter(|_| fields.is_loading()) {
            machine.set_clock_ns(clock_ns);
        }
        Ok(())
    }

    /// Waits until all threads have ended.
    pub fn join(&self) {
        match self {
            Self::Jit(machine) => machine.join(),
            Self::Kvm(machine) => machine.join(),
        }
    }

    /// Whether the processors are the host's.
    pub fn is_kvm(&self) -> bool {
        matches!(self, Self::Kvm(_))
    }
}

/// The local APICs that KVM has.
struct InKernel(Arc<Interrupts>);

fn written(message: lapic::Message) -> Message {
    let (address, data) = message.to_msi();
    Message { address, data }
}

impl OutsideApics for InKernel {
    fn deliver(&self, message: lapic::Message) {
        self.0.send(written(message));
    }

    fn set_route(&self, pin: u32, message: Option<lapic::Message>) {
        self.0.set_route(pin, message.map(written));
    }
}

/// The machine as its processors see it.
pub struct PcChipset {
    pub apics: Arc<Apics>,
    pub clock: Arc<HostClock>,
    pub requests: Arc<Requests>,
    /// Which vCPU stopped first for the debugger, and why.
    pub stop: Arc<Mutex<Option<(usize, DebugStop)>>>,
}

impl PcChipset {
    /// These chips, with nobody stopped.
    pub fn new(apics: &Arc<Apics>, clock: &Arc<HostClock>, requests: &Arc<Requests>) -> Self {
        Self {
            apics: Arc::clone(apics),
            clock: Arc::clone(clock),
            requests: Arc::clone(requests),
            stop: Arc::default(),
        }
    }
}

impl Chipset for PcChipset {
    fn enter(&self, number: usize) {
        lapic::set_current_processor(number);
    }

    fn is_pending(&self, number: usize) -> bool {
        self.apics.is_pending(number)
    }

    fn acknowledge(&self, number: usize) -> Option<u8> {
        self.apics.acknowledge(number)
    }

    fn read_apic(&self, number: usize, register: u32) -> u64 {
        self.apics.read_msr(number, register)
    }

    fn write_apic(&self, number: usize, register: u32, value: u64) {
        self.apics.write_msr(number, register, value);
    }

    fn clock_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    fn triple_fault(&self, _number: usize) {
        self.requests.put(Request::Reset(Cause::GuestReset));
    }

    fn ended(&self, vector: u8) {
        self.apics.ended(vector);
    }

    fn stopped(&self, number: usize, stop: DebugStop) {
        self.stop.lock().get_or_insert((number, stop));
        self.requests.put(Request::Debug);
    }

    fn failed(&self, text: &str) {
        // What nobody can do anything about but the person who started the machine.
        eprintln!("{text}");
        self.requests.put(Request::Fail);
    }
}
