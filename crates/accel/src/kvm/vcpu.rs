//! One vCPU and its thread.

// UNSAFETY: a call of KVM's that its crate does not offer, and a part of the shared page that it
// does not show.
#![expect(unsafe_code)]

use std::os::fd::AsRawFd;
use std::sync::Arc;

use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use memory::AddressSpace;

use super::cpuid::Supported;
use super::inspect::Look;
use super::kick::Kicker;
use super::state::{self, Registers, State};
use super::{KvmError, failed};
use crate::board_bus::{self, view};
use crate::inspect::DebugStop;
use crate::jit::Entry;
use crate::processor::Next;
use crate::{Board, Chipset, Processor};

/// `KVM_INTERRUPT`: a vector of the 8259's, for a vCPU that is open to it.
const KVM_INTERRUPT: libc::Ioctl = 0x4004_ae86;

/// The state of one vCPU thread.
pub struct Vcpu {
    fd: VcpuFd,
    bus: Bus,
    processor: Arc<Processor>,
    /// As after power-on.
    initial: State,
    /// Which registers there are.
    registers: Registers,
    /// It has ended in a way that only a reset leads out of.
    dead: bool,
}

impl Vcpu {
    pub fn new(
        vm: &VmFd,
        board: &Board,
        processor: &Arc<Processor>,
        supported: &Supported,
        registers: &Registers,
        entry: Option<Entry>,
    ) -> Result<Self, KvmError> {
        let number = processor.number();
        // KVM gives the local APIC the number by which the vCPU is made.
        let apic = board.identity.topology.apic_id(number);
        let fd = vm.create_vcpu(apic.into()).map_err(failed("make a CPU"))?;
        state::identify(&fd, &supported.of(&board.identity, number))?;
        // A new vCPU is as after power-on, and whoever is not the first waits for a start.
        let mut initial = State::of(&fd, registers)?;
        if let Some(entry) = entry.filter(|_| number == 0) {
            initial.start_at(&entry);
            initial.put(&fd)?;
        }
        let bus = Bus {
            memory: Arc::clone(&board.memory),
            ports: Arc::clone(&board.ports),
            chipset: Arc::clone(&board.chipset),
        };
        Ok(Self {
            fd,
            bus,
            processor: Arc::clone(processor),
            initial,
            registers: registers.clone(),
            dead: false,
        })
    }

    pub fn run(mut self) {
        let number = self.processor.number();
        board_bus::set_processor(number);
        self.bus.chipset.enter(number);
        let kicker = Kicker::new(&mut self.fd);
        self.processor.set_kick(move || kicker.kick());
        // Also when a device panics: the kicker must not outlive the vCPU.
        let _kicked = Kicked(Arc::clone(&self.processor));
        loop {
            // The kernel knows whether the vCPU sleeps or waits for a start.
            match self.processor.next(false, self.dead, || false) {
                Next::Quit => return,
                Next::Reset => {
                    self.dead = false;
                    if let Err(error) = self.initial.put(&self.fd) {
                        self.die(&error.to_string());
                    }
                }
                Next::Nmi => _ = self.fd.nmi(),
                Next::Look(look) => look(&mut Look(&self.fd, &self.registers)),
                // Nobody steps here: the debugger is for the translator.
                Next::Step => self.bus.chipset.stopped(number, DebugStop::Stepped),
                // The local APICs in the kernel see to these.
                Next::Init | Next::Start(_) => {}
                Next::Run => {
                    self.inject(number);
                    self.enter(number);
                }
            }
        }
    }

    /// Gives the 8259's vector to the vCPU, or asks to be told when it is open.
    fn inject(&mut self, number: usize) {
        let chipset = &self.bus.chipset;
        let mut pending = chipset.is_pending(number);
        if pending
            && self.fd.get_kvm_run().ready_for_interrupt_injection != 0
            && let Some(vector) = chipset.acknowledge(number)
        {
            let vector = u32::from(vector);
            // SAFETY: the kernel reads these four bytes.
            unsafe { libc::ioctl(self.fd.as_raw_fd(), KVM_INTERRUPT, &raw const vector) };
            pending = chipset.is_pending(number);
        }
        self.fd.get_kvm_run().request_interrupt_window = u8::from(pending);
    }

