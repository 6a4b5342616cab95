//! New processes and threads.

use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use jit::Vcpu;
use linux::locks::Mutex;

use crate::guest::Guest;
use crate::host::{self, Answer, ERESTARTNOINTR};
use crate::thread::{self, Thread};
use crate::{memory, signals};

const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_THREAD: u64 = 0x1_0000;
const CLONE_SETTLS: u64 = 0x8_0000;
const CLONE_PARENT_SETTID: u64 = 0x10_0000;
const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
const CLONE_CHILD_SETTID: u64 = 0x100_0000;

/// What clone was asked for, in the order of the generic ABI: flags, stack, parent tid, tls,
/// child tid.
#[derive(Clone, Copy)]
struct Clone {
    flags: u64,
    stack: u64,
    parent_tid: u64,
    tls: u64,
    child_tid: u64,
}

/// `fork`, where it is a call of its own.
pub fn fork_call<G: Guest>(thread: &mut Thread<G>, _: [u64; 6]) -> Answer {
    clone(thread, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0])
}

/// `vfork` likewise.
pub fn vfork_call<G: Guest>(thread: &mut Thread<G>, _: [u64; 6]) -> Answer {
    clone(thread, [CLONE_VM | CLONE_VFORK | libc::SIGCHLD as u64, 0, 0, 0, 0, 0])
}

pub fn clone<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let [flags, stack, parent_tid, tls, child_tid, _] = a;
    let clone = Clone { flags, stack, parent_tid, tls, child_tid };
    if flags & CLONE_THREAD != 0 {
        return new_thread(thread, clone);
    }
    match (flags & CLONE_VM != 0, flags & CLONE_VFORK != 0) {
        // A process that shares memory: nobody but old thread libraries.
        (true, false) => Err(libc::ENOSYS),
        // gdb stays with the parent, and its breakpoints would not.
        (true, true) if thread.process.debugger.is_none() => vfork(thread, clone),
        _ => fork(thread, clone),
    }
}

/// The child has the parent's memory and its virtual CPU until it ends or becomes another program;
/// then both go on where the parent was.
fn vfork<G: Guest>(thread: &mut Thread<G>, clone: Clone) -> Answer {
    signals::set_mask(!0);
    if signals::pending() & !thread.mask != 0 {
        return Err(ERESTARTNOINTR); // the parent's
    }
    let parent = thread.remember();
    let held_back = signals::pending();
    let actions = *thread.actions.lock();
    let of_parent = mem::replace(&mut thread.actions, Arc::new(Mutex::new(actions)));
    let answer = host::vfork(&mut || {
        signals::set_mask(thread.mask);
        match child(thread, clone) {
            Err(thread::RETURNED) => {
                let status = thread.run();
                thread::finish(thread);
                status
            }
            _ => CANNOT_START,
        }
    });
    thread.actions = of_parent;
    thread.recall(parent);
    signals::keep_only(held_back);
    signals::set_mask(thread.mask);
    if let Ok(pid) = answer
        && clone.flags & CLONE_PARENT_SETTID != 0
    {
        memory::write_word(clone.parent_tid, pid, 4)?;
    }
    answer
}

/// What a child exits with that cannot begin: what a shell says of a program that cannot be run.
const CANNOT_START: i32 = 126;

fn fork<G: Guest>(thread: &mut Thread<G>, clone: Clone) -> Answer {
    let (process, actions) = (thread.process.clone(), thread.actions.clone());
    let fork = || {
        let _nobody_else_holds_them = (process.hold_locks(), actions.lock());
        host::fork()
    };
    let pid = process.engine.fork(fork, |_| libc::EAGAIN)?;
    if pid != 0 {
        if clone.flags & CLONE_PARENT_SETTID != 0 {
            memory::write_word(clone.parent_tid, pid, 4)?;
        }
        return Ok(pid);
    }
    thread.forget_debugger();
    child(thread, clone)
}

/// The child begins.
fn child<G: Guest>(thread: &mut Thread<G>, clone: Clone) -> Answer {
    thread.robust_list = 0; // the child's library will say where its list is
    let state = thread.vcpu.state_mut();
    G::set_result(state, 0);
    let stack = (clone.stack != 0).then_some(clone.stack);
    let tls = (clone.flags & CLONE_SETTLS != 0).then_some(clone.tls);
    G::set_thread(state, &mut thread.local, stack, tls)?;
    let own = host::plain(libc::SYS_gettid, [0; 6])?;
    if clone.flags & CLONE_CHILD_SETTID != 0 {
        memory::write_word(clone.child_tid, own, 4)?;
    }
    thread.clear_tid = if clone.flags & CLONE_CHILD_CLEARTID != 0 { clone.child_tid } else { 0 };
    Err(thread::RETURNED)
}

/// A guest thread is a host thread.
fn new_thread<G: Guest>(parent: &mut Thread<G>, clone: Clone) -> Answer {
    parent.threaded.store(true, Ordering::Relaxed);
    let process = parent.process.clone();
    let mut vcpu = Vcpu::new(&process.engine).map_err(|_| libc::EAGAIN)?;
    *vcpu.state_mut() = *parent.vcpu.state();
    vcpu.set_fp_control(parent.vcpu.fp_control());
    G::set_result(vcpu.state_mut(), 0);
    let tls = (clone.flags & CLONE_SETTLS != 0).then_some(clone.tls);
    let mut local = parent.local.clone();
    G::set_thread(vcpu.state_mut(), &mut local, Some(clone.stack), tls)?;
    let clears = clone.flags & CLONE_CHILD_CLEARTID != 0;
    let mut child = Thread {
        process,
        vcpu,
        local,
        mask: parent.mask,
        saved_mask: None,
        alternate: [0, 2, 0],
        clear_tid: if clears { clone.child_tid } else { 0 },
        robust_list: 0,
        ended: None,
        threaded: parent.threaded.clone(),
        actions: parent.actions.clone(),
        programs: Vec::new(),
    };
    let (tell, told) = mpsc::channel();
    let body = move || {
        let tid = host::plain(libc::SYS_gettid, [0; 6]).unwrap_or(0);
        if clone.flags & CLONE_CHILD_SETTID != 0 {
            let _ = memory::write_word(clone.child_tid, tid, 4);
        }
        if clone.flags & CLONE_PARENT_SETTID != 0 {
            let _ = memory::write_word(clone.parent_tid, tid, 4);
        }
        let _ = tell.send(tid);
        child.set_mask(child.mask);
        child.run();
        thread::finish(&mut child);
    };
    let spawned = std::thread::Builder::new().stack_size(THREAD_STACK_BYTES).spawn(body);
    spawned.map_err(|_| libc::EAGAIN)?;
    let action = parent.actions.lock()[SIGSETXID as usize - 1];
    parent.follow_action(SIGSETXID, &action);
    told.recv().map_err(|_| libc::EAGAIN)
}

/// With its first thread the host's C library takes this signal for itself. The guest's has it for
/// the same purpose, to change the identity of all threads.
const SIGSETXID: i32 = 33;

/// Host code of a guest thread needs little: the guest has its own stack.
const THREAD_STACK_BYTES: usize = 512 << 10;
