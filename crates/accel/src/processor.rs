//! Steering vCPU threads: pause, reset, start, stop, and a look at their registers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc;

use parking_lot::{Condvar, Mutex};

use crate::inspect::{Inspect, Pace};

/// What is done on a vCPU's thread between two instructions.
pub(crate) type Task = Box<dyn FnOnce(&mut dyn Inspect) + Send>;

/// What a vCPU thread is to do.
#[derive(Default)]
struct Orders {
    /// Run guest code, or wait.
    running: bool,
    /// Leave for good.
    quit: bool,
    /// Go into reset state.
    reset: bool,
    /// INIT: reset state, and wait for a start-up message.
    init: bool,
    /// The start-up message's page.
    start: Option<u8>,
    /// A non-maskable interrupt.
    nmi: bool,
    /// Something has happened since the vCPU last looked: do not sleep.
    awake: bool,
    /// The thread has seen `running` taken back and stands still.
    stands: bool,
    /// How it goes on when it runs.
    pace: Pace,
    /// Looks at its registers.
    tasks: VecDeque<Task>,
}

/// One vCPU as everybody else sees it.
pub struct Processor {
    number: usize,
    orders: Mutex<Orders>,
    changed: Condvar,
    /// Makes the vCPU leave guest code; there once its thread has begun.
    kick: Mutex<Option<Box<dyn Fn() + Send>>>,
}

/// What a vCPU was told and has not done yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// INIT.
    pub init: bool,
    /// The start-up message's page.
    pub start: Option<u8>,
    /// A non-maskable interrupt.
    pub nmi: bool,
    /// A reset.
    pub reset: bool,
}

/// What a vCPU thread does next.
pub(crate) enum Next {
    /// Look for interrupts and run.
    Run,
    /// Execute one instruction, without interrupts.
    Step,
    /// Let somebody look at the registers.
    Look(Task),
    /// Go into reset state, then ask again.
    Reset,
    /// Go into reset state without running, then ask again.
    Init,
    /// Start at this page.
    Start(u8),
    /// Take a non-maskable interrupt.
    Nmi,
    /// Leave.
    Quit,
}

impl Processor {
    pub(crate) fn new(number: usize) -> Arc<Self> {
        Arc::new(Self {
            number,
            orders: Mutex::new(Orders { stands: true, ..Orders::default() }),
            changed: Condvar::new(),
            kick: Mutex::new(None),
        })
    }

