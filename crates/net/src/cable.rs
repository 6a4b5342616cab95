//! The cable between a network card and what it is plugged into.
//!
//! A frame is a whole Ethernet frame without its check sequence. Beside each frame travels an
//! [`Offload`]: the work that its sender left to the receiver, because nothing on this cable can
//! damage a frame. A card and a back end agree on what may be left by [`Capabilities`].
//!
//! # Threads
//! [`Backend::transmit`] is called from vCPU and I/O threads and must not block for long.
//! [`Card::receive`] is called from the back end's own threads, which hold no lock of theirs
//! meanwhile: the card may answer by `transmit` or `room` from within.

use std::sync::Weak;

/// What the sender of a frame left to its receiver.
///
/// The default leaves nothing: a finished frame of ordinary size whose checksums are in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum is only begun: the field holds the pseudo header's sum, not
    /// inverted. The receiver sums from `checksum_start` to the end and stores the complement
    /// at `checksum_start + checksum_offset`.
    pub needs_checksum: bool,
    /// Where summing starts, from the first byte of the frame: the transport header.
    pub checksum_start: u16,
    /// Where the checksum is stored, from `checksum_start`.
    pub checksum_offset: u16,
    /// The frame is larger than the link carries and must be cut like this.
    pub segmentation: Option<Segmentation>,
    /// Bytes of payload in each cut; of meaning only with `segmentation`.
    pub segment_bytes: u16,
    /// Bytes of all headers, repeated before each cut; a hint that may be wrong or 0.
    pub header_bytes: u16,
    /// The receiver need not check the transport checksum: the sender knows that it is right.
    pub checksum_valid: bool,
}

/// Of the header in front of a frame, as virtio and the kernel's taps have it: the first bytes, which
/// all versions share.
pub(crate) const SHORT_HEADER_BYTES: usize = 10;

impl Offload {
    /// That header, in which words are stored as `word` does.
    pub(crate) fn virtio_header(&self, word: fn(u16) -> [u8; 2]) -> [u8; SHORT_HEADER_BYTES] {
        let mut header = [0; SHORT_HEADER_BYTES];
        header[0] = u8::from(self.needs_checksum);
        header[1] = match self.segmentation {
            None => 0,
            Some(Segmentation::TcpV4) => 1,
            Some(Segmentation::TcpV6) => 4,
            Some(Segmentation::Udp) => 5,
        };
        let words =
            [self.header_bytes, self.segment_bytes, self.checksum_start, self.checksum_offset];
        for (to, value) in header[2..].chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word(value));
        }
        header
    }
}

/// How a large frame is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segmentation {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP into datagrams of `segment_bytes` (not fragments), over either IP.
    Udp,
}

/// What a back end accepts from the guest (`takes`) and may hand to it (`gives`).
///
/// As the argument of [`Backend::set_guest_offload`] the same structure says what the guest's
/// driver agreed to: `takes` that it may send such frames, `gives` that it may be sent them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Frames from the guest may have `needs_checksum`.
    pub takes_checksum: bool,
    /// Frames from the guest may be large TCP over IPv4.
    pub takes_tso4: bool,
    /// Frames from the guest may be large TCP over IPv6.
    pub takes_tso6: bool,
    /// Frames for the guest may have `needs_checksum`.
    pub gives_checksum: bool,
    /// Frames for the guest may be large TCP over IPv4.
    pub gives_tso4: bool,
    /// Frames for the guest may be large TCP over IPv6.
    pub gives_tso6: bool,
}

impl Capabilities {
    /// What both sides agree to.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            takes_checksum: self.takes_checksum && other.takes_checksum,
            takes_tso4: self.takes_tso4 && other.takes_tso4,
            takes_tso6: self.takes_tso6 && other.takes_tso6,
            gives_checksum: self.gives_checksum && other.gives_checksum,
            gives_tso4: self.gives_tso4 && other.gives_tso4,
            gives_tso6: self.gives_tso6 && other.gives_tso6,
        }
    }
}

/// What a card is plugged into: the user-mode stack, a tap interface, a socket, a hub.
///
/// A back end is made unplugged, and moves nothing before [`attach`](Backend::attach). All
/// methods may be called from any thread.
pub trait Backend: Send + Sync {
    /// What this back end can accept and hand over; constant over its life.
    fn capabilities(&self) -> Capabilities;

    /// Takes a frame from the guest. A back end that cannot keep up drops it, as a wire would.
    /// The frame's contents and `offload` are the guest's: neither may be trusted.
    fn transmit(&self, frame: &[u8], offload: Offload);

    /// Plugs the card in; a second call replaces the first card. The back end holds it weakly,
    /// because the card owns its back end.
    fn attach(&self, card: Weak<dyn Card>);

    /// The guest's driver has chosen: from now on only frames within `granted` are handed over.
    /// Before the first call nothing is granted. A reset of the card grants nothing again.
    fn set_guest_offload(&self, granted: Capabilities);

    /// The card has receive buffers again after a refused [`Card::receive`].
    fn room(&self);

    /// Whether the far end is there; the card shows it to the guest as its carrier.
    fn link(&self) -> bool;

    /// What `info network` prints after the back end's name.
    fn info(&self) -> String;
}

/// A card, seen from its back end.
pub trait Card: Send + Sync {
    /// Takes a frame for the guest. `false`: there is no room now; the back end may keep the
    /// frame or drop it, and the card calls [`Backend::room`] when it can take frames again.
    /// A frame that the card does not want (its address filter, its link is down) counts as
    /// taken.
    fn receive(&self, frame: &[u8], offload: Offload) -> bool;

    /// The far end came or went.
    fn set_link(&self, up: bool);
}
