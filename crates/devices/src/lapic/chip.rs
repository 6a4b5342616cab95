//! One local APIC: pure. The caller brings the time and carries messages.

use super::spec::{self, Delivery};

/// 256 vectors, a bit each.
type Vectors = [u32; 8];

/// The registers of one local APIC.
#[derive(Clone, Debug)]
pub struct Chip {
    id: u32,
    base: u64,
    task_priority: u8,
    logical: u32,
    format: u32,
    spurious: u32,
    in_service: Vectors,
    trigger: Vectors,
    request: Vectors,
    errors: u32,
    errors_shown: u32,
    command: u64,
    /// CMCI, timer, thermal, performance, line 0, line 1, error.
    entries: [u32; 7],
    initial_count: u32,
    divide: u32,
    start_ns: u64,
    deadline: u64,
    /// The timer's vector has been sent for the present count.
    fired: bool,
}

device::saved!(Chip {
    id,
    base,
    task_priority,
    logical,
    format,
    spurious,
    in_service,
    trigger,
    request,
    errors,
    errors_shown,
    command,
    entries,
    initial_count,
    divide,
    start_ns,
    deadline,
    fired,
});

/// What the world must do after a register was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing.
    None,
    /// Send this command.
    Send(u64),
    /// A level-triggered interrupt ended: tell the I/O APICs.
    Ended(u8),
}

const TIMER_ENTRY: usize = 1;
const LINE_0_ENTRY: usize = 4;
const ERROR_ENTRY: usize = 6;
/// The bus clock that drives the timer: one tick a nanosecond.
const NO_VECTOR_BELOW: u8 = 16;

impl Chip {
    /// The APIC of processor `id`; processor 0 starts the machine.
    #[must_use]
    pub fn new(id: u32) -> Self {
        let bootstrap = if id == 0 { spec::BASE_BOOTSTRAP } else { 0 };
        let mut chip = Self {
            id,
            base: spec::BASE | spec::BASE_ENABLED | bootstrap,
            task_priority: 0,
            logical: 0,
            format: u32::MAX,
            spurious: 0xff,
            in_service: [0; 8],
            trigger: [0; 8],
            request: [0; 8],
            errors: 0,
            errors_shown: 0,
            command: 0,
            entries: [spec::ENTRY_MASKED; 7],
            initial_count: 0,
            divide: 0,
            start_ns: 0,
            deadline: 0,
            fired: true,
        };
        if id == 0 {
            // After reset the 8259 of a PC reaches the first processor through line 0.
            chip.entries[LINE_0_ENTRY] = 7 << 8;
        }
        chip
    }

    /// The INIT message: all registers but the identifier and the base.
    pub fn init(&mut self) {
        let base = self.base;
        *self = Self { base, ..Self::new(self.id) };
    }

    /// The processor's number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The APIC base register.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Writes the APIC base register. Going back from x2APIC needs a detour by "off".
    pub fn set_base(&mut self, value: u64) {
        let enables = value & spec::BASE_ENABLED != 0;
        let value = if enables { value } else { value & !spec::BASE_X2APIC };
        if !enables && self.is_on() {
            self.init();
        }
        let writable = spec::BASE_ENABLED | spec::BASE_X2APIC | 0x000f_ffff_ffff_f000;
        self.base = self.base & !writable | value & writable;
    }

