//! Which hardware address a guest's IP address has.

use core::net::IpAddr;
use std::time::{Duration, Instant};

use crate::packet::Mac;

/// Addresses of guests on one link; more are forgotten, the oldest first.
const KNOWN_MAX: usize = 64;
/// Addresses asked for at once, and packets that wait for each.
const ASKED_MAX: usize = 16;
const WAITING_MAX: usize = 8;
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What is known of the link.
#[derive(Debug, Default)]
pub struct Neighbours {
    known: Vec<(IpAddr, Mac)>,
    asked: Vec<Question>,
}

#[derive(Debug)]
struct Question {
    address: IpAddr,
    when: Instant,
    /// Frames whose destination is still to be filled in.
    waiting: Vec<Vec<u8>>,
}

impl Neighbours {
    /// Who has the address.
    pub fn find(&self, address: IpAddr) -> Option<Mac> {
        self.known.iter().find(|(known, _)| *known == address).map(|(_, mac)| *mac)
    }

    /// Whether somebody should be asked for the address now; remembers that it was done.
    pub fn should_ask(&mut self, address: IpAddr, now: Instant) -> bool {
        if let Some(asked) = self.asked.iter_mut().find(|asked| asked.address == address) {
            let due = now >= asked.when + ASK_AGAIN;
            if due {
                asked.when = now;
            }
            return due;
        }
        if self.asked.len() >= ASKED_MAX {
            self.asked.remove(0);
        }
        self.asked.push(Question { address, when: now, waiting: Vec::new() });
        true
    }

    /// Keeps a frame until the address that was asked for is known.
    pub fn wait(&mut self, address: IpAddr, frame: Vec<u8>) {
        let asked = self.asked.iter_mut().find(|asked| asked.address == address);
        if let Some(asked) = asked.filter(|asked| asked.waiting.len() < WAITING_MAX) {
            asked.waiting.push(frame);
        }
    }

    /// Learns an address. When it is news, returns the frames that waited for it.
    pub fn learn(&mut self, address: IpAddr, mac: Mac) -> Option<Vec<Vec<u8>>> {
        if let Some(entry) = self.known.iter_mut().find(|(known, _)| *known == address) {
            if entry.1 == mac {
                return None;
            }
            entry.1 = mac;
        } else {
            if self.known.len() >= KNOWN_MAX {
                self.known.remove(0);
            }
            self.known.push((address, mac));
        }
        let asked = self.asked.iter().position(|asked| asked.address == address);
        Some(asked.map(|at| self.asked.remove(at).waiting).unwrap_or_default())
    }
}
