//! Streams: data that flows after a call's reply, under the call's serial.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;

use libvirt_compat::rpc::xdr::{from_bytes, to_bytes};
use libvirt_compat::rpc::{Frame, Header, STREAM_BYTES_MAX, Status};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{Receiver, Sender};

use crate::client::Outgoing;
use crate::files;

/// What a stream moves.
pub enum StreamBody {
    /// To the client, to the end.
    Download(Box<dyn Read + Send>),
    /// From the client, until it finishes.
    Upload(Box<dyn Sink>),
    /// Both ways, until one side ends: a terminal or socket, set non-blocking.
    Terminal(OwnedFd),
}

/// Where an upload goes.
pub trait Sink: Write + Seek + Send {}
impl<T: Write + Seek + Send> Sink for T {}

/// What a client sends into a stream.
pub enum StreamInput {
    Data(Vec<u8>),
    Hole(u64),
    Finish,
    Abort,
}

/// Bytes of one packet to the client; what libvirtd sends too.
const DOWNLOAD_BYTES: usize = 256 << 10;

/// The length of a hole, from a hole packet.
pub fn hole_length(payload: &[u8]) -> Option<u64> {
    let (length, _flags) = from_bytes::<(i64, u32)>(payload).ok()?;
    u64::try_from(length).ok()
}

/// Starts moving data, in the background.
pub fn start(
    body: StreamBody,
    header: Header,
    outgoing: Sender<Outgoing>,
    input: Receiver<StreamInput>,
) {
    let outlet = Outlet { header, outgoing };
    match body {
        StreamBody::Download(source) => {
            tokio::task::spawn_blocking(move || download(source, &outlet, input));
        }
        StreamBody::Upload(sink) => {
            tokio::task::spawn_blocking(move || upload(sink, &outlet, input));
        }
        StreamBody::Terminal(descriptor) => {
            tokio::spawn(terminal(descriptor, outlet, input));
        }
    }
}

/// The way back to the client.
struct Outlet {
    header: Header,
    outgoing: Sender<Outgoing>,
}

impl Outlet {
    fn message(&self, status: Status, payload: Vec<u8>) -> Outgoing {
        let bytes = Frame { header: self.header.stream(status), payload }.to_bytes();
        Outgoing { bytes, descriptors: Vec::new() }
    }

    fn send(&self, status: Status, payload: Vec<u8>) -> bool {
        self.outgoing.blocking_send(self.message(status, payload)).is_ok()
    }

    /// A client that aborts waits for this answer.
    fn abortion(&self) -> Outgoing {
        self.message(Status::Ok, Vec::new())
    }

    fn aborted(&self) {
        _ = self.outgoing.blocking_send(self.abortion());
    }

    fn fail(&self, doing: &str, error: &io::Error) {
        let error = files::system(doing, error);
        self.send(Status::Error, to_bytes(&error.to_wire()));
    }
}

fn download(mut source: Box<dyn Read + Send>, outlet: &Outlet, mut input: Receiver<StreamInput>) {
    let mut buffer = vec![0; DOWNLOAD_BYTES.min(STREAM_BYTES_MAX)];
    loop {
        if let Ok(StreamInput::Abort) = input.try_recv() {
            return outlet.aborted();
        }
        match source.read(&mut buffer) {
            // An empty packet says that the data has ended.
            Ok(0) => {
                outlet.send(Status::Continue, Vec::new());
                break;
            }
            Ok(count) if outlet.send(Status::Continue, buffer[..count].to_vec()) => {}
            Ok(_) => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return outlet.fail("Unable to read from stream", &error),
        }
    }
    while let Some(message) = input.blocking_recv() {
        match message {
            StreamInput::Finish => {
                outlet.send(Status::Ok, Vec::new());
                return;
            }
            StreamInput::Abort => return outlet.aborted(),
            StreamInput::Data(_) | StreamInput::Hole(_) => {}
        }
    }
}

fn upload(mut sink: Box<dyn Sink>, outlet: &Outlet, mut input: Receiver<StreamInput>) {
    while let Some(message) = input.blocking_recv() {
        let done = match message {
            StreamInput::Data(data) => sink.write_all(&data),
            StreamInput::Hole(length) => {
                let length = i64::try_from(length).unwrap_or(i64::MAX);
                sink.seek(SeekFrom::Current(length)).map(|_| ())
            }
            StreamInput::Abort => return outlet.aborted(),
            StreamInput::Finish => match sink.flush() {
                Ok(()) => {
                    drop(sink);
                    outlet.send(Status::Ok, Vec::new());
                    return;
                }
                Err(error) => Err(error),
            },
        };
        if let Err(error) = done {
            return outlet.fail("Unable to write to stream", &error);
        }
    }
}

async fn terminal(descriptor: OwnedFd, outlet: Outlet, mut input: Receiver<StreamInput>) {
    #[expect(deprecated, reason = "an OwnedFd stays open, which is all that the successor asks")]
    let Ok(descriptor) =
        AsyncFd::with_interest(descriptor, Interest::READABLE.add(Interest::WRITABLE))
    else {
        return;
    };
    let mut buffer = vec![0; 16 << 10];
    loop {
        tokio::select! {
            read = descriptor.async_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut buffer[..])?)) => {
                match read {
                    Ok(count @ 1..) => {
                        let message = outlet.message(Status::Continue, buffer[..count].to_vec());
                        if outlet.outgoing.send(message).await.is_err() {
                            return;
                        }
                    }
                    // The guest is gone; a terminal then reports an I/O error.
                    _ => {
                        _ = outlet.outgoing.send(outlet.message(Status::Continue, Vec::new())).await;
                        break;
                    }
                }
            }
            message = input.recv() => match message {
                Some(StreamInput::Data(data)) => {
                    if !write(&descriptor, &data).await {
                        break;
                    }
                }
                Some(StreamInput::Finish) => {
                    _ = outlet.outgoing.send(outlet.message(Status::Ok, Vec::new())).await;
                    return;
                }
                Some(StreamInput::Hole(_)) => {}
                Some(StreamInput::Abort) => {
                    _ = outlet.outgoing.send(outlet.abortion()).await;
                    return;
                }
                None => return,
            }
        }
    }
    while let Some(message) = input.recv().await {
        let answer = match message {
            StreamInput::Finish => outlet.message(Status::Ok, Vec::new()),
            StreamInput::Abort => outlet.abortion(),
            StreamInput::Data(_) | StreamInput::Hole(_) => continue,
        };
        _ = outlet.outgoing.send(answer).await;
        return;
    }
}

async fn write(descriptor: &AsyncFd<OwnedFd>, mut data: &[u8]) -> bool {
    while !data.is_empty() {
        let written =
            descriptor.async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, data)?)).await;
        match written {
            Ok(count @ 1..) => data = &data[count..],
            _ => return false,
        }
    }
    true
}
