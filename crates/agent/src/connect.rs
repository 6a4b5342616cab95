//! A TCP connection to a port of the guest, carried over the session: what `ssh` goes through when
//! there is no network between host and guest.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpStream};
use std::thread;

use agent::{FrameKind, read_frame};
use vsock::VsockStream;

use crate::session::{Failed, Host};

const PIECE_BYTES: usize = 64 << 10;

/// Connects and carries both directions until one end is done.
pub fn run(port: u16, host: &Host, from: VsockStream) -> Result<(), Failed> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .or_else(|_| TcpStream::connect((Ipv6Addr::LOCALHOST, port)))?;
    host.answer(FrameKind::Answer, &serde_json::json!({}));
    let mut input = stream.try_clone()?;
    let carry = move || {
        let mut from = from;
        while let Ok(Some(frame)) = read_frame(&mut from) {
            let ended = frame.kind != FrameKind::Input || frame.payload.is_empty();
            if ended || input.write_all(&frame.payload).is_err() {
                break;
            }
        }
        _ = input.shutdown(Shutdown::Write);
    };
    thread::Builder::new().name("input".to_owned()).spawn(carry)?;
    let mut output = stream;
    let mut bytes = vec![0; PIECE_BYTES];
    loop {
        let count = output.read(&mut bytes).unwrap_or(0);
        host.send(FrameKind::Output, &bytes[..count])?;
        if count == 0 {
            return Ok(());
        }
    }
}
