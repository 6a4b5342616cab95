//! What a function is made of, said by its author before it is built.

use std::sync::Arc;

use memory::{Owner, Ram};

use super::config::{BarKind, ConfigSpace};
use super::connection::Connection;
use super::spec;

/// Who the function is: the read-only registers at the start of its space.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The maker of the chip.
    pub vendor: u16,
    /// The chip.
    pub device: u16,
    /// Its revision.
    pub revision: u8,
    /// Class, subclass and programming interface: `0x010601` is an AHCI controller.
    pub class: u32,
    /// Maker and number of the board; zeros for none.
    pub subsystem: (u16, u16),
}

/// A part of what stands behind a base address.
#[derive(Clone)]
pub(super) struct Piece {
    pub offset: u64,
    pub bytes: u64,
    pub owner: Owner,
}

/// What stands behind a base address.
#[derive(Clone)]
pub(super) struct BarLayout {
    pub index: u8,
    pub kind: BarKind,
    pub bytes: u64,
    pub pieces: Vec<Piece>,
}

/// Addresses that the function decodes wherever its base addresses point: VGA's and IDE's.
#[derive(Clone)]
pub(super) struct Fixed {
    pub io: bool,
    pub start: u64,
    pub bytes: u64,
    pub owner: Owner,
}

/// The size of the power of two that holds a BAR's pieces.
fn power_of_two(bytes: u64, least: u64) -> u64 {
    bytes.max(least).checked_next_power_of_two().unwrap_or(1 << 63)
}

/// The parts of a function; [`Layout::build`] makes a [`Connection`] of them.
///
/// A device's constructor reads like its data sheet:
///
/// ```text
/// let mut layout = Layout::new(IDENTITY);
/// layout.bar(0, BarKind::Memory32, 0x1000, Owner::Io(registers));
/// layout.interrupt_pin(1);
/// layout.msix(None, 4, 1, 0, 0x800);
/// let connection = layout.build();
/// ```
pub struct Layout {
    pub(super) config: ConfigSpace,
    pub(super) bars: Vec<BarLayout>,
    pub(super) fixed: Vec<Fixed>,
    pub(super) rom: Option<Arc<Ram>>,
    /// Where the MSI capability goes, its vectors, and whether they can be masked.
    pub(super) msi: Option<(u16, u8, bool)>,
    pub(super) msix: Option<MsixPlace>,
    pub(super) is_bridge: bool,
}

#[derive(Clone, Copy)]
pub(super) struct MsixPlace {
    pub at: Option<u16>,
    pub vectors: u16,
    pub bar: u8,
    pub table: u32,
    pub pending: u32,
}

