//! A client's conversation: bytes in, a picture and events out.

use crate::codec::{
    Bytes, CHALLENGE_BYTES, ClientMessage, PixelFormat, ProtocolError, SoundNews, VERSION, bad,
    encoding, response,
};
use crate::decode::{self, Decoder};
use crate::surface::{Frame, Pointer, Rect};

/// No message is longer, but for rectangles, which a screen bounds.
const TEXT_BYTES_MAX: u32 = 1 << 20;
/// A server that sends more without completing anything is not one.
const WAITING_BYTES_MAX: usize = 256 << 20;
/// A pointer's picture is no larger.
const POINTER_SIDE_MAX: u32 = 1024;

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The conversation has begun; the picture has its size.
    Ready {
        /// What the server calls its desktop.
        name: String,
    },
    /// An update is complete.
    Updated,
    /// The picture has another size.
    Resized,
    /// The answer to a wish for another size: 0 or 4 is good.
    ResizeAnswered {
        /// RFB's number.
        result: u16,
    },
    /// The pointer looks so.
    Pointer(Pointer),
    /// The keyboard's lights: scroll, num, caps from bit 0.
    Lights(u8),
    /// The guest's pointer takes places, or movements.
    Absolute(bool),
    /// Keys may be sent with scan codes.
    ScanKeys,
    /// Continuous updates can be asked for, or have ended.
    ContinuousUpdates,
    /// A mark came, and its answer went out.
    Fence,
    /// It rings.
    Bell,
    /// Sound can be asked for.
    CanHear,
    /// What is to be heard.
    Sound(SoundNews),
    /// Text for the clipboard.
    Text(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Version,
    Types,
    TypeOfOld,
    Challenge,
    Result,
    Reason,
    Init,
    Messages,
    Rectangles(u16),
}

/// One connection's state.
pub struct Conversation {
    stage: Stage,
    minor: u8,
    password: Option<Vec<u8>>,
    shared: bool,
    format: PixelFormat,
    frame: Frame,
    decoder: Decoder,
    waiting: Vec<u8>,
    out: Vec<u8>,
}

type Tried<T = Option<Event>> = decode::Tried<T>;

/// Leaves with `None` when bytes are missing.
macro_rules! attempt {
    ($tried:expr) => {
        match $tried {
            Ok(value) => value,
            Err(error) => return Some(Err(error)),
        }
    };
}

impl Conversation {
    /// At its start. `shared`: others may stay.
    #[must_use]
    pub fn new(password: Option<&str>, shared: bool) -> Self {
        Self {
            stage: Stage::Version,
            minor: 8,
            password: password.map(|password| password.as_bytes().to_vec()),
            shared,
            format: PixelFormat::NATIVE,
            frame: Frame::default(),
            decoder: Decoder::default(),
            waiting: Vec::new(),
            out: Vec::new(),
        }
    }

