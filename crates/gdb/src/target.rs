//! What can be debugged.

use crate::description::Description;

/// A thread, or a processor: its number is not 0.
pub type ThreadId = u64;

/// What a thread does when all go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It runs; perhaps a signal is delivered first.
    Continue(Option<u8>),
    /// It executes one instruction; perhaps a signal is delivered first.
    Step(Option<u8>),
    /// It stays where it is.
    Stay,
}

/// How to go on: an action for each thread, the last one for those that are not named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resume {
    /// Named threads.
    pub threads: Vec<(ThreadId, Action)>,
    /// The others.
    pub others: Action,
}

impl Resume {
    /// What a thread is to do.
    pub fn action(&self, thread: ThreadId) -> Action {
        let named = self.threads.iter().find(|(named, _)| *named == thread);
        named.map_or(self.others, |(_, action)| *action)
    }
}

/// Which accesses to watched memory count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchKind {
    /// Writes.
    Write,
    /// Reads.
    Read,
    /// Both.
    Access,
}

/// Why everything stopped. Signals have gdb's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// A thread got a signal, or was asked to stop (SIGINT).
    Signal(ThreadId, u8),
    /// A thread stands at a breakpoint of ours.
    Breakpoint(ThreadId),
    /// A thread accessed what is watched at this address.
    Watch(ThreadId, u64, WatchKind),
    /// A thread has done its step.
    Stepped(ThreadId),
    /// The program ended.
    Exited(u8),
    /// A signal ended the program.
    Killed(u8),
}

/// Something to debug. All threads stand still while a method is called, but for `interrupt`.
pub trait Target {
    /// The registers, in the order in which they are read and written.
    fn description(&self) -> &Description;
    /// All threads.
    fn threads(&mut self) -> Vec<ThreadId>;
    /// A thread's name.
    fn thread_name(&mut self, thread: ThreadId) -> Option<String>;
    /// From now on memory is meant as this thread sees it.
    fn choose(&mut self, thread: ThreadId) {
        _ = thread;
    }
    /// A thread's registers, one behind the other.
    fn read_registers(&mut self, thread: ThreadId) -> Option<Vec<u8>>;
    /// Writes them; `false`: it cannot be done now.
    fn write_registers(&mut self, thread: ThreadId, values: &[u8]) -> bool;
    /// Reads memory: as much as there is, from the start.
    fn read_memory(&mut self, address: u64, bytes: usize) -> Vec<u8>;
    /// Writes memory, code included.
    fn write_memory(&mut self, address: u64, contents: &[u8]) -> bool;
    /// Sets or clears a breakpoint at an instruction of so many bytes.
    fn breakpoint(&mut self, address: u64, bytes: u64, set: bool) -> bool;
    /// Whether accesses of this kind can be watched.
    fn can_watch(&self, kind: WatchKind) -> bool {
        kind == WatchKind::Write
    }
    /// Watches so many bytes, or no longer.
    fn watch(&mut self, kind: WatchKind, address: u64, bytes: u64, set: bool) -> bool;
    /// An object of `qXfer`: `auxv`, `exec-file`; `None`: there is none.
    fn object(&mut self, name: &str) -> Option<Vec<u8>>;
    /// All go on; the session will be told of the stop.
    fn resume(&mut self, resume: Resume);
    /// All are to stop soon (the user pressed Ctrl-C).
    fn interrupt(&mut self);
    /// It was there before gdb came, which leaves it alone when it quits.
    fn was_there(&self) -> bool {
        false
    }
    /// gdb's `monitor` command: what it prints; `None`: there are no such commands.
    fn command(&mut self, line: &str) -> Option<String> {
        _ = line;
        None
    }
    /// A packet of somebody's own, beginning with `q` or `Q`; `None`: it is not known.
    fn vendor(&mut self, packet: &str) -> Option<String> {
        _ = packet;
        None
    }
    /// gdb goes; the program goes on without it.
    fn detach(&mut self);
    /// gdb ends the program.
    fn kill(&mut self);
}
