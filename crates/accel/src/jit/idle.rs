//! A guest that has been idle for long needs few of its translations: those of its boot are given
//! back, which is most of the code cache. What it does next is translated anew.

use std::fs;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use isa::x86::X86;
use jit::Engine;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(10);
/// So many looks in a row must find it idle.
const LOOKS: u32 = 3;
/// Hundredths of a second of processor time between two looks that are still idle.
const TICKS_MAX: u64 = 30;
/// Less is not worth it.
const BYTES_MIN: usize = 3 << 20;

/// Watches until the engine is gone.
pub fn watch(engine: &Arc<Engine<X86>>) -> std::io::Result<()> {
    let engine = Arc::downgrade(engine);
    thread::Builder::new().name("idle".to_owned()).spawn(move || look(&engine)).map(|_| ())
}

fn look(engine: &Weak<Engine<X86>>) {
    let (mut before, mut idle) = (0, 0);
    loop {
        thread::sleep(PAUSE);
        let Some(engine) = engine.upgrade() else { return };
        let now = fs::read_to_string("/proc/self/stat").ok().and_then(|text| ticks(&text));
        let Some(now) = now else { return };
        idle = if now - before <= TICKS_MAX { idle + 1 } else { 0 };
        before = now;
        if idle >= LOOKS && engine.used_bytes() > BYTES_MIN {
            engine.give_back();
        }
    }
}

/// Processor time of this process, by the kernel's account of it.
fn ticks(stat: &str) -> Option<u64> {
    // The name may hold anything, brackets too.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_read_behind_any_name() {
        let text = "1 (a) b) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0 20 0";
        assert_eq!(ticks(text), Some(42));
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(ticks(&own).is_some());
        assert_eq!(ticks("1 (a"), None);
    }
}
