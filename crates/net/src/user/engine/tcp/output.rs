//! What goes out on connections to the guest: data read from the host, acknowledgements.

use std::time::Instant;

use super::chunk::CHUNK;
use super::flow::{Flow, Phase};
use super::{Engine, HELD_MAX, Id, Tcp};
use crate::cable::{Offload, Segmentation};
use crate::packet::tcp::{self, Header};
use crate::packet::{Mac, checksum, ethernet, ip};
use crate::user::engine::outside::{Outside, Transfer};
use crate::user::engine::port::Port;

/// Frames in a row for one connection before another has its turn.
const TURN: usize = 32;
/// Turns before the thread looks at what has come in meanwhile.
const TURNS: usize = 16;
/// Bytes under way to the guest, per connection.
const FLIGHT_MAX: usize = 2 << 20;

/// The outcome of a turn or a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Done; there may be more.
    Again,
    /// There is nothing to do.
    Idle,
    /// The card has no room.
    Full,
    /// The host's side is broken.
    Broken,
}

impl Engine {
    /// Serves connections that have something for the guest. `true`: some still have.
    pub(in crate::user::engine) fn tcp_service(
        &mut self,
        outside: &mut dyn Outside,
        now: Instant,
    ) -> bool {
        for _ in 0..TURNS {
            if self.port.is_full() {
                return false;
            }
            let Some(id) = self.tcp.ready.pop_front() else { return false };
            let Some(flow) = self.tcp.flows.get_mut(id) else { continue };
            flow.scheduled = false;
            let guest = flow.guest.ip();
            let Some(mac) = self.neighbours.find(guest) else {
                self.ask_for(guest, now);
                self.rearm_tcp(id);
                continue;
            };
            match self.tcp_turn(id, mac, outside, now) {
                Outcome::Again => self.tcp.schedule(id),
                Outcome::Idle => {}
                Outcome::Full => {
                    if let Some(flow) = self.tcp.flows.get_mut(id) {
                        flow.scheduled = true;
                        self.tcp.ready.push_front(id);
                    }
                }
                Outcome::Broken => self.tcp_abort(id, outside, now),
            }
            if self.tcp.flows.get(id).is_some_and(Flow::is_over) {
                outside.tcp_close(id, false);
                self.tcp_forget(id);
            }
            self.rearm_tcp(id);
        }
        !self.tcp.ready.is_empty()
    }

    fn tcp_turn(&mut self, id: Id, mac: Mac, outside: &mut dyn Outside, now: Instant) -> Outcome {
        let Self { tcp, port, .. } = self;
        for _ in 0..TURN {
            let Tcp { flows, spare, scratch, held, starved, .. } = tcp;
            let Some(flow) = flows.get_mut(id) else { return Outcome::Idle };
            if flow.phase != Phase::Open {
                return start(flow, mac, port, scratch, now);
            }
            if wants_to_read(flow) {
                if *held >= HELD_MAX {
                    // Acknowledgements must go out even so.
                    if !flow.starving {
                        flow.starving = true;
                        starved.push(id);
                    }
                    return acknowledge(flow, mac, port, scratch, now);
                }
                let mut buffer = spare.take();
                let room = super::chunk::HEADROOM;
                let wanted = whole_segments(flow.room().min(CHUNK), flow.segment_bytes);
                match outside.tcp_read(id, &mut buffer[room..room + wanted]) {
                    Transfer::Bytes(count) => {
                        let count = count.min(wanted);
                        // Less than asked for: the rest is announced when it comes. But an end
                        // that was announced before is not announced again.
                        flow.readable = count == wanted || flow.hung_up;
                        flow.queue.push(buffer, count, spare);
                        *held += count;
                    }
                    other => {
                        spare.put(buffer);
                        flow.readable = false;
                        flow.host_done |= other == Transfer::End;
                        if other == Transfer::Failed {
                            return Outcome::Broken;
                        }
                    }
                }
            }
            let outcome = send_data(flow, mac, port, scratch, now);
            match outcome {
                Outcome::Again => {}
                Outcome::Idle if wants_to_read(flow) => {}
                Outcome::Idle => return acknowledge(flow, mac, port, scratch, now),
                Outcome::Full | Outcome::Broken => return outcome,
            }
        }
        Outcome::Again
    }
}

