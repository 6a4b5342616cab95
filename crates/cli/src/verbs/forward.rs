//! Automatic forwarding: each TCP port on which somebody listens in a machine is a port of this
//! host, of the same number where that can be had.
//!
//! A process of this user does it (`forward-ports`, as `share-folder` does mounts). It hears of the
//! ports from the agent, carries connections over the agent's virtual socket, and so needs no network
//! of the guest's. It goes when the machine goes, or when it is told to.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use agent::{FrameKind, Listening, Request};
use parking_lot::Mutex;

use crate::arguments::ForwardPorts;
use crate::daemon::{Connection, Places};
use crate::failure::Failure;
use crate::guest::{self, Session};
use crate::machine::Machine;
use crate::verbs::serving;

const PATIENCE: Duration = Duration::from_secs(10);
const PIECE_BYTES: usize = 64 << 10;
/// ssh has a way of its own (`ssh NAME.hostel`), and most hosts have an ssh of their own.
const NEVER: &[u16] = &[22];
/// Where a port goes that only root could have.
const RAISED: u16 = 10_000;
/// A guest may listen on many ports, by mistake or to do harm.
const PORTS_MAX: usize = 256;
/// What is written to the process to end it.
const STOP: &[u8] = b"stop\n";
/// What is written to it to hear what it forwards.
const LIST: &[u8] = b"list\n";

/// By the guest's port: the host's, and what listens there.
type Forwards = Arc<Mutex<BTreeMap<u16, (u16, TcpListener)>>>;

/// Where the process of a machine is spoken to.
fn control(machine: &Machine) -> PathBuf {
    Places::of_session().runtime.join(format!("ports-{}.sock", machine.domain.uuid))
}

/// Starts the process, unless there is one, and waits until it has spoken with the agent.
pub fn start(machine: &Machine) -> Result<(), Failure> {
    if UnixStream::connect(control(machine)).is_ok() {
        return Ok(());
    }
    let failed = || Failure::new(format!("The ports of '{}' cannot be forwarded", machine.name()));
    serving::start(&["forward-ports", machine.name()], failed)
}

/// Ends it.
pub fn stop(machine: &Machine) {
    let path = control(machine);
    _ = UnixStream::connect(&path).and_then(|mut stream| stream.write_all(STOP));
    let began = Instant::now();
    while path.exists() && began.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(5));
    }
}

/// What is forwarded now: host and guest.
pub fn list(machine: &Machine) -> Vec<(u16, u16)> {
    let asked = || -> io::Result<Vec<(u16, u16)>> {
        let mut stream = UnixStream::connect(control(machine))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(LIST)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    };
    asked().unwrap_or_default()
}

/// `hostel forward-ports`, the process.
pub fn serve(what: &ForwardPorts) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let machine = connection.machine(&what.name)?;
    let (socket, path) = (machine.socket(&connection), control(&machine));
    drop(connection); // the daemon need not stay for us
    let session = Session::open(&socket, &Request::Listening {}, PATIENCE)
        .map_err(|error| guest::unreachable(&what.name, &error))?;
    _ = fs::remove_file(&path);
    let control = UnixListener::bind(&path).map_err(|error| {
        Failure::new(format!("{} cannot be listened on", path.display())).because(&error)
    })?;
    serving::is_ready();
    _ = rustix::process::setsid();
    if let Ok(null) = fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        _ = rustix::stdio::dup2_stdout(&null);
        _ = rustix::stdio::dup2_stderr(&null);
    }
    let forwards = Forwards::default();
    let (shared, own) = (Arc::clone(&forwards), path.clone());
    thread::spawn(move || answer(&control, &shared, &own));
    let given: Vec<u16> =
        machine.note().unwrap_or_default().ports.iter().map(|(_, guest)| *guest).collect();
    let ended = follow(session, &forwards, &socket, &given);
    _ = fs::remove_file(&path);
    ended.map_err(|error| Failure::new("The forwarding broke").because(&error))?;
    Ok(0)
}

/// Tells what is forwarded, or ends the process.
fn answer(control: &UnixListener, forwards: &Forwards, path: &Path) {
    for stream in control.incoming().flatten() {
        let mut stream = stream;
        let mut word = [0; 5];
        _ = stream.set_read_timeout(Some(PATIENCE));
        if stream.read_exact(&mut word).is_err() {
            continue;
        }
        if word == STOP {
            _ = fs::remove_file(path);
            std::process::exit(0);
        }
        let known = forwards.lock();
        let pairs: Vec<(u16, u16)> =
            known.iter().map(|(guest, (host, _))| (*host, *guest)).collect();
        drop(known);
        _ = stream.write_all(&serde_json::to_vec(&pairs).unwrap_or_default());
    }
}

/// Hears of ports until the machine is gone.
fn follow(
    mut session: Session,
    forwards: &Forwards,
    socket: &Path,
    given: &[u16],
) -> io::Result<()> {
    while let Some(frame) = session.read()? {
        match frame.kind {
            FrameKind::Answer => {
                let listening: Listening = serde_json::from_slice(&frame.payload)?;
                let mut wanted = listening.ports;
                wanted.retain(|port| !NEVER.contains(port) && !given.contains(port));
                wanted.truncate(PORTS_MAX);
                change(forwards, &wanted, socket);
            }
            FrameKind::Output => {}
            // An agent that is older than we are.
            _ => return Err(io::Error::other("the agent does not know how to tell of ports")),
        }
    }
    Ok(())
}

/// Closes what is no longer wanted, and opens what is new.
fn change(forwards: &Forwards, wanted: &[u16], socket: &Path) {
    let mut known = forwards.lock();
    known.retain(|guest, (_, listener)| {
        let stays = wanted.contains(guest);
        if !stays {
            // Whoever waits for the next connection hears of it.
            _ = rustix::net::shutdown(&*listener, rustix::net::Shutdown::Both);
        }
        stays
    });
    for guest in wanted {
        if known.contains_key(guest) {
            continue;
        }
        let raised = guest.checked_add(RAISED).unwrap_or(0);
        let bound = [*guest, raised, 0]
            .into_iter()
            .find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
        let Some(listener) = bound else { continue };
        let (Ok(address), Ok(own)) = (listener.local_addr(), listener.try_clone()) else {
            continue;
        };
        let (guest, socket) = (*guest, socket.to_owned());
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let socket = socket.clone();
                thread::spawn(move || carry(stream, guest, &socket));
            }
        });
        known.insert(guest, (address.port(), own));
    }
}

/// Carries one connection, both ways.
fn carry(stream: TcpStream, guest: u16, socket: &Path) -> io::Result<()> {
    let mut session = Session::open(socket, &Request::Connect { port: guest }, PATIENCE)?;
    match session.read()? {
        Some(frame) if frame.kind == FrameKind::Answer => {}
        _ => return Ok(()),
    }
    let (mut input, mut from) = (session.second()?, stream.try_clone()?);
    thread::spawn(move || {
        let mut bytes = vec![0; PIECE_BYTES];
        loop {
            let count = from.read(&mut bytes).unwrap_or(0);
            if input.write(FrameKind::Input, &bytes[..count]).is_err() || count == 0 {
                return;
            }
        }
    });
    let mut to = stream;
    while let Some(frame) = session.read()? {
        if frame.kind != FrameKind::Output || frame.payload.is_empty() {
            break;
        }
        to.write_all(&frame.payload)?;
    }
    to.shutdown(Shutdown::Both)
}