impl Layout {
    /// An endpoint with nothing but its identity.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let Identity { subsystem, .. } = identity;
        let mut layout = Self::with_header(identity, 0);
        layout.config.set(spec::SUBSYSTEM_VENDOR, &subsystem.0.to_le_bytes());
        layout.config.set(spec::SUBSYSTEM, &subsystem.1.to_le_bytes());
        layout
    }

    /// A bridge to another bus: header type 1, with the registers of its windows.
    #[must_use]
    pub fn bridge(identity: Identity) -> Self {
        let mut layout = Self::with_header(identity, 1);
        layout.is_bridge = true;
        let config = &mut layout.config;
        config.allow(spec::PRIMARY_BUS, &[0xff; 4]); // the bus numbers and a latency
        config.set(spec::IO_WINDOW, &[1, 1]); // 32-bit ports
        config.allow(spec::IO_WINDOW, &[0xf0, 0xf0]);
        config.allow(spec::MEMORY_WINDOW, &[0xf0, 0xff, 0xf0, 0xff]);
        config.set(spec::PREFETCHABLE_WINDOW, &[1, 0, 1, 0]); // 64-bit memory
        config.allow(spec::PREFETCHABLE_WINDOW, &[0xf0, 0xff, 0xf0, 0xff]);
        config.allow(spec::PREFETCHABLE_UPPER, &[0xff; 8]);
        config.allow(spec::IO_WINDOW_UPPER, &[0xff; 4]);
        config.allow(spec::BRIDGE_CONTROL, &[0x7f, 0]);
        config.allow_clearing(spec::SECONDARY_STATUS, &[0, 0xf9]);
        layout
    }

    fn with_header(identity: Identity, header: u8) -> Self {
        let mut config = ConfigSpace::new(true);
        config.set(spec::VENDOR, &identity.vendor.to_le_bytes());
        config.set(spec::DEVICE, &identity.device.to_le_bytes());
        config.set(spec::REVISION, &[identity.revision]);
        config.set(spec::CLASS, &identity.class.to_le_bytes()[..3]);
        config.set(spec::HEADER_TYPE, &[header]);
        let command = spec::COMMAND_IO
            | spec::COMMAND_MEMORY
            | spec::COMMAND_MASTER
            | spec::COMMAND_INTX_OFF
            | 0x140; // answers to parity and system errors
        config.allow(spec::COMMAND, &command.to_le_bytes());
        config.allow_clearing(spec::STATUS, &[0, 0xf9]);
        config.allow(spec::CACHE_LINE, &[0xff, 0xff]);
        config.allow(spec::INTERRUPT_LINE, &[0xff]);
        Self {
            config,
            bars: Vec::new(),
            fixed: Vec::new(),
            rom: None,
            msi: None,
            msix: None,
            is_bridge: false,
        }
    }

    /// The registers themselves, for what has no method here.
    pub fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    /// The function interrupts on pin A (1) to D (4) where it may not send messages.
    pub fn interrupt_pin(&mut self, pin: u8) {
        assert!((1..=4).contains(&pin), "PCI has four interrupt pins");
        self.config.set(spec::INTERRUPT_PIN, &[pin]);
    }

    /// One thing behind a whole base address. The size is rounded up to a power of two; a 64-bit
    /// one takes the next index, too.
    pub fn bar(&mut self, index: u8, kind: BarKind, bytes: u64, owner: Owner) {
        self.bar_space(index, kind, bytes);
        self.piece(index, 0, bytes, owner);
    }

    /// A base address with nothing behind it yet: [`Layout::piece`] puts things there.
    pub fn bar_space(&mut self, index: u8, kind: BarKind, bytes: u64) {
        let most = if self.is_bridge { 2 } else { 6 };
        assert!(index + u8::from(kind.is_64()) < most, "BAR {index} is beyond the header");
        let least = if kind == BarKind::Io { 4 } else { 16 };
        let bytes = power_of_two(bytes, least);
        self.bars.push(BarLayout { index, kind, bytes, pieces: Vec::new() });
    }

    /// Something at an offset of a base address. Later pieces cover earlier ones.
    pub fn piece(&mut self, index: u8, offset: u64, bytes: u64, owner: Owner) {
        let bar = self.bars.iter_mut().find(|bar| bar.index == index);
        let bar = bar.expect("a piece belongs to a BAR that was declared before it");
        bar.pieces.push(Piece { offset, bytes, owner });
    }

    /// Ports that the function decodes while ports are enabled, wherever its BARs point.
    pub fn fixed_ports(&mut self, start: u64, bytes: u64, owner: Owner) {
        self.fixed.push(Fixed { io: true, start, bytes, owner });
    }

    /// Memory that the function decodes while memory is enabled, wherever its BARs point.
    pub fn fixed_memory(&mut self, start: u64, bytes: u64, owner: Owner) {
        self.fixed.push(Fixed { io: false, start, bytes, owner });
    }

    /// An expansion ROM.
    pub fn rom(&mut self, rom: Arc<Ram>) {
        self.rom = Some(rom);
    }

    /// A capability: its body behind the two bytes of the list and which bits of it can be
    /// written. It goes to `at`, or behind those before it. Returns where it is.
    pub fn capability(&mut self, id: u8, at: Option<u16>, body: &[u8], mask: &[u8]) -> u16 {
        self.config.add_capability(id, at, body, mask)
    }

    /// Message-signalled interrupts at `at` of the space: a power of two of vectors.
    pub fn msi(&mut self, at: u16, vectors: u8, masking: bool) {
        self.msi = Some((at, vectors, masking));
    }

    /// Message-signalled interrupts from a table at an offset of a BAR, with its pending bits at
    /// another. If the BAR was not declared it is made: 32-bit memory as large as needed.
    pub fn msix(&mut self, at: Option<u16>, vectors: u16, bar: u8, table: u32, pending: u32) {
        self.msix = Some(MsixPlace { at, vectors, bar, table, pending });
        if !self.bars.iter().any(|known| known.index == bar) {
            let end = u64::from(pending) + u64::from(vectors.div_ceil(64)) * 8;
            let end = end.max(u64::from(table) + 16 * u64::from(vectors));
            self.bar_space(bar, BarKind::Memory32, end.max(0x1000));
        }
    }

    /// A PCI Express capability. See [`ExpressKind`].
    pub fn express(&mut self, kind: ExpressKind) -> u16 {
        let mut body = [0; 58];
        let slot = matches!(kind, ExpressKind::RootPort { .. });
        let kind_bits = match kind {
            ExpressKind::Endpoint => 0,
            ExpressKind::RootPort { .. } => 4,
            ExpressKind::BridgeToPci => 7,
            ExpressKind::IntegratedEndpoint => 9,
        };
        let flags: u16 = 2 | kind_bits << 4 | u16::from(slot) << 8;
        body[..2].copy_from_slice(&flags.to_le_bytes());
        // Role-based error reporting; functions of a port can be reset alone.
        let capabilities: u32 = 1 << 15 | if kind_bits == 0 { 1 << 28 } else { 0 };
        body[2..6].copy_from_slice(&capabilities.to_le_bytes());
        let mut mask = [0; 58];
        mask[6..8].copy_from_slice(&0x7f0f_u16.to_le_bytes());
        if kind != ExpressKind::IntegratedEndpoint {
            // One lane at 2.5 GT/s, as capability and as status; a root port has its number.
            let number = if let ExpressKind::RootPort { number, .. } = kind { number } else { 0 };
            let reports = if slot { 1 << 20 } else { 0 };
            let link: u32 = 0x11 | 1 << 10 | reports | u32::from(number) << 24;
            body[10..14].copy_from_slice(&link.to_le_bytes());
            mask[14..16].copy_from_slice(&0x00f3_u16.to_le_bytes());
            body[16..18].copy_from_slice(&0x0011_u16.to_le_bytes());
        }
        if let ExpressKind::RootPort { number, hotplug } = kind {
            if hotplug {
                // Button, power control, both lights, surprise removal, hot-plug; slot number.
                let slot: u32 = 0x5b | 1 << 5 | u32::from(number) << 19;
                body[18..22].copy_from_slice(&slot.to_le_bytes());
                mask[22..24].copy_from_slice(&0x17ff_u16.to_le_bytes());
                body[22..24].copy_from_slice(&0x03c0_u16.to_le_bytes()); // lights are off
            } else {
                body[18..22].copy_from_slice(&(u32::from(number) << 19).to_le_bytes());
            }
            mask[26..28].copy_from_slice(&0x000f_u16.to_le_bytes());
        }
        mask[38..40].copy_from_slice(&0x000f_u16.to_le_bytes());
        self.capability(spec::CAPABILITY_EXPRESS, None, &body, &mask)
    }

    /// Several functions share the slot.
    pub fn multifunction(&mut self) {
        let header = self.config.byte(spec::HEADER_TYPE) | 0x80;
        self.config.set(spec::HEADER_TYPE, &[header]);
    }

    /// The function, connected to nothing yet.
    #[must_use]
    pub fn build(self) -> Arc<Connection> {
        Connection::new(self)
    }
}

/// What a function is on a PCI Express bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpressKind {
    /// A device in a port's slot.
    Endpoint,
    /// A device on the root bus itself.
    IntegratedEndpoint,
    /// A port of the root bus, with a slot.
    RootPort {
        /// The slot's number.
        number: u8,
        /// Devices may come and go.
        hotplug: bool,
    },
    /// The upper end of a bridge to a conventional bus.
    BridgeToPci,
}
