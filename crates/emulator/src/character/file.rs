//! The terminal, pseudo-terminals, files and named pipes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use device::{Stream, StreamEvent, StreamPeer};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{self, OptionalActions, Termios};

use super::line::{Line, Read};
use crate::reactor::{Reactor, Source};

/// How often a pseudo-terminal without a reader is looked at.
const PTY_PAUSE: Duration = Duration::from_millis(250);

/// A stream over descriptors that are opened once.
pub struct Plain {
    line: Line,
    /// The terminal as it was.
    cooked: Option<Termios>,
}

impl Plain {
    fn start(reactor: &Arc<Reactor>, plain: Self) -> Arc<Self> {
        let plain = Arc::new(plain);
        let source: Weak<Self> = Arc::downgrade(&plain);
        reactor.add(source);
        plain
    }

    /// The terminal. With `signal`, Ctrl-C is the emulator's and not the guest's.
    pub fn stdio(reactor: &Arc<Reactor>, signal: bool) -> io::Result<Arc<Self>> {
        let line = Line::new(reactor);
        let input: OwnedFd = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
        let output: OwnedFd = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
        let mut cooked = None;
        if let Ok(before) = termios::tcgetattr(&input) {
            let mut raw = before.clone();
            raw.make_raw();
            // Output of the emulator itself still wants line ends.
            raw.output_modes = before.output_modes;
            if signal {
                raw.local_modes |= termios::LocalModes::ISIG;
            }
            termios::tcsetattr(&input, OptionalActions::Now, &raw)?;
            cooked = Some(before);
        }
        line.connect_shared(Some(Arc::new(input)), Some(Arc::new(output)));
        Ok(Self::start(reactor, Self { line, cooked }))
    }

    /// A file takes what the guest says; another one may feed it.
    pub fn file(
        reactor: &Arc<Reactor>,
        path: &str,
        append: bool,
        input: Option<&str>,
    ) -> io::Result<Arc<Self>> {
        let line = Line::new(reactor);
        let output =
            OpenOptions::new().create(true).write(true).append(append).truncate(!append).open(path);
        let input = input.map(File::open).transpose()?;
        let shared = |file: File| Arc::new(OwnedFd::from(file));
        line.connect(input.map(shared), Some(shared(output?)));
        Ok(Self::start(reactor, Self { line, cooked: None }))
    }

    /// `PATH.in` and `PATH.out`, or one pipe for both ways.
    pub fn pipe(reactor: &Arc<Reactor>, path: &str) -> io::Result<Arc<Self>> {
        let line = Line::new(reactor);
        let open = |path: &str| {
            let flags = OFlags::NONBLOCK.bits() as i32;
            let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
            io::Result::Ok(Arc::new(OwnedFd::from(file)))
        };
        match (open(&format!("{path}.in")), open(&format!("{path}.out"))) {
            (Ok(input), Ok(output)) => line.connect(Some(input), Some(output)),
            _ => {
                let both = open(path)?;
                line.connect(Some(Arc::clone(&both)), Some(both));
            }
        }
        Ok(Self::start(reactor, Self { line, cooked: None }))
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        if let Some(cooked) = &self.cooked {
            _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, cooked);
        }
    }
}

impl Source for Plain {
    fn watch(&self) -> Vec<(Arc<OwnedFd>, PollFlags)> {
        self.line.watch()
    }

    fn ready(&self, _descriptor: &Arc<OwnedFd>, flags: PollFlags) {
        if self.line.ready(flags) == Read::End {
            self.line.end_input();
        }
    }
}

impl Stream for Plain {
    fn write(&self, bytes: &[u8]) -> usize {
        self.line.write(bytes)
    }

    fn attach(&self, peer: Weak<dyn StreamPeer>) {
        self.line.attach(peer);
    }

    fn room(&self) {
        self.line.room();
    }
}

/// A pseudo-terminal. What is said while nobody has it open is lost.
pub struct Pty {
    line: Line,
    controller: Arc<OwnedFd>,
    name: String,
    link: Option<String>,
    next_look: Mutex<Option<Instant>>,
}

impl Pty {
    /// A new one, with a symbolic link to it if that is wanted.
    pub fn new(reactor: &Arc<Reactor>, link: Option<&str>) -> io::Result<Arc<Self>> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = openpt(flags)?;
        grantpt(&controller)?;
        unlockpt(&controller)?;
        let name = ptsname(&controller, Vec::new())?.to_string_lossy().into_owned();
        {
            // Opened once, so that the terminal is raw and hangs up afterwards.
            let terminal = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(OFlags::NOCTTY.bits() as i32)
                .open(&name)?;
            let mut raw = termios::tcgetattr(&terminal)?;
            raw.make_raw();
            termios::tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        }
        rustix::io::ioctl_fionbio(&controller, true)?;
        if let Some(link) = link {
            symlink(&name, link)?;
        }
        let pty = Arc::new(Self {
            line: Line::new(reactor),
            controller: Arc::new(controller),
            name,
            link: link.map(str::to_owned),
            next_look: Mutex::new(Some(Instant::now())),
        });
        let source: Weak<Self> = Arc::downgrade(&pty);
        reactor.add(source);
        Ok(pty)
    }

    /// The terminal's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            _ = std::fs::remove_file(link);
        }
    }
}

impl Source for Pty {
    fn watch(&self) -> Vec<(Arc<OwnedFd>, PollFlags)> {
        self.line.watch()
    }

    fn ready(&self, _descriptor: &Arc<OwnedFd>, flags: PollFlags) {
        if self.line.ready(flags) == Read::End {
            self.line.disconnect();
            *self.next_look.lock() = Some(Instant::now() + PTY_PAUSE);
            self.line.tell(StreamEvent::Closed);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        *self.next_look.lock()
    }

    fn tick(&self) {
        let mut polled = [PollFd::new(&*self.controller, PollFlags::OUT)];
        let polled_now = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let hung_up = polled[0].revents().contains(PollFlags::HUP);
        let is_open = polled_now.is_ok() && !hung_up;
        *self.next_look.lock() = (!is_open).then(|| Instant::now() + PTY_PAUSE);
        if is_open {
            let controller = Arc::clone(&self.controller);
            self.line.connect(Some(Arc::clone(&controller)), Some(controller));
            self.line.tell(StreamEvent::Opened);
        }
    }
}

impl Stream for Pty {
    fn write(&self, bytes: &[u8]) -> usize {
        self.line.write(bytes)
    }

    fn attach(&self, peer: Weak<dyn StreamPeer>) {
        self.line.attach(peer);
    }

    fn room(&self) {
        self.line.room();
    }

    fn is_open(&self) -> bool {
        self.line.is_connected()
    }
}
