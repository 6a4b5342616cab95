//! A folder of this host in a machine, while it runs and whatever its kernel is: the guest's kernel
//! asks through FUSE, its agent carries, and this process answers for as long as the mount lasts.
//!
//! It has the rights of the user who mounted it and sees nothing beyond the folder: each path goes
//! through `openat2` with RESOLVE_BENEATH and without links, so that no name and no link that a guest
//! makes leads out of it.

mod nodes;
mod protocol;
mod server;

use std::io;
use std::path::Path;

use agent::FrameKind;

use crate::guest::Session;
pub use server::{Options, Server};

/// Answers requests until the mount or the machine is gone.
pub fn serve(mut session: Session, folder: &Path, options: Options) -> io::Result<()> {
    let mut server = Server::new(folder, options)?;
    while let Some(frame) = session.read()? {
        if frame.kind != FrameKind::Output || frame.payload.is_empty() {
            return Ok(());
        }
        if let Some(answer) = server.answer(&frame.payload) {
            session.write(FrameKind::Input, &answer)?;
        }
    }
    Ok(())
}