    /// Runs guest code until somebody wants something of this thread. An access is finished by the
    /// next entry, so that there always is one.
    fn enter(&mut self, number: usize) {
        loop {
            match self.fd.run() {
                Ok(VcpuExit::IoIn(port, data)) => {
                    let (at, length) = (data.as_mut_ptr(), data.len());
                    let size = self.port_size();
                    // SAFETY: the bytes lie in the vCPU's shared pages, which stay as they are
                    // until the next entry.
                    let data = unsafe { std::slice::from_raw_parts_mut(at, length) };
                    self.bus.input(port, size, data);
                }
                Ok(VcpuExit::IoOut(port, data)) => {
                    let (at, length) = (data.as_ptr(), data.len());
                    let size = self.port_size();
                    // SAFETY: as above.
                    let data = unsafe { std::slice::from_raw_parts(at, length) };
                    self.bus.output(port, size, data);
                }
                Ok(VcpuExit::MmioRead(address, data)) => self.bus.read(address, data),
                Ok(VcpuExit::MmioWrite(address, data)) => self.bus.write(address, data),
                Ok(VcpuExit::IoapicEoi(vector)) => self.bus.chipset.ended(vector),
                Ok(VcpuExit::IrqWindowOpen | VcpuExit::Hlt) => return,
                Ok(VcpuExit::Shutdown) => {
                    self.dead = true;
                    return self.bus.chipset.triple_fault(number);
                }
                Ok(VcpuExit::InternalError) => {
                    let text = self.internal_error();
                    return self.die(&text);
                }
                Ok(VcpuExit::FailEntry(reason, _)) => {
                    let text = format!("hardware error {reason:#x}");
                    return self.die(&format!("KVM: entry failed, {text}"));
                }
                Ok(exit) => {
                    let text = format!("KVM: unhandled exit {exit:?}");
                    return self.die(&text);
                }
                Err(error) if error.errno() == libc::EINTR => {
                    // Before orders are looked at, so that a kick from now on counts.
                    self.fd.set_kvm_immediate_exit(0);
                    return;
                }
                // A vCPU that waited for its start has got it.
                Err(error) if error.errno() == libc::EAGAIN => {}
                Err(error) => return self.die(&format!("KVM: cannot run a CPU: {error}")),
            }
        }
    }

    /// The size of one access of the port instruction that has ended the run.
    fn port_size(&mut self) -> u8 {
        // SAFETY: the kernel has filled in this part of the union, as the exit was by a port.
        unsafe { self.fd.get_kvm_run().__bindgen_anon_1.io.size }
    }

    fn internal_error(&mut self) -> String {
        // SAFETY: the kernel has filled in this part of the union, as the exit was by an error.
        let kind = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
        let place = match (self.fd.get_regs(), self.fd.get_sregs()) {
            (Ok(general), Ok(system)) => {
                let base = system.cs.base;
                format!(" at {:#x} (code segment at {base:#x})", general.rip)
            }
            _ => String::new(),
        };
        let name = match kind {
            1 => ": emulation failure",
            3 => ": an interrupt could not be delivered",
            _ => "",
        };
        format!("KVM internal error. Suberror: {kind}{name}{place}")
    }

    /// The guest cannot go on.
    fn die(&mut self, text: &str) {
        self.dead = true;
        self.bus.chipset.failed(text);
    }
}

/// Takes the kicker back when the thread ends, however it does.
struct Kicked(Arc<Processor>);

impl Drop for Kicked {
    fn drop(&mut self) {
        self.0.clear_kick();
    }
}

/// What accesses that leave the guest reach.
struct Bus {
    memory: Arc<AddressSpace>,
    ports: Arc<AddressSpace>,
    chipset: Arc<dyn Chipset>,
}

impl Bus {
    /// A port, once for each element of a string instruction.
    fn input(&self, port: u16, size: u8, data: &mut [u8]) {
        for element in data.chunks_exact_mut(usize::from(size.max(1))) {
            let value = view(&self.ports).read_value(u64::from(port), size);
            let bytes = element.len();
            element.copy_from_slice(&value.to_le_bytes()[..bytes]);
        }
    }

    fn output(&self, port: u16, size: u8, data: &[u8]) {
        for element in data.chunks_exact(usize::from(size.max(1))) {
            view(&self.ports).write_value(u64::from(port), size, value_of(element));
        }
    }

    fn read(&self, address: u64, data: &mut [u8]) {
        let view = view(&self.memory);
        match data.len() {
            bytes @ (1 | 2 | 4 | 8) => {
                let value = view.read_value(address, bytes as u8);
                data.copy_from_slice(&value.to_le_bytes()[..bytes]);
            }
            _ => view.read(address, data),
        }
    }

    fn write(&self, address: u64, data: &[u8]) {
        let view = view(&self.memory);
        match data.len() {
            bytes @ (1 | 2 | 4 | 8) => view.write_value(address, bytes as u8, value_of(data)),
            _ => view.write(address, data),
        }
    }
}

/// Up to eight bytes as a number.
fn value_of(data: &[u8]) -> u64 {
    data.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
