//! Data that a call of libvirt's protocol opens: it travels between the calls' frames, both ways.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use libvirt_compat::rpc::xdr::from_bytes;
use libvirt_compat::rpc::{Frame, FrameDecoder, Header, Kind, PROGRAM_VERSION, Status};
use libvirt_compat::{Code, Error, Origin};

/// The most that one frame carries.
const PIECE_BYTES: usize = 64 << 10;

/// The reading end.
pub struct Receiver {
    pub(crate) stream: UnixStream,
    pub(crate) decoder: FrameDecoder,
    pub(crate) serial: u32,
}

/// The writing end.
pub struct Sender {
    stream: UnixStream,
    header: Header,
}

impl Receiver {
    /// The other end of the stream that the call `procedure` of `program` has opened.
    pub fn sender(&self, program: u32, procedure: u32) -> io::Result<Sender> {
        let header = Header {
            program,
            version: PROGRAM_VERSION,
            procedure,
            kind: Kind::Stream,
            serial: self.serial,
            status: Status::Continue,
        };
        Ok(Sender { stream: self.stream.try_clone()?, header })
    }

    /// The next bytes; none at the end.
    pub fn receive(&mut self) -> libvirt_compat::Result<Option<Vec<u8>>> {
        use std::io::Read;
        let broken = |error: &dyn std::fmt::Display| {
            Error::new(Code::SystemError, format!("The daemon is gone: {error}")).from(Origin::Rpc)
        };
        let mut bytes = vec![0; PIECE_BYTES];
        loop {
            while let Some(frame) = self.decoder.next_frame().map_err(|error| broken(&error))? {
                if frame.header.kind != Kind::Stream || frame.header.serial != self.serial {
                    continue;
                }
                return match frame.header.status {
                    Status::Continue if !frame.payload.is_empty() => Ok(Some(frame.payload)),
                    Status::Continue | Status::Ok => Ok(None),
                    Status::Error => Err(from_bytes(&frame.payload)
                        .map_or_else(|error| broken(&error), Error::from_wire)),
                };
            }
            let count = self.stream.read(&mut bytes).map_err(|error| broken(&error))?;
            if count == 0 {
                return Ok(None);
            }
            self.decoder.feed(&bytes[..count]);
        }
    }
}

impl Sender {
    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE_BYTES) {
            let frame = Frame { header: self.header, payload: piece.to_vec() };
            self.stream.write_all(&frame.to_bytes())?;
        }
        Ok(())
    }

    /// Ends the conversation, which wakes the receiver.
    pub fn close(&self) {
        _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}
