//! The clock's registers: pure. The caller brings the time.

use super::calendar::Date;

/// Clock registers and battery-backed memory together.
pub const CMOS_BYTES: usize = 128;

const SECONDS: usize = 0x00;
const SECONDS_ALARM: usize = 0x01;
const MINUTES: usize = 0x02;
const MINUTES_ALARM: usize = 0x03;
const HOURS: usize = 0x04;
const HOURS_ALARM: usize = 0x05;
const WEEKDAY: usize = 0x06;
const DAY: usize = 0x07;
const MONTH: usize = 0x08;
const YEAR: usize = 0x09;
const A: usize = 0x0a;
const B: usize = 0x0b;
const C: usize = 0x0c; // reading it clears it
const D: usize = 0x0d;
/// Not the chip's: where the PC's firmware keeps the century.
const CENTURY: usize = 0x32;

const A_UPDATING: u8 = 0x80;
const A_DIVIDER: u8 = 0x70; // 2 lets the clock run
const B_HOLD: u8 = 0x80;
const B_BINARY: u8 = 0x04;
const B_24_HOURS: u8 = 0x02;
const INTERRUPT: u8 = 0x80;
const PERIODIC: u8 = 0x40;
const ALARM: u8 = 0x20;
const UPDATE_ENDED: u8 = 0x10;
const D_VALID: u8 = 0x80;
const PM: u8 = 0x80;
/// An alarm field with both high bits matches any value.
const ANY: u8 = 0xc0;

const NS_PER_S: i64 = 1_000_000_000;
/// The chip announces an update this long before it.
const UPDATE_NS: i64 = 244_000;
/// The time base of the periodic interrupt.
const BASE_HZ: i64 = 32_768;

/// The registers. Time runs by the host's clock with an offset that a guest's writes move.
#[derive(Clone, Debug)]
pub struct Rtc {
    memory: [u8; CMOS_BYTES],
    /// What to add to the caller's time to get the clock's.
    offset_ns: i64,
    /// The fields while the clock is held or stopped: a guest sets them one by one, and on the way
    /// they may show a 31 February.
    held: Option<Held>,
    /// Up to here, events have been seen.
    seen_ns: i64,
}

device::saved!(Rtc { memory, offset_ns, held, seen_ns });

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    date: Date,
    fraction_ns: i64,
}

device::saved!(Held { date, fraction_ns });

impl Rtc {
    /// A clock that shows the caller's time plus `offset_ns`.
    #[must_use]
    pub fn new(offset_ns: i64) -> Self {
        let mut memory = [0; CMOS_BYTES];
        memory[A] = 0x26;
        memory[B] = B_24_HOURS;
        memory[D] = D_VALID;
        Self { memory, offset_ns, held: None, seen_ns: 0 }
    }

    /// The reset line: interrupts go off, time and memory stay.
    pub fn reset(&mut self) {
        self.memory[B] &= !(PERIODIC | ALARM | UPDATE_ENDED | 0x08);
        self.memory[C] = 0;
    }

    /// Sets a byte of the memory, as the board's firmware interface needs it.
    pub fn set(&mut self, index: u8, value: u8) {
        self.memory[usize::from(index) % CMOS_BYTES] = value;
    }

    fn time_ns(&self, now_ns: i64) -> i64 {
        match self.held {
            Some(Held { date, fraction_ns }) => nanoseconds(date, fraction_ns),
            None => now_ns.saturating_add(self.offset_ns),
        }
    }

    fn date(&self, now_ns: i64) -> Held {
        let time_ns = self.time_ns(now_ns);
        let date = Date::from_unix(time_ns.div_euclid(NS_PER_S));
        self.held.unwrap_or(Held { date, fraction_ns: time_ns.rem_euclid(NS_PER_S) })
    }

    /// Reads a register or a byte of memory.
    pub fn read(&mut self, index: u8, now_ns: i64) -> u8 {
        let index = usize::from(index) % CMOS_BYTES;
        let time_ns = self.time_ns(now_ns);
        match index {
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY => {
                self.field(index, self.date(now_ns).date)
            }
            A => {
                let updating =
                    self.held.is_none() && time_ns.rem_euclid(NS_PER_S) >= NS_PER_S - UPDATE_NS;
                self.memory[A] | if updating { A_UPDATING } else { 0 }
            }
            C => {
                self.tick(now_ns);
                std::mem::take(&mut self.memory[C])
            }
            _ => self.memory[index],
        }
    }

