//! The machine: it is put together here, and runs here.

use std::sync::Arc;
use std::time::Duration;

use accel::jit::Entry;
use accel::{Board, DebugStop, Processors};
use device::{Clock, Device, DeviceEvent, EventSink, HostClock, Inputs, Io, Screens, Timers, ones};
use devices::catalog::{BusKind, Category, OfferedBus};
use devices::cfi01::Flash;
use devices::fw_cfg::{FwCfg, Source};
use devices::surroundings::Surroundings;
use devices::virtio::models::MmioPlaces;
use memory::{AddressSpace, FlatView, Listener, Owner, Ram, RamError, Region};
use parking_lot::Mutex;

use crate::a20::A20Gate;
use crate::accelerator::{PcChipset, Vcpus};
use crate::acpi::{self, Com, Facts};
use crate::boot::{BootError, Kernel, Placed};
use crate::boot_order;
use crate::chips::Chips;
use crate::config::{BoardKind, Config, MachineError, PROCESSORS_MAX, Part};
use crate::firmware::{self, Tables};
use crate::host_bridge::{HostBridge, PM_BASE};
use crate::main_loop::{End, GuestEvents, Request, Requests};
use crate::parts::{Parts, Plugged, Unplug};
use crate::run_state::{
    Actions, Cause, MachineEvent, PanicAction, PanicOutcome, RunControl, RunState,
};
use crate::smbios::{self, SystemTables};
use crate::state::StreamError;

/// What a program says that has failed.
const EXIT_FAILURE: u8 = 1;
const FOUR_GIB: u64 = 1 << 32;

/// A machine, standing still until [`Machine::run`].
pub struct Machine {
    requests: Arc<Requests>,
    pub(crate) clock: Arc<HostClock>,
    timers: Arc<Timers>,
    /// Held while timers ring, and while the state is saved or loaded: those who save stand.
    rings: Mutex<()>,
    pub(crate) chips: Chips,
    pub(crate) ram: Arc<Ram>,
    pub(crate) pci: Arc<HostBridge>,
    /// The name of its root bus.
    pub(crate) root_bus: &'static str,
    pub(crate) ports: Arc<AddressSpace>,
    pub(crate) fw_cfg: Arc<FwCfg>,
    pub(crate) flash: Vec<Arc<Flash>>,
    pub(crate) parts: Arc<Mutex<Parts>>,
    memory: Arc<AddressSpace>,
    /// What the machine starts itself, where there is no firmware.
    direct: Option<Kernel>,
    tables: Tables,
    /// SMBIOS's anchor and structures.
    system_tables: SystemTables,
    sizes: (u64, u64),
    processors: Arc<Processors>,
    pub(crate) vcpus: Vcpus,
    control: Arc<RunControl>,
    events: Arc<dyn EventSink>,
    stop: Arc<Mutex<Option<(usize, DebugStop)>>>,
}

