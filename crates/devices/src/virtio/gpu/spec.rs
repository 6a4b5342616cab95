//! Virtio 1.3, 5.7: GPU device, its 2D commands.

/// The device describes its screens by EDID.
pub const F_EDID: u64 = 1 << 1;

/// Of `events_read`: the driver is to ask for the screens again.
pub const EVENT_DISPLAY: u32 = 1;
/// Where the driver clears events.
pub const CONFIG_EVENTS_CLEAR: usize = 4;

/// Type, flags, fence, context.
pub const HEADER_BYTES: usize = 24;
/// The driver waits for the command's end.
pub const FLAG_FENCE: u32 = 1;

/// What screens there are.
pub const GET_DISPLAY_INFO: u32 = 0x100;
/// Makes a picture.
pub const CREATE_2D: u32 = 0x101;
/// Drops it.
pub const UNREF: u32 = 0x102;
/// Shows a picture on a screen.
pub const SET_SCANOUT: u32 = 0x103;
/// A part of a shown picture has changed.
pub const FLUSH: u32 = 0x104;
/// Copies from guest memory into a picture.
pub const TRANSFER: u32 = 0x105;
/// Says where a picture's guest memory is.
pub const ATTACH_BACKING: u32 = 0x106;
/// Takes it away.
pub const DETACH_BACKING: u32 = 0x107;
/// A screen's EDID.
pub const GET_EDID: u32 = 0x10a;
/// Another pointer.
pub const UPDATE_CURSOR: u32 = 0x300;
/// The same pointer elsewhere.
pub const MOVE_CURSOR: u32 = 0x301;

/// Done.
pub const OK: u32 = 0x1100;
/// Done, with screens.
pub const OK_DISPLAY_INFO: u32 = 0x1101;
/// Done, with an EDID.
pub const OK_EDID: u32 = 0x1104;
/// Not done, for any other reason.
pub const ERROR: u32 = 0x1200;
/// There is too little memory.
pub const ERROR_MEMORY: u32 = 0x1201;
/// No such screen.
pub const ERROR_SCANOUT: u32 = 0x1202;
/// No such picture.
pub const ERROR_RESOURCE: u32 = 0x1203;
/// Something does not fit.
pub const ERROR_PARAMETER: u32 = 0x1205;

/// Screens that an answer has room for.
pub const SCANOUTS_MAX: usize = 16;
/// Bytes for an EDID in an answer.
pub const EDID_ROOM: usize = 1024;
/// Pieces of guest memory behind a picture.
pub const BACKING_ENTRIES_MAX: u32 = 16384;
/// Pictures at a time.
pub const RESOURCES_MAX: usize = 4096;
/// Pixels of a pointer's side.
pub const CURSOR_SIDE: u32 = 64;
