//! The header before each frame: what was left to the receiver. Pure.

use net::{Capabilities, Offload, Segmentation};

use super::spec;

/// A driver's header; none when it leaves what was not agreed on.
pub(super) fn parse(header: &[u8; 10], granted: Capabilities) -> Option<Offload> {
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let needs_checksum = header[0] & spec::HDR_NEEDS_CSUM != 0;
    let segmentation = match header[1] & !spec::GSO_ECN {
        spec::GSO_NONE => None,
        spec::GSO_TCPV4 if granted.takes_tso4 => Some(Segmentation::TcpV4),
        spec::GSO_TCPV6 if granted.takes_tso6 => Some(Segmentation::TcpV6),
        _ => return None,
    };
    if needs_checksum && !granted.takes_checksum {
        return None;
    }
    if segmentation.is_some() && half(4) == 0 {
        return None;
    }
    Some(Offload {
        needs_checksum,
        checksum_start: half(6),
        checksum_offset: half(8),
        segmentation,
        segment_bytes: half(4),
        header_bytes: half(2),
        checksum_valid: false,
    })
}

/// The header for a driver; none when it has not agreed to take such frames.
pub(super) fn emit(offload: &Offload, granted: Capabilities) -> Option<[u8; 12]> {
    let gso = match offload.segmentation {
        None => spec::GSO_NONE,
        Some(Segmentation::TcpV4) if granted.gives_tso4 => spec::GSO_TCPV4,
        Some(Segmentation::TcpV6) if granted.gives_tso6 => spec::GSO_TCPV6,
        Some(_) => return None,
    };
    if offload.needs_checksum && !granted.gives_checksum {
        return None;
    }
    let mut header = [0; 12];
    if offload.needs_checksum {
        header[0] = spec::HDR_NEEDS_CSUM;
        header[6..8].copy_from_slice(&offload.checksum_start.to_le_bytes());
        header[8..10].copy_from_slice(&offload.checksum_offset.to_le_bytes());
    } else if offload.checksum_valid && granted.gives_checksum {
        header[0] = spec::HDR_DATA_VALID;
    }
    header[1] = gso;
    if gso != spec::GSO_NONE {
        header[2..4].copy_from_slice(&offload.header_bytes.to_le_bytes());
        header[4..6].copy_from_slice(&offload.segment_bytes.to_le_bytes());
    }
    Some(header)
}

/// What features say about offloads.
pub(super) fn granted(features: u64) -> Capabilities {
    let has = |feature| features & feature != 0;
    Capabilities {
        takes_checksum: has(spec::F_CSUM),
        takes_tso4: has(spec::F_CSUM) && has(spec::F_HOST_TSO4),
        takes_tso6: has(spec::F_CSUM) && has(spec::F_HOST_TSO6),
        gives_checksum: has(spec::F_GUEST_CSUM),
        gives_tso4: has(spec::F_GUEST_CSUM) && has(spec::F_GUEST_TSO4),
        gives_tso6: has(spec::F_GUEST_CSUM) && has(spec::F_GUEST_TSO6),
    }
}

/// The other way round: what to offer for what a back end can.
pub(super) fn features(capabilities: Capabilities) -> u64 {
    let Capabilities { takes_checksum, takes_tso4, takes_tso6, .. } = capabilities;
    let Capabilities { gives_checksum, gives_tso4, gives_tso6, .. } = capabilities;
    [
        (takes_checksum, spec::F_CSUM),
        (takes_checksum && takes_tso4, spec::F_HOST_TSO4),
        (takes_checksum && takes_tso6, spec::F_HOST_TSO6),
        (gives_checksum, spec::F_GUEST_CSUM | spec::F_CTRL_GUEST_OFFLOADS),
        (gives_checksum && gives_tso4, spec::F_GUEST_TSO4),
        (gives_checksum && gives_tso6, spec::F_GUEST_TSO6),
    ]
    .iter()
    .filter(|(can, _)| *can)
    .map(|(_, feature)| feature)
    .sum()
}
