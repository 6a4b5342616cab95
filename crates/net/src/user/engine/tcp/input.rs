//! What comes in on connections: segments of the guest, news of the host.

use std::time::Instant;

use super::flow::{Phase, RECEIVE_MAX, Verdict};
use super::{Engine, Id, STORED_MAX};
use crate::packet::ip::Packet;
use crate::packet::tcp::{self, Segment};
use crate::user::engine::outside::{Outside, Transfer};

/// Shorter payloads are gathered until all that came at once was seen: one call to the host
/// then takes what a guest without segmentation offload sends in many segments.
const GATHERED_MAX: usize = 16 << 10;

impl Engine {
    /// Takes a segment of the guest.
    pub(in crate::user::engine) fn tcp_input(
        &mut self,
        packet: &Packet<'_>,
        trusted: bool,
        outside: &mut dyn Outside,
        now: Instant,
    ) {
        let Some(segment) = Segment::read(packet, trusted) else { return };
        let ends = (segment.source, segment.destination);
        if segment.source.port() == 0 || segment.destination.port() == 0 {
            return;
        }
        let Some(id) = self.tcp.by_ends.get(&ends).copied() else {
            let flags = segment.header.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN);
            if flags == tcp::SYN {
                self.tcp_start(&segment, outside, now);
            } else {
                self.refuse(&segment);
            }
            return;
        };
        let Some(flow) = self.tcp.flows.get_mut(id) else { return };
        let header = &segment.header;
        let is_bare = segment.payload.is_empty() && header.flags & tcp::FIN == 0;
        let (verdict, freed) = flow.take_header(header, is_bare, now);
        if freed > 0 {
            flow.queue.acknowledge(freed, &mut self.tcp.spare);
            self.tcp.release(freed);
        }
        match verdict {
            Verdict::Reset => {
                outside.tcp_close(id, true);
                self.tcp_forget(id);
                return;
            }
            Verdict::Stray => {
                self.refuse(&segment);
                return;
            }
            Verdict::Stop => {}
            Verdict::Go => {
                if !self.tcp_payload(id, &segment, outside) {
                    self.tcp_abort(id, outside, now);
                    return;
                }
            }
        }
        self.tcp.schedule_if_needed(id);
        self.rearm_tcp(id);
    }

    /// Passes a payload on to the host. `false`: the host's side is broken.
    fn tcp_payload(&mut self, id: Id, segment: &Segment<'_>, outside: &mut dyn Outside) -> bool {
        let Some(flow) = self.tcp.flows.get_mut(id) else { return true };
        let stored = self.tcp.stored;
        self.tcp.stored += flow.keep_for_later(&segment.header, segment.payload, stored);
        let (new, finish) = flow.cut(&segment.header, segment.payload);
        let Some(taken) = self.tcp_accept(id, new, outside) else { return false };
        if taken == new.len() && !new.is_empty() && !self.tcp_accept_later(id, outside) {
            return false;
        }
        let Some(flow) = self.tcp.flows.get_mut(id) else { return true };
        if finish && taken == new.len() {
            flow.expected = flow.expected.wrapping_add(1);
            flow.guest_done = true;
        }
        if flow.guest_done && flow.pending.is_empty() && !flow.finish_told {
            flow.finish_told = true;
            outside.tcp_finish(id);
        }
        true
    }

    /// Takes what had come too early, as far as there is no gap before it any more.
    fn tcp_accept_later(&mut self, id: Id, outside: &mut dyn Outside) -> bool {
        loop {
            let Some(flow) = self.tcp.flows.get_mut(id) else { return true };
            let Some((bytes, known)) = flow.take_later() else { return true };
            self.tcp.stored = self.tcp.stored.saturating_sub(bytes.len());
            if known < bytes.len() && self.tcp_accept(id, &bytes[known..], outside).is_none() {
                return false;
            }
        }
    }

    /// Takes the next bytes of a connection; how many. `None`: the host's side is broken.
    fn tcp_accept(&mut self, id: Id, new: &[u8], outside: &mut dyn Outside) -> Option<usize> {
        let Some(flow) = self.tcp.flows.get_mut(id) else { return Some(0) };
        let mut rest = new;
        if new.len() <= GATHERED_MAX && !new.is_empty() && !flow.flush_due {
            flow.flush_due = true;
            self.tcp.unflushed.push(id);
        }
        while new.len() > GATHERED_MAX && !rest.is_empty() && flow.pending.is_empty() {
            match outside.tcp_write(id, rest) {
                Transfer::Bytes(count) => rest = &rest[count.min(rest.len())..],
                Transfer::Later => break,
                Transfer::End | Transfer::Failed => return None,
            }
        }
        // What the host does not take now waits here, within the window that was promised and
        // within the bound of all connections; what is beyond is not acknowledged.
        let space = RECEIVE_MAX
            .saturating_sub(flow.pending.len())
            .min(STORED_MAX.saturating_sub(self.tcp.stored));
        let kept = rest.len().min(space);
        flow.pending.extend(&rest[..kept]);
        self.tcp.stored += kept;
        let taken = new.len() - rest.len() + kept;
        flow.expected = flow.expected.wrapping_add(u32::try_from(taken).unwrap_or(0));
        Some(taken)
    }

    /// The host's side of a connection has news.
    pub fn tcp_ready(
        &mut self,
        id: Id,
        readable: bool,
        writable: bool,
        hung_up: bool,
        outside: &mut dyn Outside,
        now: Instant,
    ) {
        let Some(flow) = self.tcp.flows.get_mut(id) else { return };
        flow.hung_up |= hung_up;
        flow.readable |= readable;
        if writable && flow.phase == Phase::Open && !self.tcp_drain(id, outside) {
            self.tcp_abort(id, outside, now);
            return;
        }
        self.tcp.schedule_if_needed(id);
        self.rearm_tcp(id);
    }

    /// Writes what was gathered.
    pub(in crate::user::engine) fn tcp_flush(&mut self, outside: &mut dyn Outside, now: Instant) {
        for at in 0..self.tcp.unflushed.len() {
            let id = self.tcp.unflushed[at];
            if let Some(flow) = self.tcp.flows.get_mut(id) {
                flow.flush_due = false;
            }
            if !self.tcp_drain(id, outside) {
                self.tcp_abort(id, outside, now);
            }
        }
        self.tcp.unflushed.clear();
    }

    /// Writes what waits for the host. `false`: the host's side is broken.
    fn tcp_drain(&mut self, id: Id, outside: &mut dyn Outside) -> bool {
        let Some(flow) = self.tcp.flows.get_mut(id) else { return true };
        if flow.pending.is_empty() {
            return true;
        }
        while !flow.pending.is_empty() {
            match outside.tcp_write(id, flow.pending.as_slices().0) {
                Transfer::Bytes(count) => {
                    let count = count.min(flow.pending.len());
                    flow.pending.drain(..count);
                    self.tcp.stored -= count;
                }
                Transfer::Later => break,
                Transfer::End | Transfer::Failed => return false,
            }
        }
        if flow.pending.is_empty() {
            // The buffer of a connection that was slow once is not kept for its whole life.
            flow.pending.shrink_to(GATHERED_MAX);
            if flow.guest_done && !flow.finish_told {
                flow.finish_told = true;
                outside.tcp_finish(id);
            }
        }
        if flow.window_opened() {
            flow.owe_acknowledgement();
        }
        true
    }
}
