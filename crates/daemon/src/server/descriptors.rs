//! Bytes and file descriptors through a socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use libvirt_compat::rpc::frame::DESCRIPTORS_MAX;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Reads what is there, with the descriptors that came along.
pub async fn receive(
    stream: &UnixStream,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    stream
        .async_io(Interest::READABLE, || {
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(buffer)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = recvmsg(stream.as_fd(), &mut slices, &mut control, flags)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    descriptors.extend(rights);
                }
            }
            Ok(received.bytes)
        })
        .await
}

/// Sends one descriptor with one dummy byte, as libvirt does after a message.
pub async fn send(stream: &UnixStream, descriptor: &OwnedFd) -> io::Result<()> {
    stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let borrowed = [descriptor.as_fd()];
            control.push(SendAncillaryMessage::ScmRights(&borrowed));
            let slices = [IoSlice::new(&[0])];
            sendmsg(stream.as_fd(), &slices, &mut control, SendFlags::NOSIGNAL)?;
            Ok(())
        })
        .await
}
