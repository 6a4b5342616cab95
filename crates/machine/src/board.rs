//! The PC board: RAM, interrupt controllers, timers, clock, serial port, power.

use std::sync::Arc;
use std::time::Duration;

use accel::jit::{Entry, JitMachine};
use accel::{Board, Chipset, Processors, TranslatorOptions};
use device::{Clock, Device, HostClock, Io, IrqLine, IrqSink, Stream, Timers};
use devices::debug::DebugExit;
use devices::i8254::{Pit, Port61};
use devices::i8259::{Elcr, Pair, PicPorts};
use devices::ioapic::{self, IoApic};
use devices::lapic::{self, Apics, LapicMmio};
use devices::mc146818::Cmos;
use devices::serial::SerialPort;
use memory::{AddressSpace, Owner, Ram, RamError, Region};

use crate::acpi;
use crate::boot::{BootError, Kernel, Placed};
use crate::main_loop::{End, Request, Requests};
use crate::power::{self, Port92, PowerManagement, ResetControl};
use crate::run_state::{Actions, Cause, MachineEvent, RunControl, RunState};

/// Where RAM below 4 GiB ends at the latest: above are PCI's windows and the chips.
const LOW_MAX: u64 = 3 << 30;
const FOUR_GIB: u64 = 1 << 32;
/// MADT's identifiers have 8 bits, of which the last means "all".
const PROCESSORS_MAX: usize = 254;

/// What a machine is made of. Every value is decided; defaults belong to whoever reads options.
pub struct Config {
    /// Bytes of RAM, whole pages.
    pub ram_bytes: u64,
    /// vCPUs.
    pub processors: usize,
    /// What is booted.
    pub kernel: Kernel,
    /// COM1's peer, or nobody.
    pub serial: Option<Arc<dyn Stream>>,
    /// Port of an exit device, if there is one.
    pub debug_exit: Option<u16>,
    /// What is done when the guest goes off or resets.
    pub actions: Actions,
    /// The translator.
    pub translator: TranslatorOptions,
}

