//! Ports for those who debug firmware and test guests: `-device isa-debugcon,iobase=0x402,chardev=..`
//! writes what the guest writes, `-device isa-debug-exit,iobase=0x501` ends the process.

use device::{Io, ones};

/// Takes the bytes of a debug console. A leaf: it never calls back.
pub trait ByteSink: Send + Sync {
    /// One more byte.
    fn put(&self, byte: u8);
}

/// A port whose bytes go to the host. Reading gives the value by which firmware detects it.
pub struct DebugConsole<S> {
    sink: S,
}

/// What SeaBIOS and OVMF look for at port 0x402.
const PRESENT: u64 = 0xe9;

impl<S: ByteSink> DebugConsole<S> {
    /// A console into `sink`.
    pub fn new(sink: S) -> Self {
        Self { sink }
    }
}

impl<S: ByteSink> Io for DebugConsole<S> {
    fn read(&self, _offset: u64, size: u8) -> u64 {
        (ones(size) & !0xff) | PRESENT
    }

    fn write(&self, _offset: u64, _size: u8, value: u64) {
        self.sink.put(value as u8);
    }
}

/// Ends the machine with an exit code of the guest's choice: `value * 2 + 1`, so never 0.
pub struct DebugExit<F> {
    exit: F,
}

impl<F: Fn(u8) + Send + Sync> DebugExit<F> {
    /// Calls `exit` with the process's exit code.
    pub fn new(exit: F) -> Self {
        Self { exit }
    }
}

impl<F: Fn(u8) + Send + Sync> Io for DebugExit<F> {
    fn read(&self, _offset: u64, _size: u8) -> u64 {
        0
    }

    fn write(&self, _offset: u64, _size: u8, value: u64) {
        (self.exit)((value as u8) << 1 | 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    #[test]
    fn the_exit_code_is_odd() {
        for (value, code) in [(0, 1), (1, 3), (0x31, 0x63), (0xff, 0xff)] {
            let seen = AtomicU8::new(0);
            let exit = DebugExit::new(|code| seen.store(code, Ordering::Relaxed));
            exit.write(0, 4, value);
            assert_eq!(seen.load(Ordering::Relaxed), code);
        }
    }
}
