//! A CD-ROM: packets of the SCSI multimedia commands.

use std::sync::Arc;

use block::Node;

use super::identify::Identity;
use super::{Action, CD_BLOCK, ERROR_ABORT, TaskFile};

/// Why a packet failed: sense key, additional code and qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense(pub u8, pub u8, pub u8);

device::saved!(Sense { 0, 1, 2 });

impl Sense {
    const NONE: Self = Self(0, 0, 0);
    const NO_MEDIUM: Self = Self(2, 0x3a, 0);
    const TRAY_OPEN: Self = Self(2, 0x3a, 2);
    const MEDIUM_ERROR: Self = Self(3, 0x11, 0);
    const NO_SUCH_COMMAND: Self = Self(5, 0x20, 0);
    const NO_SUCH_ADDRESS: Self = Self(5, 0x21, 0);
    const BAD_FIELD: Self = Self(5, 0x24, 0);
    const LOCKED: Self = Self(5, 0x53, 2);
    const MEDIUM_CHANGED: Self = Self(6, 0x28, 0);
}

/// What a packet asks of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PacketAction {
    /// Nothing moves.
    Done,
    /// These bytes go to the guest.
    Data(Vec<u8>),
    /// Blocks of 2048 bytes go to the guest.
    Read {
        /// From here.
        block: u64,
        /// So many.
        blocks: u32,
    },
    /// It failed; the sense is kept for the guest to ask for.
    Fail(Sense),
    /// The tray was moved by the guest: it is open now, or not.
    Tray(bool),
}

/// The drive.
pub struct Cdrom {
    medium: Option<Arc<dyn Node>>,
    serial: String,
    firmware: String,
    model: String,
    sense: Sense,
    /// To be told once.
    changed: bool,
    /// Events of the medium, for those who ask: 2 for new, 3 for gone, 1 for "please eject".
    event: u8,
    locked: bool,
    open: bool,
}

device::saved!(Cdrom { sense, changed, event, locked, open });

impl Cdrom {
    /// A drive with this medium, or none.
    #[must_use]
    pub fn new(medium: Option<Arc<dyn Node>>, [serial, firmware, model]: [String; 3]) -> Self {
        Self {
            medium,
            serial,
            firmware,
            model,
            sense: Sense::NONE,
            changed: false,
            event: 0,
            locked: false,
            open: false,
        }
    }

    pub(super) fn reset(&mut self) {
        self.sense = Sense::NONE;
        self.locked = false;
    }

    /// Whether the guest holds the medium.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Whether the tray is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Asks the guest to give the medium up.
    pub fn ask_to_eject(&mut self) {
        self.event = 1;
    }

    /// Moves the tray from outside.
    pub fn set_open(&mut self, open: bool) {
        if self.open != open {
            self.open = open;
            self.medium_changed();
        }
    }

    /// Puts another medium in, or none.
    pub fn set_medium(&mut self, medium: Option<Arc<dyn Node>>) {
        self.medium = medium;
        self.medium_changed();
    }

    fn medium_changed(&mut self) {
        self.changed = self.present().is_some();
        self.event = if self.changed { 2 } else { 3 };
    }

    fn present(&self) -> Option<&Arc<dyn Node>> {
        self.medium.as_ref().filter(|_| !self.open)
    }

    fn blocks(&self) -> u64 {
        self.present().map_or(0, |medium| medium.size() / CD_BLOCK)
    }

    pub(super) fn begin(&mut self, task: &TaskFile) -> Action {
        match task.command {
            0xa0 => Action::Packet { dma: task.features & 1 != 0 },
            0xa1 => Action::Data(self.identify()),
            0x08 => {
                self.reset();
                Action::Signature
            }
            0x90 => Action::Signature,
            // To a packet device, identify and read fail and show what it is.
            0xec | 0x20 => Action::Fail(ERROR_ABORT),
            0xef if matches!(
                task.features as u8,
                0x03 | 0x05 | 0x66 | 0xcc | 0x85 | 0x82 | 0x02
            ) =>
            {
                Action::Done
            }
            0xe0..=0xe3 | 0xe5 | 0xe6 | 0xe7 | 0x00 => Action::Done,
            _ => Action::Fail(ERROR_ABORT),
        }
    }

    fn identify(&self) -> Vec<u8> {
        let mut words = Identity::new(&self.serial, &self.firmware, &self.model);
        words.set_all(&[
            (0, 0x85c0), // a packet device, CD-ROM, removable, 12 bytes a packet
            (49, 0x0b00),
            (53, 0x0007),
            (63, 0x0007),
            (64, 0x0003),
            (65, 0xb4),
            (66, 0xb4),
            (67, 0x12c),
            (68, 0xb4),
            (71, 30),
            (72, 30),
            (76, 0x0006),
            (80, 0x01e0),
            (82, 0x4214),
            (83, 0x4000),
            (84, 0x4000),
            (85, 0x4214),
            (87, 0x4000),
            (88, 0x203f),
        ]);
        words.finish()
    }

