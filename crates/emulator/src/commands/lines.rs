//! Lines of HMP that are commands of QMP in fewer words: switches, then arguments by their place.

use std::sync::Arc;

use qemu_compat::system::values;
use serde_json::{Map, Value};

use super::hmp::{Row, row};
use super::{Run, commands, schema};
use crate::emulator::Emulator;
use crate::options;

/// How an argument is read.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    /// A number of bytes, with a suffix; without one in units of two to this power.
    Size(u32),
}

use Kind::{Size, Text};

/// A line's counterpart.
struct Line {
    command: &'static str,
    /// By their places; the first `needed` have to be there.
    arguments: &'static [(&'static str, Kind)],
    needed: usize,
    /// What stands in every line.
    fixed: &'static [(&'static str, &'static str)],
    /// A switch, and what it makes of which argument.
    switches: &'static [(&'static str, &'static str, &'static str)],
}

const DEVICE: &[(&str, Kind)] = &[("device", Text)];

const fn of_device(command: &'static str) -> Line {
    Line { command, arguments: DEVICE, needed: 1, fixed: &[], switches: &[] }
}

const COMPLETE: Line = of_device("block-job-complete");
const PAUSE: Line = of_device("block-job-pause");
const RESUME: Line = of_device("block-job-resume");
const CANCEL: Line = Line { switches: &[("-f", "force", "true")], ..of_device("block-job-cancel") };
const SET_SPEED: Line = Line {
    arguments: &[("device", Text), ("speed", Size(0))],
    needed: 2,
    ..of_device("block-job-set-speed")
};
const RESIZE: Line = Line {
    arguments: &[("device", Text), ("size", Size(20))],
    needed: 2,
    ..of_device("block_resize")
};
const STREAM: Line = Line {
    arguments: &[("device", Text), ("speed", Size(0)), ("base", Text)],
    ..of_device("block-stream")
};
const MIRROR: Line = Line {
    arguments: &[("device", Text), ("target", Text), ("format", Text)],
    needed: 2,
    fixed: &[("sync", "top"), ("mode", "absolute-paths")],
    switches: &[("-n", "mode", "existing"), ("-f", "sync", "full")],
    ..of_device("drive-mirror")
};
const BACKUP: Line = Line {
    switches: &[("-n", "mode", "existing"), ("-f", "sync", "full"), ("-c", "compress", "true")],
    command: "drive-backup",
    ..MIRROR
};

/// What HMP knows of these.
pub const ROWS: &[Row] = &[
    row(
        &["block_job_cancel"],
        "[-f] device",
        "stop an active background block operation",
        |e, l| run(e, &CANCEL, l),
    ),
    row(
        &["block_job_complete"],
        "device",
        "stop an active background block operation, when it is ready",
        |e, l| run(e, &COMPLETE, l),
    ),
    row(&["block_job_pause"], "device", "pause an active background block operation", |e, l| {
        run(e, &PAUSE, l)
    }),
    row(&["block_job_resume"], "device", "resume a paused background block operation", |e, l| {
        run(e, &RESUME, l)
    }),
    row(
        &["block_job_set_speed"],
        "device speed",
        "set maximum speed for a background block operation",
        |e, l| run(e, &SET_SPEED, l),
    ),
    row(&["block_resize"], "device size", "resize a block image", |e, l| run(e, &RESIZE, l)),
    row(
        &["block_stream"],
        "device [speed [base]]",
        "copy data from a backing file into a block device",
        |e, l| run(e, &STREAM, l),
    ),
    row(
        &["drive_add"],
        "[-n] [[<domain>:]<bus>:]<slot> if=none,id=ID[,file=FILE][,...]",
        "add a drive that a device can be plugged into",
        drive_add,
    ),
    row(
        &["drive_backup"],
        "[-n] [-f] [-c] device target [format]",
        "initiates a point-in-time copy for a device",
        |e, l| run(e, &BACKUP, l),
    ),
    row(&["drive_del"], "device", "remove a drive that no device uses", drive_del),
    row(
        &["drive_mirror"],
        "[-n] [-f] device target [format]",
        "initiates live storage migration for a device",
        |e, l| run(e, &MIRROR, l),
    ),
];

