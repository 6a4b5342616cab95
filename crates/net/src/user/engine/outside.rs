//! What the engine needs from the host. The stack's thread gives it sockets, tests a script.

use core::net::SocketAddr;

use super::arena::Id;

/// The outcome of reading from or writing to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// So many bytes went through, at least one.
    Bytes(usize),
    /// None now; [`Engine::tcp_ready`](super::Engine::tcp_ready) will say when.
    Later,
    /// The host has no more to say. Of reading only.
    End,
    /// The connection is broken.
    Failed,
}

/// Why the host could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens.
    Refused,
    /// No route to the network.
    NoNetwork,
    /// No route to the host.
    NoHost,
    /// The host's policy forbids it.
    Prohibited,
    /// The host has no more descriptors or memory.
    Exhausted,
    /// Nobody answered in time.
    Silent,
}

/// Where a guest's connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the first of these that answers.
    Addresses(Vec<SocketAddr>),
    /// To the guest forwarding of this number.
    Forward(usize),
}

/// The host. No method blocks.
pub trait Outside {
    /// Begins a connection; [`Engine::tcp_connected`](super::Engine::tcp_connected) follows.
    fn tcp_connect(&mut self, flow: Id, to: &Target) -> Result<(), Failure>;
    /// Writes what the guest sent.
    fn tcp_write(&mut self, flow: Id, bytes: &[u8]) -> Transfer;
    /// Reads what the guest is to get.
    fn tcp_read(&mut self, flow: Id, into: &mut [u8]) -> Transfer;
    /// The guest has no more to say.
    fn tcp_finish(&mut self, flow: Id);
    /// The connection is over; `reset`: broken off.
    fn tcp_close(&mut self, flow: Id, reset: bool);

    /// Opens a socket for datagrams.
    fn udp_open(&mut self, flow: Id, is_v4: bool) -> Result<(), Failure>;
    /// Sends a datagram, or drops it.
    fn udp_send(&mut self, flow: Id, to: SocketAddr, bytes: &[u8]);
    /// Sends a datagram from the socket of a forwarding, or drops it.
    fn udp_send_forward(&mut self, forward: u32, to: SocketAddr, bytes: &[u8]);
    /// Closes a socket for datagrams.
    fn udp_close(&mut self, flow: Id);

    /// Opens a socket for echoes; `false`: the host does not permit it.
    fn ping_open(&mut self, flow: Id, is_v4: bool) -> bool;
    /// Sends an echo request; the host chooses its identifier.
    fn ping_send(&mut self, flow: Id, to: SocketAddr, message: &[u8]);
    /// Closes a socket for echoes.
    fn ping_close(&mut self, flow: Id);

    /// Opens a file below the served directory and tells its size.
    fn file_open(&mut self, transfer: Id, path: &str) -> Option<u64>;
    /// Reads from an open file; fewer bytes than asked for only at its end.
    fn file_read(&mut self, transfer: Id, offset: u64, into: &mut [u8]) -> Option<usize>;
    /// Closes a file.
    fn file_close(&mut self, transfer: Id);

    /// The host's name servers, as they are now.
    fn name_servers(&mut self) -> Vec<SocketAddr>;
}