/// Whether the host should be asked for more: everything read was sent, and the guest takes
/// enough to be worth a segment.
fn wants_to_read(flow: &Flow) -> bool {
    let enough = flow.segment_bytes.min(flow.window / 2).max(1);
    flow.readable
        && !flow.host_done
        && flow.unsent() == 0
        && flow.room() >= enough
        && flow.queue.bytes() < FLIGHT_MAX
}

/// The most bytes up to `most` that make no short last segment.
fn whole_segments(most: usize, segment_bytes: usize) -> usize {
    if most > segment_bytes { most - most % segment_bytes } else { most }
}

/// Sends SYN, when it is due.
fn start(
    flow: &mut Flow,
    mac: Mac,
    port: &mut Port,
    scratch: &mut Vec<u8>,
    now: Instant,
) -> Outcome {
    if !flow.start_due {
        return Outcome::Idle;
    }
    flow.next = flow.unacknowledged;
    let header = flow.header(tcp::SYN);
    if !send_bare(flow, &header, mac, port, scratch) {
        return Outcome::Full;
    }
    flow.start_due = false;
    flow.acknowledgements_due = 0;
    flow.took(1, &header, now);
    Outcome::Idle
}

/// Sends the next segment with data or FIN.
fn send_data(
    flow: &mut Flow,
    mac: Mac,
    port: &mut Port,
    scratch: &mut Vec<u8>,
    now: Instant,
) -> Outcome {
    if flow.resend_due && flow.queue.bytes() > 0 && flow.in_flight() > 0 {
        return resend(flow, mac, port, scratch, now);
    }
    if core::mem::take(&mut flow.resend_due) {
        // Nothing but FIN is missing.
        flow.next = flow.unacknowledged;
    }
    let (unsent, room) = (flow.unsent(), flow.room());
    if flow.finish_due() {
        let header = flow.header(tcp::FIN);
        if !send_bare(flow, &header, mac, port, scratch) {
            return Outcome::Full;
        }
        flow.took(1, &header, now);
        flow.acknowledgements_due = 0;
        return Outcome::Again;
    }
    // A short segment goes out only when it ends what there is, or when nothing is under way
    // (RFC 9293 section 3.8.6.2.1): otherwise the guest would be sent ever smaller ones.
    let short = room < unsent.min(flow.segment_bytes) && flow.in_flight() > 0;
    if unsent == 0 || room == 0 || short {
        return Outcome::Idle;
    }
    let is_v4 = flow.guest.is_ipv4();
    let large = if is_v4 { port.granted.gives_tso4 } else { port.granted.gives_tso6 };
    let large = large && port.granted.gives_checksum;
    let most = if large { whole_segments(CHUNK, flow.segment_bytes) } else { flow.segment_bytes };
    let ends = Ends::of(flow, mac, port.mac);
    let at = flow.in_flight();
    let length = unsent.min(room).min(most);
    let is_last = length == unsent;
    let finish = is_last && flow.host_done && !flow.finished;
    let mut header = flow.header(if is_last { tcp::PSH } else { 0 });
    let headers = ends.length(&header);
    let Some((frame, count)) = flow.queue.frame(at, length, headers, scratch) else {
        return Outcome::Idle;
    };
    let finish = finish && count == length;
    header.flags |= if finish { tcp::FIN } else { 0 };
    let cut = (count > flow.segment_bytes).then_some(flow.segment_bytes);
    let offload = ends.write(frame, &header, port.granted.gives_checksum, cut);
    if !port.offer(frame, offload) {
        return Outcome::Full;
    }
    flow.took(count + usize::from(finish), &header, now);
    flow.acknowledgements_due = 0;
    Outcome::Again
}

