//! The conversation over the socket.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use linux::shared::SharedMemory;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

use super::message::{self, Request};
use super::ring::Ring;
use super::{Result, VhostUserError};

/// A back end that takes longer to answer is as good as dead.
const PATIENCE: Duration = Duration::from_secs(10);
/// Regions of memory that every back end takes.
const REGIONS_MAX: usize = 8;
/// Where the rings lie, in the guest's addresses: far above all that machines have.
const RINGS_ADDRESS: u64 = 1 << 46;
/// The features that belong to a type of device.
const DEVICE_FEATURES: u64 = 0x00ff_ffff;
/// A modern device.
const VERSION_1: u64 = 1 << 32;

/// Memory of the guest that the back end may use.
pub struct MemoryRegion<'a> {
    /// Behind this descriptor.
    pub file: BorrowedFd<'a>,
    /// From here on.
    pub offset: u64,
    /// As many bytes.
    pub bytes: u64,
    /// Where the guest sees it.
    pub guest_address: u64,
}

/// How both sides tell each other of news.
#[derive(Clone)]
pub struct QueueEvents {
    /// To the back end.
    kick: Arc<OwnedFd>,
    /// From the back end.
    call: Arc<OwnedFd>,
}

impl QueueEvents {
    fn new() -> Result<Self> {
        let event = || {
            let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
            made.map(Arc::new).map_err(|error| host("make an event", error))
        };
        Ok(Self { kick: event()?, call: event()? })
    }

    /// There are new buffers.
    pub fn kick(&self) {
        // A counter that is full is as good.
        _ = rustix::io::write(&*self.kick, &1_u64.to_ne_bytes());
    }

    /// What becomes readable when buffers have come back.
    #[must_use]
    pub fn called(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// The call was heard.
    pub fn heard(&self) {
        _ = rustix::io::read(&*self.call, &mut [0; 8]);
    }
}

/// A queue that the back end serves.
pub struct Queue {
    /// The driver's side.
    pub ring: Ring,
    /// News.
    pub events: QueueEvents,
}

impl Queue {
    /// Tells the back end of new buffers, if it wants to know.
    pub fn kick(&self) {
        if self.ring.wants_kick() {
            self.events.kick();
        }
    }
}

/// A back end, connected.
pub struct FrontEnd {
    socket: OwnedFd,
    features: u64,
    protocol: u64,
    queues_max: u64,
}

fn host(action: &'static str, error: Errno) -> VhostUserError {
    VhostUserError::Host { action, source: error.into() }
}

impl FrontEnd {
    /// Gets to know the back end at the other side of a unix socket.
    pub fn new(socket: OwnedFd) -> Result<Self> {
        let mut this = Self { socket, features: 0, protocol: 0, queues_max: 1 };
        this.tell(message::SET_OWNER, &[], &[])?;
        this.features = this.ask(message::GET_FEATURES, &[])?;
        if this.features & VERSION_1 == 0 {
            return Err(VhostUserError::Lacks { feature: "virtio 1" });
        }
        if this.features & message::PROTOCOL_FEATURES != 0 {
            let offered = this.ask(message::GET_PROTOCOL_FEATURES, &[])?;
            let wanted = offered & (message::PROTOCOL_MQ | message::PROTOCOL_REPLY_ACK);
            this.tell(message::SET_PROTOCOL_FEATURES, &wanted.to_ne_bytes(), &[])?;
            this.protocol = wanted;
            if wanted & message::PROTOCOL_MQ != 0 {
                this.queues_max = this.ask(message::GET_QUEUE_NUM, &[])?;
            }
        }
        Ok(this)
    }

    /// What the device can do. Features of rings are left out: the guest's rings are not these.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features & DEVICE_FEATURES
    }

    /// The most queues, or pairs of queues, where the back end says so.
    #[must_use]
    pub fn queues_max(&self) -> Option<u64> {
        (self.protocol & message::PROTOCOL_MQ != 0).then_some(self.queues_max)
    }

