//! One TCP connection of the guest, which ends here: the half of it that faces the guest.
//!
//! The link to the guest neither loses nor reorders, but the guest may: so everything sent is
//! kept until acknowledged and can be sent again, and what comes too early is kept until what is
//! missing before it has come.

use core::net::SocketAddr;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::chunk::Unacknowledged;
use crate::packet::tcp::{self, Header};
use crate::user::engine::timers::Alarm;

/// The most that the guest may send ahead of the host's program, per connection.
pub const RECEIVE_MAX: usize = 512 << 10;
/// What the window field is shifted by; `RECEIVE_MAX` then fits with room to spare.
pub const WINDOW_SHIFT: u8 = 5;
/// The segment size that we announce: as much as a guest with a large MTU may send at once.
pub const SEGMENT_BYTES: u16 = 65_495;
/// RFC 9293 section 3.7.1: what a side without the option takes.
const SEGMENT_BYTES_UNSAID: u16 = 536;
/// Smaller segments are an attack on whoever must send them.
const SEGMENT_BYTES_MIN: u16 = 64;
/// The first wait for an answer to a start (RFC 6298 section 2); it doubles.
const START_PATIENCE: Duration = Duration::from_secs(1);
/// The first wait for an acknowledgement; it doubles. The guest is a few microseconds away, but
/// it may be translated, and the host may be busy.
const PATIENCE: Duration = Duration::from_millis(300);
/// After so many waits a guest is given up: 2 minutes for data, 1 minute for a start.
const RETRIES_MAX: u8 = 8;
const START_RETRIES_MAX: u8 = 5;
/// RFC 5681 section 3.2.
const DUPLICATES: u8 = 3;
/// Segments that are kept while one before them is missing.
const LATER_MAX: usize = 512;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The guest asked for it; the host has not answered.
    Connecting,
    /// The host has answered; the guest has not acknowledged.
    SynReceived,
    /// The host asked for it; the guest has not answered.
    SynSent,
    /// Data flows.
    Open,
}

/// One connection.
#[derive(Debug)]
pub struct Flow {
    /// The guest's end.
    pub guest: SocketAddr,
    /// The other end, as the guest sees it.
    pub remote: SocketAddr,
    /// How far it is.
    pub phase: Phase,

    /// The first number that the guest has not acknowledged.
    pub unacknowledged: u32,
    /// The number that is sent next.
    pub next: u32,
    /// Behind the highest number ever sent.
    pub highest: u32,
    /// What the guest has not acknowledged, sent or not.
    pub queue: Unacknowledged,
    /// How much the guest takes beyond `unacknowledged`.
    pub window: usize,
    window_shift: Option<u8>,
    /// The largest segment that the guest takes.
    pub segment_bytes: usize,
    /// The host has no more to say: FIN follows what is queued.
    pub host_done: bool,
    /// The guest has acknowledged our FIN.
    pub finished: bool,

    /// The number expected from the guest.
    pub expected: u32,
    /// The end of the window that the guest was told.
    promised: u32,
    /// From the guest, for the host.
    pub pending: VecDeque<u8>,
    /// From the guest, with a gap before them: where they start, in their order.
    later: VecDeque<(u32, Vec<u8>)>,
    /// `pending` is to be written when all that came at once was seen.
    pub flush_due: bool,
    /// The guest has no more to say.
    pub guest_done: bool,
    /// And the host was told so.
    pub finish_told: bool,

    /// Acknowledgements to send at the next opportunity.
    pub acknowledgements_due: u8,
    /// SYN is to be sent.
    pub start_due: bool,
    /// The host may have something to read.
    pub readable: bool,
    /// The host's end is closed or broken: read until that shows.
    pub hung_up: bool,
    /// In the list of connections that wait until less is held.
    pub starving: bool,
    /// In the list of connections to be served.
    pub scheduled: bool,

    duplicates: u8,
    /// While numbers before this are acknowledged, duplicates say nothing new.
    recover: u32,
    /// Up to `recover`, each acknowledgement shows the next gap (RFC 6582).
    recovering: bool,
    /// The first unacknowledged segment is to be sent again, alone.
    pub resend_due: bool,
    retries: u8,
    since: Instant,
    /// When to send again.
    pub alarm: Alarm,
}

/// What an acknowledgement or a segment means for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on and look at the payload.
    Go,
    /// Nothing more to be done with this segment.
    Stop,
    /// The guest broke the connection off.
    Reset,
    /// It is no segment of this connection: answer with a reset, and keep the connection.
    Stray,
}

/// How far `to` lies behind `from` in the circle of sequence numbers.
pub fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

