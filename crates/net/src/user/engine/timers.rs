//! When something is to be looked at again.

use std::collections::BTreeSet;
use std::time::Instant;

use super::arena::Id;

/// What is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A TCP connection.
    Tcp(Id),
    /// A UDP association.
    Udp(Id),
    /// A ping association.
    Ping(Id),
    /// A file transfer.
    Tftp(Id),
    /// Half-collected datagrams.
    Fragments,
    /// The next router advertisement.
    Advertisement,
}

/// An alarm that rings in a [`Timers`]. It is set lazily: moving it later costs nothing, it is
/// then looked at once too often.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alarm {
    due: Option<Instant>,
    set: Option<Instant>,
}

/// All alarms that are set.
#[derive(Debug, Default)]
pub struct Timers {
    set: BTreeSet<(Instant, Key)>,
}

impl Timers {
    /// Lets the alarm ring at `due`, or not at all.
    pub fn set(&mut self, key: Key, alarm: &mut Alarm, due: Option<Instant>) {
        alarm.due = due;
        let Some(due) = due else { return };
        match alarm.set {
            Some(set) if set <= due => {}
            earlier => {
                if let Some(set) = earlier {
                    self.set.remove(&(set, key));
                }
                self.set.insert((due, key));
                alarm.set = Some(due);
            }
        }
    }

    /// Takes an alarm out for good.
    pub fn cancel(&mut self, key: Key, alarm: &mut Alarm) {
        alarm.due = None;
        if let Some(set) = alarm.set.take() {
            self.set.remove(&(set, key));
        }
    }

    /// When to call [`next`](Self::next).
    pub fn deadline(&self) -> Option<Instant> {
        self.set.first().map(|(when, _)| *when)
    }

    /// The next alarm whose time has come; ask it whether it [`rings`](Self::rings).
    pub fn next(&mut self, now: Instant) -> Option<Key> {
        self.set.first().filter(|(when, _)| *when <= now)?;
        self.set.pop_first().map(|(_, key)| key)
    }

    /// Whether an alarm that [`next`](Self::next) gave is really due; otherwise it is set again.
    pub fn rings(&mut self, key: Key, alarm: &mut Alarm, now: Instant) -> bool {
        alarm.set = None;
        match alarm.due {
            Some(due) if due <= now => {
                alarm.due = None;
                true
            }
            due => {
                self.set(key, alarm, due);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn alarm_moved_later_rings_later_and_leaves_nothing_behind() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut timers, mut alarm) = (Timers::default(), Alarm::default());
        timers.set(Key::Fragments, &mut alarm, Some(at(1)));
        timers.set(Key::Fragments, &mut alarm, Some(at(5)));
        assert_eq!(timers.next(at(2)), Some(Key::Fragments));
        assert!(!timers.rings(Key::Fragments, &mut alarm, at(2)));
        assert_eq!(timers.deadline(), Some(at(5)));
        timers.set(Key::Fragments, &mut alarm, Some(at(3)));
        assert_eq!(timers.set.len(), 1);
        assert_eq!(timers.next(at(3)), Some(Key::Fragments));
        assert!(timers.rings(Key::Fragments, &mut alarm, at(3)));
        assert_eq!(timers.deadline(), None);
    }
}
