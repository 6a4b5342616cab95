//! `nbd`: an image that another program serves.
//!
//! `nbd://host:10809/export`, `nbd+unix:///export?socket=/run/nbd.sock`,
//! `-blockdev driver=nbd,server.type=unix,server.path=/run/nbd.sock,export=disk`

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::Protocol;
use crate::error::{Error, Result};
use crate::nbd::{
    FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, MAGIC, OPTION_BYTES_MAX, OPTION_MAGIC, PAYLOAD_BYTES_MAX,
    REPLY_MAGIC, REQUEST_MAGIC, SIMPLE_MAGIC, STATE_HOLE, STATE_ZERO, STRUCTURED_MAGIC, Stream,
    can, chunk, cmd, info, opt, read_u16, read_u32, read_u64, rep,
};
use crate::node::{Extent, Node, NodeRef, Zeroing};
use crate::open::OpenMode;
use crate::options::OpenOptions;

pub(super) const PROTOCOL: Protocol = Protocol {
    name: "nbd",
    prefixes: &["nbd", "nbd+tcp", "nbd+unix"],
    parse,
    open,
    create: None,
    create_options: &[],
};

/// Where servers listen that say nothing else.
const PORT: &str = "10809";

fn parse(filename: &str, options: &mut OpenOptions) -> Result<()> {
    let bad = || Error::invalid(format!("Invalid URI '{filename}'"));
    if let Some(rest) = filename.strip_prefix("nbd:unix:") {
        let (path, export) = rest.split_once(":exportname=").unwrap_or((rest, ""));
        options.set("path", path);
        options.set("export", export);
        return Ok(());
    }
    let (scheme, rest) = filename.split_once(':').ok_or_else(bad)?;
    let Some(rest) = rest.strip_prefix("//") else {
        let (address, export) = rest.split_once(":exportname=").unwrap_or((rest, ""));
        let (host, port) = address.rsplit_once(':').unwrap_or((address, PORT));
        options.set("host", host);
        options.set("port", port);
        options.set("export", export);
        return Ok(());
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (address, export) = rest.split_once('/').unwrap_or((rest, ""));
    options.set("export", export);
    if scheme == "nbd+unix" {
        let socket = query.split('&').find_map(|pair| pair.strip_prefix("socket="));
        options.set("path", socket.ok_or_else(bad)?);
        return Ok(());
    }
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (address, PORT),
    };
    options.set("host", host.trim_matches(['[', ']']));
    options.set("port", port);
    Ok(())
}

/// An image on a server. One request is under way at a time.
struct Nbd {
    name: String,
    size: u64,
    flags: u16,
    writable: bool,
    structured: bool,
    allocation: bool,
    link: Mutex<Link>,
}

struct Link {
    stream: Box<dyn Stream>,
    cookie: u64,
}

fn open(options: &mut OpenOptions, mode: &OpenMode) -> Result<NodeRef> {
    options.take_text("filename");
    options.take_text("server.type");
    let path = options.take_text("path").or_else(|| options.take_text("server.path"));
    let host = options.take_text("host").or_else(|| options.take_text("server.host"));
    let port = options.take_text("port").or_else(|| options.take_text("server.port"));
    let export = options.take_text("export").unwrap_or_default();
    let context = options.take_text("x-dirty-bitmap");
    let slash = if export.is_empty() { "" } else { "/" };
    let (stream, name): (Box<dyn Stream>, String) = match (path, host) {
        (Some(path), _) => {
            let stream = UnixStream::connect(&path).map_err(|error| {
                Error::from(error).during(format!("Failed to connect to '{path}'"))
            })?;
            (Box::new(stream), format!("nbd+unix://{slash}{export}?socket={path}"))
        }
        (None, Some(host)) => {
            let port = port.unwrap_or_else(|| PORT.into());
            let number: u16 =
                port.parse().map_err(|_| Error::invalid(format!("Invalid port '{port}'")))?;
            let stream = TcpStream::connect((host.as_str(), number)).map_err(|error| {
                Error::from(error).during(format!("Failed to connect to '{host}:{port}'"))
            })?;
            stream.set_nodelay(true)?;
            (Box::new(stream), format!("nbd://{host}:{port}{slash}{export}"))
        }
        (None, None) => return Err(Error::invalid("one of path and host must be specified.")),
    };
    let mut link = Link { stream, cookie: 0 };
    let Greeting { size, flags, structured, allocation } =
        link.greet(&export, context.as_deref())?;
    if let Some(context) = context.filter(|_| !allocation) {
        return Err(Error::invalid(format!("requested x-dirty-bitmap {context} not found")));
    }
    let read_only = flags & can::READ_ONLY != 0;
    if mode.write && read_only && !mode.auto_read_only {
        return Err(
            Error::Os(Errno::ACCESS).during("request on write denied without write permission")
        );
    }
    Ok(Arc::new(Nbd {
        name,
        size,
        flags,
        writable: mode.write && !read_only,
        structured,
        allocation,
        link: Mutex::new(link),
    }))
}

