//! The eight ports, the interrupt, and the way to the host.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use device::{Device, Fields, Io, IrqLine, StateError, Stream, StreamEvent, StreamPeer, ones};
use parking_lot::Mutex;

use super::uart::Uart;

/// What waits for a slow peer. What comes on top is lost, as on a line without flow control.
const UNSENT_BYTES_MAX: usize = 64 << 10;

/// A serial port: a [`Uart`] with its interrupt and its peer.
///
/// Lock order: `uart`, then `irq`, which is a leaf; `stream` is called without it, but with
/// `unsent`, which keeps bytes in their order.
pub struct SerialPort {
    irq: IrqLine,
    stream: Arc<dyn Stream>,
    unsent: Mutex<VecDeque<u8>>,
    uart: Mutex<Uart>,
}

impl SerialPort {
    /// A port that interrupts on `irq` and talks to `stream`.
    pub fn new(irq: IrqLine, stream: Arc<dyn Stream>) -> Arc<Self> {
        let (unsent, uart) = (Mutex::default(), Mutex::default());
        let port = Arc::new(Self { irq, stream, unsent, uart });
        let peer: Weak<Self> = Arc::downgrade(&port);
        port.stream.attach(peer);
        port
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
            self.stream.room();
        }
        result
    }

    fn send(&self, byte: u8) {
        let mut unsent = self.unsent.lock();
        if (!unsent.is_empty() || self.stream.write(&[byte]) == 0)
            && unsent.len() < UNSENT_BYTES_MAX
        {
            unsent.push_back(byte);
        }
    }
}

impl StreamPeer for SerialPort {
    fn room(&self) -> usize {
        self.uart.lock().room()
    }

    fn receive(&self, bytes: &[u8]) {
        self.access(|uart| bytes.iter().for_each(|byte| uart.receive(*byte)));
    }

    fn event(&self, event: StreamEvent) {
        if event == StreamEvent::Break {
            self.access(Uart::receive_break);
        }
    }

    fn writable(&self) {
        let mut unsent = self.unsent.lock();
        loop {
            let (bytes, _) = unsent.as_slices();
            if bytes.is_empty() {
                return;
            }
            match self.stream.write(bytes) {
                0 => return,
                count => drop(unsent.drain(..count)),
            }
        }
    }
}

impl Device for SerialPort {
    fn reset(&self) {
        self.access(|uart| *uart = Uart::default());
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("uart", &self.uart)?;
        fields.locked("unsent", &self.unsent)?;
        fields.check(self.unsent.lock().len() <= UNSENT_BYTES_MAX, "unsent")
    }
}

impl Io for SerialPort {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let value = self.access(|uart| uart.read(offset & 7));
        (ones(size) & !0xff) | u64::from(value)
    }

    fn write(&self, offset: u64, _size: u8, value: u64) {
        if let Some(byte) = self.access(|uart| uart.write(offset & 7, value as u8)) {
            self.send(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use device::{IrqSink, RecordedIrq};

    use super::*;
    use crate::serial::spec;

    #[derive(Default)]
    struct Sent {
        bytes: Mutex<Vec<u8>>,
        rooms: AtomicUsize,
        is_slow: AtomicBool,
    }

    impl Stream for Sent {
        fn write(&self, bytes: &[u8]) -> usize {
            if self.is_slow.load(Ordering::Relaxed) {
                return 0;
            }
            self.bytes.lock().extend(bytes);
            bytes.len()
        }

        fn attach(&self, _peer: Weak<dyn StreamPeer>) {}

        fn room(&self) {
            self.rooms.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_waits_for_room_hears_of_a_cleared_fifo() {
        let sent = Arc::new(Sent::default());
        let port = SerialPort::new(IrqLine::unconnected(), Arc::clone(&sent) as Arc<dyn Stream>);
        port.receive(b"a");
        assert_eq!((port.room(), sent.rooms.load(Ordering::Relaxed)), (0, 0));
        port.write(spec::INTERRUPT_IDENTIFY, 1, 7);
        assert_eq!((port.room(), sent.rooms.load(Ordering::Relaxed)), (16, 1));
        port.receive(b"bc");
        port.read(spec::DATA, 1);
        assert_eq!(sent.rooms.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn input_interrupts_and_output_arrives() {
        let (recorded, sent) = (Arc::new(RecordedIrq::default()), Arc::new(Sent::default()));
        let irq = IrqLine::new(Arc::clone(&recorded) as Arc<dyn IrqSink>, 4);
        let port = SerialPort::new(irq, Arc::clone(&sent) as Arc<dyn Stream>);
        port.write(spec::INTERRUPT_ENABLE, 1, 1);
        port.receive(b"a");
        assert_eq!(recorded.take().last(), Some(&(4, true)));
        assert_eq!(port.read(spec::DATA, 1), u64::from(b'a'));
        assert_eq!(recorded.take().last(), Some(&(4, false)));
        b"ok".iter().for_each(|byte| port.write(0, 1, u64::from(*byte)));
        assert_eq!(*sent.bytes.lock(), b"ok");
    }

    #[test]
    fn what_a_slow_peer_did_not_take_follows_in_order() {
        let sent = Arc::new(Sent::default());
        let port = SerialPort::new(IrqLine::unconnected(), Arc::clone(&sent) as Arc<dyn Stream>);
        sent.is_slow.store(true, Ordering::Relaxed);
        b"ab".iter().for_each(|byte| port.write(0, 1, u64::from(*byte)));
        sent.is_slow.store(false, Ordering::Relaxed);
        port.write(0, 1, u64::from(b'c'));
        port.writable();
        port.write(0, 1, u64::from(b'd'));
        assert_eq!(*sent.bytes.lock(), b"abcd");
    }
}
