//! Moving a machine's state out of this process, and into it.

pub mod channel;
mod incoming;
mod outgoing;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use machine::{Machine, Progress};
use parking_lot::Mutex;
use serde_json::{Value, json};

pub use incoming::Incoming;

/// What memory is counted in.
const PAGE_BYTES: u64 = 4096;

/// How far a move is, by QEMU's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// There was none.
    #[default]
    None,
    /// It begins.
    Setup,
    /// Memory moves.
    Active,
    /// The devices' state moves; the guest stands.
    Device,
    /// All has moved.
    Completed,
    /// See the error.
    Failed,
    /// Somebody has asked for its end.
    Cancelling,
    /// It was ended.
    Cancelled,
}

impl Status {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Setup => "setup",
            Self::Active => "active",
            Self::Device => "device",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it is under way.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Setup | Self::Active | Self::Device | Self::Cancelling)
    }
}

/// What can be set about moves.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    /// Bytes a second; 0 is no limit.
    pub bandwidth: u64,
    /// How long the guest may stand.
    pub downtime_ms: u64,
}

impl Default for Parameters {
    /// QEMU's.
    fn default() -> Self {
        Self { bandwidth: 128 << 20, downtime_ms: 300 }
    }
}

/// All about moves.
#[derive(Default)]
pub struct Migration {
    state: Mutex<State>,
    parameters: Mutex<Parameters>,
    /// Every change of the status is told.
    tells: Mutex<bool>,
    /// What is waited for.
    incoming: Mutex<Option<Incoming>>,
}

#[derive(Default)]
struct State {
    status: Status,
    error: Option<String>,
    progress: Arc<Progress>,
    begun: Option<Instant>,
    setup: Duration,
    downtime: Duration,
    total: Duration,
    memory_bytes: u64,
}

impl Migration {
    /// What can be set.
    pub fn parameters(&self) -> Parameters {
        *self.parameters.lock()
    }

    /// Sets it.
    pub fn set_parameters(&self, change: impl FnOnce(&mut Parameters)) {
        change(&mut self.parameters.lock());
    }

    /// Whether every change of the status is told.
    pub fn tells(&self) -> bool {
        *self.tells.lock()
    }

    /// See [`Self::tells`].
    pub fn set_tells(&self, tells: bool) {
        *self.tells.lock() = tells;
    }

    /// How far it is.
    pub fn status(&self) -> Status {
        self.state.lock().status
    }

    /// Ends a move that is under way.
    pub fn cancel(&self) {
        let mut state = self.state.lock();
        if state.status.is_live() {
            state.progress.cancelled.store(true, Ordering::Relaxed);
            state.status = Status::Cancelling;
        }
    }

    /// As QMP tells it.
    pub fn describe(&self) -> Value {
        let state = self.state.lock();
        if state.status == Status::None {
            return json!({});
        }
        let mut value = json!({"status": state.status.name()});
        if let Some(error) = &state.error {
            value["error-desc"] = error.as_str().into();
        }
        let Some(begun) = state.begun else { return value };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let total = if state.status.is_live() { begun.elapsed() } else { state.total };
        value["total-time"] = ms(total).into();
        value["setup-time"] = ms(state.setup).into();
        match state.status {
            Status::Completed => value["downtime"] = ms(state.downtime).into(),
            _ => value["expected-downtime"] = self.parameters().downtime_ms.into(),
        }
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let progress = &state.progress;
        let (whole, filled) = (count(&progress.whole), count(&progress.filled));
        let page = PAGE_BYTES;
        let done = (whole + filled).saturating_mul(page);
        let remaining = match state.status {
            Status::Completed => 0,
            _ => state.memory_bytes.saturating_sub(done),
        };
        let bytes = count(&progress.bytes);
        let mbps = bytes as f64 * 8.0 / 1e6 / total.as_secs_f64().max(0.001);
        value["ram"] = json!({
            "transferred": bytes, "total": state.memory_bytes, "remaining": remaining,
            "duplicate": filled, "normal": whole, "normal-bytes": whole * page,
            "dirty-pages-rate": count(&progress.dirty), "mbps": mbps,
            "dirty-sync-count": count(&progress.rounds), "page-size": page,
            "postcopy-requests": 0, "multifd-bytes": 0, "pages-per-second": 0,
            "precopy-bytes": bytes, "downtime-bytes": 0, "postcopy-bytes": 0,
            "dirty-sync-missed-zero-copy": 0, "skipped": 0,
        });
        value
    }
}

/// An error with everything behind it.
pub fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}

/// How QEMU's streams begin.
const QEMU_MAGIC: [u8; 4] = *b"QEVM";

/// What was wrong with a state, told so that people know what to do.
pub fn about_state(error: &machine::StreamError) -> String {
    match error {
        machine::StreamError::Foreign { head } if head.starts_with(&QEMU_MAGIC) => {
            format!("{}, but one of QEMU, which only QEMU can load", whole(error))
        }
        other => whole(other),
    }
}

/// Whether a machine can be moved, in QEMU's words.
pub fn find_blockers(machine: &Machine) -> Result<(), String> {
    machine.find_blockers().map_err(|error| whole(&error))
}
