//! Ports for those who debug firmware and test guests.
//!
//! `-device isa-debugcon,iobase=0x402,chardev=NAME` writes what the guest writes, `-device
//! isa-debug-exit,iobase=0x501` ends the process.

use std::sync::Arc;

use device::{
    DefaultValue, Device, Fields, Io, Power, Property, PropertyKind, StateError, Stream, ones,
};

use crate::catalog::{BuildError, Built, BusKind, Category, Isa, Model, Request, declare};

/// A port whose bytes go to the host. Reading gives the value by which firmware detects it.
pub struct DebugConsole {
    stream: Arc<dyn Stream>,
    present: u64,
}

impl DebugConsole {
    /// A console into `stream`; the port reads as `present`.
    #[must_use]
    pub fn new(stream: Arc<dyn Stream>, present: u8) -> Self {
        Self { stream, present: u64::from(present) }
    }
}

impl Io for DebugConsole {
    fn read(&self, _offset: u64, size: u8) -> u64 {
        (ones(size) & !0xff) | self.present
    }

    fn write(&self, _offset: u64, _size: u8, value: u64) {
        // What the stream does not take now is lost: there is no way to tell the guest to wait.
        _ = self.stream.write(&[value as u8]);
    }
}

impl Device for DebugConsole {
    fn reset(&self) {}

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        _ = fields; // there is nothing to know
        Ok(())
    }
}

/// Ends the machine with an exit code of the guest's choice: `value * 2 + 1`, so never 0.
pub struct DebugExit(Arc<dyn Power>);

impl DebugExit {
    /// Ends this machine.
    #[must_use]
    pub fn new(power: Arc<dyn Power>) -> Self {
        Self(power)
    }
}

impl Io for DebugExit {
    fn read(&self, _offset: u64, _size: u8) -> u64 {
        0
    }

    fn write(&self, _offset: u64, _size: u8, value: u64) {
        self.0.exit((value as u8) << 1 | 1);
    }
}

impl Device for DebugExit {
    fn reset(&self) {}

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        _ = fields; // there is nothing to know
        Ok(())
    }
}

/// The first port, and how many.
fn range(request: &Request<'_>) -> (u64, u64) {
    let number = |name| request.properties.unsigned(name).unwrap_or(1);
    (number("iobase"), number("iosize").clamp(1, 8))
}

fn build_console(request: &Request<'_>) -> Result<Built, BuildError> {
    let backends = &request.surroundings.backends;
    let stream = backends.streams.claim(request.id, request.properties, "chardev")?;
    let stream = stream.ok_or(BuildError::Missing { property: "chardev".to_owned() })?;
    let present = request.properties.unsigned("readback").unwrap_or(0xe9) as u8;
    let console = Arc::new(DebugConsole::new(stream, present));
    let ports = vec![(range(request).0, 1, Arc::clone(&console) as Arc<dyn Io>)];
    Ok(Built::isa(console, Isa { ports, ..Isa::default() }))
}

fn build_exit(request: &Request<'_>) -> Result<Built, BuildError> {
    let exit = Arc::new(DebugExit::new(Arc::clone(&request.surroundings.power)));
    let (start, length) = range(request);
    let ports = vec![(start, length, Arc::clone(&exit) as Arc<dyn Io>)];
    Ok(Built::isa(exit, Isa { ports, ..Isa::default() }))
}

const CONSOLE: &[Property] = &[
    declare("iobase", PropertyKind::Unsigned(32), Some(DefaultValue::Unsigned(0xe9))),
    declare("chardev", PropertyKind::Stream, None),
    declare("readback", PropertyKind::Unsigned(32), Some(DefaultValue::Unsigned(0xe9))),
];

const EXIT: &[Property] = &[
    declare("iobase", PropertyKind::Unsigned(32), Some(DefaultValue::Unsigned(0x501))),
    declare("iosize", PropertyKind::Unsigned(32), Some(DefaultValue::Unsigned(2))),
];

/// The ports' rows.
pub const MODELS: &[Model] = &[
    Model {
        name: "isa-debugcon",
        description: "",
        category: Category::Other,
        bus: BusKind::Isa,
        offers: None,
        properties: &[CONSOLE],
        state_version: 1,
        build: build_console,
    },
    Model {
        name: "isa-debug-exit",
        description: "",
        category: Category::Other,
        bus: BusKind::Isa,
        offers: None,
        properties: &[EXIT],
        state_version: 1,
        build: build_exit,
    },
];

#[cfg(test)]
mod tests {
    use std::sync::Weak;
    use std::sync::atomic::{AtomicU8, Ordering};

    use device::StreamPeer;
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Written(Mutex<Vec<u8>>, AtomicU8);

    impl Stream for Written {
        fn write(&self, bytes: &[u8]) -> usize {
            self.0.lock().extend(bytes);
            bytes.len()
        }

        fn attach(&self, _peer: Weak<dyn StreamPeer>) {}
    }

    impl Power for Written {
        fn reset(&self) {}

        fn off(&self) {}

        fn exit(&self, code: u8) {
            self.1.store(code, Ordering::Relaxed);
        }

        fn stop(&self) {}

        fn unplugged(&self) {}
    }

    #[test]
    fn the_console_is_there_and_its_bytes_arrive() {
        let written = Arc::new(Written::default());
        let console = DebugConsole::new(Arc::clone(&written) as Arc<dyn Stream>, 0xe9);
        assert_eq!(console.read(0, 1), 0xe9);
        b"ok".iter().for_each(|byte| console.write(0, 1, u64::from(*byte)));
        assert_eq!(*written.0.lock(), b"ok");
    }

    #[test]
    fn the_exit_code_is_odd() {
        let power = Arc::new(Written::default());
        DebugExit::new(Arc::clone(&power) as Arc<dyn Power>).write(0, 4, 0x10);
        assert_eq!(power.1.load(Ordering::Relaxed), 0x21);
    }
}
