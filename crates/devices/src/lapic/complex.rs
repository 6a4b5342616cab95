//! All local APICs of a machine, the messages between them, and their ways to the processors.

use std::cell::Cell;
use std::sync::{Arc, OnceLock, Weak};

use device::{Clock, Expired, Fields, Io, StateError, Timer, Timers, ones};
use parking_lot::Mutex;

use super::chip::{Chip, Effect};
use super::spec::{self, Delivery};
use crate::i8259::Pair;

/// A processor as its local APIC sees it. A leaf: it never calls back.
pub trait Processor: Send + Sync {
    /// Look at the interrupt controller before the next instruction.
    fn kick(&self);
    /// A non-maskable interrupt.
    fn nmi(&self);
    /// Reset, and wait for a start-up message.
    fn init(&self);
    /// Start in real mode at this page, if it waits for that.
    fn start(&self, page: u8);
}

/// An interrupt on its way to local APICs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Who is meant.
    pub destination: u32,
    /// `destination` is a set, not a number.
    pub logical: bool,
    /// How.
    pub delivery: Delivery,
    /// Which.
    pub vector: u8,
    /// Level-triggered.
    pub level: bool,
}

impl Message {
    /// The write to memory that this message is: address and data.
    #[must_use]
    pub fn to_msi(self) -> (u64, u32) {
        const ASSERTED: u32 = 1 << 14;
        const LEVEL: u32 = 1 << 15;
        let hint = self.delivery == Delivery::Lowest;
        let address = spec::BASE
            | u64::from(self.destination & 0xff) << 12
            | u64::from(hint) << 3
            | u64::from(self.logical) << 2;
        let kind = if self.level { LEVEL | ASSERTED } else { 0 };
        (address, u32::from(self.vector) | (self.delivery as u32) << 8 | kind)
    }

    /// The message behind a write of `data` to a message-signalled interrupt's `address`.
    #[must_use]
    pub fn from_msi(address: u64, data: u32) -> Option<Self> {
        Some(Self {
            destination: (address >> 12) as u32 & 0xff,
            logical: address & 4 != 0,
            delivery: Delivery::from_bits(data >> 8)?,
            vector: data as u8,
            level: data & 1 << 15 != 0,
        })
    }
}

/// Told when a level-triggered interrupt has ended: an I/O APIC. Called without any lock held.
pub trait EndOfInterrupt: Send + Sync {
    /// The vector that has ended.
    fn ended(&self, vector: u8);
}

/// Local APICs that are not these: an accelerator's own. A leaf: it never calls back.
pub trait OutsideApics: Send + Sync {
    /// Delivers a message.
    fn deliver(&self, message: Message);
    /// What an input of the I/O APIC sends from now on.
    fn set_route(&self, pin: u32, message: Option<Message>);
}

struct Apic {
    processor: Arc<dyn Processor>,
    timer: Timer,
    chip: Mutex<Chip>,
    id: u32,
}

/// All local APICs.
///
/// Lock order: one chip at a time; processors and timers are leaves; `ended` runs without.
pub struct Apics {
    clock: Arc<dyn Clock>,
    pic: Mutex<Option<Arc<Pair>>>,
    apics: Vec<Apic>,
    listeners: Mutex<Vec<Weak<dyn EndOfInterrupt>>>,
    /// In whose place these stand, if there are others.
    outside: OnceLock<Arc<dyn OutsideApics>>,
}

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Tells on which processor this thread's memory accesses are. Each vCPU's thread says so once.
pub fn set_current_processor(number: usize) {
    CURRENT.set(number);
}