    /// Reads whole blocks. False when the medium cannot be read.
    #[must_use]
    pub fn read_blocks(&self, block: u64, into: &mut [u8]) -> bool {
        self.present().is_some_and(|medium| medium.read_at(into, block * CD_BLOCK).is_ok())
    }

    /// Blocks could not be read after all.
    pub fn read_failed(&mut self) -> Sense {
        self.sense = Sense::MEDIUM_ERROR;
        self.sense
    }

    /// Begins a packet.
    pub fn packet(&mut self, packet: &[u8; 12]) -> PacketAction {
        let action = self.command(packet);
        match &action {
            PacketAction::Fail(sense) => self.sense = *sense,
            _ if packet[0] == 0x03 => {}
            _ => self.sense = Sense::NONE,
        }
        action
    }

    /// A medium that is there, or why not.
    fn ready(&mut self) -> Result<(), PacketAction> {
        if self.open {
            return Err(PacketAction::Fail(Sense::TRAY_OPEN));
        }
        if self.medium.is_none() {
            return Err(PacketAction::Fail(Sense::NO_MEDIUM));
        }
        if std::mem::take(&mut self.changed) {
            return Err(PacketAction::Fail(Sense::MEDIUM_CHANGED));
        }
        Ok(())
    }

    fn command(&mut self, packet: &[u8; 12]) -> PacketAction {
        let half = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let word = |at: usize| {
            u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
        };
        let cut = |mut bytes: Vec<u8>, most: usize| {
            bytes.truncate(most);
            PacketAction::Data(bytes)
        };
        let needs_medium =
            matches!(packet[0], 0x00 | 0x25 | 0x28 | 0xa8 | 0xbe | 0x43 | 0x44 | 0x51);
        if needs_medium && let Err(failed) = self.ready() {
            return failed;
        }
        match packet[0] {
            0x00 => PacketAction::Done,
            0x03 => {
                let Sense(key, code, qualifier) = std::mem::replace(&mut self.sense, Sense::NONE);
                let mut bytes = vec![0; 18];
                (bytes[0], bytes[2], bytes[7]) = (0x70, key, 10);
                (bytes[12], bytes[13]) = (code, qualifier);
                cut(bytes, usize::from(packet[4]))
            }
            0x12 => cut(self.inquiry(), usize::from(half(3))),
            0x1a => cut(self.mode(packet[2], false), usize::from(packet[4])),
            0x5a => cut(self.mode(packet[2], true), usize::from(half(7))),
            0x1b => self.start_stop(packet[4]),
            0x1e => {
                self.locked = packet[4] & 1 != 0;
                PacketAction::Done
            }
            0x25 => {
                let last = self.blocks().saturating_sub(1).min(u64::from(u32::MAX)) as u32;
                let block = (CD_BLOCK as u32).to_be_bytes();
                PacketAction::Data([last.to_be_bytes(), block].concat())
            }
            0x28 => self.read(word(2), u32::from(half(7))),
            0xa8 => self.read(word(2), word(6)),
            0xbe => match packet[9] & 0xf8 {
                // User data alone is what is on an image.
                0x10 => self.read(word(2), word(5) & 0xff_ffff),
                0 => PacketAction::Done,
                _ => PacketAction::Fail(Sense::BAD_FIELD),
            },
            0x43 => self.contents(
                packet[1] & 2 != 0,
                packet[2] & 15 | packet[9] >> 6,
                packet[6],
                half(7),
            ),
            0x46 => cut(self.configuration(), usize::from(half(7))),
            0x4a => self.events(packet[1] & 1 != 0, packet[4], half(7)),
            0x51 => cut(self.disc(), usize::from(half(7))),
            0xbd => cut(
                vec![0, if self.open { 0x10 } else { 0 }, 0, 0, 0, 1, 0, 0],
                usize::from(half(8)),
            ),
            // Seek, set speed, verify: nothing moves.
            0x2b | 0xbb | 0x2f => PacketAction::Done,
            _ => PacketAction::Fail(Sense::NO_SUCH_COMMAND),
        }
    }

    fn inquiry(&self) -> Vec<u8> {
        let mut bytes = vec![0x05, 0x80, 0x05, 0x21, 31, 0, 0, 0];
        bytes.extend(b"HOSTEL  ");
        bytes.extend(format!("{:16.16}", self.model).into_bytes());
        bytes.extend(format!("{:4.4}", self.firmware).into_bytes());
        bytes
    }