impl Machine {
    /// Builds the machine and puts firmware, or the kernel, into its memory.
    pub fn new(mut config: Config) -> Result<Self, MachineError> {
        check(&config)?;
        let requests = Requests::new();
        let clock = Arc::new(HostClock::new());
        let timers = waking(&requests);
        let processors = Arc::new(Processors::new(config.processors));
        let (memory, ports, dma) = address_spaces();
        let (ram, sizes) = add_ram(&[&memory, &dma], &config)?;
        let rom = config.boot.rom.as_deref();
        let rom = rom.map(|rom| firmware::map_rom(&memory, rom)).transpose()?;
        let flash = firmware::map_flash(&memory, &config.boot.flash)?;
        let rom = rom.or_else(|| flash.first().map(|flash| flash.contents()));
        let inputs = Arc::new(Inputs::default());
        let a20 = A20Gate::new(&memory, &ram);
        let chips = Chips::new(&config, &requests, &clock, &timers, &processors, &inputs, a20);
        chips.map(&memory, &ports);
        ports.add(Region::new("post", 0x80, 1, Owner::Io(Arc::new(PostCode))));
        let spaces = (&memory, &ports, &dma);
        let pci = Arc::new(HostBridge::new(config.board, spaces, (&ram, rom), &chips));
        firmware::set_cmos(&chips.cmos, &config, sizes);
        let tables = Tables::default();
        let fw_cfg = FwCfg::new(firmware::files(&config, sizes, &tables)?, Arc::clone(&dma));
        firmware::map_fw_cfg(&fw_cfg, &ports);
        let around = (&memory, &ports, &clock, &timers);
        let surroundings = surroundings(&config, around, &chips, &pci, &requests, inputs);
        let places = MmioPlaces::new(Arc::clone(&dma), Arc::clone(&chips.ioapic) as _);
        let parts = plug_parts(&config, surroundings, &pci, &places)?;
        tell_boot_order(&config, &parts, &fw_cfg);
        _ = tables.set(facts_maker(&config, &pci, places, sizes));
        let system_tables = smbios::tables(&config, sizes.0 + sizes.1);
        let direct = if config.boot.has_firmware() { None } else { config.boot.kernel.take() };
        let start = |kernel| start_kernel(kernel, &memory, &pci, (&tables, &system_tables), sizes);
        let entry = direct.as_ref().map(start).transpose()?;
        let chipset = PcChipset::new(&chips.apics, &clock, &requests);
        let stop = Arc::clone(&chipset.stop);
        let board = Board {
            memory: Arc::clone(&memory),
            ports: Arc::clone(&ports),
            chipset: Arc::new(chipset),
            identity: Arc::new(config.identity),
        };
        let vcpus = Vcpus::start(&board, &chips.apics, &processors, entry, config.accelerator)?;
        let parts = Arc::new(Mutex::new(parts));
        let set_running = set_running(&parts, &vcpus);
        let control = RunControl::new(&processors, &clock, &requests, set_running, config.actions);
        Ok(Self {
            requests,
            clock,
            timers,
            rings: Mutex::new(()),
            chips,
            ram,
            pci,
            root_bus: config.board.root_bus(),
            ports,
            fw_cfg,
            flash,
            parts,
            memory,
            direct,
            tables,
            system_tables,
            sizes,
            processors,
            vcpus,
            control,
            events: config.events,
            stop,
        })
    }

    /// Where others put what they want of the machine.
    #[must_use]
    pub fn requests(&self) -> Arc<Requests> {
        Arc::clone(&self.requests)
    }

    /// Starts and stops the machine, and tells who asks.
    #[must_use]
    pub fn control(&self) -> &Arc<RunControl> {
        &self.control
    }

    /// Whether the host's processors run the guest, and not the translator.
    #[must_use]
    pub fn is_on_kvm(&self) -> bool {
        self.vcpus.is_kvm()
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        self.control.tell(&MachineEvent::PowerButton);
        self.chips.pm.press_power_button();
    }

    /// The screens of its display adapters.
    #[must_use]
    pub fn screens(&self) -> Arc<Screens> {
        Arc::clone(&self.parts.lock().surroundings().screens)
    }

    /// Its keyboards and pointers.
    #[must_use]
    pub fn inputs(&self) -> Arc<Inputs> {
        Arc::clone(&self.parts.lock().surroundings().inputs)
    }

    /// How long the guest has run.
    #[must_use]
    pub fn clock_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Guest memory, as the processors see it.
    #[must_use]
    pub fn memory(&self) -> Arc<AddressSpace> {
        Arc::clone(&self.memory)
    }

    /// The vCPUs, for those who look at their registers.
    #[must_use]
    pub fn processors(&self) -> &Arc<Processors> {
        &self.processors
    }

    /// The translator, for debuggers: none where the host's processors run the guest.
    #[must_use]
    pub fn translator(&self) -> Option<&accel::jit::JitMachine> {
        self.vcpus.translator()
    }

    /// Which vCPU has stopped for the debugger, and why; told once.
    pub fn take_debug_stop(&self) -> Option<(usize, DebugStop)> {
        self.stop.lock().take()
    }

    /// Looks at what was plugged in.
    pub fn with_parts<T>(&self, look: impl FnOnce(&[Plugged]) -> T) -> T {
        look(self.parts.lock().all())
    }

    /// Plugs a part into the running machine: the name it got.
    pub fn plug(&self, part: &Part) -> Result<String, MachineError> {
        self.parts.lock().plug(part)
    }

    /// Takes a part out with the guest's consent, where its bus has a way to ask.
    pub fn request_unplug(&self, id: &str) -> Unplug {
        let done = self.parts.lock().request_unplug(id);
        if done == Unplug::Done {
            self.events.event(id, DeviceEvent::Unplugged);
        }
        done
    }

