//! The server's side of one connection.

use std::sync::Arc;

use super::{
    FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, MAGIC, NAME_BYTES_MAX, OPTION_BYTES_MAX, OPTION_MAGIC,
    PAYLOAD_BYTES_MAX, REPLY_MAGIC, REQUEST_MAGIC, SIMPLE_MAGIC, STATE_HOLE, STATE_ZERO,
    STRUCTURED_MAGIC, Stream, can, chunk, cmd, error_number, info, opt, read_u32, read_u64, rep,
};
use crate::error::{Error, Result};
use crate::node::{NodeRef, Zeroing, status_above};
use crate::protocols::null;

/// What is served.
#[derive(Clone)]
pub struct Export {
    /// Its name; clients that ask for none get it, too, if it is empty.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// The image.
    pub node: NodeRef,
    /// Writes are possible.
    pub writable: bool,
    /// Several connections see the same at all times.
    pub shared: bool,
    /// Dirty bitmaps to show, by name.
    pub bitmaps: Vec<String>,
    /// Whether to show which layer of a backing chain holds what.
    pub allocation_depth: bool,
}

/// The image that has a dirty bitmap: this one, or one behind it.
pub fn bitmap_owner(node: &NodeRef, name: &str) -> Option<NodeRef> {
    let mut next = Some(node.clone());
    while let Some(node) = next {
        let has = node.bitmaps().is_some_and(|all| all.list().iter().any(|row| row.name == name));
        if has {
            return Some(node);
        }
        next = node.backing();
    }
    None
}

/// What a client can ask block status about.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Context {
    Allocation,
    Depth,
    Bitmap(String),
}

impl Context {
    fn name(&self) -> String {
        match self {
            Self::Allocation => "base:allocation".into(),
            Self::Depth => "qemu:allocation-depth".into(),
            Self::Bitmap(name) => format!("qemu:dirty-bitmap:{name}"),
        }
    }
}

/// More extents are not put into one reply.
const EXTENTS_MAX: usize = 4096;

struct Connection<'a> {
    stream: &'a mut dyn Stream,
    /// All that a client may ask for.
    exports: &'a dyn Fn() -> Vec<Arc<Export>>,
    /// What it has asked for.
    export: Arc<Export>,
    structured: bool,
    no_zeroes: bool,
    contexts: Vec<Context>,
}

/// Serves one connection until the client leaves.
pub fn serve(stream: &mut dyn Stream, export: &Export) -> Result<()> {
    let export = Arc::new(export.clone());
    serve_any(stream, &|| vec![Arc::clone(&export)])
}

/// The same, where clients choose among several exports, which may come and go.
pub fn serve_any(stream: &mut dyn Stream, exports: &dyn Fn() -> Vec<Arc<Export>>) -> Result<()> {
    // Until a client asks, there is an export that nobody can have.
    let nothing = Export {
        name: String::new(),
        description: None,
        node: null::empty(),
        writable: false,
        shared: false,
        bitmaps: Vec::new(),
        allocation_depth: false,
    };
    let mut connection = Connection {
        stream,
        exports,
        export: Arc::new(nothing),
        structured: false,
        no_zeroes: false,
        contexts: Vec::new(),
    };
    if connection.shake_hands()? {
        connection.answer_requests()?;
    }
    Ok(())
}

