//! The counter and its comparators: pure but for the time.

/// Comparators.
pub const TIMERS: usize = 3;
/// Nanoseconds of a tick.
const TICK_NS: u64 = 10;
const TICK_FEMTOSECONDS: u64 = 10_000_000;

const ENABLE: u64 = 1;
const LEGACY: u64 = 2;

const LEVEL: u64 = 1 << 1;
const INTERRUPT: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const CAN_PERIODIC: u64 = 1 << 4;
const CAN_64: u64 = 1 << 5;
const SET_VALUE: u64 = 1 << 6;
const ONLY_32: u64 = 1 << 8;
const WRITABLE: u64 = 0x3f4e;

/// The fewest ticks between two interrupts of a periodic timer: 100 us, as no guest needs more,
/// and a smaller one would be a way to hold the main loop.
const PERIOD_MIN: u64 = 100_000 / TICK_NS;

#[derive(Clone, Copy, Debug, Default)]
struct Comparator {
    config: u64,
    value: u64,
    period: u64,
    /// The counter at which it was last looked at.
    seen: u64,
}

device::saved!(Comparator { config, value, period, seen });

/// The registers.
#[derive(Clone, Debug)]
pub struct Chip {
    config: u64,
    status: u64,
    /// The counter while it stands; what it was at `since_ns` while it runs.
    counter: u64,
    since_ns: u64,
    timers: [Comparator; TIMERS],
    /// I/O APIC inputs that can be chosen.
    routes: u32,
}

device::saved!(Chip { config, status, counter, since_ns, timers });

/// A comparator's interrupt: the input (in legacy mode of timers 0 and 1: none), and whether it
/// is an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Which comparator.
    pub timer: usize,
    /// The line: an old one in legacy mode, otherwise an input of the I/O APIC.
    pub line: u32,
    /// By the old lines.
    pub legacy: bool,
    /// The line stays up until it is acknowledged.
    pub level: bool,
}

impl Chip {
    /// As after power-on.
    #[must_use]
    pub fn new(routes: u32) -> Self {
        let timer = |number| Comparator {
            config: timer_capabilities(number),
            value: u64::MAX,
            ..Comparator::default()
        };
        Self {
            config: 0,
            status: 0,
            counter: 0,
            since_ns: 0,
            timers: std::array::from_fn(timer),
            routes,
        }
    }

    /// Whether timers 0 and 1 stand for the old timer and the clock.
    #[must_use]
    pub fn replaces_old(&self) -> bool {
        self.config & LEGACY != 0
    }

    fn count(&self, now_ns: u64) -> u64 {
        if self.config & ENABLE == 0 {
            return self.counter;
        }
        self.counter.wrapping_add(now_ns.saturating_sub(self.since_ns) / TICK_NS)
    }

    /// Reads a whole register.
    #[must_use]
    pub fn read(&self, offset: u64, now_ns: u64) -> u64 {
        match offset & !7 {
            0x00 => TICK_FEMTOSECONDS << 32 | 0x8086_0000 | 0xa000 | (TIMERS as u64 - 1) << 8 | 1,
            0x10 => self.config,
            0x20 => self.status,
            0xf0 => self.count(now_ns),
            at => {
                let Some((timer, register)) = self.timer(at) else { return 0 };
                match register {
                    0 => timer.config | u64::from(self.routes) << 32,
                    8 => timer.value,
                    _ => 0,
                }
            }
        }
    }

    fn timer(&self, at: u64) -> Option<(&Comparator, u64)> {
        let at = at.checked_sub(0x100)?;
        Some((self.timers.get((at / 0x20) as usize)?, at % 0x20))
    }