struct Greeting {
    size: u64,
    flags: u16,
    structured: bool,
    allocation: bool,
}

impl Link {
    /// With the context that block status is asked in, if it is not the usual one.
    fn greet(&mut self, export: &str, context: Option<&str>) -> Result<Greeting> {
        if read_u64(&mut *self.stream)? != MAGIC || read_u64(&mut *self.stream)? != OPTION_MAGIC {
            return Err(Error::invalid("Server does not speak the fixed newstyle protocol"));
        }
        let server = read_u16(&mut *self.stream)?;
        if server & FLAG_FIXED_NEWSTYLE == 0 {
            return Err(Error::invalid("Server does not support fixed newstyle negotiation"));
        }
        let own = server & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        self.stream.write_all(&u32::from(own).to_be_bytes())?;
        let structured = self.option(opt::STRUCTURED_REPLY, &[], |_, _| Ok(()))?;
        let mut name = (export.len() as u32).to_be_bytes().to_vec();
        name.extend(export.bytes());
        let mut allocation = false;
        if structured {
            let query = context.unwrap_or("base:allocation").as_bytes();
            let mut data = name.clone();
            data.extend(1u32.to_be_bytes());
            data.extend((query.len() as u32).to_be_bytes());
            data.extend(query);
            self.option(opt::SET_META_CONTEXT, &data, |kind, _| {
                allocation |= kind == rep::META_CONTEXT;
                Ok(())
            })?;
        }
        let (mut size, mut flags) = (0, 0);
        let mut data = name;
        data.extend(0u16.to_be_bytes());
        let there = self.option(opt::GO, &data, |kind, data| {
            if kind == rep::INFO && data.len() >= 12 && data[..2] == info::EXPORT.to_be_bytes() {
                size = data[2..10].iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
                flags = u16::from_be_bytes([data[10], data[11]]);
            }
            Ok(())
        })?;
        if !there {
            return Err(Error::invalid(format!(
                "Requested export not available\nserver reported: export '{export}' not present"
            )));
        }
        Ok(Greeting { size, flags, structured, allocation })
    }

    /// Sends an option and hears the replies. Says whether the server agreed.
    fn option(
        &mut self,
        option: u32,
        data: &[u8],
        mut hear: impl FnMut(u32, &[u8]) -> Result<()>,
    ) -> Result<bool> {
        let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        self.stream.write_all(&bytes)?;
        loop {
            let magic = read_u64(&mut *self.stream)?;
            let (answered, kind) = (read_u32(&mut *self.stream)?, read_u32(&mut *self.stream)?);
            let length = read_u32(&mut *self.stream)?;
            if magic != REPLY_MAGIC || answered != option || length > OPTION_BYTES_MAX {
                return Err(Error::invalid("Unexpected option reply"));
            }
            let mut data = vec![0; length as usize];
            self.stream.read_exact(&mut data)?;
            match kind {
                rep::ACK => return Ok(true),
                error if error & rep::ERROR != 0 => return Ok(false),
                other => hear(other, &data)?,
            }
        }
    }

