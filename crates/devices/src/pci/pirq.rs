//! The interrupt router of PIIX3 and ICH9: PCI's wires to the old interrupt lines.

use std::sync::Arc;

use device::{IrqLine, IrqSink};
use parking_lot::Mutex;

/// Route register: not routed.
const OFF: u8 = 0x80;
/// Lines that can be chosen: not timer, keyboard, cascade, clock, FPU.
const ROUTABLE: u16 = 0b1101_1110_1111_1000;

struct State {
    levels: [bool; 8],
    routes: [u8; 8],
}

/// Where the old lines are told what PCI asserts on them.
pub trait OldLines: Send + Sync {
    /// PCI's share of the line has this level. A leaf: it never calls back.
    fn set_pci_level(&self, line: u32, level: bool);
}

/// The router.
pub struct PirqRouter {
    state: Mutex<State>,
    lines: Arc<dyn OldLines>,
    /// Where an input goes besides, whatever its route: an I/O APIC's pins.
    direct: Vec<IrqLine>,
}

impl PirqRouter {
    /// A router to these lines; inputs also go to `direct`, one each.
    pub fn new(lines: Arc<dyn OldLines>, direct: Vec<IrqLine>) -> Arc<Self> {
        let state = State { levels: [false; 8], routes: [OFF; 8] };
        Arc::new(Self { state: Mutex::new(state), lines, direct })
    }

    /// The route registers have these values.
    pub fn set_routes(&self, routes: [u8; 8]) {
        let mut state = self.state.lock();
        let before = state.asserted();
        state.routes = routes;
        self.publish(before, state.asserted());
    }

    fn publish(&self, before: u16, after: u16) {
        for line in 0..16 {
            let level = after >> line & 1 != 0;
            if (before ^ after) >> line & 1 != 0 {
                self.lines.set_pci_level(line, level);
            }
        }
    }
}

impl State {
    fn asserted(&self) -> u16 {
        let line = |(level, route): (&bool, &u8)| {
            let bit = 1 << (route & 15);
            if *level && route & OFF == 0 { bit & ROUTABLE } else { 0 }
        };
        self.levels.iter().zip(&self.routes).map(line).fold(0, |all, line| all | line)
    }
}

impl IrqSink for PirqRouter {
    fn set_level(&self, pin: u32, level: bool) {
        let mut state = self.state.lock();
        let before = state.asserted();
        let Some(now) = state.levels.get_mut(pin as usize) else { return };
        *now = level;
        self.publish(before, state.asserted());
        if let Some(line) = self.direct.get(pin as usize) {
            line.set_level(level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Mutex<Vec<(u32, bool)>>);

    impl OldLines for Seen {
        fn set_pci_level(&self, line: u32, level: bool) {
            self.0.lock().push((line, level));
        }
    }

    #[test]
    fn inputs_share_a_line_and_follow_their_route() {
        let seen = Arc::new(Seen::default());
        let router = PirqRouter::new(Arc::clone(&seen) as Arc<dyn OldLines>, Vec::new());
        router.set_level(0, true);
        router.set_routes([11, 11, OFF, OFF, OFF, OFF, OFF, 0]);
        router.set_level(1, true);
        router.set_level(0, false);
        router.set_routes([10, 10, OFF, OFF, OFF, OFF, OFF, 0]);
        router.set_level(7, true);
        let steps = std::mem::take(&mut *seen.0.lock());
        assert_eq!(steps, [(11, true), (10, true), (11, false)], "line 0 is no route");
    }
}
