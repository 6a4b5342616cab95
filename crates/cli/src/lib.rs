//! The friendly command line. Everything goes through the daemon, in libvirt's own protocol; what
//! happens inside a guest goes through our agent in it.

mod arguments;
mod completion;
mod daemon;
mod failure;
mod guest;
mod machine;
mod multipass;
mod names;
mod nearest;
mod output;
mod progress;
mod settings;
mod share;
mod ssh;
mod stream;
mod terminal;
mod uvt;
mod verbs;
mod virsh;
mod virt_install;
mod way;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Verb};
pub use arguments::{HIDDEN, VERBS};
use failure::Failure;
pub use multipass::run as run_multipass;
pub use nearest::nearest;
pub use uvt::run as run_uvt;
pub use virsh::run as run_virsh;
pub use virt_install::run as run_virt_install;

/// Whether a word is one of the verbs, or stands for one.
#[must_use]
pub fn is_verb(word: &str) -> bool {
    VERBS.iter().any(|(name, _)| *name == word) || ["ls", "rm", "unmount"].contains(&word)
}

/// Runs a verb. `name` is the verb, `rest` what stands behind it.
pub fn run(name: &str, rest: &[OsString]) -> ExitCode {
    let words = ["hostel".into(), name.into()].into_iter().chain(rest.iter().cloned());
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            _ = error.print();
            let usage = error.use_stderr();
            return if usage { ExitCode::from(failure::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match perform(&arguments.verb) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}

fn perform(verb: &Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Launch(what) => verbs::launch::run(what),
        Verb::Shell(what) => verbs::exec::shell(what),
        Verb::Exec(what) => verbs::exec::run(what),
        Verb::List(what) => verbs::list::run(what),
        Verb::Info(what) => verbs::info::run(what),
        Verb::Start(what) => verbs::lifecycle::start(what),
        Verb::Stop(what) => verbs::lifecycle::stop(what),
        Verb::Restart(what) => verbs::lifecycle::restart(what),
        Verb::Suspend(what) => verbs::lifecycle::suspend(what),
        Verb::Resume(what) => verbs::lifecycle::resume(what),
        Verb::Delete(what) => verbs::lifecycle::delete(what),
        Verb::Recover(what) => verbs::lifecycle::recover(what),
        Verb::Purge => verbs::lifecycle::purge(),
        Verb::Rename(what) => verbs::lifecycle::rename(what),
        Verb::Clone(what) => verbs::clone::run(what),
        Verb::Snapshot(what) => verbs::snapshot::make(what),
        Verb::Restore(what) => verbs::snapshot::restore(what),
        Verb::Snapshots(what) => verbs::snapshot::list(what),
        Verb::Wait(what) => verbs::lifecycle::wait(what),
        Verb::Transfer(what) => verbs::transfer::run(what),
        Verb::Mount(what) => verbs::mount::mount(what),
        Verb::Umount(what) => verbs::mount::umount(what),
        Verb::Port(what) => verbs::port::run(what),
        Verb::Networks(what) => verbs::networks::run(what),
        Verb::Get(what) => verbs::settings::get(what),
        Verb::Set(what) => verbs::settings::set(what),
        Verb::Alias(what) => verbs::alias::make(what),
        Verb::Aliases(what) => verbs::alias::list(what),
        Verb::Unalias(what) => verbs::alias::remove(what),
        Verb::Logs(what) => verbs::logs::run(what),
        Verb::Console(what) => verbs::console::run(what),
        Verb::View(what) => verbs::view::run(what),
        Verb::Top(what) => verbs::top::run(what),
        Verb::Events(what) => verbs::events::run(what),
        Verb::Images(what) => verbs::image::images(what),
        Verb::Image(what) => verbs::image::run(what),
        Verb::Find(what) => verbs::image::find(what),
        Verb::Completion(what) => completion::run(what),
        Verb::Man(what) => completion::manual(what),
        Verb::Proxy(what) => verbs::proxy::run(what),
        Verb::ShareFolder(what) => verbs::mount::serve(what),
        Verb::ForwardPorts(what) => verbs::forward::serve(what),
    }
}