    /// Writes the bits of `mask` of a register.
    pub fn write(&mut self, offset: u64, mask: u64, value: u64, now_ns: u64) {
        let mix = |now: u64| now & !mask | value & mask;
        match offset & !7 {
            0x10 => {
                self.counter = self.count(now_ns);
                self.since_ns = now_ns;
                self.config = mix(self.config) & (ENABLE | LEGACY);
                let counter = self.counter;
                self.timers.iter_mut().for_each(|timer| timer.seen = counter);
            }
            0x20 => self.status &= !(value & mask),
            0xf0 if self.config & ENABLE == 0 => {
                self.counter = mix(self.counter);
                let counter = self.counter;
                self.timers.iter_mut().for_each(|timer| timer.seen = counter);
            }
            at => {
                let count = self.count(now_ns);
                let Some(at) = at.checked_sub(0x100) else { return };
                let number = (at / 0x20) as usize;
                let Some(timer) = self.timers.get_mut(number) else { return };
                timer.write(at % 0x20, mask, value, timer_capabilities(number));
                timer.seen = count;
                if timer.config & LEVEL == 0 {
                    self.status &= !(1 << number);
                }
            }
        }
    }

    /// When the next comparator matches.
    #[must_use]
    pub fn next_ns(&self, now_ns: u64) -> Option<u64> {
        if self.config & ENABLE == 0 {
            return None;
        }
        let count = self.count(now_ns);
        let next = |timer: &Comparator| {
            let ticks = timer.ticks_to_match(count)?;
            Some(now_ns.saturating_add(ticks.saturating_mul(TICK_NS)))
        };
        self.timers.iter().filter_map(next).min()
    }

    /// The comparators that have matched since the last look.
    pub fn take_fired(&mut self, now_ns: u64) -> Vec<Fired> {
        let mut fired = Vec::new();
        if self.config & ENABLE == 0 {
            return fired;
        }
        let count = self.count(now_ns);
        let legacy = self.replaces_old();
        for (number, timer) in self.timers.iter_mut().enumerate() {
            if !timer.has_matched(count) {
                continue;
            }
            let level = timer.config & LEVEL != 0;
            if level {
                self.status |= 1 << number;
            }
            if timer.config & INTERRUPT == 0 {
                continue;
            }
            let legacy = legacy && number < 2;
            let route = (timer.config >> 9 & 31) as u32;
            let line = match (legacy, number) {
                (true, 0) => 0,
                (true, _) => 8,
                (false, _) => route,
            };
            if legacy || self.routes.checked_shr(line).is_some_and(|routes| routes & 1 != 0) {
                fired.push(Fired { timer: number, line, legacy, level });
            }
        }
        fired
    }

    /// Comparators whose level-triggered interrupt is acknowledged.
    #[must_use]
    pub fn asserts(&self, timer: usize) -> bool {
        self.status >> timer & 1 != 0
    }
}

fn timer_capabilities(number: usize) -> u64 {
    CAN_64 | if number == 0 { CAN_PERIODIC } else { 0 }
}

impl Comparator {
    fn width_mask(&self) -> u64 {
        if self.config & ONLY_32 != 0 { 0xffff_ffff } else { u64::MAX }
    }

    fn is_periodic(&self) -> bool {
        self.config & PERIODIC != 0
    }

    fn write(&mut self, register: u64, mask: u64, value: u64, capabilities: u64) {
        match register {
            0 => {
                let mut config = (self.config & !mask | value & mask) & WRITABLE;
                if capabilities & CAN_PERIODIC == 0 {
                    config &= !PERIODIC;
                }
                self.config = config | capabilities;
            }
            8 => {
                let width = self.width_mask();
                if !self.is_periodic() || self.config & SET_VALUE != 0 {
                    self.value = (self.value & !mask | value & mask) & width;
                }
                if self.is_periodic() {
                    self.period = (self.period & !mask | value & mask) & width;
                }
                self.config &= !SET_VALUE;
            }
            _ => {}
        }
    }

    /// Ticks until the counter meets the comparator; none for one that is of no consequence.
    fn ticks_to_match(&self, count: u64) -> Option<u64> {
        if self.config & INTERRUPT == 0 && self.config & LEVEL == 0 {
            return None;
        }
        let width = self.width_mask();
        let distance = self.value.wrapping_sub(self.seen) & width;
        let passed = count.wrapping_sub(self.seen);
        let distance = if distance == 0 { width } else { distance };
        Some(distance.saturating_sub(passed))
    }

