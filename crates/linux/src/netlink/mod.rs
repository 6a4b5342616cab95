//! Netlink: messages to the kernel about links, addresses and packet filters (`netlink(7)`).
//!
//! [`Builder`] writes messages, [`Socket`] sends them and reads what comes back. [`route`] makes
//! bridges and gives them addresses, [`filter`] makes a table of packet filter rules in one
//! transaction.

mod message;
pub mod filter;
pub mod route;

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send,
    socket_with, sockopt,
};

pub use message::{Attribute, Builder, attributes, find};

/// Bytes of a message's header: length, type, flags, sequence number, sender.
pub(crate) const HEADER: usize = 16;

/// Message types that mean the same in every family.
const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;

/// Longer answers than this are not asked for.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The kernel answers at once; more waiting means that an answer was lost.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// A request is answered, and answered with an acknowledgement.
pub(crate) const REQUEST: u16 = 1;
pub(crate) const ACKNOWLEDGE: u16 = 4;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const APPEND: u16 = 0x800;
pub(crate) const DUMP: u16 = 0x300;

/// A netlink socket.
pub struct Socket {
    descriptor: OwnedFd,
}

/// One message of an answer: its type and what follows the header.
pub type Answer = (u16, Vec<u8>);

impl Socket {
    pub(crate) fn new(protocol: Option<Protocol>) -> io::Result<Self> {
        let descriptor =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        sockopt::set_socket_timeout(&descriptor, sockopt::Timeout::Recv, Some(PATIENCE))?;
        bind(&descriptor, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { descriptor })
    }

    /// Sends messages and waits until the last of `wanted` acknowledgements has come. The first
    /// refusal is the error; what came besides is the answer.
    pub(crate) fn exchange(&self, bytes: &[u8], wanted: usize) -> io::Result<Vec<Answer>> {
        send(&self.descriptor, bytes, SendFlags::empty())?;
        let mut answers = Vec::new();
        let mut acknowledged = 0;
        let mut length = 0;
        let mut buffer = vec![0; 64 << 10];
        while acknowledged < wanted && length < ANSWER_BYTES_MAX {
            let (count, _) = recv(&self.descriptor, buffer.as_mut_slice(), RecvFlags::empty())?;
            length += count;
            let mut rest = &buffer[..count];
            while let Some((kind, body, after)) = message::split(rest) {
                match kind {
                    TYPE_ERROR => match body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
                        Some(0) | None => acknowledged += 1,
                        Some(code) => return Err(io::Error::from_raw_os_error(-code)),
                    },
                    TYPE_DONE => return Ok(answers),
                    _ => answers.push((kind, body.to_vec())),
                }
                rest = after;
            }
        }
        Ok(answers)
    }
}