/// Sends the first segment that the guest misses again. It keeps what it has behind the gap.
fn resend(
    flow: &mut Flow,
    mac: Mac,
    port: &mut Port,
    scratch: &mut Vec<u8>,
    now: Instant,
) -> Outcome {
    let ends = Ends::of(flow, mac, port.mac);
    let mut header = flow.header(tcp::ACK);
    header.sequence = flow.unacknowledged;
    let length = flow.segment_bytes.min(flow.in_flight());
    let Some((frame, _)) = flow.queue.frame(0, length, ends.length(&header), scratch) else {
        return Outcome::Idle;
    };
    let offload = ends.write(frame, &header, port.granted.gives_checksum, None);
    if !port.offer(frame, offload) {
        return Outcome::Full;
    }
    flow.resend_due = false;
    flow.took(0, &header, now);
    flow.acknowledgements_due = 0;
    Outcome::Again
}

/// Sends the acknowledgements that are due.
fn acknowledge(
    flow: &mut Flow,
    mac: Mac,
    port: &mut Port,
    scratch: &mut Vec<u8>,
    now: Instant,
) -> Outcome {
    while flow.acknowledgements_due > 0 {
        let header = flow.header(tcp::ACK);
        if !send_bare(flow, &header, mac, port, scratch) {
            return Outcome::Full;
        }
        flow.took(0, &header, now);
        flow.acknowledgements_due -= 1;
    }
    Outcome::Idle
}

fn send_bare(
    flow: &Flow,
    header: &Header,
    mac: Mac,
    port: &mut Port,
    scratch: &mut Vec<u8>,
) -> bool {
    let ends = Ends::of(flow, mac, port.mac);
    scratch.resize(ends.length(header), 0);
    let offload = ends.write(scratch, header, port.granted.gives_checksum, None);
    port.offer(scratch, offload)
}

/// From where to where a frame goes.
struct Ends {
    guest: core::net::SocketAddr,
    remote: core::net::SocketAddr,
    mac: Mac,
    own_mac: Mac,
}

impl Ends {
    fn of(flow: &Flow, mac: Mac, own_mac: Mac) -> Self {
        Self { guest: flow.guest, remote: flow.remote, mac, own_mac }
    }

    fn length(&self, header: &Header) -> usize {
        ethernet::HEADER + ip::header_length(self.guest.ip()) + header.length()
    }

    /// Writes all headers before the payload that is in `frame`.
    fn write(
        &self,
        frame: &mut [u8],
        header: &Header,
        leave_checksum: bool,
        cut: Option<usize>,
    ) -> Offload {
        let (from, to) = (self.remote.ip(), self.guest.ip());
        let start = ethernet::HEADER + ip::header_length(to);
        let length = frame.len() - start;
        let kind = ip::ethernet_kind(to);
        frame[..ethernet::HEADER].copy_from_slice(&ethernet::header(self.mac, self.own_mac, kind));
        ip::write_header(&mut frame[ethernet::HEADER..], from, to, ip::TCP, length);
        let segment = &mut frame[start..];
        header.write(segment, self.remote.port(), self.guest.port());
        let pseudo = checksum::pseudo(from, to, ip::TCP, length);
        let sum = if leave_checksum { pseudo.partial() } else { pseudo.with(segment).finish() };
        segment[tcp::CHECKSUM_AT..tcp::CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
        if !leave_checksum {
            return Offload::default();
        }
        let kind = if to.is_ipv4() { Segmentation::TcpV4 } else { Segmentation::TcpV6 };
        let narrow = |wide: usize| u16::try_from(wide).unwrap_or(u16::MAX);
        Offload {
            needs_checksum: true,
            checksum_start: narrow(start),
            checksum_offset: narrow(tcp::CHECKSUM_AT),
            segmentation: cut.map(|_| kind),
            segment_bytes: cut.map_or(0, narrow),
            header_bytes: cut.map_or(0, |_| narrow(start + header.length())),
            checksum_valid: false,
        }
    }
}
