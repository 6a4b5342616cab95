//! Long work on disks, beside the machine: each job is a thread with a state that users see.

mod backup;
mod commit;
mod create;
mod mirror;
mod stream;

pub use backup::{Backup, BackupSync, BitmapMode};
pub use commit::Commit;
pub use create::Create;
pub use mirror::{Mirror, MirrorSync};
pub use stream::Stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};
use crate::node::NodeRef;
use crate::root::Root;

/// More jobs at once are refused.
const JOBS_MAX: usize = 1000;
/// How long a job without work waits until it looks again.
const IDLE: Duration = Duration::from_millis(20);

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// It is about to begin.
    Created,
    /// It works.
    Running,
    /// The user has stopped it for a while.
    Paused,
    /// All is copied, and what changes is copied, too.
    Ready,
    /// Ready, and stopped for a while.
    Standby,
    /// The work is done, others are waited for.
    Waiting,
    /// Its result can be made final.
    Pending,
    /// It has failed or was cancelled.
    Aborting,
    /// Its end can be read.
    Concluded,
    /// It is gone.
    Null,
}

impl Status {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Ready => "ready",
            Self::Standby => "standby",
            Self::Waiting => "waiting",
            Self::Pending => "pending",
            Self::Aborting => "aborting",
            Self::Concluded => "concluded",
            Self::Null => "null",
        }
    }
}

/// What listeners are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// It stands elsewhere now.
    Status(Status),
    /// It can be completed.
    Ready,
    /// Its user is asked to make it final.
    Pending,
    /// It has ended, well or with an error.
    Completed(Option<String>),
    /// It was cancelled.
    Cancelled,
}

/// Who is told. Calls come from the job's thread.
pub type Listener = Arc<dyn Fn(&Job, &Event) + Send + Sync>;

/// The work of a job.
pub trait Work: Send {
    /// Works until all is done. Calls [`Job::breathe`] often.
    fn run(&mut self, job: &Job) -> Result<()>;
    /// Makes the result final.
    fn commit(&mut self, job: &Job) -> Result<()> {
        _ = job;
        Ok(())
    }
    /// Cleans up, after [`Work::commit`] too.
    fn clean(&mut self) {}
}

/// What is the same for all kinds of jobs.
#[derive(Clone)]
pub struct Parameters {
    /// Its name.
    pub id: String,
    /// `mirror`, `commit` and so on.
    pub kind: &'static str,
    /// It makes itself final.
    pub auto_finalize: bool,
    /// It goes by itself.
    pub auto_dismiss: bool,
    /// Bytes a second; 0 is no limit.
    pub speed: u64,
}

#[derive(Debug)]
struct State {
    status: Status,
    done: u64,
    total: u64,
    speed: u64,
    pause_wanted: bool,
    /// Cancelled; a ready one may end well all the same, if not by force.
    cancelled: Option<bool>,
    complete_wanted: bool,
    finalize_wanted: bool,
    dismissed: bool,
    error: Option<String>,
    /// For the limit: since when, and how many bytes.
    slice: (Instant, u64),
}

/// A job.
pub struct Job {
    /// What it was made with.
    pub parameters: Parameters,
    state: Mutex<State>,
    changed: Condvar,
    listener: Listener,
}

/// A job as listings show it.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its name.
    pub id: String,
    /// Its kind.
    pub kind: &'static str,
    /// Where it stands.
    pub status: Status,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all, as far as known.
    pub total: u64,
    /// The limit.
    pub speed: u64,
    /// Why it failed.
    pub error: Option<String>,
    /// It goes by itself.
    pub auto_dismiss: bool,
    /// It makes itself final.
    pub auto_finalize: bool,
}

/// Why a job's work ends early without an error of its own.
fn cancelled() -> Error {
    Error::Os(rustix::io::Errno::CANCELED)
}

impl Job {
    fn tell(&self, event: &Event) {
        (self.listener)(self, event);
    }

    fn enter(&self, status: Status) {
        self.state.lock().status = status;
        self.tell(&Event::Status(status));
    }

    /// What it is and where it stands.
    pub fn describe(&self) -> Description {
        let state = self.state.lock();
        Description {
            id: self.parameters.id.clone(),
            kind: self.parameters.kind,
            status: state.status,
            done: state.done,
            total: state.total,
            speed: state.speed,
            error: state.error.clone(),
            auto_dismiss: self.parameters.auto_dismiss,
            auto_finalize: self.parameters.auto_finalize,
        }
    }

