//! Files for guests that boot from the network: a read-only TFTP server (RFC 1350) with the
//! options block size, transfer size and timeout (RFC 2347, 2348, 2349).
//!
//! The client drives: it asks again for what it misses.

use core::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Engine;
use super::arena::{Arena, Id};
use super::outside::Outside;
use super::timers::{Alarm, Key};
use crate::packet::udp::Datagram;
use crate::packet::{be16, ip, udp};

/// Where the server listens; it also answers from there.
pub const PORT: u16 = 69;
const TRANSFERS_MAX: usize = 32;
const PATIENCE: Duration = Duration::from_secs(60);
const BLOCK_BYTES: u16 = 512;
const BLOCK_BYTES_MIN: u16 = 8;
/// RFC 2348 permits 65,464; a block in many parts is slower than a block that fits a packet.
const BLOCK_BYTES_MAX: u16 = 1428;
const NAME_BYTES_MAX: usize = 512;

const READ: u16 = 1;
const WRITE: u16 = 2;
const DATA: u16 = 3;
const ACKNOWLEDGE: u16 = 4;
const ERROR: u16 = 5;
const OPTIONS: u16 = 6;

const NOT_FOUND: (u16, &str) = (1, "File not found");
const FORBIDDEN: (u16, &str) = (2, "Access violation");
const ILLEGAL: (u16, &str) = (4, "Illegal operation");

/// Files on their way.
pub struct Transfers {
    all: Arena<Transfer>,
}

struct Transfer {
    guest: SocketAddr,
    server: SocketAddr,
    size: u64,
    block_bytes: u16,
    /// The last block that was sent, counted without wrapping.
    block: u64,
    alarm: Alarm,
}

impl Transfers {
    /// No files.
    pub fn new() -> Self {
        Self { all: Arena::new(TRANSFERS_MAX) }
    }

    fn of(&self, guest: SocketAddr) -> Option<Id> {
        self.all.iter().find(|(_, transfer)| transfer.guest == guest).map(|(id, _)| id)
    }
}

struct Request {
    name: String,
    block_bytes: Option<u16>,
    wants_size: bool,
    timeout: Option<String>,
}

impl Request {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut texts = bytes.split(|byte| *byte == 0).map(core::str::from_utf8);
        let name = texts.next()?.ok()?.to_owned();
        let mode = texts.next()?.ok()?;
        let known = ["octet", "netascii"].iter().any(|known| mode.eq_ignore_ascii_case(known));
        if !known || name.is_empty() || name.len() > NAME_BYTES_MAX {
            return None;
        }
        let mut request = Self { name, block_bytes: None, wants_size: false, timeout: None };
        while let (Some(Ok(option)), Some(Ok(value))) = (texts.next(), texts.next()) {
            match option.to_ascii_lowercase().as_str() {
                "blksize" => {
                    let asked = value.parse::<u16>().ok();
                    let asked = asked.filter(|asked| *asked >= BLOCK_BYTES_MIN);
                    request.block_bytes = asked.map(|asked| asked.min(BLOCK_BYTES_MAX));
                }
                "tsize" => request.wants_size = true,
                "timeout" if value.parse::<u8>().is_ok_and(|seconds| seconds > 0) => {
                    request.timeout = Some(value.to_owned());
                }
                _ => {}
            }
        }
        Some(request)
    }
}

impl Engine {
    pub(super) fn tftp_input(
        &mut self,
        datagram: &Datagram<'_>,
        outside: &mut dyn Outside,
        now: Instant,
    ) {
        let Some(operation) = be16(datagram.payload, 0) else { return };
        let (guest, server) = (datagram.source, datagram.destination);
        match operation {
            READ => self.tftp_read(datagram, outside, now),
            WRITE => self.tftp_error(server, guest, FORBIDDEN, now),
            ACKNOWLEDGE => {
                let Some(id) = self.transfers.of(guest) else { return };
                let (Some(transfer), Some(number)) =
                    (self.transfers.all.get(id), be16(datagram.payload, 2))
                else {
                    return;
                };
                // Which block it is, near the one that was sent last.
                let ahead = number.wrapping_sub(low16(transfer.block)).cast_signed();
                let Some(block) = transfer.block.checked_add_signed(ahead.into()) else { return };
                if block > transfer.block {
                    return;
                }
                let last = transfer.size / u64::from(transfer.block_bytes) + 1;
                if block >= last {
                    self.transfer_forget(id, outside);
                } else {
                    self.tftp_block(id, block + 1, outside, now);
                }
            }
            ERROR => {
                if let Some(id) = self.transfers.of(guest) {
                    self.transfer_forget(id, outside);
                }
            }
            _ => self.tftp_error(server, guest, ILLEGAL, now),
        }
    }