    /// The connection, for waiting: it becomes readable when the back end goes.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Starts the device: `features` were chosen, it has the guest's memory and what `private`
    /// holds, at the addresses of [`FrontEnd::private_address`], and a queue of each size.
    pub fn start(
        &mut self,
        features: u64,
        guest: &[MemoryRegion<'_>],
        private: &Arc<SharedMemory>,
        sizes: &[u16],
    ) -> Result<Vec<Queue>> {
        let protocol = self.features & message::PROTOCOL_FEATURES;
        let features = features & self.features() | VERSION_1 | protocol;
        self.tell(message::SET_FEATURES, &features.to_ne_bytes(), &[])?;
        self.set_memory(guest, private)?;
        let mut at = 0;
        let mut queues = Vec::with_capacity(sizes.len());
        for (index, size) in sizes.iter().enumerate() {
            let ring = Ring::new(private, at, *size);
            at += Ring::bytes(*size);
            queues.push(Queue { ring, events: QueueEvents::new()? });
            self.start_queue(index as u32, &queues[index])?;
        }
        if protocol != 0 {
            for index in 0..sizes.len() {
                self.set(message::SET_VRING_ENABLE, index as u32, 1)?;
            }
        }
        Ok(queues)
    }

    /// Bytes of `private` memory that rings of these sizes take, from its start on.
    #[must_use]
    pub fn ring_bytes(sizes: &[u16]) -> usize {
        sizes.iter().map(|size| Ring::bytes(*size)).sum()
    }

    /// Where the back end finds what lies in `private` memory.
    #[must_use]
    pub fn private_address(offset: usize) -> u64 {
        RINGS_ADDRESS + offset as u64
    }

    fn set_memory(&self, guest: &[MemoryRegion<'_>], private: &SharedMemory) -> Result<()> {
        if guest.len() >= REGIONS_MAX {
            return Err(VhostUserError::Lacks { feature: "so many pieces of memory" });
        }
        let count = guest.len() as u32 + 1;
        let mut body = [count.to_ne_bytes(), [0; 4]].concat();
        let mut files = Vec::with_capacity(REGIONS_MAX);
        for region in guest {
            // Where it lies in this process is nobody's business; addresses only need to differ.
            let own = region.guest_address;
            for number in [region.guest_address, region.bytes, own, region.offset] {
                body.extend(number.to_ne_bytes());
            }
            files.push(region.file);
        }
        for number in [RINGS_ADDRESS, private.bytes() as u64, RINGS_ADDRESS, 0] {
            body.extend(number.to_ne_bytes());
        }
        files.push(private.as_fd());
        self.tell(message::SET_MEM_TABLE, &body, &files)
    }

    fn start_queue(&self, index: u32, queue: &Queue) -> Result<()> {
        self.set(message::SET_VRING_NUM, index, u32::from(queue.ring.size()))?;
        self.set(message::SET_VRING_BASE, index, 0)?;
        let [descriptors, driver, device] = queue.ring.places().map(Self::private_address);
        let mut body = [index.to_ne_bytes(), [0; 4]].concat();
        for number in [descriptors, device, driver, 0] {
            body.extend(number.to_ne_bytes());
        }
        self.tell(message::SET_VRING_ADDR, &body, &[])?;
        let index = u64::from(index).to_ne_bytes();
        self.tell(message::SET_VRING_CALL, &index, &[queue.events.call.as_fd()])?;
        self.tell(message::SET_VRING_KICK, &index, &[queue.events.kick.as_fd()])
    }

    /// Stops so many queues; when this returns the back end has let go of them.
    pub fn stop(&mut self, queues: u32) -> Result<()> {
        for index in 0..queues {
            if self.features & message::PROTOCOL_FEATURES != 0 {
                self.set(message::SET_VRING_ENABLE, index, 0)?;
            }
            let body = [index.to_ne_bytes(), [0; 4]].concat();
            self.ask(message::GET_VRING_BASE, &body)?;
        }
        Ok(())
    }

    /// A request with a queue's number and another one.
    fn set(&self, request: Request, index: u32, value: u32) -> Result<()> {
        let body = [index.to_ne_bytes(), value.to_ne_bytes()].concat();
        self.tell(request, &body, &[])
    }

    /// A request without an answer, or with one that says that all is well.
    fn tell(&self, request: Request, body: &[u8], files: &[BorrowedFd<'_>]) -> Result<()> {
        let acknowledged = self.protocol & message::PROTOCOL_REPLY_ACK != 0;
        self.send(request, body, files, acknowledged)?;
        if acknowledged && self.receive(request)? != 0 {
            return Err(VhostUserError::Refused { request: request.1 });
        }
        Ok(())
    }

    fn ask(&self, request: Request, body: &[u8]) -> Result<u64> {
        self.send(request, body, &[], false)?;
        self.receive(request)
    }

    fn send(
        &self,
        request: Request,
        body: &[u8],
        files: &[BorrowedFd<'_>],
        needs_reply: bool,
    ) -> Result<()> {
        let failed = |source: io::Error| VhostUserError::Connection { request: request.1, source };
        let bytes = message::encode(request, body, needs_reply);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(REGIONS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(VhostUserError::Lacks { feature: "so many descriptors" });
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.wait(PollFlags::OUT).map_err(failed)?;
            let parts = [io::IoSlice::new(rest)];
            match sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL) {
                Ok(count) => {
                    rest = &rest[count..];
                    control.clear(); // descriptors go with the first byte
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(())
    }

    /// The answer's number. Queues' states are two words, of which the second one counts.
    fn receive(&self, request: Request) -> Result<u64> {
        let nonsense = || VhostUserError::Nonsense { request: request.1 };
        let mut header = [0; message::HEADER_BYTES];
        self.receive_exactly(request, &mut header)?;
        let bytes = message::decode(request, header).filter(|bytes| *bytes == 8);
        bytes.ok_or_else(nonsense)?;
        let mut body = [0; 8];
        self.receive_exactly(request, &mut body)?;
        Ok(u64::from_ne_bytes(body))
    }

    fn receive_exactly(&self, request: Request, bytes: &mut [u8]) -> Result<()> {
        let failed = |source: io::Error| VhostUserError::Connection { request: request.1, source };
        let mut done = 0;
        while done < bytes.len() {
            self.wait(PollFlags::IN).map_err(failed)?;
            match recv(&self.socket, &mut bytes[done..], RecvFlags::empty()) {
                Ok((_, 0)) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
                Ok((_, count)) => done += count,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(())
    }

    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        loop {
            let mut polled = [PollFd::new(&self.socket, flags)];
            match poll(&mut polled, Some(&timeout)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
