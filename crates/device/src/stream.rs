//! Byte streams between a device and its host: serial lines, console ports, monitors.
//!
//! The host's end is a [`Stream`], the device's end a [`StreamPeer`]. Either side may be slow: what
//! the other does not take stays with the sender, which is told when there is room again.

use std::os::fd::OwnedFd;
use std::sync::Weak;

/// The host's end: a terminal, a socket, a file, nobody.
///
/// Called by devices without any lock that [`StreamPeer`]'s methods take. Never blocks.
pub trait Stream: Send + Sync {
    /// Takes bytes of the guest and says how many; after less than all of them the stream calls
    /// [`StreamPeer::writable`] once it takes more.
    fn write(&self, bytes: &[u8]) -> usize;

    /// Connects the device. Each stream has one peer at most; a later one takes the place of an
    /// earlier one.
    fn attach(&self, peer: Weak<dyn StreamPeer>);

    /// The device takes input again, after it had no room.
    fn room(&self) {}

    /// Whether somebody is there, at the far end.
    fn is_open(&self) -> bool {
        true
    }

    /// Descriptors that came along with the bytes since the last call.
    fn take_descriptors(&self) -> Vec<OwnedFd> {
        Vec::new()
    }

    /// The connection itself, for who speaks a protocol of its own over it; the stream has none
    /// then. None for what is no socket, or is not connected.
    fn take_socket(&self) -> Option<OwnedFd> {
        None
    }

    /// The guest has opened or closed its end, where the device can tell.
    fn set_guest_open(&self, open: bool) {
        _ = open;
    }
}

/// What befalls a stream beside bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// Somebody has come to the far end.
    Opened,
    /// Nobody is there any more.
    Closed,
    /// A break condition on a serial line.
    Break,
}

/// The device's end. Called from the main loop's or the stream's own thread, without locks.
pub trait StreamPeer: Send + Sync {
    /// How many bytes [`StreamPeer::receive`] takes now.
    fn room(&self) -> usize;

    /// Bytes for the guest, at most as many as there was room for.
    fn receive(&self, bytes: &[u8]);

    /// See there.
    fn event(&self, event: StreamEvent) {
        _ = event;
    }

    /// The stream takes bytes again.
    fn writable(&self) {}
}

/// A stream to nobody.
#[derive(Debug, Default)]
pub struct NullStream;

impl Stream for NullStream {
    fn write(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn attach(&self, _peer: Weak<dyn StreamPeer>) {}
}