    /// Takes a part out at once, without asking the guest. False when there is none of the name.
    pub fn unplug(&self, id: &str) -> bool {
        self.parts.lock().unplug(id)
    }

    /// Runs the machine until it ends. It stands still until somebody resumes it.
    pub fn run(&self) -> End {
        let end = loop {
            let now_ns = self.clock.now_ns();
            {
                let _rings = self.rings.lock();
                self.timers.run(now_ns);
            }
            // While the clock stands, no timer comes nearer.
            let next_ns = self.timers.next_ns().filter(|_| self.clock.is_running());
            let sleep = next_ns.map(|next_ns| Duration::from_nanos(next_ns.saturating_sub(now_ns)));
            let requests = self.requests.wait(sleep);
            let gone = self.parts.lock().collect_unplugged();
            gone.iter().for_each(|id| self.events.event(id, DeviceEvent::Unplugged));
            if let Some(end) = requests.into_iter().find_map(|request| self.serve(request)) {
                break end;
            }
        };
        self.processors.pause();
        self.parts.lock().set_running(false);
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
            Request::Stop => _ = self.control.stop(RunState::IoError),
            Request::Panicked => return self.panicked(actions),
            Request::Fail => _ = self.control.stop(RunState::InternalError),
            Request::Debug => _ = self.control.stop(RunState::Debug),
            Request::Reset(cause) => {
                self.reset();
                self.control.forget_end();
                self.control.tell(&MachineEvent::Reset(cause));
            }
        }
        None
    }

    /// The guest's kernel has panicked. Failing is for programs, so no pause holds it up.
    fn panicked(&self, actions: Actions) -> Option<End> {
        let outcome = actions.panic_outcome();
        self.control.tell(&MachineEvent::Panicked(outcome));
        if outcome == PanicOutcome::Runs {
            return None;
        }
        self.control.stop(RunState::GuestPanicked);
        if outcome == PanicOutcome::Paused {
            return None;
        }
        self.control.tell(&MachineEvent::Shutdown(Cause::GuestPanic));
        let fails = actions.panic == PanicAction::ExitFailure;
        Some(if fails { End::Exit(EXIT_FAILURE) } else { End::Shutdown })
    }

    fn shut_down(&self, cause: Cause, actions: Actions) -> Option<End> {
        self.control.tell(&MachineEvent::Shutdown(cause));
        if !actions.shutdown_pauses {
            return Some(End::Shutdown);
        }
        self.control.stop(RunState::Shutdown);
        None
    }

    /// Does something while neither the guest nor a timer moves. Fails while the guest runs.
    pub(crate) fn while_standing<T>(
        &self,
        action: impl FnOnce() -> Result<T, StreamError>,
    ) -> Result<T, StreamError> {
        if self.control.state() == RunState::Running {
            return Err(StreamError::Runs);
        }
        let _rings = self.rings.lock();
        self.control.while_stopped(|| {
            // A machine that never ran has devices that were never told to stand.
            self.parts.lock().set_running(false);
            action()
        })
    }

    /// Memory has changed behind the processors' back.
    pub(crate) fn forget_translations(&self) {
        self.vcpus.invalidate_all();
    }

    /// Everything as after power-on; firmware, or the kernel, starts anew.
    pub(crate) fn reset(&self) {
        self.control.while_stopped(|| {
            self.chips.reset();
            self.pci.reset();
            self.fw_cfg.reset();
            self.flash.iter().for_each(|flash| flash.reset());
            self.parts.lock().reset();
            if let Some(kernel) = &self.direct {
                // It was placed once, so it fits again.
                let tables = (&self.tables, &self.system_tables);
                _ = start_kernel(kernel, &self.memory, &self.pci, tables, self.sizes);
            }
            self.vcpus.invalidate_all();
            self.processors.reset();
        });
    }
}

/// Timers that end the main loop's sleep.
fn waking(requests: &Arc<Requests>) -> Arc<Timers> {
    let requests = Arc::clone(requests);
    Timers::new(move || requests.wake())
}

/// Tells firmware from what to boot.
fn tell_boot_order(config: &Config, parts: &Parts, fw_cfg: &FwCfg) {
    let kernel_rom = config.boot.kernel.as_ref().map(|_| firmware::LINUX_ROM);
    if let Some(order) = boot_order::lines(parts, kernel_rom) {
        fw_cfg.with_files(|files| files.add("bootorder", Source::Bytes(order)));
    }
}