    /// Writes a register or a byte of memory.
    pub fn write(&mut self, index: u8, value: u8, now_ns: i64) {
        let index = usize::from(index) % CMOS_BYTES;
        self.tick(now_ns);
        match index {
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY => {
                self.set_field(index, value, now_ns);
            }
            A | B => {
                self.memory[index] = if index == A { value & !A_UPDATING } else { value };
                let runs = self.memory[A] & A_DIVIDER == 0x20 && self.memory[B] & B_HOLD == 0;
                match (runs, self.held) {
                    (true, Some(_)) => {
                        self.seen_ns = self.time_ns(now_ns);
                        self.offset_ns = self.seen_ns.saturating_sub(now_ns);
                        self.held = None;
                    }
                    (false, None) => self.held = Some(self.date(now_ns)),
                    _ => {}
                }
            }
            C | D => {} // read-only
            _ => self.memory[index] = value,
        }
    }

    fn encode(&self, value: u32) -> u8 {
        let value = (value % 100) as u8;
        if self.memory[B] & B_BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(&self, value: u8) -> u32 {
        if self.memory[B] & B_BINARY != 0 {
            return u32::from(value);
        }
        u32::from(value >> 4) * 10 + u32::from(value & 15)
    }

    fn field(&self, index: usize, date: Date) -> u8 {
        match index {
            SECONDS => self.encode(date.second),
            MINUTES => self.encode(date.minute),
            HOURS if self.memory[B] & B_24_HOURS == 0 => {
                let half = if date.hour >= 12 { PM } else { 0 };
                self.encode((date.hour + 11) % 12 + 1) | half
            }
            HOURS => self.encode(date.hour),
            WEEKDAY => self.encode(date.weekday()),
            DAY => self.encode(date.day),
            MONTH => self.encode(date.month),
            YEAR => self.encode(date.year % 100),
            _ => self.encode(date.year / 100),
        }
    }

    fn set_field(&mut self, index: usize, value: u8, now_ns: i64) {
        let Held { mut date, fraction_ns } = self.date(now_ns);
        let number = self.decode(if index == HOURS { value & !PM } else { value });
        match index {
            SECONDS => date.second = number,
            MINUTES => date.minute = number,
            HOURS if self.memory[B] & B_24_HOURS == 0 => {
                date.hour = number % 12 + if value & PM != 0 { 12 } else { 0 };
            }
            HOURS => date.hour = number,
            DAY => date.day = number,
            MONTH => date.month = number,
            YEAR => date.year = date.year / 100 * 100 + number % 100,
            CENTURY => date.year = number * 100 + date.year % 100,
            _ => return, // the day of the week follows from the date
        }
        match &mut self.held {
            Some(held) => held.date = date,
            None => {
                self.seen_ns = nanoseconds(date, fraction_ns);
                self.offset_ns = self.seen_ns.saturating_sub(now_ns);
            }
        }
    }

    /// Sees what has happened since the last call.
    pub fn tick(&mut self, now_ns: i64) {
        if self.held.is_some() {
            return;
        }
        let time_ns = self.time_ns(now_ns);
        let seen_ns = std::mem::replace(&mut self.seen_ns, time_ns);
        if let Some(period_ns) = self.period_ns()
            && time_ns.div_euclid(period_ns) > seen_ns.div_euclid(period_ns)
        {
            self.memory[C] |= PERIODIC;
        }
        let (second, seen_second) = (time_ns.div_euclid(NS_PER_S), seen_ns.div_euclid(NS_PER_S));
        if second > seen_second {
            self.memory[C] |= UPDATE_ENDED;
            // A day has every alarm in it, so no longer span needs a look.
            let first = seen_second.max(second - 86_400) + 1;
            if (first..=second).any(|second| self.alarm_at(second)) {
                self.memory[C] |= ALARM;
            }
        }
        if self.memory[C] & self.memory[B] & (PERIODIC | ALARM | UPDATE_ENDED) != 0 {
            self.memory[C] |= INTERRUPT;
        }
    }

    fn alarm_at(&self, second: i64) -> bool {
        let date = Date::from_unix(second);
        [(SECONDS_ALARM, SECONDS), (MINUTES_ALARM, MINUTES), (HOURS_ALARM, HOURS)].into_iter().all(
            |(alarm, field)| {
                let alarm = self.memory[alarm];
                alarm & ANY == ANY || alarm == self.field(field, date)
            },
        )
    }

    fn period_ns(&self) -> Option<i64> {
        let rate = match self.memory[A] & 15 {
            0 => return None,
            rate @ (1 | 2) => rate + 7, // the data sheet repeats two rates there
            rate => rate,
        };
        Some((NS_PER_S << (rate - 1)) / BASE_HZ)
    }

    /// The interrupt line.
    #[must_use]
    pub fn irq(&self) -> bool {
        self.memory[C] & INTERRUPT != 0
    }

    /// When the registers next need a [`Rtc::tick`], in the caller's time, if an interrupt is on.
    #[must_use]
    pub fn next_ns(&self, now_ns: i64) -> Option<i64> {
        if self.held.is_some() {
            return None;
        }
        let time_ns = self.time_ns(now_ns);
        let after = |period_ns: i64| (time_ns.div_euclid(period_ns) + 1).saturating_mul(period_ns);
        let enabled = self.memory[B];
        let periodic = self.period_ns().filter(|_| enabled & PERIODIC != 0).map(after);
        let second = (enabled & (ALARM | UPDATE_ENDED) != 0).then(|| after(NS_PER_S));
        let next = periodic.into_iter().chain(second).min()?;
        Some(now_ns.saturating_add(next - time_ns))
    }
}

/// A date in nanoseconds. Registers can hold years whose nanoseconds no number can; the clock then
/// stands at the last one that it can count on from.
fn nanoseconds(date: Date, fraction_ns: i64) -> i64 {
    const SECONDS_MAX: i64 = 9_000_000_000;
    date.to_unix().clamp(-SECONDS_MAX, SECONDS_MAX) * NS_PER_S + fraction_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON_2024: i64 = 1_709_208_000; // Thursday, 29 February 2024, 12:00:00 UTC

    fn at(seconds: i64) -> i64 {
        seconds * NS_PER_S
    }

    #[test]
    fn the_time_is_shown_in_every_format() {
        for (b, hours, minutes) in
            [(0x02, 0x13, 0x05), (0x06, 13, 5), (0x00, 0x81, 0x05), (0x04, 0x81, 5)]
        {
            let mut rtc = Rtc::new(at(3900));
            rtc.write(B as u8, b, at(NOON_2024));
            let read = |rtc: &mut Rtc, index: usize| rtc.read(index as u8, at(NOON_2024));
            assert_eq!(
                (read(&mut rtc, HOURS), read(&mut rtc, MINUTES)),
                (hours, minutes),
                "{b:#x}"
            );
        }
    }

    #[test]
    fn a_time_that_was_set_goes_on() {
        let mut rtc = Rtc::new(0);
        rtc.write(A as u8, 0x26, at(NOON_2024));
        rtc.write(B as u8, B_HOLD | B_24_HOURS, at(NOON_2024));
        for (index, value) in [
            (SECONDS, 0x58),
            (MINUTES, 0x59),
            (HOURS, 0x23),
            (DAY, 0x31),
            (MONTH, 0x12),
            (YEAR, 0x99),
        ] {
            rtc.write(index as u8, value, at(NOON_2024 + 5));
        }
        rtc.write(CENTURY as u8, 0x19, at(NOON_2024 + 5));
        rtc.write(B as u8, B_24_HOURS, at(NOON_2024 + 10));
        let later = at(NOON_2024 + 13);
        let shown =
            [SECONDS, HOURS, DAY, MONTH, YEAR, CENTURY].map(|index| rtc.read(index as u8, later));
        assert_eq!(shown, [0x01, 0x00, 0x01, 0x01, 0x00, 0x20]);
    }

    #[test]
    fn the_alarm_rings_and_reading_c_silences_it() {
        let mut rtc = Rtc::new(0);
        rtc.tick(at(NOON_2024));
        rtc.read(C as u8, at(NOON_2024));
        for (index, value) in [(SECONDS_ALARM, 0x02), (MINUTES_ALARM, 0xff), (HOURS_ALARM, 0xff)] {
            rtc.write(index as u8, value, at(NOON_2024));
        }
        rtc.write(B as u8, B_24_HOURS | ALARM, at(NOON_2024));
        assert_eq!(rtc.next_ns(at(NOON_2024)), Some(at(NOON_2024 + 1)));
        rtc.tick(at(NOON_2024 + 1));
        assert!(!rtc.irq());
        rtc.tick(at(NOON_2024 + 2));
        assert!(rtc.irq());
        let flags = INTERRUPT | PERIODIC | ALARM | UPDATE_ENDED;
        assert_eq!(rtc.read(C as u8, at(NOON_2024 + 2)), flags);
        assert!(!rtc.irq());
    }

    #[test]
    fn the_periodic_interrupt_has_the_rate_of_register_a() {
        for (a, period_ns) in [(0x26, 976_562), (0x2f, 500_000_000), (0x21, 3_906_250)] {
            let mut rtc = Rtc::new(0);
            rtc.write(A as u8, a, 0);
            rtc.write(B as u8, PERIODIC, 0);
            assert_eq!(rtc.next_ns(0), Some(period_ns), "{a:#x}");
        }
    }
}
