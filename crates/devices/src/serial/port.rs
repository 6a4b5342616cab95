//! The eight ports, the interrupt, and the way to the host.

use std::sync::Arc;

use device::{Device, Io, IrqLine, ones};
use parking_lot::Mutex;

use super::uart::Uart;

/// Where bytes of the guest go. A leaf: it never calls back.
pub trait Output: Send + Sync {
    /// One byte the guest has sent.
    fn send(&self, byte: u8);

    /// The guest has taken input, so there is room for more.
    fn room(&self) {}
}

/// A serial port: a [`Uart`] with its interrupt and its peer.
///
/// Lock order: `uart`, then `irq`, which is a leaf; `output` is called without it.
pub struct SerialPort {
    irq: IrqLine,
    output: Arc<dyn Output>,
    uart: Mutex<Uart>,
}

impl SerialPort {
    /// A port that interrupts on `irq` and sends to `output`.
    pub fn new(irq: IrqLine, output: Arc<dyn Output>) -> Arc<Self> {
        Arc::new(Self { irq, output, uart: Mutex::default() })
    }

    /// How many bytes [`SerialPort::receive`] takes now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.uart.lock().room()
    }

    /// Bytes come in from the peer. What there is no room for is lost, as on a real line.
    pub fn receive(&self, bytes: &[u8]) {
        self.access(|uart| bytes.iter().for_each(|byte| uart.receive(*byte)));
    }

    fn access<T>(&self, access: impl FnOnce(&mut Uart) -> T) -> T {
        let mut uart = self.uart.lock();
        let room = uart.room();
        let result = access(&mut uart);
        // Still under the lock, or two vCPUs could publish their levels in the wrong order.
        self.irq.set_level(uart.irq());
        let has_more_room = uart.room() > room;
        drop(uart);
        // Not only reading makes room: a driver may clear the FIFO, or switch it on.
        if has_more_room {
            self.output.room();
        }
        result
    }
}

impl Device for SerialPort {
    fn reset(&self) {
        self.access(|uart| *uart = Uart::default());
    }
}

impl Io for SerialPort {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let value = self.access(|uart| uart.read(offset & 7));
        (ones(size) & !0xff) | u64::from(value)
    }

    fn write(&self, offset: u64, _size: u8, value: u64) {
        if let Some(byte) = self.access(|uart| uart.write(offset & 7, value as u8)) {
            self.output.send(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use device::{IrqSink, RecordedIrq};

    use super::*;
    use crate::serial::spec;

    #[derive(Default)]
    struct Sent(Mutex<Vec<u8>>, AtomicUsize);

    impl Output for Sent {
        fn send(&self, byte: u8) {
            self.0.lock().push(byte);
        }

        fn room(&self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_waits_for_room_hears_of_a_cleared_fifo() {
        let sent = Arc::new(Sent::default());
        let port = SerialPort::new(IrqLine::unconnected(), Arc::clone(&sent) as Arc<dyn Output>);
        port.receive(b"a");
        assert_eq!((port.room(), sent.1.load(Ordering::Relaxed)), (0, 0));
        port.write(spec::INTERRUPT_IDENTIFY, 1, 7);
        assert_eq!((port.room(), sent.1.load(Ordering::Relaxed)), (16, 1));
        port.receive(b"bc");
        port.read(spec::DATA, 1);
        assert_eq!(sent.1.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn input_interrupts_and_output_arrives() {
        let (recorded, sent) = (Arc::new(RecordedIrq::default()), Arc::new(Sent::default()));
        let irq = IrqLine::new(Arc::clone(&recorded) as Arc<dyn IrqSink>, 4);
        let port = SerialPort::new(irq, Arc::clone(&sent) as Arc<dyn Output>);
        port.write(spec::INTERRUPT_ENABLE, 1, 1);
        port.receive(b"a");
        assert_eq!(recorded.take().last(), Some(&(4, true)));
        assert_eq!(port.read(spec::DATA, 1), u64::from(b'a'));
        assert_eq!(recorded.take().last(), Some(&(4, false)));
        b"ok".iter().for_each(|byte| port.write(0, 1, u64::from(*byte)));
        assert_eq!(*sent.0.lock(), b"ok");
    }
}
