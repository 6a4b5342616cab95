//! The machine in which an image is set up: a `spark` with two more disks, for the time of a script.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::{Exec, Exit, FrameKind, Request};
use clap::Parser;
use guests::cache::Cache;
use guests::debian_image::SecondStage;
use guests::{GuestError, Progress, disk};

use super::definition::drive;
use super::image::image_tool;
use crate::arguments::{Arguments, Level, Verb};
use crate::daemon::Connection;
use crate::failure::Failure;
use crate::guest::Session;
use crate::machine::Machine;
use crate::progress::Line;
use crate::verbs::{launch, lifecycle};

const PATIENCE: Duration = Duration::from_secs(10);
const BOOT_PATIENCE: Duration = Duration::from_secs(120);
/// What an image looks like from inside before it is grown.
const IMAGE_BYTES: u64 = 4 << 30;

/// Makes such machines.
pub struct Workshop;

fn told(failure: Failure) -> GuestError {
    let mut reason = failure.what;
    failure.causes.iter().for_each(|cause| reason.push_str(&format!(": {cause}")));
    GuestError::Build { reason }
}

impl SecondStage for Workshop {
    fn empty(&mut self, path: &Path) -> guests::Result<()> {
        let base = disk::empty_ext4(&Cache::of_user(), IMAGE_BYTES)?;
        _ = fs::remove_file(path);
        let words = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b"].map(str::to_owned);
        let files = [base.display().to_string(), path.display().to_string()];
        image_tool(&[&words[..], &files].concat()).map(|_| ()).map_err(told)
    }

    fn pack(&mut self, disk: &Path, target: &Path) -> guests::Result<()> {
        let words = ["convert", "-O", "qcow2"].map(str::to_owned);
        let files = [disk.display().to_string(), target.display().to_string()];
        image_tool(&[&words[..], &files].concat()).map(|_| ()).map_err(told)
    }

    fn run(
        &mut self,
        disk: &Path,
        archive: &Path,
        script: &str,
        progress: &mut dyn Progress,
    ) -> guests::Result<()> {
        let mut connection = Connection::open().map_err(told)?;
        let machine = start(&mut connection, disk, archive).map_err(told)?;
        let done = perform(&connection, &machine, script, progress);
        // In good order, so that all of the disk is written; else what is left is of no use.
        let stopped = lifecycle::stop_machine(&mut connection, &machine, done.is_err());
        _ = lifecycle::forget(&mut connection, &machine);
        done.and(stopped).map_err(told)
    }
}

fn start(connection: &mut Connection, disk: &Path, archive: &Path) -> Result<Machine, Failure> {
    let name = format!("build-{}", super::provision::random_word());
    let words = ["hostel", "launch", "--name", &name, "--memory", "768M"];
    let Verb::Launch(what) = Arguments::parse_from(words).verb else {
        unreachable!("the words say launch");
    };
    let mut line = Line::new();
    let machine = launch::create(connection, &what, &mut line)?;
    // The other disks come before it is of use, so that it need not know how to take them live.
    connection.client.domain_destroy(machine.domain.clone())?;
    let mut definition = machine.definition.clone();
    let devices = definition.ensure("devices");
    devices.push(drive("disk", "qcow2", disk, ("vdb", "virtio")));
    devices.push(drive("disk", "raw", archive, ("vdc", "virtio")));
    connection.client.domain_define_xml(definition.to_xml())?;
    let machine = connection.machine(&name)?;
    lifecycle::start_machine(connection, &machine)?;
    launch::await_level(connection, &machine, Level::Booted, BOOT_PATIENCE, &mut line)?;
    connection.machine(&name) // as it is now: it runs
}

/// Runs the script; what it prints is kept, and its steps are shown.
fn perform(
    connection: &Connection,
    machine: &Machine,
    script: &str,
    progress: &mut dyn Progress,
) -> Result<(), Failure> {
    let log: PathBuf = connection.places.state.join("logs/build.log");
    let failed = |error: &std::io::Error| {
        Failure::new("The machine that sets the image up broke").because(error)
    };
    let mut file = fs::File::create(&log).map_err(|error| failed(&error))?;
    let program = Exec { words: ["sh", "-c", script].map(str::to_owned).into(), ..Exec::default() };
    let socket = machine.socket(connection);
    let mut session = Session::open(&socket, &Request::Exec(program), PATIENCE)
        .map_err(|error| failed(&error))?;
    session.write(FrameKind::Input, &[]).map_err(|error| failed(&error))?;
    let mut last = String::new();
    while let Some(frame) = session.read().map_err(|error| failed(&error))? {
        match frame.kind {
            FrameKind::Output | FrameKind::Error => {
                file.write_all(&frame.payload).map_err(|error| failed(&error))?;
                let text = String::from_utf8_lossy(&frame.payload).into_owned();
                if let Some(line) = text.lines().rfind(|line| !line.trim().is_empty()) {
                    line.trim().clone_into(&mut last);
                    progress.step(&format!("In the machine: {last:.60}"));
                }
            }
            FrameKind::Exit => {
                let exit: Exit = serde_json::from_slice(&frame.payload).unwrap_or(Exit { code: 1 });
                if exit.code == 0 {
                    return Ok(());
                }
                let text = format!("{last} (all of it: {})", log.display());
                return Err(Failure::new(text));
            }
            _ => break,
        }
    }
    Err(Failure::new(format!("it went off: {last} (all of it: {})", log.display())))
}