    /// Whether the counter has met the comparator since the last look; a periodic one goes on.
    fn has_matched(&mut self, count: u64) -> bool {
        let matched = self.ticks_to_match(count) == Some(0);
        if matched && self.is_periodic() && self.period > 0 {
            let width = self.width_mask();
            let period = self.period.max(PERIOD_MIN);
            let behind = count.wrapping_sub(self.value) & width;
            let steps = behind / period + 1;
            self.value = self.value.wrapping_add(steps.wrapping_mul(period)) & width;
        }
        if matched {
            self.seen = count;
        }
        matched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = u64::MAX;

    fn enabled(config: u64) -> Chip {
        let mut chip = Chip::new(0xff_0104);
        chip.write(0x10, ALL, ENABLE | config, 0);
        chip
    }

    #[test]
    fn the_counter_runs_while_it_is_enabled() {
        let mut chip = Chip::new(4);
        assert_eq!(chip.read(0xf0, 1000), 0);
        chip.write(0x10, ALL, ENABLE, 1000);
        assert_eq!(chip.read(0xf0, 2000), 100);
        chip.write(0x10, ALL, 0, 3000);
        assert_eq!(chip.read(0xf0, 9000), 200);
        assert_eq!(chip.read(0, 0) >> 32, TICK_FEMTOSECONDS);
    }

    #[test]
    fn a_single_shot_fires_once_by_its_route() {
        let mut chip = enabled(0);
        chip.write(0x120, ALL, INTERRUPT | 20 << 9, 0);
        chip.write(0x128, ALL, 1000, 0);
        assert_eq!(chip.next_ns(0), Some(10_000));
        assert_eq!(chip.take_fired(9_990), []);
        let fired = Fired { timer: 1, line: 20, legacy: false, level: false };
        assert_eq!(chip.take_fired(10_000), [fired]);
        assert_eq!(chip.take_fired(20_000), []);
    }

    #[test]
    fn a_periodic_timer_stands_for_the_old_one() {
        let mut chip = enabled(LEGACY);
        chip.write(0x100, ALL, INTERRUPT | PERIODIC | SET_VALUE, 0);
        chip.write(0x108, ALL, 100_000, 0);
        chip.write(0x108, ALL, 100_000, 0);
        let fired = Fired { timer: 0, line: 0, legacy: true, level: false };
        for at in [1_000_000, 2_000_000, 3_000_000] {
            assert_eq!(chip.next_ns(at - 1_000_000), Some(at));
            assert_eq!(chip.take_fired(at), [fired]);
        }
        assert_eq!(chip.take_fired(10_000_000), [fired], "what was missed is one");
        assert_eq!(chip.next_ns(10_000_000), Some(11_000_000));
    }

    #[test]
    fn a_level_stays_until_it_is_acknowledged() {
        let mut chip = enabled(0);
        chip.write(0x100, ALL, INTERRUPT | LEVEL | 2 << 9, 0);
        chip.write(0x108, ALL, 10, 0);
        assert_eq!(chip.take_fired(200).len(), 1);
        assert!(chip.asserts(0));
        chip.write(0x20, ALL, 1, 300);
        assert!(!chip.asserts(0));
    }

    #[test]
    fn random_accesses_end() {
        let mut chip = Chip::new(0xff_0104);
        let (mut seed, mut now) = (9_u64, 0);
        for _ in 0..50_000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            chip.write(seed >> 54, seed.rotate_left(20) | 0xff, seed.rotate_left(40), now);
            _ = chip.read(seed >> 44 & 0x3ff, now);
            _ = chip.next_ns(now);
            assert!(chip.take_fired(now).len() <= TIMERS);
            now += seed >> 40;
        }
    }
}
