//! The client's side: one typed method for every procedure that is served.
//!
//! Sans-IO: a [`Transport`] carries a call's payload to a daemon and brings the reply's payload.

use super::types::*;
use super::xdr::{Chars, Model, Opaque, Xdr, from_bytes, to_bytes};
use super::{Frame, Header, Kind, PROGRAM_VERSION, Status};
use crate::{Code, Error, Origin, Result, Uuid};

/// Carries calls. Implemented over a socket by our own clients, over memory by tests.
pub trait Transport {
    /// Sends the arguments and waits for the result's payload; an error reply is an `Err`.
    fn call(&mut self, program: u32, procedure: u32, arguments: Vec<u8>) -> Result<Vec<u8>>;
}

/// The frame of a call.
pub fn call_frame(program: u32, procedure: u32, serial: u32, payload: Vec<u8>) -> Frame {
    let header = Header {
        program,
        version: PROGRAM_VERSION,
        procedure,
        kind: Kind::Call,
        serial,
        status: Status::Ok,
    };
    Frame { header, payload }
}

/// The payload of a good reply, or the error that the daemon sent.
pub fn reply_payload(frame: Frame) -> Result<Vec<u8>> {
    if frame.header.status != Status::Error {
        return Ok(frame.payload);
    }
    match from_bytes::<WireError>(&frame.payload) {
        Ok(error) => Err(Error::from_wire(error)),
        Err(error) => Err(unreadable(&error)),
    }
}

/// A daemon behind a transport.
pub struct Client<T> {
    /// Where calls go.
    pub transport: T,
}

impl<T: Transport> Client<T> {
    /// Speaks through this transport.
    pub fn new(transport: T) -> Self {
        Self { transport }
    }

    fn invoke<R: Xdr>(&mut self, program: u32, number: u32, arguments: &impl Xdr) -> Result<R> {
        let reply = self.transport.call(program, number, to_bytes(arguments))?;
        from_bytes(&reply).map_err(|error| unreadable(&error))
    }
}

fn unreadable(error: &super::XdrError) -> Error {
    let text = format!("Unable to decode message payload: {error}");
    Error::new(Code::Rpc, text).from(Origin::Rpc)
}

macro_rules! methods {
    (
        program $program:expr;
        served { $($number:literal $priority:ident $access:ident
            $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)* }
        $($rest:tt)*
    ) => {
        impl<T: Transport> Client<T> {
            $(#[doc = concat!("Procedure ", stringify!($number), ".")]
            #[expect(clippy::allow_attributes, reason = "not every row has as many arguments")]
            #[allow(clippy::too_many_arguments)]
            pub fn $name(&mut self, $($argument: $type),*) -> Result<result!($($result)?)> {
                self.invoke($program, $number, &($($argument,)*))
            })*
        }
    };
}

macro_rules! result {
    () => {
        ()
    };
    ($result:ty) => {
        $result
    };
}

crate::remote_procedures!(methods);
crate::qemu_procedures!(methods);
