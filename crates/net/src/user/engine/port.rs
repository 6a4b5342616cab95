//! Our end of the cable.

use std::collections::VecDeque;
use std::sync::Weak;

use crate::cable::{Capabilities, Card, Offload};
use crate::packet::Mac;

/// Frames, not of TCP, that wait for a card without room.
const WAITING_MAX: usize = 256;

/// Our end of the cable. A frame of TCP that the card refuses is made anew later; the others
/// wait here, and are dropped when there are too many.
pub struct Port {
    /// Our hardware address.
    pub mac: Mac,
    /// What the guest's driver agreed to.
    pub granted: Capabilities,
    card: Option<Weak<dyn Card>>,
    is_full: bool,
    waiting: VecDeque<Vec<u8>>,
    /// Frames handed to the card.
    pub sent: u64,
}

impl Port {
    /// An end that nothing is plugged into.
    pub fn new(mac: Mac) -> Self {
        Self {
            mac,
            granted: Capabilities::default(),
            card: None,
            is_full: false,
            waiting: VecDeque::new(),
            sent: 0,
        }
    }

    /// Plugs a card in.
    pub fn attach(&mut self, card: Weak<dyn Card>) {
        self.card = Some(card);
        self.is_full = false;
    }

    /// Whether the card has refused a frame and not yet made room.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Hands a frame over now or not at all.
    pub fn offer(&mut self, frame: &[u8], offload: Offload) -> bool {
        if self.is_full {
            return false;
        }
        let card = self.card.as_ref().and_then(Weak::upgrade);
        // Without a card the frame is lost, as on a wire without an end.
        let taken = card.is_none_or(|card| card.receive(frame, offload));
        self.is_full = !taken;
        self.sent += u64::from(taken);
        taken
    }

    /// Hands a finished frame over, now or when there is room.
    pub fn send(&mut self, frame: Vec<u8>) {
        if !self.offer(&frame, Offload::default()) && self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(frame);
        }
    }

    /// The card has room again.
    pub fn room(&mut self) {
        self.is_full = false;
        while let Some(frame) = self.waiting.pop_front() {
            if !self.offer(&frame, Offload::default()) {
                self.waiting.push_front(frame);
                return;
            }
        }
    }
}
