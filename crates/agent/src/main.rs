//! The agent: a small static program that does in a guest what its host asks for.
//!
//! As the first process of a guest it also starts the rest (see `init.rs`).

mod connect;
mod exec;
mod export;
mod files;
mod info;
mod init;
mod seed;
mod session;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use vsock::{VMADDR_CID_ANY, VsockListener};

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostel-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Listens for the host, one thread a session.
fn serve() -> std::io::Result<()> {
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, agent::PORT)?;
    info::reached("booted");
    for connection in listener.incoming() {
        match connection {
            Ok(stream) => {
                let started = thread::Builder::new()
                    .name("session".to_owned())
                    .spawn(move || session::serve(&stream));
                if let Err(error) = started {
                    eprintln!("hostel-agent: {error}");
                }
            }
            // Out of descriptors or memory: some will come back.
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
    Ok(())
}