impl Apics {
    /// One local APIC for each processor, with its identifier.
    pub fn new(
        clock: Arc<dyn Clock>,
        timers: &Arc<Timers>,
        processors: Vec<(u32, Arc<dyn Processor>)>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|apics: &Weak<Self>| {
            let apic = |(number, (id, processor))| Apic {
                processor,
                timer: timers.timer(apics.clone() as Weak<dyn Expired>, number as u32),
                chip: Mutex::new(Chip::new(id)),
                id,
            };
            Self {
                clock,
                pic: Mutex::new(None),
                apics: processors.into_iter().enumerate().map(apic).collect(),
                listeners: Mutex::default(),
                outside: OnceLock::new(),
            }
        })
    }

    /// The 8259 pair that reaches processors through their line 0.
    pub fn connect_pic(&self, pic: Arc<Pair>) {
        *self.pic.lock() = Some(pic);
    }

    /// Tells `listener` of the end of level-triggered interrupts.
    pub fn listen(&self, listener: Weak<dyn EndOfInterrupt>) {
        self.listeners.lock().push(listener);
    }

    /// The 8259's output has changed: the processors that listen to it look.
    pub fn external(&self) {
        for apic in &self.apics {
            if apic.chip.lock().takes_external() {
                apic.processor.kick();
            }
        }
    }

    /// From now on messages go to others, which run the processors' timers and know what interrupts
    /// they have; what is left here is the way of the 8259 pair to the first processor.
    pub fn move_outside(&self, outside: Arc<dyn OutsideApics>) {
        _ = self.outside.set(outside);
    }

    /// What an input of the I/O APIC sends from now on.
    pub fn set_route(&self, pin: u32, message: Option<Message>) {
        if let Some(outside) = self.outside.get() {
            outside.set_route(pin, message);
        }
    }

    /// A level-triggered interrupt has ended.
    pub fn ended(&self, vector: u8) {
        let listeners = self.listeners.lock().clone();
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            listener.ended(vector);
        }
    }

    /// Whether a processor has an interrupt to take.
    #[must_use]
    pub fn is_pending(&self, number: usize) -> bool {
        let chip = self.apics[number].chip.lock();
        if chip.pending().is_some() {
            return true;
        }
        let external = chip.takes_external();
        drop(chip);
        external && number == 0 && self.pic.lock().as_ref().is_some_and(|pic| pic.is_pending())
    }

    /// The processor takes its interrupt.
    pub fn acknowledge(&self, number: usize) -> Option<u8> {
        let mut chip = self.apics[number].chip.lock();
        if let Some(vector) = chip.acknowledge() {
            return Some(vector);
        }
        let external = chip.takes_external();
        drop(chip);
        if !external || number != 0 {
            return None;
        }
        let pic = self.pic.lock().clone()?;
        pic.is_pending().then(|| pic.acknowledge())
    }

    /// Carries a message to all it addresses.
    pub fn deliver(&self, message: Message) {
        if let Some(outside) = self.outside.get() {
            return outside.deliver(message);
        }
        let addressed =
            |apic: &&Apic| apic.chip.lock().is_addressed(message.destination, message.logical);
        let targets = self.apics.iter().filter(addressed);
        // "Lowest priority" may be any of them, and the first is one.
        let most = if message.delivery == Delivery::Lowest { 1 } else { usize::MAX };
        targets.take(most).for_each(|apic| apic.receive(message));
    }

    /// A processor's own command.
    fn send(&self, from: usize, command: u64) {
        let x2apic = self.apics[from].chip.lock().is_x2apic();
        let Some(delivery) = Delivery::from_bits((command >> 8) as u32) else { return };
        // INIT with the level taken back is for processors that no longer exist.
        if delivery == Delivery::Init
            && command & (spec::COMMAND_ASSERT | spec::COMMAND_LEVEL) == spec::COMMAND_LEVEL
        {
            return;
        }
        let destination = if x2apic { (command >> 32) as u32 } else { (command >> 56) as u32 };
        let message = Message {
            destination,
            logical: command & spec::COMMAND_LOGICAL != 0,
            delivery,
            vector: command as u8,
            level: false,
        };
        match command >> 18 & 3 {
            0 => self.deliver(message),
            1 => self.apics[from].receive(message),
            shorthand => {
                for (number, apic) in self.apics.iter().enumerate() {
                    if shorthand == 2 || number != from {
                        apic.receive(message);
                    }
                }
            }
        }
    }

    fn act(&self, from: usize, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Send(command) => self.send(from, command),
            Effect::Ended(vector) => self.ended(vector),
        }
    }

    fn change(&self, number: usize, change: impl FnOnce(&mut Chip, u64) -> Effect) {
        let apic = &self.apics[number];
        let now_ns = self.clock.now_ns();
        let effect = {
            let mut chip = apic.chip.lock();
            let effect = change(&mut chip, now_ns);
            apic.timer.arm(chip.next_ns(now_ns));
            if chip.pending().is_some() {
                apic.processor.kick();
            }
            effect
        };
        self.act(number, effect);
    }

    /// RDMSR of a register that the local APIC answers. Deadlines are on the machine's clock.
    #[must_use]
    pub fn read_msr(&self, number: usize, msr: u32) -> u64 {
        let chip = self.apics[number].chip.lock();
        match msr {
            MSR_BASE => chip.base(),
            MSR_DEADLINE => chip.deadline(),
            MSR_COMMAND => chip.command(),
            _ => u64::from(chip.read(msr.wrapping_sub(MSR_X2APIC), self.clock.now_ns())),
        }
    }

    /// WRMSR, likewise.
    pub fn write_msr(&self, number: usize, msr: u32, value: u64) {
        self.change(number, |chip, now_ns| match msr {
            MSR_BASE => {
                chip.set_base(value);
                Effect::None
            }
            MSR_DEADLINE => {
                chip.set_deadline(value);
                Effect::None
            }
            MSR_COMMAND => chip.write_command(value),
            _ => chip.write(msr.wrapping_sub(MSR_X2APIC), value as u32, now_ns),
        });
    }

    /// Saves or loads all of them; those that are outside are saved with their processors.
    pub fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        if self.outside.get().is_some() {
            return Ok(());
        }
        let now_ns = self.clock.now_ns();
        for (number, apic) in self.apics.iter().enumerate() {
            fields.locked(&number.to_string(), &apic.chip)?;
            apic.timer.arm(apic.chip.lock().next_ns(now_ns));
        }
        Ok(())
    }

    /// Puts all into the state after power-on.
    pub fn reset(&self) {
        for apic in &self.apics {
            *apic.chip.lock() = Chip::new(apic.id);
            apic.timer.arm(None);
        }
    }
}