impl Flow {
    /// A connection whose first number to the guest is `first`.
    pub fn new(
        guest: SocketAddr,
        remote: SocketAddr,
        phase: Phase,
        first: u32,
        now: Instant,
    ) -> Self {
        Self {
            guest,
            remote,
            phase,
            unacknowledged: first,
            next: first,
            highest: first,
            queue: Unacknowledged::default(),
            window: 0,
            window_shift: None,
            segment_bytes: usize::from(SEGMENT_BYTES_UNSAID),
            host_done: false,
            finished: false,
            expected: 0,
            promised: 0,
            pending: VecDeque::new(),
            later: VecDeque::new(),
            flush_due: false,
            guest_done: false,
            finish_told: false,
            acknowledgements_due: 0,
            start_due: false,
            readable: false,
            hung_up: false,
            starving: false,
            scheduled: false,
            duplicates: 0,
            recover: first,
            recovering: false,
            resend_due: false,
            retries: 0,
            since: now,
            alarm: Alarm::default(),
        }
    }

    /// Takes the guest's SYN.
    pub fn take_start(&mut self, header: &Header) {
        self.expected = header.sequence.wrapping_add(1);
        self.window_shift = header.window_scale;
        // The window of a SYN is never scaled.
        self.window = usize::from(header.window);
        let said = header.segment_bytes_max.unwrap_or(SEGMENT_BYTES_UNSAID);
        self.segment_bytes = usize::from(said.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES));
    }

    /// Bytes that are sent and not acknowledged; SYN and FIN count.
    pub fn in_flight(&self) -> usize {
        usize::try_from(distance(self.unacknowledged, self.next)).unwrap_or(0)
    }

    /// Queued bytes that are to be sent.
    pub fn unsent(&self) -> usize {
        self.queue.bytes().saturating_sub(self.in_flight())
    }

    /// What the guest still takes.
    pub fn room(&self) -> usize {
        self.window.saturating_sub(self.in_flight())
    }

    /// FIN is to be sent now: everything before it was.
    pub fn finish_due(&self) -> bool {
        let all_sent = self.in_flight() == self.queue.bytes();
        self.phase == Phase::Open && self.host_done && !self.finished && all_sent
    }

    /// Both sides have said and acknowledged everything.
    pub fn is_over(&self) -> bool {
        let said = self.finished && self.guest_done && self.pending.is_empty();
        said && self.acknowledgements_due == 0
    }

    /// Whether there is something to be done for the guest.
    pub fn has_work(&self) -> bool {
        match self.phase {
            Phase::Connecting => false,
            Phase::SynReceived | Phase::SynSent => self.start_due,
            Phase::Open => {
                let sendable = self.unsent() > 0 || (self.readable && !self.host_done);
                self.acknowledgements_due > 0
                    || self.resend_due
                    || self.finish_due()
                    || (sendable && self.room() > 0)
            }
        }
    }

    /// An acknowledgement is to be sent.
    pub fn owe_acknowledgement(&mut self) {
        self.acknowledgements_due = self.acknowledgements_due.max(1);
    }

    /// Judges a segment by its header and takes the acknowledgement in it. Returns also how many
    /// queued bytes the guest now has.
    pub fn take_header(
        &mut self,
        header: &Header,
        is_bare: bool,
        now: Instant,
    ) -> (Verdict, usize) {
        if header.flags & tcp::RST != 0 {
            let ahead = distance(self.expected, header.sequence);
            let answers_start = self.phase == Phase::SynSent
                && header.flags & tcp::ACK != 0
                && header.acknowledgement == self.highest;
            let fits = self.phase != Phase::SynSent
                && usize::try_from(ahead).is_ok_and(|ahead| ahead <= RECEIVE_MAX);
            let verdict = if answers_start || fits { Verdict::Reset } else { Verdict::Stop };
            return (verdict, 0);
        }
        match self.phase {
            Phase::Connecting => (Verdict::Stop, 0),
            Phase::SynSent => (self.take_answer(header, now), 0),
            Phase::SynReceived | Phase::Open if header.flags & tcp::SYN != 0 => {
                // A repeated start, or a guest that has forgotten the connection: it will
                // answer the acknowledgement with a reset (RFC 5961 section 4).
                self.start_due = self.phase == Phase::SynReceived;
                self.owe_acknowledgement();
                (Verdict::Stop, 0)
            }
            _ if header.flags & tcp::ACK == 0 => (Verdict::Stop, 0),
            Phase::SynReceived => {
                if header.acknowledgement != self.highest || self.highest == self.unacknowledged {
                    return (Verdict::Stray, 0);
                }
                self.open(header, now);
                self.window = self.scaled(header.window);
                (Verdict::Go, 0)
            }
            Phase::Open => self.take_acknowledgement(header, is_bare, now),
        }
    }

    /// The guest answers our SYN.
    fn take_answer(&mut self, header: &Header, now: Instant) -> Verdict {
        let started = header.flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK;
        let sent = self.highest != self.unacknowledged;
        if header.flags & tcp::ACK != 0 && !(sent && header.acknowledgement == self.highest) {
            return Verdict::Stray;
        }
        if !started {
            // A simultaneous start cannot happen: no guest connects to a port that it has as
            // the source of this connection without our knowing both.
            return Verdict::Stop;
        }
        self.take_start(header);
        self.open(header, now);
        self.owe_acknowledgement();
        Verdict::Stop
    }

    fn open(&mut self, header: &Header, now: Instant) {
        self.phase = Phase::Open;
        self.unacknowledged = header.acknowledgement;
        self.next = header.acknowledgement;
        self.recover = header.acknowledgement;
        self.promised = self.expected.wrapping_add(self.free_window());
        self.progress(now);
    }

    fn take_acknowledgement(
        &mut self,
        header: &Header,
        is_bare: bool,
        now: Instant,
    ) -> (Verdict, usize) {
        let acknowledged = distance(self.unacknowledged, header.acknowledgement);
        if distance(self.highest, header.acknowledgement) > 0 {
            // Something that was never sent.
            self.owe_acknowledgement();
            return (Verdict::Stop, 0);
        }
        let window = self.scaled(header.window);
        let mut freed = 0;
        if acknowledged > 0 {
            let count = usize::try_from(acknowledged).unwrap_or(0);
            freed = count.min(self.queue.bytes());
            self.finished |= count > self.queue.bytes();
            self.unacknowledged = header.acknowledgement;
            if distance(self.next, self.unacknowledged) > 0 {
                self.next = self.unacknowledged;
            }
            self.progress(now);
            self.recovering &= distance(self.unacknowledged, self.recover) > 0;
            self.resend_due = self.recovering;
        } else if acknowledged == 0 {
            let repeated = is_bare && window == self.window && self.in_flight() > 0;
            self.duplicates = if repeated { self.duplicates.saturating_add(1) } else { 0 };
            let news = distance(self.recover, self.unacknowledged) >= 0;
            if self.duplicates == DUPLICATES && news {
                self.recover = self.highest;
                self.recovering = true;
                self.resend_due = true;
            }
            if self.in_flight() == 0 {
                // The guest lives and takes nothing, or has just made room: no reason to give up.
                self.progress(now);
            }
        }
        if acknowledged >= 0 {
            self.window = window;
        }
        (Verdict::Go, freed)
    }

    /// Keeps a payload that came too early; returns how many bytes. `stored` are kept already,
    /// over all connections.
    pub fn keep_for_later(&mut self, header: &Header, payload: &[u8], stored: usize) -> usize {
        let ahead = distance(self.expected, header.sequence);
        let Some(start) = usize::try_from(ahead).ok().filter(|start| *start > 0) else { return 0 };
        let space = usize::try_from(distance(self.expected, self.promised)).unwrap_or(0);
        let fits = start + payload.len() <= space
            && self.later.len() < LATER_MAX
            && stored + payload.len() <= super::STORED_MAX;
        if payload.is_empty() || !fits || self.guest_done {
            return 0;
        }
        let expected = self.expected;
        let at = self.later.partition_point(|(other, _)| distance(expected, *other) < ahead);
        let known = self.later.get(at);
        if known.is_some_and(|(s, b)| *s == header.sequence && b.len() >= payload.len()) {
            return 0;
        }
        self.later.insert(at, (header.sequence, payload.to_vec()));
        payload.len()
    }

    /// The first that came too early and now has no gap before it, and how many of its bytes
    /// came otherwise.
    pub fn take_later(&mut self) -> Option<(Vec<u8>, usize)> {
        let (sequence, _) = self.later.front()?;
        let known = usize::try_from(distance(*sequence, self.expected)).ok()?;
        self.later.pop_front().map(|(_, bytes)| (bytes, known))
    }

    /// Bytes from the guest that are kept.
    pub fn stored(&self) -> usize {
        self.pending.len() + self.later.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    }

    /// The part of a payload that is new, and whether FIN behind it counts.
    pub fn cut<'a>(&mut self, header: &Header, payload: &'a [u8]) -> (&'a [u8], bool) {
        let finish = header.flags & tcp::FIN != 0;
        let length = payload.len() + usize::from(finish);
        let ahead = distance(self.expected, header.sequence);
        if ahead > 0 {
            // Something is missing before it. Each such segment has its own acknowledgement,
            // because the guest counts them.
            if length > 0 {
                self.acknowledgements_due = (self.acknowledgements_due + 1).min(DUPLICATES);
            }
            return (&[], false);
        }
        let known = usize::try_from(ahead.unsigned_abs()).unwrap_or(usize::MAX);
        if length > 0 || known > 0 {
            self.owe_acknowledgement();
        }
        if known >= length || self.guest_done {
            return (&[], false);
        }
        let new = &payload[known.min(payload.len())..];
        let space = usize::try_from(distance(self.expected, self.promised)).unwrap_or(0);
        if new.len() > space { (&new[..space], false) } else { (new, finish) }
    }

    /// The header of the next segment; `take` is called when the card has it.
    pub fn header(&self, flags: u8) -> Header {
        let starts = flags & tcp::SYN != 0;
        let free = self.free_window();
        let shift = if starts { 0 } else { self.own_shift() };
        let scaled = starts && (self.phase == Phase::SynSent || self.window_shift.is_some());
        let knows_guest = self.phase != Phase::SynSent;
        Header {
            sequence: self.next,
            acknowledgement: if knows_guest { self.expected } else { 0 },
            flags: flags | if knows_guest { tcp::ACK } else { 0 },
            window: u16::try_from(free >> shift).unwrap_or(u16::MAX),
            segment_bytes_max: starts.then_some(SEGMENT_BYTES),
            window_scale: scaled.then_some(WINDOW_SHIFT),
        }
    }

    /// The card has taken a segment with `count` sequence numbers.
    pub fn took(&mut self, count: usize, header: &Header, now: Instant) {
        if self.in_flight() == 0 && count > 0 {
            self.since = now;
        }
        self.next = self.next.wrapping_add(u32::try_from(count).unwrap_or(0));
        if distance(self.highest, self.next) > 0 {
            self.highest = self.next;
        }
        if header.flags & tcp::ACK != 0 {
            let shift = if header.flags & tcp::SYN != 0 { 0 } else { self.own_shift() };
            self.promised = self.expected.wrapping_add(u32::from(header.window) << shift);
        }
    }

    /// The guest should hear that the window is open again.
    pub fn window_opened(&self) -> bool {
        let told = usize::try_from(distance(self.expected, self.promised)).unwrap_or(0);
        let free = self.free_window() as usize;
        free >= told + RECEIVE_MAX / 4 || (told < self.segment_bytes && free > told)
    }

    /// When to look again without having heard from the guest.
    pub fn deadline(&self) -> Option<Instant> {
        let waiting = match self.phase {
            Phase::Connecting => false,
            Phase::SynReceived | Phase::SynSent => true,
            Phase::Open => {
                let sendable = self.unsent() > 0 || (self.readable && !self.host_done);
                self.in_flight() > 0 || (sendable && self.room() == 0)
            }
        };
        let patience = if self.phase == Phase::Open { PATIENCE } else { START_PATIENCE };
        waiting.then(|| self.since + patience * (1 << self.retries.min(RETRIES_MAX)))
    }

    /// Nothing was heard for too long. `false`: the guest is given up. `was_heard`: other
    /// frames of the guest came meanwhile; a guest that is paused must not lose its connections.
    pub fn retry(&mut self, was_heard: bool, now: Instant) -> bool {
        self.since = now;
        if self.phase == Phase::Open && !was_heard {
            return true;
        }
        self.retries += 1;
        let starting = self.phase != Phase::Open;
        if self.retries > if starting { START_RETRIES_MAX } else { RETRIES_MAX } {
            return false;
        }
        self.start_due = starting;
        self.next = self.unacknowledged;
        self.recover = self.highest;
        self.recovering = false;
        self.resend_due = false;
        true
    }

    /// When the present wait began.
    pub fn waiting_since(&self) -> Instant {
        self.since
    }

    fn progress(&mut self, now: Instant) {
        self.since = now;
        self.retries = 0;
        self.duplicates = 0;
    }

    fn scaled(&self, window: u16) -> usize {
        usize::from(window) << self.window_shift.unwrap_or(0)
    }

    fn own_shift(&self) -> u8 {
        if self.window_shift.is_some() { WINDOW_SHIFT } else { 0 }
    }

    /// What the guest may send, as it can be told.
    fn free_window(&self) -> u32 {
        let free = u32::try_from(RECEIVE_MAX.saturating_sub(self.pending.len())).unwrap_or(0);
        let shift = self.own_shift();
        (free >> shift).min(u32::from(u16::MAX)) << shift
    }
}
