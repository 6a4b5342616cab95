//! One client's connection: frames in, calls out to handlers, replies and events back.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use libvirt_compat::rpc::xdr::to_bytes;
use libvirt_compat::rpc::{
    self, Frame, FrameDecoder, FrameError, Header, KEEPALIVE_PING, KEEPALIVE_PONG, Kind,
    PROGRAM_KEEPALIVE, Status,
};
use libvirt_compat::{Code, Error, Origin};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::server::TlsStream;

use super::{Shared, descriptors, dispatch};
use crate::client::{Client, Outgoing, QUEUE_LENGTH};
use crate::handlers::Call;
use crate::streams::{self, StreamInput};

/// Calls of one client that run at once; then its socket is no longer read.
const CALLS_MAX: usize = 5;
/// Streams that one client has open at once.
const STREAMS_MAX: usize = 64;
/// Packets of a stream that wait for a slow file or terminal.
const STREAM_QUEUE_LENGTH: usize = 16;
/// A client that takes nothing for so long is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 64 << 10;

/// Where a client comes from.
pub enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// The halves of a TLS connection, which share its state.
    TlsIn(ReadHalf<Box<TlsStream<TcpStream>>>),
    TlsOut(WriteHalf<Box<TlsStream<TcpStream>>>),
}

impl Socket {
    async fn read(&mut self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => descriptors::receive(stream, buffer, fds).await,
            Self::Tcp(stream) => stream.read(buffer).await,
            Self::Tls(stream) => stream.read(buffer).await,
            Self::TlsIn(stream) => stream.read(buffer).await,
            Self::TlsOut(_) => Ok(0),
        }
    }

    fn split(self) -> io::Result<(Self, Self)> {
        // Two descriptors of one socket: reading and writing then need no lock.
        Ok(match self {
            Self::Unix(stream) => {
                let stream = stream.into_std()?;
                let copy = UnixStream::from_std(stream.try_clone()?)?;
                (Self::Unix(UnixStream::from_std(stream)?), Self::Unix(copy))
            }
            Self::Tcp(stream) => {
                let stream = stream.into_std()?;
                let copy = TcpStream::from_std(stream.try_clone()?)?;
                (Self::Tcp(TcpStream::from_std(stream)?), Self::Tcp(copy))
            }
            Self::Tls(stream) => {
                let (reading, writing) = tokio::io::split(stream);
                (Self::TlsIn(reading), Self::TlsOut(writing))
            }
            Self::TlsIn(_) | Self::TlsOut(_) => return Err(io::ErrorKind::Unsupported.into()),
        })
    }

    async fn write(&mut self, message: Outgoing) -> io::Result<()> {
        match self {
            Self::Unix(stream) => {
                stream.write_all(&message.bytes).await?;
                for descriptor in &message.descriptors {
                    descriptors::send(stream, descriptor).await?;
                }
                Ok(())
            }
            Self::Tcp(stream) => stream.write_all(&message.bytes).await,
            Self::Tls(stream) => {
                stream.write_all(&message.bytes).await?;
                stream.flush().await
            }
            Self::TlsOut(stream) => {
                stream.write_all(&message.bytes).await?;
                stream.flush().await
            }
            Self::TlsIn(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Serves a client until it leaves, breaks the protocol or stops reading.
pub async fn serve(socket: Socket, readonly: bool, shared: &Arc<Shared>) {
    let Ok((mut reading, writing)) = socket.split() else { return };
    let (sender, outgoing) = mpsc::channel(QUEUE_LENGTH);
    let client = Arc::new(Client::new(readonly, sender));
    let mut writer = tokio::spawn(write_all(writing, outgoing));

    let mut session = Session {
        client: Arc::clone(&client),
        shared: Arc::clone(shared),
        calls: Arc::new(Semaphore::new(CALLS_MAX)),
        streams: HashMap::new(),
        decoder: FrameDecoder::default(),
        descriptors: Vec::new(),
    };
    tokio::select! {
        () = session.read(&mut reading) => {}
        () = client.closing.notified() => {}
        _ = &mut writer => {}
    }
    drop(session);
    if let Ok(world) = client.world() {
        world.events.forget(&client);
    }
    client.set_world(None);
    // What is queued, such as the reply to a close, still goes out.
    drop(client);
    if !writer.is_finished() {
        _ = tokio::time::timeout(Duration::from_secs(2), writer).await;
    }
}

async fn write_all(mut socket: Socket, mut outgoing: mpsc::Receiver<Outgoing>) {
    while let Some(message) = outgoing.recv().await {
        match tokio::time::timeout(WRITE_TIMEOUT, socket.write(message)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}

struct Session {
    client: Arc<Client>,
    shared: Arc<Shared>,
    calls: Arc<Semaphore>,
    /// By serial. A stream that has ended leaves a closed channel behind.
    streams: HashMap<u32, mpsc::Sender<StreamInput>>,
    decoder: FrameDecoder,
    /// Arrived, and not yet claimed by a call.
    descriptors: Vec<OwnedFd>,
}

impl Session {
    async fn read(&mut self, socket: &mut Socket) {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => {
                    if self.take(frame, socket).await.is_none() {
                        return;
                    }
                }
                Ok(None) => {
                    if !self.fill(socket, &mut buffer).await {
                        return;
                    }
                }
                Err(FrameError::BadLength { .. } | FrameError::BadKind { .. })
                | Err(FrameError::BadStatus { .. }) => return,
            }
        }
    }

    async fn fill(&mut self, socket: &mut Socket, buffer: &mut [u8]) -> bool {
        match socket.read(buffer, &mut self.descriptors).await {
            Ok(count @ 1..) if self.descriptors.len() <= rpc::frame::DESCRIPTORS_MAX => {
                self.decoder.feed(&buffer[..count]);
                true
            }
            _ => false,
        }
    }

    /// `None` ends the connection.
    async fn take(&mut self, mut frame: Frame, socket: &mut Socket) -> Option<()> {
        let mut passed = Vec::new();
        if frame.header.kind == Kind::CallWithDescriptors {
            let count = frame.descriptor_count()?;
            if count > rpc::frame::DESCRIPTORS_MAX {
                return None;
            }
            let mut buffer = [0; READ_BYTES];
            while !self.decoder.take_raw(count) || self.descriptors.len() < count {
                if !self.fill(socket, &mut buffer[..count.max(1)]).await {
                    return None;
                }
            }
            passed = self.descriptors.drain(..count).collect();
            frame.payload.drain(..4);
        }
        match frame.header.kind {
            Kind::Call | Kind::CallWithDescriptors => self.call(frame, passed).await,
            Kind::Stream | Kind::StreamHole => self.stream(frame).await,
            Kind::Message => self.keepalive(&frame).await,
            Kind::Reply | Kind::ReplyWithDescriptors => None,
        }
    }

    async fn keepalive(&self, frame: &Frame) -> Option<()> {
        let asked =
            frame.header.program == PROGRAM_KEEPALIVE && frame.header.procedure == KEEPALIVE_PING;
        if asked {
            let header = Header { procedure: KEEPALIVE_PONG, ..frame.header };
            send(&self.client, &Frame { header, payload: Vec::new() }, Vec::new()).await?;
        }
        Some(())
    }

    async fn call(&mut self, frame: Frame, passed: Vec<OwnedFd>) -> Option<()> {
        let header = frame.header;
        self.streams.retain(|_, stream| !stream.is_closed());
        let call = Call::new(&self.client, &self.shared.worlds, header, passed);
        if dispatch::answers_at_once(header) {
            let result = dispatch::run(&call, &frame.payload);
            let opened = finish(&self.client, call, result).await?;
            self.keep(header.serial, opened);
            return Some(());
        }
        let permit = Arc::clone(&self.calls).acquire_owned().await.ok()?;
        if dispatch::opens_stream(header) {
            // The stream has to be known before its first packet is read.
            let (call, result) = in_background(call, frame.payload, permit).await?;
            let opened = finish(&self.client, call, result).await?;
            self.keep(header.serial, opened);
            return Some(());
        }
        let client = Arc::clone(&self.client);
        tokio::spawn(async move {
            if let Some((call, result)) = in_background(call, frame.payload, permit).await {
                finish(&client, call, result).await;
            }
        });
        Some(())
    }

    fn keep(&mut self, serial: u32, opened: Option<mpsc::Sender<StreamInput>>) {
        if let Some(stream) = opened
            && self.streams.len() < STREAMS_MAX
        {
            self.streams.insert(serial, stream);
        }
    }

    async fn stream(&mut self, frame: Frame) -> Option<()> {
        let serial = frame.header.serial;
        let Some(stream) = self.streams.get(&serial) else { return Some(()) };
        let input = match (frame.header.kind, frame.header.status) {
            (Kind::StreamHole, _) => StreamInput::Hole(streams::hole_length(&frame.payload)?),
            (_, Status::Continue) => StreamInput::Data(frame.payload),
            (_, Status::Ok) => StreamInput::Finish,
            (_, Status::Error) => StreamInput::Abort,
        };
        // Waiting here stops reading the socket: that is the flow control.
        if stream.send(input).await.is_err() {
            self.streams.remove(&serial);
        }
        Some(())
    }
}

async fn in_background(
    call: Call,
    payload: Vec<u8>,
    permit: OwnedSemaphorePermit,
) -> Option<(Call, Result<Vec<u8>, Error>)> {
    let work = tokio::task::spawn_blocking(move || {
        // A handler that panics is a bug, but one that its client hears of and others do not.
        let run = AssertUnwindSafe(|| dispatch::run(&call, &payload));
        let result = catch_unwind(run).unwrap_or_else(|_| {
            let text = "the daemon failed to handle the call";
            Err(Error::new(Code::InternalError, text).from(Origin::Rpc))
        });
        drop(permit);
        (call, result)
    });
    work.await.ok()
}

/// Sends the reply, and starts the stream that the call opened.
async fn finish(
    client: &Arc<Client>,
    call: Call,
    result: Result<Vec<u8>, Error>,
) -> Option<Option<mpsc::Sender<StreamInput>>> {
    let header = call.header;
    let (body, descriptors) = call.into_products();
    match result {
        Ok(payload) if rpc::frame::HEADER_BYTES + payload.len() > rpc::frame::FRAME_BYTES_MAX => {
            let text = "Unable to encode message payload";
            send_error(client, header, &Error::new(Code::Rpc, text).from(Origin::Rpc)).await?;
            Some(None)
        }
        Ok(payload) => {
            let mut frame = Frame { header: header.reply(Status::Ok), payload };
            if !descriptors.is_empty() {
                frame.header.kind = Kind::ReplyWithDescriptors;
                let count = (descriptors.len() as u32).to_be_bytes();
                frame.payload.splice(0..0, count);
            }
            send(client, &frame, descriptors).await?;
            Some(body.map(|body| {
                let (sender, input) = mpsc::channel(STREAM_QUEUE_LENGTH);
                streams::start(body, header, client.outgoing(), input);
                sender
            }))
        }
        Err(error) => {
            send_error(client, header, &error).await?;
            Some(None)
        }
    }
}

async fn send_error(client: &Client, header: Header, error: &Error) -> Option<()> {
    let payload = to_bytes(&error.to_wire());
    send(client, &Frame { header: header.reply(Status::Error), payload }, Vec::new()).await
}

async fn send(client: &Client, frame: &Frame, descriptors: Vec<OwnedFd>) -> Option<()> {
    let message = Outgoing { bytes: frame.to_bytes(), descriptors };
    client.outgoing().send(message).await.ok()
}