impl Connection<'_> {
    /// Negotiates. Says whether the client goes on to requests.
    fn shake_hands(&mut self) -> Result<bool> {
        let mut hello = Vec::new();
        hello.extend(MAGIC.to_be_bytes());
        hello.extend(OPTION_MAGIC.to_be_bytes());
        hello.extend((FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
        self.stream.write_all(&hello)?;
        let flags = read_u32(self.stream)?;
        self.no_zeroes = flags & u32::from(FLAG_NO_ZEROES) != 0;
        loop {
            if read_u64(self.stream)? != OPTION_MAGIC {
                return Err(Error::invalid("Bad magic received"));
            }
            let option = read_u32(self.stream)?;
            let length = read_u32(self.stream)?;
            if length > OPTION_BYTES_MAX {
                return Err(Error::invalid(format!("Option of {length} bytes is too long")));
            }
            let mut data = vec![0; length as usize];
            self.stream.read_exact(&mut data)?;
            match option {
                opt::EXPORT_NAME => return self.export_name(&data),
                opt::ABORT => {
                    self.reply(option, rep::ACK, &[])?;
                    return Ok(false);
                }
                opt::LIST => self.list(&data)?,
                opt::INFO | opt::GO => {
                    if self.describe(option, &data)? && option == opt::GO {
                        return Ok(true);
                    }
                }
                opt::STRUCTURED_REPLY if data.is_empty() => {
                    self.structured = true;
                    self.reply(option, rep::ACK, &[])?;
                }
                opt::LIST_META_CONTEXT | opt::SET_META_CONTEXT => self.contexts(option, &data)?,
                opt::STRUCTURED_REPLY => self.reply(option, rep::ERR_INVALID, b"")?,
                _ => self.reply(option, rep::ERR_UNSUP, b"Unsupported option")?,
            }
        }
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> Result<()> {
        let mut bytes = Vec::with_capacity(20 + data.len());
        bytes.extend(REPLY_MAGIC.to_be_bytes());
        bytes.extend(option.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        Ok(self.stream.write_all(&bytes)?)
    }

    fn transmission_flags(&self) -> u16 {
        let mut flags = can::HAS_FLAGS | can::FLUSH | can::FUA | can::CACHE;
        if self.export.writable {
            flags |= can::TRIM | can::WRITE_ZEROES | can::FAST_ZERO;
        } else {
            flags |= can::READ_ONLY;
        }
        if self.structured {
            flags |= can::DF;
        }
        if self.export.shared || !self.export.writable {
            flags |= can::MULTI_CONN;
        }
        flags
    }

    /// Takes the export of this name. Contexts that were chosen for another one are void.
    fn choose(&mut self, name: &[u8]) -> bool {
        let found = (self.exports)().into_iter().find(|export| name == export.name.as_bytes());
        let Some(found) = found else { return false };
        if !Arc::ptr_eq(&found, &self.export) {
            self.contexts.clear();
            self.export = found;
        }
        true
    }

    fn export_name(&mut self, name: &[u8]) -> Result<bool> {
        if !self.choose(name) {
            return Err(Error::invalid("export not found"));
        }
        let mut bytes = Vec::new();
        bytes.extend(self.export.node.size().to_be_bytes());
        bytes.extend(self.transmission_flags().to_be_bytes());
        if !self.no_zeroes {
            bytes.extend([0; 124]);
        }
        self.stream.write_all(&bytes)?;
        Ok(true)
    }

    fn list(&mut self, data: &[u8]) -> Result<()> {
        if !data.is_empty() {
            return self.reply(opt::LIST, rep::ERR_INVALID, b"");
        }
        for export in (self.exports)() {
            let name = export.name.as_bytes();
            let mut row = (name.len() as u32).to_be_bytes().to_vec();
            row.extend(name);
            row.extend(export.description.iter().flat_map(|text| text.bytes()));
            self.reply(opt::LIST, rep::SERVER, &row)?;
        }
        self.reply(opt::LIST, rep::ACK, &[])
    }

    /// Answers INFO and GO. Says whether the export is there.
    fn describe(&mut self, option: u32, data: &[u8]) -> Result<bool> {
        let Some((name, mut rest)) = take_name(data) else {
            self.reply(option, rep::ERR_INVALID, b"")?;
            return Ok(false);
        };
        if !self.choose(name) {
            let text = format!("export '{}' not present", String::from_utf8_lossy(name));
            self.reply(option, rep::ERR_UNKNOWN, text.as_bytes())?;
            return Ok(false);
        }
        let mut wanted = Vec::new();
        if let Some((count, list)) = rest.split_first_chunk::<2>() {
            rest = list;
            for pair in rest.chunks_exact(2).take(usize::from(u16::from_be_bytes(*count))) {
                wanted.push(u16::from_be_bytes([pair[0], pair[1]]));
            }
        }
        let description = self.export.description.clone();
        let mut item = |kind: u16, bytes: &[u8]| {
            let mut data = kind.to_be_bytes().to_vec();
            data.extend(bytes);
            self.reply(option, rep::INFO, &data)
        };
        if wanted.contains(&info::NAME) {
            item(info::NAME, name)?;
        }
        if let (true, Some(text)) = (wanted.contains(&info::DESCRIPTION), &description) {
            item(info::DESCRIPTION, text.as_bytes())?;
        }
        // One byte to 32 MiB; 4 KiB is what suits the host.
        let sizes = [1, 4096, PAYLOAD_BYTES_MAX].map(u32::to_be_bytes).concat();
        item(info::BLOCK_SIZE, &sizes)?;
        let mut bytes = self.export.node.size().to_be_bytes().to_vec();
        bytes.extend(self.transmission_flags().to_be_bytes());
        let mut data = info::EXPORT.to_be_bytes().to_vec();
        data.extend(bytes);
        self.reply(option, rep::INFO, &data)?;
        self.reply(option, rep::ACK, &[])?;
        Ok(true)
    }

    fn available(&self) -> Vec<Context> {
        let mut contexts = vec![Context::Allocation];
        if self.export.allocation_depth {
            contexts.push(Context::Depth);
        }
        contexts.extend(self.export.bitmaps.iter().cloned().map(Context::Bitmap));
        contexts
    }

    fn contexts(&mut self, option: u32, data: &[u8]) -> Result<()> {
        let parsed = take_name(data).and_then(|(name, rest)| {
            let (count, mut rest) = rest.split_first_chunk::<4>()?;
            let mut queries = Vec::new();
            for _ in 0..u32::from_be_bytes(*count).min(1024) {
                let (query, after) = take_name(rest)?;
                queries.push(String::from_utf8_lossy(query).into_owned());
                rest = after;
            }
            Some((name, queries))
        });
        let Some((name, queries)) = parsed else {
            return self.reply(option, rep::ERR_INVALID, b"");
        };
        if !self.choose(name) {
            return self.reply(option, rep::ERR_UNKNOWN, b"export not present");
        }
        if option == opt::SET_META_CONTEXT && !self.structured {
            return self.reply(option, rep::ERR_INVALID, b"structured replies come first");
        }
        let listing = option == opt::LIST_META_CONTEXT;
        let matches = |context: &Context| {
            let own = context.name();
            (listing && queries.is_empty())
                || queries.iter().any(|query| {
                    own == *query
                        || (listing && query.ends_with(':') && own.starts_with(query.as_str()))
                })
        };
        let chosen: Vec<Context> = self.available().into_iter().filter(matches).collect();
        for (id, context) in chosen.iter().enumerate() {
            let mut data = (id as u32).to_be_bytes().to_vec();
            data.extend(context.name().bytes());
            self.reply(option, rep::META_CONTEXT, &data)?;
        }
        if !listing {
            self.contexts = chosen;
        }
        self.reply(option, rep::ACK, &[])
    }

    fn answer_requests(&mut self) -> Result<()> {
        let mut buffer = Vec::new();
        loop {
            let mut head = [0; 28];
            if let Err(error) = self.stream.read_exact(&mut head) {
                // A client that just goes is no error.
                let gone = error.kind() == std::io::ErrorKind::UnexpectedEof;
                return if gone { Ok(()) } else { Err(error.into()) };
            }
            let field = |from: usize, to: usize| {
                head[from..to].iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
            };
            if field(0, 4) != u64::from(REQUEST_MAGIC) {
                return Err(Error::invalid("invalid magic"));
            }
            let request = Request {
                flags: field(4, 6) as u16,
                kind: field(6, 8) as u16,
                cookie: field(8, 16),
                offset: field(16, 24),
                length: field(24, 28),
            };
            if request.kind == cmd::DISC {
                return Ok(());
            }
            if matches!(request.kind, cmd::READ | cmd::WRITE) {
                if request.length > u64::from(PAYLOAD_BYTES_MAX) {
                    return Err(Error::invalid("request is too long"));
                }
                buffer.resize(request.length as usize, 0);
            }
            if request.kind == cmd::WRITE {
                self.stream.read_exact(&mut buffer)?;
            }
            self.answer(&request, &mut buffer)?;
        }
    }

    fn answer(&mut self, request: &Request, buffer: &mut [u8]) -> Result<()> {
        let end = request.offset.checked_add(request.length);
        let inside = end.is_some_and(|end| end <= self.export.node.size());
        if !inside && request.kind != cmd::FLUSH {
            let writes = matches!(request.kind, cmd::WRITE | cmd::WRITE_ZEROES);
            let number = if writes { 28 } else { 22 };
            return self.fail(request, number, "operation past EOF");
        }
        if request.kind == cmd::BLOCK_STATUS {
            return self.block_status(request);
        }
        let node = &self.export.node;
        let changes = matches!(request.kind, cmd::WRITE | cmd::TRIM | cmd::WRITE_ZEROES);
        let done = if changes && !self.export.writable {
            Err(Error::Os(rustix::io::Errno::PERM))
        } else {
            match request.kind {
                cmd::READ => node.read_at(buffer, request.offset),
                cmd::WRITE => node.write_at(buffer, request.offset),
                cmd::FLUSH => node.flush(),
                cmd::TRIM => node.discard_at(request.offset, request.length),
                cmd::CACHE => Ok(()),
                cmd::WRITE_ZEROES => {
                    let keep = request.flags & cmd::FLAG_NO_HOLE != 0;
                    let zeroing = if keep { Zeroing::Keep } else { Zeroing::Unmap };
                    if request.flags & cmd::FLAG_FAST_ZERO != 0 {
                        node.zero_fast(request.offset, request.length, zeroing)
                    } else {
                        node.zero_at(request.offset, request.length, zeroing)
                    }
                }
                _ => Err(Error::invalid("unknown request")),
            }
        };
        let done = match done {
            Ok(()) if changes && request.flags & cmd::FLAG_FUA != 0 => node.flush(),
            done => done,
        };
        match done {
            Err(error) => self.fail(request, error_number(&error), &error.to_string()),
            Ok(()) if request.kind == cmd::READ => self.send_data(request, buffer),
            Ok(()) => self.succeed(request),
        }
    }

    fn succeed(&mut self, request: &Request) -> Result<()> {
        if self.structured {
            return self.chunk(request, chunk::FLAG_DONE, chunk::NONE, &[], &[]);
        }
        self.simple(request, 0, &[])
    }

    fn fail(&mut self, request: &Request, number: u32, text: &str) -> Result<()> {
        if !self.structured {
            return self.simple(request, number, &[]);
        }
        let text = &text.as_bytes()[..text.len().min(NAME_BYTES_MAX)];
        let mut data = number.to_be_bytes().to_vec();
        data.extend((text.len() as u16).to_be_bytes());
        data.extend(text);
        self.chunk(request, chunk::FLAG_DONE, chunk::ERROR, &data, &[])
    }

    fn simple(&mut self, request: &Request, number: u32, data: &[u8]) -> Result<()> {
        let mut head = SIMPLE_MAGIC.to_be_bytes().to_vec();
        head.extend(number.to_be_bytes());
        head.extend(request.cookie.to_be_bytes());
        self.send(head, data)
    }

    fn chunk(
        &mut self,
        request: &Request,
        flags: u16,
        kind: u16,
        own: &[u8],
        data: &[u8],
    ) -> Result<()> {
        let mut head = STRUCTURED_MAGIC.to_be_bytes().to_vec();
        head.extend(flags.to_be_bytes());
        head.extend(kind.to_be_bytes());
        head.extend(request.cookie.to_be_bytes());
        head.extend(((own.len() + data.len()) as u32).to_be_bytes());
        head.extend(own);
        self.send(head, data)
    }

    /// Small replies leave in one piece.
    fn send(&mut self, mut head: Vec<u8>, data: &[u8]) -> Result<()> {
        if data.len() <= 64 << 10 {
            head.extend(data);
            return Ok(self.stream.write_all(&head)?);
        }
        self.stream.write_all(&head)?;
        Ok(self.stream.write_all(data)?)
    }

    fn send_data(&mut self, request: &Request, data: &[u8]) -> Result<()> {
        if !self.structured {
            return self.simple(request, 0, data);
        }
        if data.is_empty() {
            return self.succeed(request);
        }
        let place = request.offset.to_be_bytes();
        let whole = request.flags & cmd::FLAG_DF != 0;
        if !whole && data.len() >= 4096 && crate::zeros::all_zero(data) {
            let mut own = place.to_vec();
            own.extend((data.len() as u32).to_be_bytes());
            return self.chunk(request, chunk::FLAG_DONE, chunk::OFFSET_HOLE, &own, &[]);
        }
        self.chunk(request, chunk::FLAG_DONE, chunk::OFFSET_DATA, &place, data)
    }

    fn block_status(&mut self, request: &Request) -> Result<()> {
        if self.contexts.is_empty() || request.length == 0 {
            return self.fail(request, 22, "CMD_BLOCK_STATUS not negotiated");
        }
        let contexts = self.contexts.clone();
        for (id, context) in contexts.iter().enumerate() {
            let extents = match self.extents(context, request) {
                Ok(extents) => extents,
                Err(error) => return self.fail(request, error_number(&error), &error.to_string()),
            };
            let mut data = (id as u32).to_be_bytes().to_vec();
            for (length, flags) in extents {
                data.extend((length as u32).to_be_bytes());
                data.extend(flags.to_be_bytes());
            }
            let last = id + 1 == contexts.len();
            let flags = if last { chunk::FLAG_DONE } else { 0 };
            self.chunk(request, flags, chunk::BLOCK_STATUS, &data, &[])?;
        }
        Ok(())
    }

    fn extents(&self, context: &Context, request: &Request) -> Result<Vec<(u64, u32)>> {
        let limit = if request.flags & cmd::FLAG_REQ_ONE != 0 { 1 } else { EXTENTS_MAX };
        let end = request.offset + request.length;
        let mut extents: Vec<(u64, u32)> = Vec::new();
        let dirty = match context {
            Context::Bitmap(name) => {
                let owner = bitmap_owner(&self.export.node, name);
                match owner.as_ref().and_then(|node| node.bitmaps()) {
                    Some(bitmaps) => bitmaps.dirty(name)?,
                    None => Vec::new(),
                }
            }
            _ => Vec::new(),
        };
        let mut at = request.offset;
        while at < end {
            let (length, flags) = match context {
                Context::Bitmap(_) => dirty_run(&dirty, at, end),
                _ => {
                    let found = status_above(&self.export.node, None, at, end - at)?;
                    let extent = found.extent;
                    let flags = match context {
                        Context::Depth => {
                            if extent.allocated {
                                found.depth as u32 + 1
                            } else {
                                0
                            }
                        }
                        _ => {
                            let hole = if extent.data || extent.host.is_some() && !extent.zero {
                                0
                            } else {
                                STATE_HOLE
                            };
                            hole | if extent.zero { STATE_ZERO } else { 0 }
                        }
                    };
                    (extent.length, flags)
                }
            };
            let full = extents.len() == limit;
            match extents.last_mut() {
                Some((run, same)) if *same == flags => *run += length,
                _ if full => break,
                _ => extents.push((length, flags)),
            }
            at += length;
        }
        Ok(extents)
    }
}

fn dirty_run(dirty: &[(u64, u64)], at: u64, end: u64) -> (u64, u32) {
    for (start, length) in dirty {
        if at < *start {
            return ((*start).min(end) - at, 0);
        }
        if at < start + length {
            return ((start + length).min(end) - at, 1);
        }
    }
    (end - at, 0)
}

/// A name with its length in front.
fn take_name(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    (length <= NAME_BYTES_MAX && length <= rest.len()).then(|| rest.split_at(length))
}

struct Request {
    flags: u16,
    kind: u16,
    cookie: u64,
    offset: u64,
    length: u64,
}