/// Why a machine cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// See the source.
    #[error("Cannot allocate guest memory")]
    Ram(#[from] RamError),
    /// See the source.
    #[error("Cannot boot the kernel")]
    Boot(#[from] BootError),
    /// See the source.
    #[error("Cannot start the translator")]
    Translator(#[source] std::io::Error),
    /// Too many, or none.
    #[error("The machine can have 1 to {PROCESSORS_MAX} CPUs, not {count}")]
    Processors {
        /// What was asked for.
        count: usize,
    },
    /// Less than the low megabyte.
    #[error("The machine needs at least 2 MiB of RAM, not {bytes} bytes")]
    TooSmall {
        /// What was asked for.
        bytes: u64,
    },
}

/// A machine, standing still until [`Machine::run`].
pub struct Machine {
    requests: Arc<Requests>,
    clock: Arc<HostClock>,
    timers: Arc<Timers>,
    chips: Chips,
    memory: Arc<AddressSpace>,
    kernel: Kernel,
    sizes: (u64, u64),
    processors: Arc<Processors>,
    vcpus: JitMachine,
    control: Arc<RunControl>,
}

/// What is reset together.
struct Chips {
    pic: Arc<Pair>,
    pit: Arc<Pit>,
    cmos: Arc<Cmos>,
    ioapic: Arc<IoApic>,
    apics: Arc<Apics>,
    power: Arc<PowerManagement>,
    serial: Option<Arc<SerialPort>>,
}

impl Machine {
    /// Builds the machine and puts the kernel into its memory.
    pub fn new(config: Config) -> Result<Self, MachineError> {
        let Config { ram_bytes, processors: count, kernel, .. } = &config;
        if !(1..=PROCESSORS_MAX).contains(count) {
            return Err(MachineError::Processors { count: *count });
        }
        if *ram_bytes < 2 << 20 {
            return Err(MachineError::TooSmall { bytes: *ram_bytes });
        }
        let requests = Requests::new();
        let clock = Arc::new(HostClock::new());
        let timers = Timers::new({
            let requests = Arc::clone(&requests);
            move || requests.wake()
        });
        let processors = Arc::new(Processors::new(*count));
        let memory = Arc::new(AddressSpace::new());
        let sizes = add_ram(&memory, *ram_bytes)?;
        let chips = Chips::new(&config, &requests, &clock, &timers, &processors);
        memory.add(
            Region::new("lapic", lapic::BASE, 0x1000, io(Arc::new(LapicMmio::new(&chips.apics))))
                .with_priority(1),
        );
        let ioapic: Arc<dyn Io> = Arc::clone(&chips.ioapic) as _;
        memory.add(Region::new("ioapic", ioapic::BASE, 0x1000, io(ioapic)).with_priority(1));
        let ports = Arc::new(AddressSpace::new());
        chips.add_ports(&ports, &config, &requests);
        let placed = place(&memory, kernel, sizes, *count)?;
        let chipset = PcChipset {
            apics: Arc::clone(&chips.apics),
            clock: Arc::clone(&clock),
            requests: Arc::clone(&requests),
        };
        let board = Board { memory: Arc::clone(&memory), ports, chipset: Arc::new(chipset) };
        let entry = Entry {
            pc: placed.entry,
            parameters: placed.parameters,
            page_tables: placed.page_tables,
            descriptors: placed.descriptors,
        };
        let vcpus = JitMachine::start(&board, &processors, Some(entry), config.translator)
            .map_err(MachineError::Translator)?;
        let control = RunControl::new(&processors, &clock, &requests, config.actions);
        Ok(Self {
            requests,
            clock,
            timers,
            chips,
            memory,
            kernel: config.kernel,
            sizes,
            processors,
            vcpus,
            control,
        })
    }

    /// Where others put what they want of the machine.
    #[must_use]
    pub fn requests(&self) -> Arc<Requests> {
        Arc::clone(&self.requests)
    }

    /// Starts and stops the machine, and tells who asks.
    #[must_use]
    pub fn control(&self) -> Arc<RunControl> {
        Arc::clone(&self.control)
    }

    /// Presses the power button, from any thread.
    #[must_use]
    pub fn power_button(&self) -> Arc<dyn Fn() + Send + Sync> {
        let (power, control) = (Arc::clone(&self.chips.power), Arc::clone(&self.control));
        Arc::new(move || {
            control.tell(&MachineEvent::PowerButton);
            power.press_power_button();
        })
    }

    /// Runs the machine until it ends. It stands still until somebody resumes it.
    pub fn run(self) -> End {
        let end = loop {
            let now_ns = self.clock.now_ns();
            self.timers.run(now_ns);
            // While the clock stands, no timer comes nearer.
            let next_ns = self.timers.next_ns().filter(|_| self.clock.is_running());
            let sleep = next_ns.map(|next_ns| Duration::from_nanos(next_ns.saturating_sub(now_ns)));
            let requests = self.requests.wait(sleep);
            if let Some(end) = requests.into_iter().find_map(|request| self.serve(request)) {
                break end;
            }
        };
        self.processors.quit();
        self.vcpus.join();
        end
    }

    fn serve(&self, request: Request) -> Option<End> {
        let actions = self.control.actions();
        match request {
            Request::Quit(cause) => {
                self.control.tell(&MachineEvent::Shutdown(cause));
                return Some(End::Quit);
            }
            Request::Exit(code) => return Some(End::Exit(code)),
            Request::Reset(cause) if cause.is_guest() && actions.reset_is_shutdown => {
                return self.shut_down(cause, actions);
            }
            Request::PowerOff => return self.shut_down(Cause::GuestShutdown, actions),
            Request::Reset(cause) => {
                self.reset();
                self.control.forget_end();
                self.control.tell(&MachineEvent::Reset(cause));
            }
        }
        None
    }

    fn shut_down(&self, cause: Cause, actions: Actions) -> Option<End> {
        self.control.tell(&MachineEvent::Shutdown(cause));
        if !actions.shutdown_pauses {
            return Some(End::Shutdown);
        }
        self.control.stop(RunState::Shutdown);
        None
    }

    /// Everything as after power-on; the kernel starts anew.
    fn reset(&self) {
        self.control.while_stopped(|| {
            self.chips.reset();
            let count = self.processors.all().len();
            // It was placed once, so it fits again.
            _ = place(&self.memory, &self.kernel, self.sizes, count);
            self.vcpus.invalidate(0, u64::MAX);
            self.processors.reset();
        });
    }
}

fn io(io: Arc<dyn Io>) -> Owner {
    Owner::Io(io)
}

/// RAM below the holes, and the rest above 4 GiB: the sizes of both.
fn add_ram(memory: &AddressSpace, bytes: u64) -> Result<(u64, u64), RamError> {
    let ram = Arc::new(Ram::new("pc.ram", bytes)?);
    let low = bytes.min(LOW_MAX);
    memory.add(Region::new("ram-below-4g", 0, low, Owner::Ram(Arc::clone(&ram))));
    let high = bytes - low;
    if high > 0 {
        let region = Region::new("ram-above-4g", FOUR_GIB, high, Owner::Ram(ram));
        memory.add(region.with_offset(low));
    }
    Ok((low, high))
}

fn place(
    memory: &AddressSpace,
    kernel: &Kernel,
    (low, high): (u64, u64),
    processors: usize,
) -> Result<Placed, BootError> {
    let view = memory.view();
    view.write(acpi::BASE, &acpi::tables(processors));
    kernel.place(&view, low, high)
}

/// An interrupt of the old kind: it reaches the 8259 and the I/O APIC.
struct IsaIrq {
    pic: Arc<Pair>,
    ioapic: Arc<IoApic>,
}

impl IrqSink for IsaIrq {
    fn set_level(&self, pin: u32, level: bool) {
        self.pic.set_level(pin, level);
        // The timer is on input 2 of the I/O APIC, as the tables say.
        self.ioapic.set_level(if pin == 0 { 2 } else { pin }, level);
    }
}

/// The output of the 8259 pair.
struct PicOutput(Arc<Apics>);

impl IrqSink for PicOutput {
    fn set_level(&self, _pin: u32, level: bool) {
        if level {
            self.0.external();
        }
    }
}

impl Chips {
    fn new(
        config: &Config,
        requests: &Arc<Requests>,
        host_clock: &Arc<HostClock>,
        timers: &Arc<Timers>,
        processors: &Processors,
    ) -> Self {
        let clock: Arc<dyn Clock> = Arc::clone(host_clock) as _;
        let cpus = processors
            .all()
            .iter()
            .map(|processor| Arc::new(Cpu(Arc::clone(processor))) as Arc<dyn lapic::Processor>);
        let apics = Apics::new(Arc::clone(&clock), timers, cpus.collect());
        let pic = Pair::new(IrqLine::new(Arc::new(PicOutput(Arc::clone(&apics))), 0));
        apics.connect_pic(Arc::clone(&pic));
        let ioapic = IoApic::new(&apics);
        let isa = Arc::new(IsaIrq { pic: Arc::clone(&pic), ioapic: Arc::clone(&ioapic) });
        let irq = |pin| IrqLine::new(Arc::clone(&isa) as Arc<dyn IrqSink>, pin);
        Self {
            pit: Pit::new(Arc::clone(&clock), timers, irq(0)),
            cmos: Cmos::new(Arc::clone(&clock), timers, irq(8), 0),
            power: PowerManagement::new(clock, irq(power::SCI), Arc::clone(requests)),
            serial: config.serial.clone().map(|stream| SerialPort::new(irq(4), stream)),
            pic,
            ioapic,
            apics,
        }
    }

    fn add_ports(&self, ports: &AddressSpace, config: &Config, requests: &Arc<Requests>) {
        let add = |name: &str, start: u64, length: u64, device: Arc<dyn Io>| {
            ports.add(Region::new(name, start, length, io(device)));
        };
        add("pic", 0x20, 2, Arc::new(PicPorts::new(&self.pic, 0)));
        add("pic2", 0xa0, 2, Arc::new(PicPorts::new(&self.pic, 1)));
        add("elcr", 0x4d0, 2, Arc::new(Elcr::new(&self.pic)));
        add("pit", 0x40, 4, Arc::clone(&self.pit) as _);
        add("port61", 0x61, 1, Arc::new(Port61::new(&self.pit)));
        add("rtc", 0x70, 2, Arc::clone(&self.cmos) as _);
        add("port92", 0x92, 1, Arc::new(Port92::new(Arc::clone(requests))));
        add("reset", 0xcf9, 1, Arc::new(ResetControl::new(Arc::clone(requests))));
        add("pm", power::PM_BASE, power::PM_BYTES, Arc::clone(&self.power) as _);
        if let Some(serial) = &self.serial {
            add("com1", 0x3f8, 8, Arc::clone(serial) as _);
        }
        if let Some(port) = config.debug_exit {
            let requests = Arc::clone(requests);
            let exit = DebugExit::new(move |code| requests.put(Request::Exit(code)));
            add("debug-exit", u64::from(port), 4, Arc::new(exit));
        }
    }

    fn reset(&self) {
        self.pic.reset();
        self.pit.reset();
        self.cmos.reset();
        self.ioapic.reset();
        self.apics.reset();
        self.power.reset();
        if let Some(serial) = &self.serial {
            serial.reset();
        }
    }
}

/// A vCPU as its local APIC sees it.
struct Cpu(Arc<accel::Processor>);

impl lapic::Processor for Cpu {
    fn kick(&self) {
        self.0.kick();
    }

    fn nmi(&self) {
        self.0.nmi();
    }

    fn init(&self) {
        self.0.init();
    }

    fn start(&self, page: u8) {
        self.0.start(page);
    }
}

/// The machine as its vCPUs see it.
struct PcChipset {
    apics: Arc<Apics>,
    clock: Arc<HostClock>,
    requests: Arc<Requests>,
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
}
