//! The state leaves: memory while the guest runs, again what it has changed meanwhile, and the rest
//! while it stands.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use machine::{Progress, RunState, Saving, StreamError};

use super::channel::{Address, Sink};
use super::{Migration, State, Status, find_blockers, whole};
use crate::emulator::Emulator;

/// Times that memory is gone through while the guest runs. One that changes more than the way takes
/// is not caught up with by more of them.
const ROUNDS_MAX: u32 = 8;
/// A limit is kept over so long.
const SLICE: Duration = Duration::from_millis(50);

impl Migration {
    /// Begins a move. What fails later is told by the status.
    pub fn leave(emulator: &Arc<Emulator>, uri: &str) -> Result<(), String> {
        let address = Address::parse(uri)?;
        let machine = &emulator.machine;
        if machine.control().state() == RunState::InMigrate {
            return Err("Guest is waiting for an incoming migration".to_owned());
        }
        find_blockers(machine)?;
        let migration = &emulator.migration;
        let progress: Arc<Progress> = Arc::default();
        {
            let mut state = migration.state.lock();
            if state.status.is_live() {
                return Err("There's a migration process in progress".to_owned());
            }
            *state = State {
                status: Status::None,
                progress: Arc::clone(&progress),
                begun: Some(Instant::now()),
                memory_bytes: emulator.options.board.ram_bytes,
                ..State::default()
            };
        }
        emulator.enter(Status::Setup, None);
        let sink = address.sink(&*emulator.passed);
        let sink = sink.map_err(|error| {
            emulator.enter(Status::Failed, Some(error.to_string()));
            error.to_string()
        })?;
        let emulator = Arc::clone(emulator);
        let begun = thread::Builder::new()
            .name("migration".to_owned())
            .spawn(move || emulator.carry_out(sink, &progress));
        begun.map(|_| ()).map_err(|error| format!("Cannot start a thread: {error}"))
    }
}

impl Emulator {
    /// Tells how far a move is.
    pub fn enter(&self, status: Status, error: Option<String>) {
        {
            let mut state = self.migration.state.lock();
            if state.status == Status::Cancelling && status.is_live() {
                return;
            }
            state.status = status;
            state.error = error;
            let begun = state.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
            match status {
                Status::Active => state.setup = begun,
                status if !status.is_live() => state.total = begun,
                _ => {}
            }
        }
        if self.migration.tells() {
            self.monitors.event("MIGRATION", serde_json::json!({"status": status.name()}));
        }
    }

    fn carry_out(self: &Arc<Self>, sink: Sink, progress: &Progress) {
        let control = self.machine.control();
        let mut sink = Limited { sink, emulator: Arc::clone(self), slice: (Instant::now(), 0) };
        let before = control.state();
        let moved = self.pass(&mut sink, progress);
        let moved = moved.and_then(|()| sink.sink.close().map_err(StreamError::Write));
        match moved {
            Ok(()) => {
                control.stop(RunState::PostMigrate);
                self.enter(Status::Completed, None);
            }
            Err(error) => {
                if before == RunState::Running {
                    control.resume();
                } else {
                    control.stop(before);
                }
                let cancelled = matches!(error, StreamError::Cancelled);
                let status = if cancelled { Status::Cancelled } else { Status::Failed };
                self.enter(status, (!cancelled).then(|| whole(&error)));
            }
        }
    }

    fn pass(&self, sink: &mut Limited, progress: &Progress) -> Result<(), StreamError> {
        self.enter(Status::Active, None);
        let control = self.machine.control();
        let runs = control.state() == RunState::Running;
        let mut saving = Saving::begin(&self.machine, sink, progress, runs)?;
        if runs {
            self.chase(&mut saving)?;
        }
        let stood = Instant::now();
        control.stop(RunState::FinishMigrate);
        self.enter(Status::Device, None);
        saving.finish()?;
        self.migration.state.lock().downtime = if runs { stood.elapsed() } else { Duration::ZERO };
        Ok(())
    }

    /// Goes through memory while the guest runs, until what is left fits into the time that it may
    /// stand, or does not get less.
    fn chase(&self, saving: &mut Saving<'_>) -> Result<(), StreamError> {
        let mut last = u64::MAX;
        for _ in 0..ROUNDS_MAX {
            let begun = Instant::now();
            let pages = saving.round()?;
            let parameters = self.migration.parameters();
            let per_ms = pages / u64::try_from(begun.elapsed().as_millis()).unwrap_or(1).max(1);
            if self.migration.tells() {
                let rounds = self.migration.state.lock();
                let rounds = rounds.progress.rounds.load(std::sync::atomic::Ordering::Relaxed);
                self.monitors.event("MIGRATION_PASS", serde_json::json!({"pass": rounds}));
            }
            let fits = pages <= per_ms.saturating_mul(parameters.downtime_ms);
            if (last != u64::MAX && fits) || pages >= last {
                break;
            }
            last = pages;
        }
        Ok(())
    }
}

/// A sink that takes no more than it is allowed to.
struct Limited {
    sink: Sink,
    emulator: Arc<Emulator>,
    slice: (Instant, u64),
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let limit = self.emulator.migration.parameters().bandwidth;
        let per_slice = u128::from(limit) * SLICE.as_millis() / 1000;
        if limit > 0 && u128::from(self.slice.1) >= per_slice {
            let passed = self.slice.0.elapsed();
            let due = Duration::from_secs_f64(self.slice.1 as f64 / limit as f64);
            thread::sleep(due.saturating_sub(passed));
            self.slice = (Instant::now(), 0);
        }
        let written = self.sink.write(bytes)?;
        self.slice.1 += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