    /// The vCPU's number.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn set_kick(&self, kick: impl Fn() + Send + 'static) {
        *self.kick.lock() = Some(Box::new(kick));
    }

    /// The vCPU goes away: nothing may reach for it any more.
    pub(crate) fn clear_kick(&self) {
        *self.kick.lock() = None;
    }

    fn order(&self, order: impl FnOnce(&mut Orders)) {
        {
            let mut orders = self.orders.lock();
            order(&mut orders);
            orders.awake = true;
        }
        self.changed.notify_all();
        if let Some(kick) = &*self.kick.lock() {
            kick();
        }
    }

    /// Look at the interrupt controller before the next instruction.
    pub fn kick(&self) {
        self.order(|_| {});
    }

    /// A non-maskable interrupt.
    pub fn nmi(&self) {
        self.order(|orders| orders.nmi = true);
    }

    /// INIT: reset, and wait for a start-up message.
    pub fn init(&self) {
        self.order(|orders| (orders.init, orders.start) = (true, None));
    }

    /// A start-up message.
    pub fn start(&self, page: u8) {
        self.order(|orders| orders.start = Some(page));
    }

    /// What it was told and has not done yet.
    #[must_use]
    pub fn pending(&self) -> Pending {
        let Orders { init, start, nmi, reset, .. } = *self.orders.lock();
        Pending { init, start, nmi, reset }
    }

    /// It was told this, and nothing else.
    pub fn set_pending(&self, pending: Pending) {
        let Pending { init, start, nmi, reset } = pending;
        self.order(|orders| {
            (orders.init, orders.start, orders.nmi, orders.reset) = (init, start, nmi, reset);
        });
    }

    /// Does something with the vCPU's registers on its own thread, and waits for it. `None`: the
    /// thread has gone. Not from a vCPU's thread.
    pub fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut dyn Inspect) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = mpsc::channel();
        self.order(|orders| {
            if !orders.quit {
                orders.tasks.push_back(Box::new(move |vcpu| _ = sender.send(look(vcpu))));
            }
        });
        receiver.recv().ok()
    }

    /// It stands from now on, until all are resumed.
    pub(crate) fn hold(&self) {
        self.orders.lock().pace = Pace::Hold;
    }

    /// What to do next. Blocks while there is nothing; `idle` says that the vCPU waits for an
    /// interrupt, `waits` that it waits for a start-up message.
    pub(crate) fn next(&self, idle: bool, waits: bool, has_interrupt: impl Fn() -> bool) -> Next {
        let mut orders = self.orders.lock();
        loop {
            if orders.quit {
                orders.tasks.clear();
                return Next::Quit;
            }
            if let Some(task) = orders.tasks.pop_front() {
                return Next::Look(task);
            }
            if !orders.running || orders.pace == Pace::Hold {
                orders.stands = true;
                self.changed.notify_all();
                self.changed.wait(&mut orders);
                continue;
            }
            orders.stands = false;
            if orders.pace == Pace::Step {
                orders.pace = Pace::Hold;
                return Next::Step;
            }
            if std::mem::take(&mut orders.reset) {
                (orders.init, orders.start, orders.nmi) = (false, None, false);
                return Next::Reset;
            }
            if std::mem::take(&mut orders.init) {
                return Next::Init;
            }
            if waits {
                if let Some(page) = orders.start.take() {
                    return Next::Start(page);
                }
            } else {
                orders.start = None; // a running processor ignores it
                if std::mem::take(&mut orders.nmi) {
                    return Next::Nmi;
                }
                if !idle {
                    return Next::Run;
                }
            }
            if std::mem::take(&mut orders.awake) {
                if !waits {
                    // Without the lock, for the chips behind this question lock their own and
                    // call `kick` with them held.
                    drop(orders);
                    if has_interrupt() {
                        return Next::Run;
                    }
                    orders = self.orders.lock();
                }
                continue;
            }
            self.changed.wait(&mut orders);
        }
    }
}

/// All vCPUs of a machine.
pub struct Processors {
    all: Vec<Arc<Processor>>,
}

impl Processors {
    /// `count` vCPUs, which stand still until [`Processors::resume`].
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { all: (0..count).map(Processor::new).collect() }
    }

    /// One by one.
    #[must_use]
    pub fn all(&self) -> &[Arc<Processor>] {
        &self.all
    }

    /// Lets all run.
    pub fn resume(&self) {
        self.resume_paced(|_| Pace::Free);
    }

    /// Lets each run in its own way.
    pub fn resume_paced(&self, pace: impl Fn(usize) -> Pace) {
        for processor in &self.all {
            let pace = pace(processor.number);
            processor.order(|orders| (orders.running, orders.pace) = (true, pace));
        }
    }

    /// Asks all to stand still, without waiting until they do.
    pub fn ask_to_pause(&self) {
        self.all.iter().for_each(|processor| processor.order(|orders| orders.running = false));
    }

    /// Makes all stand still, and waits until they do. Not from a vCPU's thread.
    pub fn pause(&self) {
        self.ask_to_pause();
        for processor in &self.all {
            let mut orders = processor.orders.lock();
            while !orders.stands && !orders.running && !orders.quit {
                processor.changed.wait(&mut orders);
            }
        }
    }

    /// All go into reset state when they next run. They stand still.
    pub fn reset(&self) {
        self.all.iter().for_each(|processor| processor.order(|orders| orders.reset = true));
    }

    /// All threads end.
    pub fn quit(&self) {
        self.all.iter().for_each(|processor| processor.order(|orders| orders.quit = true));
    }
}