/// Makes arguments of a line's words.
fn arguments(line: &Line, typed: &str) -> Result<Map<String, Value>, String> {
    let mut members = Map::new();
    let value = |text: &str| match text {
        "true" => Value::Bool(true),
        text => text.into(),
    };
    for (name, text) in line.fixed {
        members.insert((*name).to_owned(), value(text));
    }
    let (switches, words): (Vec<&str>, Vec<&str>) =
        typed.split_whitespace().partition(|word| word.starts_with('-'));
    for typed in switches {
        let known = line.switches.iter().find(|(switch, ..)| *switch == typed);
        let (_, name, text) = known.ok_or_else(|| format!("unsupported option {typed}"))?;
        members.insert((*name).to_owned(), value(text));
    }
    if words.len() < line.needed {
        return Err(format!("Parameter '{}' is missing", line.arguments[words.len()].0));
    }
    if words.len() > line.arguments.len() {
        return Err(format!("extraneous characters at the end of line: {typed}"));
    }
    for ((name, kind), word) in line.arguments.iter().zip(words) {
        let word = word.trim_matches('"');
        let value = match kind {
            Text => word.into(),
            Size(shift) => {
                values::size(name, word, *shift).map_err(|error| error.to_string())?.into()
            }
        };
        members.insert((*name).to_owned(), value);
    }
    Ok(members)
}

fn run(emulator: &Arc<Emulator>, line: &Line, typed: &str) -> Result<String, String> {
    let arguments = arguments(line, typed)?;
    schema().check(line.command, &arguments).map_err(|error| error.to_string())?;
    let known = commands().find(|command| command.name == line.command);
    let Some(Run::Plain(run)) = known.map(|command| &command.run) else {
        return Err(format!("The command {} has not been found", line.command));
    };
    run(emulator, &arguments).map(|_| String::new()).map_err(|refusal| refusal.description)
}

/// `drive_add`: the slot was for cards that came with their drive, which nothing has any more.
fn drive_add(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let words = line.strip_prefix("-n ").unwrap_or(line).trim_start();
    let (_, typed) = words.split_once(char::is_whitespace).ok_or("Parameter 'opts' is missing")?;
    let typed = typed.trim().trim_matches('"');
    let asked = options::drive(typed)?;
    if asked.members.get("if").and_then(Value::as_str) != Some("none") {
        return Err("Can't hot-add drive to type 0: it needs if=none".to_owned());
    }
    if !asked.members.contains_key("id") {
        return Err("Parameter 'id' is missing".to_owned());
    }
    emulator.blocks.drive(&asked, 0, 1).map(|_| "OK\n".to_owned())
}

/// `drive_del`.
fn drive_del(emulator: &Arc<Emulator>, id: &str) -> Result<String, String> {
    if emulator.blocks.graph.get(id).is_some() {
        return Err(format!(
            "Deleting block devices added with blockdev-add is not supported: {id}"
        ));
    }
    if emulator.backends.drives.get(id).is_none() {
        return Err(format!("Device '{id}' not found"));
    }
    if let Some(user) = emulator.backends.drives.user(id) {
        return Err(format!("Drive '{id}' is in use by '{user}': remove the device first"));
    }
    emulator.blocks.close_medium(id);
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_what_they_say_in_other_words() {
        for (line, typed, expected) in [
            (&CANCEL, "-f d", Ok(json!({"force": true, "device": "d"}))),
            (&RESIZE, "d 8", Ok(json!({"device": "d", "size": 8 << 20}))),
            (&RESIZE, "d 4k", Ok(json!({"device": "d", "size": 4096}))),
            (&RESIZE, "d", Err("Parameter 'size' is missing")),
            (&PAUSE, "-x d", Err("unsupported option -x")),
            (&PAUSE, "d e", Err("extraneous characters at the end of line: d e")),
            (
                &MIRROR,
                "-f d \"/tmp/t\" raw",
                Ok(json!({"sync": "full", "mode": "absolute-paths", "device": "d",
                    "target": "/tmp/t", "format": "raw"})),
            ),
        ] {
            let read = arguments(line, typed).map(Value::Object);
            assert_eq!(read, expected.map_err(str::to_owned), "{typed}");
        }
    }

    #[test]
    fn every_line_has_its_command() {
        for line in
            [&COMPLETE, &PAUSE, &RESUME, &CANCEL, &SET_SPEED, &RESIZE, &STREAM, &MIRROR, &BACKUP]
        {
            let plain = |command: &&super::super::Command| {
                command.name == line.command && matches!(command.run, Run::Plain(_))
            };
            assert!(commands().any(|command| plain(&command)), "{}", line.command);
        }
    }
}