/// Memory and ports, as processors see them, and memory as devices do.
fn address_spaces() -> (Arc<AddressSpace>, Arc<AddressSpace>, Arc<AddressSpace>) {
    let (memory, dma) = (Arc::new(AddressSpace::new()), Arc::new(AddressSpace::new()));
    // Translations of what devices write are stale, too.
    dma.listen(Arc::new(Forward(Arc::clone(&memory))));
    (memory, Arc::new(AddressSpace::new()), dma)
}

/// Carries what devices write to those who listen to the processors' memory.
struct Forward(Arc<AddressSpace>);

impl Listener for Forward {
    fn changed(&self, _: &FlatView, _: &FlatView) {}

    fn written(&self, start: u64, bytes: u64) {
        self.0.written(start, bytes);
    }
}

/// Tells the parts, and the processors' own clocks, that the machine goes on, or stands still.
fn set_running(parts: &Arc<Mutex<Parts>>, vcpus: &Vcpus) -> Box<dyn Fn(bool) + Send + Sync> {
    let (parts, vcpus) = (Arc::clone(parts), vcpus.clone());
    Box::new(move |running| {
        parts.lock().set_running(running);
        vcpus.set_running(running);
    })
}

fn check(config: &Config) -> Result<(), MachineError> {
    let count = config.processors;
    if !(1..=PROCESSORS_MAX).contains(&count) {
        return Err(MachineError::Processors { count });
    }
    if config.ram_bytes < 2 << 20 {
        return Err(MachineError::TooSmall { bytes: config.ram_bytes });
    }
    if !config.boot.has_firmware() && config.boot.kernel.is_none() {
        return Err(MachineError::NothingToBoot);
    }
    Ok(())
}

/// What the machine offers to its devices.
fn surroundings(
    config: &Config,
    (memory, ports, clock, timers): (
        &Arc<AddressSpace>,
        &Arc<AddressSpace>,
        &Arc<HostClock>,
        &Arc<Timers>,
    ),
    chips: &Chips,
    pci: &HostBridge,
    requests: &Arc<Requests>,
    inputs: Arc<Inputs>,
) -> Surroundings {
    Surroundings {
        memory: Arc::clone(memory),
        ports: Arc::clone(ports),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        timers: Arc::clone(timers),
        isa_irqs: Arc::clone(&chips.lines) as _,
        pci: Some(Arc::clone(pci.root())).filter(|_| config.board != BoardKind::Microvm),
        power: Arc::clone(requests) as _,
        events: Arc::new(GuestEvents {
            requests: Arc::clone(requests),
            outside: Arc::clone(&config.events),
        }),
        screens: Arc::new(Screens::default()),
        inputs,
        firmware: Arc::clone(&config.firmware_files),
        backends: Arc::clone(&config.backends),
        ram_bytes: config.ram_bytes,
    }
}

/// The board's own parts and those that were asked for.
fn plug_parts(
    config: &Config,
    surroundings: Surroundings,
    pci: &HostBridge,
    places: &Arc<MmioPlaces>,
) -> Result<Parts, MachineError> {
    let first = match config.board {
        BoardKind::Microvm => {
            let name = "virtio-mmio-bus.0".to_owned();
            OfferedBus::new(BusKind::VirtioMmio, name, Arc::clone(places))
        }
        board => OfferedBus::pci(Arc::clone(&pci.bus), board.root_bus().to_owned()),
    };
    let isa = OfferedBus::new(BusKind::Isa, "isa.0".to_owned(), Arc::new(()));
    let mut parts = Parts::new(surroundings, vec![first, isa]);
    for part in config.board.own_parts().iter().chain(&config.parts) {
        parts.plug(part)?;
    }
    Ok(parts)
}

/// Where RAM below 4 GiB ends. Above are PCI's windows and the chips; a machine with more RAM than
/// fits gives PCI a larger window.
fn low_end(board: BoardKind, bytes: u64) -> u64 {
    let (most, otherwise) = match board {
        BoardKind::Pc => (0xe000_0000, 0xc000_0000),
        BoardKind::Q35 => (0xb000_0000, 0x8000_0000),
        BoardKind::Microvm => (0xc000_0000, 0xc000_0000),
    };
    if bytes <= most { bytes } else { otherwise }
}