const MSR_BASE: u32 = 0x1b;
const MSR_DEADLINE: u32 = 0x6e0;
const MSR_X2APIC: u32 = 0x800;
const MSR_COMMAND: u32 = 0x830;

impl Apic {
    fn receive(&self, message: Message) {
        match message.delivery {
            Delivery::Fixed | Delivery::Lowest => {
                self.chip.lock().accept(message.vector, message.level);
                self.processor.kick();
            }
            Delivery::External => self.processor.kick(),
            Delivery::Nmi => self.processor.nmi(),
            Delivery::Init => {
                self.chip.lock().init();
                self.processor.init();
            }
            Delivery::Startup => self.processor.start(message.vector),
            Delivery::Smi => {} // there is no system management mode yet
        }
    }
}

impl Expired for Apics {
    fn expired(&self, token: u32) {
        self.change(token as usize, |chip, now_ns| {
            chip.tick(now_ns);
            Effect::None
        });
    }
}

/// The registers at their memory address, for whichever processor looks.
pub struct LapicMmio(Arc<Apics>);

impl LapicMmio {
    /// The window onto these APICs.
    #[must_use]
    pub fn new(apics: &Arc<Apics>) -> Self {
        Self(Arc::clone(apics))
    }
}

impl Io for LapicMmio {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let number = CURRENT.get();
        let Some(apic) = self.0.apics.get(number) else { return ones(size) };
        let now_ns = self.0.clock.now_ns();
        let value = apic.chip.lock().read((offset >> 4) as u32, now_ns);
        u64::from(value) >> (8 * (offset & 3)) & ones(size)
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let number = CURRENT.get();
        // A write from a device is a message-signalled interrupt, which the board takes elsewhere.
        if number < self.0.apics.len() && size == 4 && offset & 15 == 0 {
            self.0.change(number, |chip, now_ns| {
                chip.write((offset >> 4) as u32, value as u32, now_ns)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use device::StoppedClock;

    use super::*;

    #[derive(Default)]
    struct Seen {
        kicks: AtomicU32,
        started: AtomicU32,
    }

    impl Processor for Seen {
        fn kick(&self) {
            self.kicks.fetch_add(1, Ordering::Relaxed);
        }
        fn nmi(&self) {}
        fn init(&self) {}
        fn start(&self, page: u8) {
            self.started.store(u32::from(page), Ordering::Relaxed);
        }
    }

    fn machine(count: usize) -> (Arc<Apics>, Vec<Arc<Seen>>) {
        let seen: Vec<_> = (0..count).map(|_| Arc::new(Seen::default())).collect();
        let processor =
            |(id, seen): (u32, &Arc<Seen>)| (id, Arc::clone(seen) as Arc<dyn Processor>);
        let processors = (0..).zip(&seen).map(processor).collect();
        let clock = Arc::new(StoppedClock::default());
        let apics = Apics::new(clock, &Timers::new(|| {}), processors);
        for number in 0..count {
            apics.change(number, |chip, now_ns| chip.write(spec::SPURIOUS, 0x1ff, now_ns));
        }
        (apics, seen)
    }

    #[test]
    fn commands_reach_whom_they_name() {
        // high and low word of the command; who gets the vector
        for (high, low, receivers) in [
            (2 << 24, 0x4050, vec![2]),
            (0, 0x4_4050, vec![0]),
            (0, 0x8_4050, vec![0, 1, 2]),
            (0, 0xc_4050, vec![1, 2]),
            (0xff << 24, 0x4050, vec![0, 1, 2]),
        ] {
            let (apics, _) = machine(3);
            let mmio = LapicMmio::new(&apics);
            mmio.write(0x310, 4, high);
            mmio.write(0x300, 4, low);
            let got: Vec<_> = (0..3).filter(|n| apics.acknowledge(*n) == Some(0x50)).collect();
            assert_eq!(got, receivers, "{high:#x} {low:#x}");
        }
    }

    #[test]
    fn a_start_up_message_names_the_page() {
        let (apics, seen) = machine(2);
        let mmio = LapicMmio::new(&apics);
        mmio.write(0x310, 4, 1 << 24);
        mmio.write(0x300, 4, 0x4469a);
        assert_eq!(seen[0].started.load(Ordering::Relaxed), 0x9a, "shorthand: self");
        mmio.write(0x300, 4, 0x0460b);
        assert_eq!(seen[1].started.load(Ordering::Relaxed), 0x0b);
    }
}