    /// Globally on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.base & spec::BASE_ENABLED != 0
    }

    /// In x2APIC mode.
    #[must_use]
    pub fn is_x2apic(&self) -> bool {
        self.base & spec::BASE_X2APIC != 0
    }

    /// On by software too: takes vectors.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.is_on() && self.spurious & spec::SPURIOUS_ENABLED != 0
    }

    /// Whether interrupts of the 8259 pass to the processor.
    #[must_use]
    pub fn takes_external(&self) -> bool {
        let line = self.entries[LINE_0_ENTRY];
        let external = line & spec::ENTRY_DELIVERY == 7 << 8 && line & spec::ENTRY_MASKED == 0;
        !self.is_on() || external
    }

    /// Whether a message to `destination` is for this one.
    #[must_use]
    pub fn is_addressed(&self, destination: u32, logical: bool) -> bool {
        if self.is_x2apic() {
            return match (destination, logical) {
                (u32::MAX, _) => true,
                (_, false) => destination == self.id,
                (_, true) => {
                    destination >> 16 == self.x2apic_logical() >> 16
                        && destination & self.x2apic_logical() & 0xffff != 0
                }
            };
        }
        let destination = if destination == u32::MAX { 0xff } else { destination };
        match logical {
            false => destination == 0xff || destination == self.id,
            true if self.format >> 28 == 0xf => self.logical >> 24 & destination != 0,
            true => {
                let own = self.logical >> 24;
                own >> 4 == destination >> 4 && own & destination & 15 != 0
            }
        }
    }

    fn x2apic_logical(&self) -> u32 {
        self.id >> 4 << 16 | 1 << (self.id & 15)
    }

    /// A vector arrives.
    pub fn accept(&mut self, vector: u8, level: bool) {
        if vector < NO_VECTOR_BELOW {
            self.error(spec::ERROR_RECEIVE_VECTOR);
            return;
        }
        set(&mut self.request, vector, true);
        set(&mut self.trigger, vector, level);
    }

    fn error(&mut self, bit: u32) {
        self.errors |= bit;
        let entry = self.entries[ERROR_ENTRY];
        if entry & spec::ENTRY_MASKED == 0 && self.is_enabled() && entry as u8 >= NO_VECTOR_BELOW {
            set(&mut self.request, entry as u8, true);
        }
    }

    fn processor_priority(&self) -> u8 {
        let served = highest(&self.in_service).unwrap_or(0);
        if self.task_priority >> 4 >= served >> 4 { self.task_priority } else { served & 0xf0 }
    }

    /// The vector that the processor is asked to take.
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        if !self.is_enabled() {
            return None;
        }
        highest(&self.request).filter(|vector| vector >> 4 > self.processor_priority() >> 4)
    }

    /// The processor takes it.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.pending()?;
        set(&mut self.request, vector, false);
        set(&mut self.in_service, vector, true);
        Some(vector)
    }

    fn end(&mut self) -> Effect {
        let Some(vector) = highest(&self.in_service) else { return Effect::None };
        set(&mut self.in_service, vector, false);
        if has(&self.trigger, vector) { Effect::Ended(vector) } else { Effect::None }
    }

    /// Reads a register.
    #[must_use]
    pub fn read(&self, register: u32, now_ns: u64) -> u32 {
        match register {
            spec::ID if self.is_x2apic() => self.id,
            spec::ID => self.id << 24,
            spec::VERSION => spec::VERSION_VALUE,
            spec::TASK_PRIORITY => u32::from(self.task_priority),
            spec::PROCESSOR_PRIORITY => u32::from(self.processor_priority()),
            spec::LOGICAL_DESTINATION if self.is_x2apic() => self.x2apic_logical(),
            spec::LOGICAL_DESTINATION => self.logical,
            spec::DESTINATION_FORMAT => self.format,
            spec::SPURIOUS => self.spurious,
            spec::IN_SERVICE..0x18 => self.in_service[(register & 7) as usize],
            spec::TRIGGER..0x20 => self.trigger[(register & 7) as usize],
            spec::REQUEST..0x28 => self.request[(register & 7) as usize],
            spec::ERROR => self.errors_shown,
            spec::COMMAND => self.command as u32,
            spec::COMMAND_HIGH => (self.command >> 32) as u32,
            spec::INITIAL_COUNT => self.initial_count,
            spec::CURRENT_COUNT => self.current_count(now_ns),
            spec::DIVIDE => self.divide,
            _ => entry_index(register).map_or(0, |at| self.entries[at]),
        }
    }

    /// Writes a register.
    pub fn write(&mut self, register: u32, value: u32, now_ns: u64) -> Effect {
        match register {
            spec::ID if !self.is_x2apic() => self.id = value >> 24,
            spec::TASK_PRIORITY => self.task_priority = value as u8,
            spec::END_OF_INTERRUPT => return self.end(),
            spec::LOGICAL_DESTINATION => self.logical = value & 0xff00_0000,
            spec::DESTINATION_FORMAT => self.format = value | 0x0fff_ffff,
            spec::SPURIOUS => {
                self.spurious = value & 0x1ff;
                if value & spec::SPURIOUS_ENABLED == 0 {
                    self.entries.iter_mut().for_each(|entry| *entry |= spec::ENTRY_MASKED);
                }
            }
            spec::ERROR => self.errors_shown = std::mem::take(&mut self.errors),
            spec::COMMAND => {
                self.command = self.command & !0xffff_ffff | u64::from(value);
                return self.send();
            }
            spec::COMMAND_HIGH => {
                self.command = self.command & 0xffff_ffff | u64::from(value) << 32;
            }
            spec::INITIAL_COUNT => {
                if self.timer_mode() != 2 {
                    (self.initial_count, self.start_ns) = (value, now_ns);
                    self.fired = value == 0;
                }
            }
            spec::DIVIDE => self.divide = value & 0xb,
            spec::SELF => self.accept(value as u8, false),
            _ => self.write_entry(register, value),
        }
        Effect::None
    }

    /// The whole command at once, in x2APIC mode.
    pub fn write_command(&mut self, command: u64) -> Effect {
        self.command = command;
        self.send()
    }

    /// The command as it stands.
    #[must_use]
    pub fn command(&self) -> u64 {
        self.command
    }

    fn send(&mut self) -> Effect {
        let fixed = matches!(
            Delivery::from_bits((self.command >> 8) as u32),
            Some(Delivery::Fixed | Delivery::Lowest)
        );
        if fixed && (self.command as u8) < NO_VECTOR_BELOW {
            self.error(spec::ERROR_SEND_VECTOR);
            return Effect::None;
        }
        Effect::Send(self.command)
    }

    fn write_entry(&mut self, register: u32, value: u32) {
        let Some(at) = entry_index(register) else { return };
        let masked =
            if self.spurious & spec::SPURIOUS_ENABLED == 0 { spec::ENTRY_MASKED } else { 0 };
        if at == TIMER_ENTRY && (self.entries[at] ^ value) & spec::TIMER_MODE != 0 {
            (self.initial_count, self.deadline, self.fired) = (0, 0, true);
        }
        self.entries[at] = value & 0x0007_f7ff | masked;
    }

    fn timer_mode(&self) -> u32 {
        (self.entries[TIMER_ENTRY] & spec::TIMER_MODE) >> 17
    }

    fn divisor(&self) -> u64 {
        let bits = self.divide & 3 | self.divide >> 1 & 4;
        if bits == 7 { 1 } else { 2 << bits }
    }

    fn period_ns(&self) -> u64 {
        u64::from(self.initial_count) * self.divisor()
    }

    fn current_count(&self, now_ns: u64) -> u32 {
        let period = self.period_ns();
        if period == 0 || self.timer_mode() == 2 {
            return 0;
        }
        let passed = now_ns.saturating_sub(self.start_ns);
        let left = match self.timer_mode() {
            1 => period - passed % period,
            _ => period.saturating_sub(passed),
        };
        (left / self.divisor()) as u32
    }

    /// The deadline of the timer in its deadline mode, in time-stamp ticks (nanoseconds).
    #[must_use]
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// Writes the deadline; 0 disarms.
    pub fn set_deadline(&mut self, deadline_ns: u64) {
        if self.timer_mode() == 2 {
            self.deadline = deadline_ns;
            self.start_ns = deadline_ns;
            self.fired = deadline_ns == 0;
        }
    }

    /// When the timer next needs a [`Chip::tick`].
    #[must_use]
    pub fn next_ns(&self, now_ns: u64) -> Option<u64> {
        if self.fired {
            return None;
        }
        match self.timer_mode() {
            2 => Some(self.start_ns),
            _ if self.period_ns() == 0 => None,
            1 => {
                let periods = now_ns.saturating_sub(self.start_ns) / self.period_ns() + 1;
                self.start_ns.checked_add(periods.checked_mul(self.period_ns())?)
            }
            _ => self.start_ns.checked_add(self.period_ns()),
        }
    }

    /// The timer's time has come.
    pub fn tick(&mut self, now_ns: u64) {
        let due = match self.timer_mode() {
            2 => now_ns >= self.start_ns,
            1 => true, // called once a period
            _ => now_ns.saturating_sub(self.start_ns) >= self.period_ns(),
        };
        if self.fired || !due {
            return;
        }
        if self.timer_mode() != 1 {
            self.fired = true;
            self.deadline = 0;
        }
        let entry = self.entries[TIMER_ENTRY];
        if entry & spec::ENTRY_MASKED == 0 {
            self.accept(entry as u8, false);
        }
    }
}

