//! One thread that waits for descriptors: terminals, sockets, monitors.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Something with a descriptor. Called from the reactor's thread only, without its locks.
pub trait Source: Send + Sync {
    /// Which descriptors to wait for now, and what for.
    fn watch(&self) -> Vec<(Arc<OwnedFd>, PollFlags)>;

    /// The descriptor is ready.
    fn ready(&self, descriptor: &Arc<OwnedFd>, flags: PollFlags);

    /// When to call [`Source::tick`], if at all.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The deadline has come.
    fn tick(&self) {}
}

/// The thread and what it waits for. Sources that nobody else holds are forgotten.
pub struct Reactor {
    wake: OwnedFd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sources: Vec<Weak<dyn Source>>,
    quit: bool,
}

impl Reactor {
    /// A reactor without its thread.
    pub fn new() -> io::Result<Arc<Self>> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self { wake, state: Mutex::default() }))
    }

    /// Starts the thread.
    pub fn start(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let reactor = Arc::clone(self);
        thread::Builder::new().name("events".to_owned()).spawn(move || reactor.run())
    }

    /// Adds a source, for as long as somebody else holds it.
    pub fn add(&self, source: Weak<dyn Source>) {
        self.state.lock().sources.push(source);
        self.wake();
    }

    /// Some source wants something else now.
    pub fn wake(&self) {
        // Full means that a wake-up is on its way already.
        _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Ends the thread.
    pub fn quit(&self) {
        self.state.lock().quit = true;
        self.wake();
    }

    fn run(&self) {
        loop {
            let sources: Vec<Arc<dyn Source>> = {
                let mut state = self.state.lock();
                if state.quit {
                    return;
                }
                state.sources.retain(|source| source.strong_count() > 0);
                state.sources.iter().filter_map(Weak::upgrade).collect()
            };
            self.turn(&sources);
        }
    }

    /// Waits once, and serves what came.
    fn turn(&self, sources: &[Arc<dyn Source>]) {
        let watched: Vec<(&Arc<dyn Source>, Arc<OwnedFd>, PollFlags)> = sources
            .iter()
            .flat_map(|source| {
                source.watch().into_iter().map(move |(fd, flags)| (source, fd, flags))
            })
            .collect();
        let deadline = sources.iter().filter_map(|source| source.deadline()).min();
        let mut polled = vec![PollFd::new(&self.wake, PollFlags::IN)];
        polled.extend(watched.iter().map(|(_, fd, flags)| PollFd::new(&**fd, *flags)));
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up, or the last fraction of a millisecond would be spent spinning.
            let left = left + Duration::from_micros(100);
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        if poll(&mut polled, timeout.as_ref()).is_err() {
            return; // interrupted: look again
        }
        let events: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
        if !events[0].is_empty() {
            _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        for ((source, descriptor, _), flags) in watched.iter().zip(&events[1..]) {
            if !flags.is_empty() {
                source.ready(descriptor, *flags);
            }
        }
        let now = Instant::now();
        for source in sources {
            if source.deadline().is_some_and(|deadline| deadline <= now) {
                source.tick();
            }
        }
    }
}