    /// Whether anything went wrong, a cancellation included.
    pub fn has_failed(&self) -> bool {
        let state = self.state.lock();
        state.error.is_some() || state.cancelled.is_some()
    }

    // ---- for its work ----

    /// Says how far it is.
    pub fn progress(&self, done: u64, total: u64) {
        let mut state = self.state.lock();
        (state.done, state.total) = (done, total);
    }

    /// Waits while the job is paused. An error when it is cancelled.
    pub fn breathe(&self) -> Result<()> {
        loop {
            let state = self.state.lock();
            if state.cancelled.is_some() {
                return Err(cancelled());
            }
            if !state.pause_wanted {
                return Ok(());
            }
            let before = state.status;
            let paused = if before == Status::Ready { Status::Standby } else { Status::Paused };
            drop(state);
            self.enter(paused);
            let mut state = self.state.lock();
            while state.pause_wanted && state.cancelled.is_none() {
                self.changed.wait(&mut state);
            }
            drop(state);
            self.enter(before);
        }
    }

    /// Waits as the limit demands after bytes were copied.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        let mut state = self.state.lock();
        if state.speed == 0 {
            return Ok(());
        }
        state.slice.1 += bytes;
        let due = Duration::from_secs_f64(state.slice.1 as f64 / state.speed as f64);
        let until = state.slice.0 + due;
        while state.cancelled.is_none() && state.speed != 0 && Instant::now() < until {
            self.changed.wait_until(&mut state, until);
        }
        drop(state);
        self.breathe()
    }

    /// All is copied. Answers when the user wants the job to end: whether to change over.
    pub fn wait_until_completed(&self, mut idle: impl FnMut() -> Result<()>) -> Result<bool> {
        self.enter(Status::Ready);
        self.tell(&Event::Ready);
        loop {
            idle()?;
            let mut state = self.state.lock();
            match (state.cancelled, state.complete_wanted) {
                (Some(true), _) => return Err(cancelled()),
                (Some(false), _) => {
                    state.cancelled = None; // what was copied stays and is whole
                    return Ok(false);
                }
                (None, true) => return Ok(true),
                (None, false) => {}
            }
            if state.pause_wanted {
                drop(state);
                self.breathe()?;
            } else {
                self.changed.wait_for(&mut state, IDLE);
            }
        }
    }

    // ---- for its user ----

    fn refuse(&self, verb: &str) -> Error {
        let status = self.state.lock().status.name();
        Error::invalid(format!(
            "Job '{}' in state '{status}' cannot accept command verb '{verb}'",
            self.parameters.id
        ))
    }

    fn demand(
        &self,
        verb: &str,
        allowed: &[Status],
        change: impl FnOnce(&mut State),
    ) -> Result<()> {
        let mut state = self.state.lock();
        if !allowed.contains(&state.status) {
            drop(state);
            return Err(self.refuse(verb));
        }
        change(&mut state);
        self.changed.notify_all();
        Ok(())
    }

    /// Stops it for a while.
    pub fn pause(&self) -> Result<()> {
        use Status::{Created, Paused, Ready, Running, Standby};
        let paused = self.state.lock().pause_wanted;
        if paused {
            return Err(Error::invalid("Job is already paused"));
        }
        self.demand("pause", &[Created, Running, Paused, Ready, Standby], |state| {
            state.pause_wanted = true;
        })
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        use Status::{Created, Paused, Ready, Running, Standby};
        let paused = self.state.lock().pause_wanted;
        if !paused {
            return Err(Error::invalid("Can't resume a job that was not paused"));
        }
        self.demand("resume", &[Created, Running, Paused, Ready, Standby], |state| {
            state.pause_wanted = false;
            state.slice = (Instant::now(), 0);
        })
    }

    /// Cancels it; one that is ready ends well, unless by force.
    pub fn cancel(&self, force: bool) -> Result<()> {
        use Status::{Created, Paused, Pending, Ready, Running, Standby, Waiting};
        let allowed = [Created, Running, Paused, Ready, Standby, Waiting, Pending];
        self.demand("cancel", &allowed, |state| {
            let ready = matches!(state.status, Ready | Standby);
            state.cancelled = Some(force || !ready);
            state.pause_wanted = false;
        })
    }

    /// Makes a ready one change over.
    pub fn complete(&self) -> Result<()> {
        use Status::{Created, Paused, Ready, Running, Standby, Waiting};
        let status = self.state.lock().status;
        if matches!(status, Created | Running | Paused | Waiting) {
            return Err(Error::invalid(format!(
                "Job '{}' in state '{}' cannot accept command verb 'complete'",
                self.parameters.id,
                status.name()
            )));
        }
        self.demand("complete", &[Ready, Standby], |state| state.complete_wanted = true)
    }

    /// Makes its result final.
    pub fn finalize(&self) -> Result<()> {
        self.demand("finalize", &[Status::Pending], |state| state.finalize_wanted = true)
    }

    /// Lets it go.
    pub fn dismiss(&self) -> Result<()> {
        self.demand("dismiss", &[Status::Concluded], |state| state.dismissed = true)
    }

    /// Changes the limit.
    pub fn set_speed(&self, speed: u64) -> Result<()> {
        use Status::{Created, Paused, Ready, Running, Standby};
        self.demand("set-speed", &[Created, Running, Paused, Ready, Standby], |state| {
            state.speed = speed;
            state.slice = (Instant::now(), 0);
        })
    }

    fn live(&self, work: &mut dyn Work) {
        let mut outcome = work.run(self);
        if outcome.is_ok() {
            self.enter(Status::Waiting);
            self.enter(Status::Pending);
            outcome = self.wait_for_finalize().and_then(|()| work.commit(self));
        }
        if let Err(error) = &outcome {
            let cancelled = self.state.lock().cancelled.is_some();
            self.enter(Status::Aborting);
            work.clean();
            if cancelled {
                self.tell(&Event::Cancelled);
            } else {
                let text = error.to_string();
                self.state.lock().error = Some(text.clone());
                self.tell(&Event::Completed(Some(text)));
            }
        } else {
            work.clean();
            self.tell(&Event::Completed(None));
        }
        self.enter(Status::Concluded);
        let mut state = self.state.lock();
        while !self.parameters.auto_dismiss && !state.dismissed {
            self.changed.wait(&mut state);
        }
    }

    fn wait_for_finalize(&self) -> Result<()> {
        if self.parameters.auto_finalize {
            return Ok(());
        }
        self.tell(&Event::Pending);
        let mut state = self.state.lock();
        while !state.finalize_wanted && state.cancelled.is_none() {
            self.changed.wait(&mut state);
        }
        if state.cancelled.is_some() { Err(cancelled()) } else { Ok(()) }
    }
}