    fn tftp_read(&mut self, datagram: &Datagram<'_>, outside: &mut dyn Outside, now: Instant) {
        let (guest, server) = (datagram.source, datagram.destination);
        if let Some(id) = self.transfers.of(guest) {
            self.transfer_forget(id, outside);
        }
        let Some(request) = Request::read(&datagram.payload[2..]) else {
            self.tftp_error(server, guest, ILLEGAL, now);
            return;
        };
        let transfer = Transfer {
            guest,
            server,
            size: 0,
            block_bytes: request.block_bytes.unwrap_or(BLOCK_BYTES),
            block: 0,
            alarm: Alarm::default(),
        };
        // A client that finds no place asks again.
        let Some(id) = self.transfers.all.insert(transfer) else { return };
        let Some(size) = outside.file_open(id, &request.name) else {
            self.transfers.all.remove(id);
            self.tftp_error(server, guest, NOT_FOUND, now);
            return;
        };
        if let Some(transfer) = self.transfers.all.get_mut(id) {
            transfer.size = size;
            self.timers.set(Key::Tftp(id), &mut transfer.alarm, Some(now + PATIENCE));
        }
        let mut accepted = Vec::new();
        let mut accept = |name: &str, value: String| {
            accepted.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        };
        if let Some(bytes) = request.block_bytes {
            accept("blksize", bytes.to_string());
        }
        if request.wants_size {
            accept("tsize", size.to_string());
        }
        if let Some(seconds) = request.timeout {
            accept("timeout", seconds);
        }
        if accepted.is_empty() {
            self.tftp_block(id, 1, outside, now);
        } else {
            let message = [&OPTIONS.to_be_bytes()[..], &accepted].concat();
            self.tftp_send(server, guest, &message, now);
        }
    }

    fn tftp_block(&mut self, id: Id, block: u64, outside: &mut dyn Outside, now: Instant) {
        let Some(transfer) = self.transfers.all.get_mut(id) else { return };
        let (guest, server) = (transfer.guest, transfer.server);
        let bytes = u64::from(transfer.block_bytes);
        let offset = (block - 1) * bytes;
        let length = transfer.size.saturating_sub(offset).min(bytes);
        let mut message = DATA.to_be_bytes().to_vec();
        message.extend(low16(block).to_be_bytes());
        message.resize(4 + usize::try_from(length).unwrap_or(0), 0);
        // A file that shrinks meanwhile would end the transfer as if it were whole.
        if outside.file_read(id, offset, &mut message[4..]) != Some(message.len() - 4) {
            self.tftp_error(server, guest, NOT_FOUND, now);
            self.transfer_forget(id, outside);
            return;
        }
        transfer.block = transfer.block.max(block);
        self.timers.set(Key::Tftp(id), &mut transfer.alarm, Some(now + PATIENCE));
        self.tftp_send(server, guest, &message, now);
    }

    fn tftp_error(
        &mut self,
        server: SocketAddr,
        guest: SocketAddr,
        (code, text): (u16, &str),
        now: Instant,
    ) {
        let head = [ERROR.to_be_bytes(), code.to_be_bytes()].concat();
        self.tftp_send(server, guest, &[&head, text.as_bytes(), b"\0"].concat(), now);
    }

    fn tftp_send(&mut self, server: SocketAddr, guest: SocketAddr, message: &[u8], now: Instant) {
        let bytes = udp::bytes(server, guest, message);
        self.send_packet(server.ip(), guest.ip(), ip::UDP, &bytes, now);
    }

    pub(super) fn transfer_alarm(&mut self, id: Id, outside: &mut dyn Outside, now: Instant) {
        let Some(transfer) = self.transfers.all.get_mut(id) else { return };
        if self.timers.rings(Key::Tftp(id), &mut transfer.alarm, now) {
            self.transfer_forget(id, outside);
        }
    }

    fn transfer_forget(&mut self, id: Id, outside: &mut dyn Outside) {
        let Some(mut transfer) = self.transfers.all.remove(id) else { return };
        self.timers.cancel(Key::Tftp(id), &mut transfer.alarm);
        outside.file_close(id);
    }
}

fn low16(wide: u64) -> u16 {
    u16::try_from(wide & 0xffff).unwrap_or(0)
}