    /// Mode pages: error recovery, capabilities.
    fn mode(&self, page: u8, long: bool) -> Vec<u8> {
        let mut pages = Vec::new();
        let page = page & 0x3f;
        if matches!(page, 0x01 | 0x3f) {
            pages.extend([0x01, 6, 0, 5, 0, 0, 0, 0]);
        }
        if matches!(page, 0x2a | 0x3f) {
            let tray = 0x29 | if self.locked { 2 } else { 0 };
            pages.extend([0x2a, 20, 0x3b, 0, 0x71, 0x60, tray, 0]);
            pages.extend([0x02, 0xc2, 0x02, 0x00, 0x02, 0x00, 0x02, 0xc2, 0, 0, 0, 0, 0, 0]);
        }
        let kind = if self.open {
            0x71
        } else if self.medium.is_some() {
            0x01
        } else {
            0x70
        };
        let mut bytes = if long {
            let length = (6 + pages.len()) as u16;
            vec![(length >> 8) as u8, length as u8, kind, 0, 0, 0, 0, 0]
        } else {
            vec![(3 + pages.len()) as u8, kind, 0, 0]
        };
        bytes.extend(pages);
        bytes
    }

    fn start_stop(&mut self, how: u8) -> PacketAction {
        if how & 2 == 0 {
            return PacketAction::Done;
        }
        let open = how & 1 == 0;
        if open && self.locked {
            return PacketAction::Fail(Sense::LOCKED);
        }
        if self.open == open {
            return PacketAction::Done;
        }
        self.open = open;
        self.medium_changed();
        PacketAction::Tray(open)
    }

    fn read(&mut self, block: u32, blocks: u32) -> PacketAction {
        let end = u64::from(block) + u64::from(blocks);
        if end > self.blocks() {
            return PacketAction::Fail(Sense::NO_SUCH_ADDRESS);
        }
        if blocks == 0 {
            return PacketAction::Done;
        }
        PacketAction::Read { block: u64::from(block), blocks }
    }

    /// The table of contents: one data track and the end.
    fn contents(&self, minutes: bool, format: u8, first: u8, most: u16) -> PacketAction {
        let address = |block: u64| {
            let block = block.min(u64::from(u32::MAX)) as u32;
            if minutes {
                let frames = block.saturating_add(150);
                [0, (frames / 75 / 60).min(99) as u8, (frames / 75 % 60) as u8, (frames % 75) as u8]
            } else {
                block.to_be_bytes()
            }
        };
        const DATA: u8 = 0x14;
        let mut bytes = match format {
            0 => {
                let mut bytes = vec![0, 0, 1, 1];
                if first <= 1 {
                    bytes.extend([0, DATA, 1, 0]);
                    bytes.extend(address(0));
                }
                bytes.extend([0, DATA, 0xaa, 0]);
                bytes.extend(address(self.blocks()));
                bytes
            }
            1 => [&[0, 0, 1, 1, 0, DATA, 1, 0][..], &address(0)].concat(),
            _ => return PacketAction::Fail(Sense::BAD_FIELD),
        };
        let length = (bytes.len() - 2) as u16;
        bytes[..2].copy_from_slice(&length.to_be_bytes());
        bytes.truncate(usize::from(most));
        PacketAction::Data(bytes)
    }

    /// Features: the profile of what is in.
    fn configuration(&self) -> Vec<u8> {
        const CD_ROM: u8 = 0x08;
        const DVD_ROM: u8 = 0x10;
        /// A CD has no more.
        const CD_BLOCKS_MAX: u64 = 450_000;
        let current = match self.blocks() {
            0 => 0,
            1..=CD_BLOCKS_MAX => CD_ROM,
            _ => DVD_ROM,
        };
        let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, current];
        let is = |profile| u8::from(current == profile);
        bytes.extend([0, 0, 3, 8, 0, DVD_ROM, is(DVD_ROM), 0, 0, CD_ROM, is(CD_ROM), 0]);
        bytes.extend([0, 1, 0x0b, 8, 0, 0, 0, 1, 1, 0, 0, 0]); // core
        bytes.extend([0, 3, 3, 4, 0x29, 0, 0, 0]); // removable medium
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    fn events(&mut self, polled: bool, classes: u8, most: u16) -> PacketAction {
        const MEDIUM: u8 = 1 << 4;
        if !polled {
            return PacketAction::Fail(Sense::BAD_FIELD);
        }
        let mut bytes = if classes & MEDIUM == 0 {
            vec![0, 2, 0x80, MEDIUM]
        } else {
            let event = match std::mem::take(&mut self.event) {
                1 => 1,
                2 => 2,
                3 => 3,
                _ => 0,
            };
            let status = u8::from(self.open) | u8::from(self.present().is_some()) << 1;
            vec![0, 6, 4, MEDIUM, event, status, 0, 0]
        };
        bytes.truncate(usize::from(most));
        PacketAction::Data(bytes)
    }

    /// A finished disc with one track.
    fn disc(&self) -> Vec<u8> {
        let mut bytes = vec![0; 34];
        bytes[1] = 32;
        bytes[2] = 0x0e; // complete, the last session too
        bytes[3..7].copy_from_slice(&[1, 1, 1, 1]);
        bytes[7] = 0x20;
        bytes
    }
}
