//! Folders of the host: the guest's kernel asks through `/dev/fuse`, the host answers over the
//! session. This side only carries; a mount ends with its session.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::thread;

use agent::{Export, FrameKind, read_frame};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;
use vsock::VsockStream;

use crate::session::{Failed, Host};

/// A request is at most one write, with its head.
const REQUEST_BYTES_MAX: usize = (128 << 10) + 4096;

/// Mounts, carries, unmounts.
pub fn run(what: &Export, host: &Host, from: &mut VsockStream) -> Result<(), Failed> {
    let about = |error: io::Error| Failed { reason: format!("{}: {error}", what.target), code: 1 };
    // A kernel that has it as a module may not have loaded it.
    if !fs::exists("/dev/fuse").unwrap_or(false) {
        _ = std::process::Command::new("modprobe").arg("fuse").status();
    }
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(about)?;
    fs::create_dir_all(&what.target).map_err(about)?;
    let options =
        format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    let options = CString::new(options).expect("digits have no zero in between");
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    if what.read_only {
        flags |= MountFlags::RDONLY;
    }
    mount(&what.name, &what.target, "fuse.hostel", flags, Some(options.as_c_str()))
        .map_err(|error| about(error.into()))?;
    host.answer(FrameKind::Answer, &json!({}));
    let requests = device.try_clone()?;
    let target = what.target.clone();
    thread::scope(|scope| {
        scope.spawn(|| carry_requests(requests, host));
        carry_answers(device, from);
        // Lazily, for somebody may still stand in it; the kernel then fails what is asked.
        _ = unmount(&target, UnmountFlags::DETACH | UnmountFlags::FORCE);
    });
    Ok(())
}

fn carry_requests(mut device: File, host: &Host) {
    let mut bytes = vec![0; REQUEST_BYTES_MAX];
    loop {
        match device.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => {
                if host.send(FrameKind::Output, &bytes[..count]).is_err() {
                    return;
                }
            }
            // One that was interrupted before it was read is gone; the next one comes.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::NotFound) => {
            }
            // ENODEV: unmounted.
            Err(_) => {
                _ = host.send(FrameKind::Output, &[]);
                return;
            }
        }
    }
}

fn carry_answers(mut device: File, from: &mut VsockStream) {
    while let Ok(Some(frame)) = read_frame(from) {
        if frame.kind != FrameKind::Input || frame.payload.is_empty() {
            return;
        }
        // An answer to a request that was interrupted is refused, which is nobody's fault.
        _ = device.write(&frame.payload);
    }
}