    fn request(
        &mut self,
        kind: u16,
        flags: u16,
        offset: u64,
        length: u32,
        data: &[u8],
    ) -> Result<()> {
        self.cookie += 1;
        let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(self.cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(data);
        Ok(self.stream.write_all(&bytes)?)
    }

    /// Hears the reply to the last request; data goes to `buffer`, block status to `extents`.
    fn answer(
        &mut self,
        offset: u64,
        buffer: &mut [u8],
        extents: &mut Vec<(u32, u32)>,
    ) -> Result<()> {
        let mut failure = None;
        loop {
            let magic = read_u32(&mut *self.stream)?;
            if magic == SIMPLE_MAGIC {
                let number = read_u32(&mut *self.stream)?;
                self.check_cookie()?;
                if number != 0 {
                    return Err(Errno::from_raw_os_error(number as i32).into());
                }
                return Ok(self.stream.read_exact(buffer)?);
            }
            if magic != STRUCTURED_MAGIC {
                return Err(Error::invalid("invalid magic in reply"));
            }
            let (flags, kind) = (read_u16(&mut *self.stream)?, read_u16(&mut *self.stream)?);
            self.check_cookie()?;
            let length = read_u32(&mut *self.stream)?;
            if length > PAYLOAD_BYTES_MAX + 64 {
                return Err(Error::invalid("reply chunk is too long"));
            }
            self.take_chunk(kind, length, offset, buffer, extents, &mut failure)?;
            if flags & chunk::FLAG_DONE != 0 {
                return failure.map_or(Ok(()), Err);
            }
        }
    }

    fn check_cookie(&mut self) -> Result<()> {
        if read_u64(&mut *self.stream)? == self.cookie {
            Ok(())
        } else {
            Err(Error::invalid("reply to another request"))
        }
    }

    fn take_chunk(
        &mut self,
        kind: u16,
        length: u32,
        offset: u64,
        buffer: &mut [u8],
        extents: &mut Vec<(u32, u32)>,
        failure: &mut Option<Error>,
    ) -> Result<()> {
        let outside = || Error::invalid("reply chunk outside the request");
        match kind {
            chunk::OFFSET_DATA | chunk::OFFSET_HOLE if length >= 8 => {
                let at = read_u64(&mut *self.stream)?.checked_sub(offset).ok_or_else(outside)?;
                let hole = kind == chunk::OFFSET_HOLE;
                let bytes = if hole { read_u32(&mut *self.stream)? } else { length - 8 };
                let end = at.checked_add(u64::from(bytes)).ok_or_else(outside)?;
                let part = buffer.get_mut(at as usize..end as usize).ok_or_else(outside)?;
                if hole {
                    part.fill(0);
                } else {
                    self.stream.read_exact(part)?;
                }
                Ok(())
            }
            _ => {
                let mut data = vec![0; length as usize];
                self.stream.read_exact(&mut data)?;
                let word = |at: usize| {
                    data[at..at + 4].iter().fold(0u32, |value, byte| value << 8 | u32::from(*byte))
                };
                if kind == chunk::BLOCK_STATUS {
                    let pairs = (data.len().max(4) - 4) / 8;
                    extents.extend((0..pairs).map(|pair| (word(4 + pair * 8), word(8 + pair * 8))));
                } else if kind & 1 << 15 != 0 {
                    let number = if data.len() >= 4 { word(0) as i32 } else { 5 };
                    *failure = Some(Errno::from_raw_os_error(number.clamp(1, 4095)).into());
                }
                Ok(())
            }
        }
    }
}

impl Nbd {
    fn transact(
        &self,
        kind: u16,
        flags: u16,
        offset: u64,
        length: u64,
        data: &[u8],
        buffer: &mut [u8],
    ) -> Result<()> {
        let mut link = self.link.lock();
        link.request(kind, flags, offset, length as u32, data)?;
        link.answer(offset, buffer, &mut Vec::new())
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        // The server may be gone already.
        _ = self.link.lock().request(cmd::DISC, 0, 0, 0, &[]);
    }
}

/// Zeroing and discarding are asked for in pieces that fit the length field.
const RANGE_BYTES_MAX: u64 = 1 << 30;

impl Node for Nbd {
    fn driver(&self) -> &'static str {
        "nbd"
    }

