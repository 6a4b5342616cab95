//! One connection of the host.

use std::io;
use std::net::Shutdown;

use agent::{Failure, FrameKind, Request, read_frame, write_frame};
use parking_lot::Mutex;
use serde::Serialize;
use vsock::VsockStream;

use crate::{connect, exec, export, files, info, init};

/// The way to the host; several threads write.
pub struct Host {
    stream: Mutex<VsockStream>,
}

impl Host {
    /// Sends a frame. A host that has gone away is no error: the next read shows it.
    pub fn send(&self, kind: FrameKind, payload: &[u8]) -> io::Result<()> {
        write_frame(&mut *self.stream.lock(), kind, payload)
    }

    /// Sends a value as JSON.
    pub fn answer(&self, kind: FrameKind, value: &impl Serialize) {
        let text = serde_json::to_vec(value).unwrap_or_default();
        _ = self.send(kind, &text);
    }
}

/// Why a request failed.
pub struct Failed {
    pub reason: String,
    pub code: u8,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self { reason: error.to_string(), code: 1 }
    }
}

impl From<rustix::io::Errno> for Failed {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// Serves a session to its end.
pub fn serve(stream: &VsockStream) {
    let (Ok(mut from), Ok(to)) = (stream.try_clone(), stream.try_clone()) else { return };
    let host = Host { stream: Mutex::new(to) };
    let Ok(Some(frame)) = read_frame(&mut from) else { return };
    let request = match (frame.kind, serde_json::from_slice::<Request>(&frame.payload)) {
        (FrameKind::Request, Ok(request)) => request,
        (FrameKind::Request, Err(error)) => {
            let reason = format!("The agent does not know this request: {error}");
            return host.answer(FrameKind::Failure, &Failure { reason, code: 1 });
        }
        _ => return,
    };
    let done = match request {
        Request::Exec(what) => exec::run(&what, &host, &mut from),
        Request::Info {} => {
            host.answer(FrameKind::Answer, &info::collect());
            Ok(())
        }
        Request::Get(what) => files::send(&what.path, &host),
        Request::Put(what) => files::receive(&what, &host, &mut from),
        Request::List(what) => files::list(&what.path, &host),
        Request::Mount(what) => files::mount(&what, &host),
        Request::Unmount(what) => files::unmount(&what.path, &host),
        Request::Export(what) => export::run(&what, &host, &mut from),
        Request::Connect { port } => connect::run(port, &host, from),
        Request::Listening {} => info::tell_listening(&host),
        Request::SetTime(nanoseconds) => init::set_time(nanoseconds, &host),
        Request::PowerOff { reboot } => init::power_off(reboot, &host),
    };
    if let Err(Failed { reason, code }) = done {
        host.answer(FrameKind::Failure, &Failure { reason, code });
    }
    _ = stream.shutdown(Shutdown::Both);
}