/// All jobs by their names. Clones share them.
#[derive(Clone, Default)]
pub struct Jobs {
    list: Arc<Mutex<BTreeMap<String, Arc<Job>>>>,
}

impl Jobs {
    /// Begins a job.
    pub fn start(
        &self,
        parameters: Parameters,
        mut work: Box<dyn Work>,
        listener: Listener,
    ) -> Result<Arc<Job>> {
        let id = parameters.id.clone();
        let speed = parameters.speed;
        let state = State {
            status: Status::Created,
            done: 0,
            total: 0,
            speed,
            pause_wanted: false,
            cancelled: None,
            complete_wanted: false,
            finalize_wanted: false,
            dismissed: false,
            error: None,
            slice: (Instant::now(), 0),
        };
        let job = Arc::new(Job {
            parameters,
            state: Mutex::new(state),
            changed: Condvar::new(),
            listener,
        });
        {
            let mut list = self.list.lock();
            if list.contains_key(&id) {
                work.clean();
                return Err(Error::invalid(format!("Job ID '{id}' already in use")));
            }
            if list.len() >= JOBS_MAX {
                work.clean();
                return Err(Error::invalid(format!("There are {JOBS_MAX} jobs already")));
            }
            list.insert(id.clone(), Arc::clone(&job));
        }
        job.tell(&Event::Status(Status::Created));
        // Said before who asked for the job hears that it is there.
        job.enter(Status::Running);
        let (jobs, running) = (self.clone(), Arc::clone(&job));
        thread::spawn(move || {
            running.live(&mut *work);
            drop(work);
            jobs.list.lock().remove(&id);
            running.enter(Status::Null);
        });
        Ok(job)
    }

    /// One by its name.
    pub fn get(&self, id: &str) -> Option<Arc<Job>> {
        self.list.lock().get(id).cloned()
    }

    /// All of them.
    pub fn list(&self) -> Vec<Arc<Job>> {
        self.list.lock().values().cloned().collect()
    }
}

/// The roots in which a node stands, held so that nothing changes meanwhile.
pub(crate) fn exchange(
    roots: &[Arc<Root>],
    node: &NodeRef,
    last: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut held: Vec<_> = roots.iter().map(|root| root.hold()).collect();
    last()?;
    held.iter_mut().for_each(|held| held.exchange(Arc::clone(node)));
    Ok(())
}