fn entry_index(register: u32) -> Option<usize> {
    match register {
        spec::CORRECTED_MACHINE_CHECK => Some(0),
        spec::TIMER..=spec::ERROR_LINE => Some((register - spec::TIMER) as usize + 1),
        _ => None,
    }
}

fn set(vectors: &mut Vectors, vector: u8, on: bool) {
    let (word, bit) = (usize::from(vector / 32), 1 << (vector % 32));
    if on {
        vectors[word] |= bit;
    } else {
        vectors[word] &= !bit;
    }
}

fn has(vectors: &Vectors, vector: u8) -> bool {
    vectors[usize::from(vector / 32)] & 1 << (vector % 32) != 0
}

fn highest(vectors: &Vectors) -> Option<u8> {
    let (word, bits) = vectors.iter().enumerate().rev().find(|(_, bits)| **bits != 0)?;
    Some((word as u32 * 32 + 31 - bits.leading_zeros()) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled() -> Chip {
        let mut chip = Chip::new(0);
        chip.write(spec::SPURIOUS, 0x1ff, 0);
        chip
    }

    #[test]
    fn the_highest_vector_is_served_first_and_blocks_its_class() {
        let mut chip = enabled();
        for vector in [0x31, 0x45, 0x42] {
            chip.accept(vector, false);
        }
        assert_eq!(chip.acknowledge(), Some(0x45));
        assert_eq!(chip.pending(), None, "0x42 has the same class");
        chip.accept(0x51, true);
        assert_eq!(chip.acknowledge(), Some(0x51));
        assert_eq!(chip.write(spec::END_OF_INTERRUPT, 0, 0), Effect::Ended(0x51));
        assert_eq!(chip.write(spec::END_OF_INTERRUPT, 0, 0), Effect::None);
        assert_eq!(chip.acknowledge(), Some(0x42));
    }

    #[test]
    fn the_task_priority_holds_back() {
        let mut chip = enabled();
        chip.accept(0x41, false);
        for (priority, pending) in [(0x40, None), (0x4f, None), (0x3f, Some(0x41))] {
            chip.write(spec::TASK_PRIORITY, priority, 0);
            assert_eq!(chip.pending(), pending, "{priority:#x}");
        }
    }

    #[test]
    fn the_timer_counts_by_mode() {
        // mode, divide, count; after, next
        for (mode, divide, count, next) in [
            (0, 0xb, 100, Some(100)),
            (0, 0x0, 100, Some(200)),
            (1, 0x3, 10, Some(160)),
            (0, 0xb, 0, None),
        ] {
            let mut chip = enabled();
            chip.write(spec::TIMER, mode << 17 | 0x40, 0);
            chip.write(spec::DIVIDE, divide, 0);
            chip.write(spec::INITIAL_COUNT, count, 0);
            assert_eq!(chip.next_ns(0), next, "mode {mode} divide {divide:#x}");
            if let Some(next) = next {
                chip.tick(next);
                assert_eq!(chip.pending(), Some(0x40));
                let again = if mode == 1 { Some(2 * next) } else { None };
                assert_eq!(chip.next_ns(next), again);
            }
        }
    }

    #[test]
    fn a_deadline_fires_once() {
        let mut chip = enabled();
        chip.write(spec::TIMER, 2 << 17 | 0x40, 0);
        chip.set_deadline(500);
        assert_eq!((chip.next_ns(0), chip.deadline()), (Some(500), 500));
        chip.tick(499);
        assert_eq!(chip.pending(), None);
        chip.tick(500);
        assert_eq!((chip.pending(), chip.deadline(), chip.next_ns(500)), (Some(0x40), 0, None));
    }

    #[test]
    fn addresses_by_mode() {
        let mut chip = Chip::new(3);
        chip.write(spec::LOGICAL_DESTINATION, 0x0400_0000, 0);
        for (destination, logical, expected) in [
            (3, false, true),
            (2, false, false),
            (0xff, false, true),
            (0x04, true, true),
            (0x03, true, false),
        ] {
            assert_eq!(chip.is_addressed(destination, logical), expected, "{destination:#x}");
        }
        chip.set_base(chip.base() | spec::BASE_X2APIC | spec::BASE_ENABLED);
        for (destination, logical, expected) in
            [(3, false, true), (8, true, true), (0x1_0008, true, false), (u32::MAX, false, true)]
        {
            assert_eq!(chip.is_addressed(destination, logical), expected, "x2 {destination:#x}");
        }
    }
}