    /// The picture as far as it has come.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Whether the handshake is over.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Messages | Stage::Rectangles(_))
    }

    /// What has to go to the server.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Says something.
    pub fn send(&mut self, message: &ClientMessage) {
        if let ClientMessage::PixelFormat(format) = message {
            self.format = *format;
        }
        message.write(&mut self.out);
    }

    /// Takes what came.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Event>, ProtocolError> {
        self.waiting.extend(bytes);
        let waiting = std::mem::take(&mut self.waiting);
        let (mut at, mut events) = (0, Vec::new());
        while at < waiting.len() || self.stage == Stage::Rectangles(0) {
            let mut bytes = Bytes::new(&waiting[at..]);
            match self.step(&mut bytes) {
                None => break,
                Some(Err(error)) => return Err(error),
                Some(Ok(event)) => events.extend(event),
            }
            at += bytes.taken();
        }
        self.waiting = waiting;
        self.waiting.drain(..at);
        match self.waiting.len() > WAITING_BYTES_MAX {
            true => Err(bad("length of a message")),
            false => Ok(events),
        }
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) -> Tried {
        match self.stage {
            Stage::Messages => self.message(bytes),
            Stage::Rectangles(0) => {
                self.stage = Stage::Messages;
                Some(Ok(Some(Event::Updated)))
            }
            Stage::Rectangles(left) => {
                let event = attempt!(self.rectangle(bytes)?);
                // LastRect is not asked for, so the count is true.
                self.stage = Stage::Rectangles(left - 1);
                Some(Ok(event))
            }
            Stage::Init => self.init(bytes),
            _ => Some(attempt!(self.greet(bytes)?).map_or(Ok(None), Err)),
        }
    }

    /// The handshake; gives why it ended, if it did.
    fn greet(&mut self, bytes: &mut Bytes<'_>) -> Tried<Option<ProtocolError>> {
        match self.stage {
            Stage::Version => {
                let version = bytes.take(VERSION.len())?;
                if !version.starts_with(b"RFB 003.0") {
                    return Some(Err(bad("version")));
                }
                (self.minor, self.stage) = match version[10] {
                    b'8' => (8, Stage::Types),
                    b'7' => (7, Stage::Types),
                    _ => (3, Stage::TypeOfOld),
                };
                self.out.extend(format!("RFB 003.00{}\n", self.minor).as_bytes());
            }
            Stage::Types => {
                let count = usize::from(bytes.u8()?);
                let types = bytes.take(count)?.to_vec();
                if count == 0 {
                    self.stage = Stage::Reason;
                    return Some(Ok(None));
                }
                let wanted = if self.password.is_some() { [2, 1] } else { [1, 2] };
                let Some(kind) = wanted.into_iter().find(|kind| types.contains(kind)) else {
                    return Some(Err(bad("list of security types: none is known here")));
                };
                self.out.push(kind);
                attempt!(self.choose(kind, self.minor == 8));
            }
            Stage::TypeOfOld => match bytes.u32()? {
                0 => self.stage = Stage::Reason,
                kind => attempt!(self.choose((kind & 0xff) as u8, false)),
            },
            Stage::Challenge => {
                let mut challenge = [0; CHALLENGE_BYTES];
                challenge.copy_from_slice(bytes.take(CHALLENGE_BYTES)?);
                let password = self.password.take().unwrap_or_default();
                self.out.extend(response(&password, &challenge));
                self.stage = Stage::Result;
            }
            Stage::Result => match (bytes.u32()?, self.minor) {
                (0, _) => self.enter(),
                (_, 8) => self.stage = Stage::Reason,
                _ => {
                    let reason = "authentication failed".to_owned();
                    return Some(Ok(Some(ProtocolError::Refused { reason })));
                }
            },
            _ => {
                let length = bytes.u32()?;
                if length > TEXT_BYTES_MAX {
                    return Some(Err(bad("length of a reason")));
                }
                let reason = String::from_utf8_lossy(bytes.take(length as usize)?).into_owned();
                return Some(Ok(Some(ProtocolError::Refused { reason })));
            }
        }
        Some(Ok(None))
    }

    fn choose(&mut self, kind: u8, has_result: bool) -> Result<(), ProtocolError> {
        match kind {
            1 if has_result => self.stage = Stage::Result,
            1 => self.enter(),
            2 if self.password.is_some() => self.stage = Stage::Challenge,
            2 => {
                let reason = "it wants a password".to_owned();
                return Err(ProtocolError::Refused { reason });
            }
            _ => return Err(bad("security type")),
        }
        Ok(())
    }

    fn enter(&mut self) {
        self.out.push(self.shared.into());
        self.stage = Stage::Init;
    }

    fn init(&mut self, bytes: &mut Bytes<'_>) -> Tried {
        let (width, height) = (bytes.u16()?, bytes.u16()?);
        attempt!(PixelFormat::read(bytes)?);
        let length = bytes.u32()?;
        if length > TEXT_BYTES_MAX {
            return Some(Err(bad("length of a name")));
        }
        let name = String::from_utf8_lossy(bytes.take(length as usize)?).into_owned();
        self.frame = attempt!(new_frame(width, height));
        self.stage = Stage::Messages;
        self.send(&ClientMessage::PixelFormat(PixelFormat::NATIVE));
        Some(Ok(Some(Event::Ready { name })))
    }

    fn message(&mut self, bytes: &mut Bytes<'_>) -> Tried {
        let kind = bytes.u8()?;
        Some(Ok(match kind {
            0 => {
                bytes.take(1)?;
                self.stage = Stage::Rectangles(bytes.u16()?);
                None
            }
            1 => {
                bytes.take(3)?;
                let count = usize::from(bytes.u16()?);
                bytes.take(count * 6)?; // a palette, for formats that are not asked for
                None
            }
            2 => Some(Event::Bell),
            3 => {
                bytes.take(3)?;
                let length = bytes.u32()?;
                if length > TEXT_BYTES_MAX {
                    return Some(Err(bad("length of a text")));
                }
                Some(Event::Text(bytes.take(length as usize)?.to_vec()))
            }
            150 => Some(Event::ContinuousUpdates),
            248 => {
                bytes.take(3)?;
                let (flags, length) = (bytes.u32()?, usize::from(bytes.u8()?));
                let payload = bytes.take(length)?.to_vec();
                if flags >> 31 != 0 {
                    // Everything here happens in its order, so all of the rest is granted.
                    self.send(&ClientMessage::Fence { flags: flags & 7, payload });
                }
                Some(Event::Fence)
            }
            255 => Some(Event::Sound(attempt!(SoundNews::read(bytes)?))),
            _ => return Some(Err(ProtocolError::UnknownMessage { kind })),
        }))
    }

    fn rectangle(&mut self, bytes: &mut Bytes<'_>) -> Tried {
        let mut side = || bytes.u16();
        let [x, y, width, height] = [side()?, side()?, side()?, side()?];
        let encoding = bytes.u32()?.cast_signed();
        let rect = Rect { x: x.into(), y: y.into(), width: width.into(), height: height.into() };
        let is_small = u32::from(width.max(height)) <= POINTER_SIDE_MAX;
        Some(Ok(Some(match encoding {
            encoding::DESKTOP_SIZE => {
                self.frame = attempt!(new_frame(width, height));
                Event::Resized
            }
            encoding::EXTENDED_DESKTOP_SIZE => {
                let screens = usize::from(bytes.u8()?);
                bytes.take(3 + screens * 16)?;
                if x == 1 {
                    return Some(Ok(Some(Event::ResizeAnswered { result: y })));
                }
                let size = (u32::from(width), u32::from(height));
                if size == (self.frame.width, self.frame.height) {
                    return Some(Ok(None));
                }
                self.frame = attempt!(new_frame(width, height));
                Event::Resized
            }
            encoding::CURSOR | encoding::CURSOR_ALPHA if !is_small => {
                return Some(Err(bad("size of a pointer")));
            }
            encoding::CURSOR => Event::Pointer(decode::cursor(bytes, rect, &self.format)?),
            encoding::CURSOR_ALPHA => Event::Pointer(attempt!(decode::cursor_alpha(bytes, rect)?)),
            encoding::LIGHTS => Event::Lights(bytes.u8()?),
            encoding::POINTER_TYPE => Event::Absolute(x != 0),
            encoding::SCAN_KEYS => Event::ScanKeys,
            encoding::SOUND => Event::CanHear,
            _ => {
                if rect.pixels() > 0 && rect.intersect(self.frame.area()) != Some(rect) {
                    return Some(Err(bad("rectangle")));
                }
                let (frame, format) = (&mut self.frame, &self.format);
                attempt!(self.decoder.decode(bytes, frame, rect, encoding, format)?);
                return Some(Ok(None));
            }
        })))
    }
}

fn new_frame(width: u16, height: u16) -> Result<Frame, ProtocolError> {
    let (width, height) = (u32::from(width), u32::from(height));
    match width.max(height) <= crate::surface::SIDE_MAX / 2 {
        true => Ok(Frame::new(width, height)),
        false => Err(bad("size of a screen")),
    }
}