    fn filename(&self) -> String {
        self.name.clone()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn writable(&self) -> bool {
        self.writable
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let mut done = 0;
        for piece in buffer.chunks_mut(PAYLOAD_BYTES_MAX as usize) {
            let at = offset + done;
            let there = self.size.saturating_sub(at).min(piece.len() as u64) as usize;
            let (inside, beyond) = piece.split_at_mut(there);
            beyond.fill(0);
            if !inside.is_empty() {
                self.transact(cmd::READ, 0, at, there as u64, &[], inside)?;
            }
            done += (inside.len() + beyond.len()) as u64;
        }
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let mut done = 0;
        for piece in data.chunks(PAYLOAD_BYTES_MAX as usize) {
            self.transact(cmd::WRITE, 0, offset + done, piece.len() as u64, piece, &mut [])?;
            done += piece.len() as u64;
        }
        Ok(())
    }

    fn zero_at(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        if self.flags & can::WRITE_ZEROES == 0 {
            return crate::node::write_zeros(self, offset, length);
        }
        let flags = if zeroing == Zeroing::Keep { cmd::FLAG_NO_HOLE } else { 0 };
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(RANGE_BYTES_MAX);
            self.transact(cmd::WRITE_ZEROES, flags, offset + done, piece, &[], &mut [])?;
            done += piece;
        }
        Ok(())
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<()> {
        if self.flags & can::TRIM == 0 {
            return Ok(());
        }
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(RANGE_BYTES_MAX);
            self.transact(cmd::TRIM, 0, offset + done, piece, &[], &mut [])?;
            done += piece;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        if self.flags & can::FLUSH == 0 || !self.writable {
            return Ok(());
        }
        self.transact(cmd::FLUSH, 0, 0, 0, &[], &mut [])
    }

    fn status(&self, offset: u64, length: u64) -> Result<Extent> {
        let known =
            Extent { length, data: true, allocated: true, host: Some(offset), ..Extent::default() };
        if !self.structured || !self.allocation {
            return Ok(known);
        }
        let length = length.min(RANGE_BYTES_MAX).min(self.size.saturating_sub(offset).max(1));
        let mut link = self.link.lock();
        link.request(cmd::BLOCK_STATUS, cmd::FLAG_REQ_ONE, offset, length as u32, &[])?;
        let mut extents = Vec::new();
        link.answer(offset, &mut [], &mut extents)?;
        let Some((run, flags)) = extents.first().copied().filter(|(run, _)| *run > 0) else {
            return Ok(Extent { length, ..known });
        };
        let (data, zero) = (flags & STATE_HOLE == 0, flags & STATE_ZERO != 0);
        let allocated = data || zero;
        let length = u64::from(run).min(length);
        Ok(Extent { length, data, zero, allocated, host: data.then_some(offset), ..known })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_servers() {
        for (name, key, value) in [
            ("nbd://host/x", "host", "host"),
            ("nbd://host:1/x", "port", "1"),
            ("nbd://host/x", "export", "x"),
            ("nbd+unix:///x?socket=/s", "path", "/s"),
            ("nbd:unix:/s:exportname=y", "export", "y"),
            ("nbd:localhost:10809", "port", "10809"),
        ] {
            let mut options = OpenOptions::new();
            parse(name, &mut options).unwrap();
            assert_eq!(options.text(key), Some(value), "{name}");
        }
    }
}