/// RAM below the holes, and the rest above 4 GiB, in what processors and in what devices see: the
/// sizes of both parts. Devices see RAM alone: one that could reach the registers of another, or
/// its own, could be led in circles.
fn add_ram(spaces: &[&AddressSpace], config: &Config) -> Result<(Arc<Ram>, (u64, u64)), RamError> {
    let bytes = config.ram_bytes;
    let ram = Arc::new(Ram::new("pc.ram", bytes)?);
    let low = low_end(config.board, bytes);
    let high = bytes - low;
    for space in spaces {
        space.add(Region::new("ram-below-4g", 0, low, Owner::Ram(Arc::clone(&ram))));
        if high > 0 {
            let region = Region::new("ram-above-4g", FOUR_GIB, high, Owner::Ram(Arc::clone(&ram)));
            space.add(region.with_offset(low));
        }
    }
    Ok((ram, (low, high)))
}

/// What the tables say, whenever they are asked for.
fn facts_maker(
    config: &Config,
    pci: &Arc<HostBridge>,
    places: Arc<MmioPlaces>,
    (low, high): (u64, u64),
) -> Box<dyn Fn() -> Facts + Send + Sync> {
    let old = config.old_chips;
    let (hpet, i8042) = (config.hpet, config.i8042);
    let topology = config.identity.topology;
    let processors: Vec<u32> =
        (0..config.processors).map(|number| topology.apic_id(number)).collect();
    let port = |part: &Part| {
        let place = devices::serial::place(&part.properties)?;
        (part.model == "isa-serial").then_some(Com { port: place.0 as u16, irq: place.1 as u8 })
    };
    let generation = config.parts.iter().find(|part| part.model == "vmgenid");
    let generation =
        generation.and_then(|part| devices::vmgenid::parse(part.properties.text("guid")?));
    let serial: Vec<Com> = config.parts.iter().filter_map(port).collect();
    let shows_vga = |part: &Part| {
        // A screen that answers at the old addresses.
        let model = devices::catalog::model(&part.model);
        let is_display = model.is_some_and(|model| model.category == Category::Display);
        is_display && !matches!(part.model.as_str(), "bochs-display" | "secondary-vga")
    };
    let vga = config.parts.iter().any(shows_vga);
    let pci = Arc::clone(pci);
    Box::new(move || {
        let (chipset, ecam) = pci.chipset();
        let windows = pci.windows(low, high);
        let (serial, processors) = (serial.clone(), processors.clone());
        Facts {
            processors,
            chipset,
            ecam,
            windows,
            hpet,
            i8042,
            serial,
            generation,
            vga,
            places: places.taken(),
            old,
            pm_base: PM_BASE,
        }
    })
}

/// Behind the root pointer, on a page of their own.
const TABLES_OFFSET: u64 = 0x1000;
/// Where the tables of the system's parts lie without firmware: systems search from here on.
const SMBIOS_BASE: u64 = 0xf_0000;

/// Does what firmware would, and places the kernel: where vCPU 0 starts.
fn start_kernel(
    kernel: &Kernel,
    memory: &AddressSpace,
    pci: &HostBridge,
    (tables, tables_of_system): (&Tables, &SystemTables),
    (low, high): (u64, u64),
) -> Result<Entry, BootError> {
    pci.set_up_without_firmware();
    let view = memory.view();
    if let Some(facts) = tables.get() {
        // The root pointer first, where systems search for it; the tables on the next page.
        let (pointer, image) = acpi::build(&facts()).linked(acpi::BASE + TABLES_OFFSET);
        view.write(acpi::BASE, &pointer);
        view.write(acpi::BASE + TABLES_OFFSET, &image);
    }
    let (anchor, structures) = smbios::placed(tables_of_system, SMBIOS_BASE + 64);
    view.write(SMBIOS_BASE, &anchor);
    view.write(SMBIOS_BASE + 64, &structures);
    let Placed { entry, parameters, page_tables, descriptors } = kernel.place(&view, low, high)?;
    Ok(Entry { pc: entry, parameters, page_tables, descriptors })
}

/// Port 0x80: firmware says there how far it is, and systems write to it to wait a little.
struct PostCode;

impl Io for PostCode {
    fn read(&self, _offset: u64, size: u8) -> u64 {
        ones(size)
    }

    fn write(&self, _offset: u64, _size: u8, _value: u64) {}
}
