//! Guest memory in files: pieces of it, and cores.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use qemu_compat::qmp::server::Refusal;
use serde_json::{Value, json};

use super::expression::Reader;
use super::{Answer, Arguments, Command, flag, plain, refusal, registers, text};
use crate::dump;
use crate::emulator::Emulator;

pub const COMMANDS: &[Command] = &[
    plain(
        "dump-guest-memory",
        "{ paging: bool, protocol: str, detach?: bool, begin?: int, length?: int, \
         format?: DumpGuestMemoryFormat }",
        "",
        dump_memory,
    ),
    plain("query-dump", "{}", "DumpQueryResult", |emulator, _| Ok(emulator.dump.describe())),
    plain("query-dump-guest-memory-capability", "{}", "DumpGuestMemoryCapability", |_, _| {
        Ok(json!({"formats": ["elf"]}))
    }),
    plain("memsave", "{ val: int, size: int, filename: str, cpu-index?: int }", "", save_virtual),
    plain("pmemsave", "{ val: int, size: int, filename: str }", "", save_physical),
];

/// What is copied at once.
const PIECE_BYTES: u64 = 4096;

fn number(arguments: &Arguments, name: &str) -> Option<u64> {
    let value = arguments.get(name)?;
    value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned))
}

fn dump_memory(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    if flag(arguments, "paging") {
        return Err(Refusal::new("a dump with paging=true is not built in Hostel"));
    }
    if let Some(format) = arguments.get("format").and_then(Value::as_str)
        && format != "elf"
    {
        return Err(Refusal::new(format!("the dump format '{format}' is not built in Hostel")));
    }
    let window = match (number(arguments, "begin"), number(arguments, "length")) {
        (None, None) => None,
        (Some(begin), Some(length)) if begin.checked_add(length).is_some() => Some((begin, length)),
        (Some(_), Some(_)) => return Err(Refusal::new("Invalid parameter 'length'")),
        (Some(_), None) => return Err(Refusal::new("Parameter 'length' is missing")),
        (None, Some(_)) => return Err(Refusal::new("Parameter 'begin' is missing")),
    };
    let detached = flag(arguments, "detach");
    dump::start(emulator, text(arguments, "protocol"), window, detached).map_err(refusal)?;
    Ok(json!({}))
}

/// Copies what `read` gives, piece by piece.
fn save(
    arguments: &Arguments,
    read: impl Fn(u64, usize) -> Result<Vec<u8>, String>,
) -> Result<(), String> {
    let (start, bytes) = (number(arguments, "val"), number(arguments, "size"));
    let (start, bytes) = (start.unwrap_or_default(), bytes.unwrap_or_default());
    let path = text(arguments, "filename");
    let about = |error: std::io::Error| {
        format!("Could not open '{path}': {}", crate::character::reason(&error))
    };
    let mut file = File::create(path).map_err(about)?;
    let mut done = 0;
    while done < bytes {
        let now = (bytes - done).min(PIECE_BYTES);
        let piece = read(start.wrapping_add(done), now as usize)?;
        if piece.len() < now as usize {
            return Err(format!("Invalid addr 0x{start:016x}/size {bytes} specified"));
        }
        file.write_all(&piece).map_err(|error| format!("writing memory to '{path}': {error}"))?;
        done += now;
    }
    Ok(())
}

fn save_virtual(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let processor = number(arguments, "cpu-index").unwrap_or(registers::current() as u64);
    let registers = registers::registers_of(emulator, processor as usize);
    let text = "Parameter 'cpu-index' expects a CPU number";
    let registers = registers.map_err(|_| Refusal::new(text))?;
    let memory = emulator.machine.memory();
    save(arguments, |at, bytes| Ok(registers.read(&memory, at, bytes))).map_err(refusal)?;
    Ok(json!({}))
}

fn save_physical(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let memory = emulator.machine.memory();
    let view = memory.view();
    save(arguments, |at, bytes| {
        let mut contents = vec![0; bytes];
        view.read(at, &mut contents);
        Ok(contents)
    })
    .map_err(refusal)?;
    Ok(json!({}))
}

/// HMP's `memsave` and `pmemsave`: address, size, file.
pub fn save_line(emulator: &Arc<Emulator>, line: &str, physical: bool) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let mut value = || {
        let word = words.next().ok_or("address and size are missing")?;
        Reader::new(word, None).value()
    };
    let (start, bytes) = (value()?, value()?);
    let path = words.next().ok_or("the file's name is missing")?.trim_matches('"');
    let Value::Object(arguments) = json!({"val": start, "size": bytes, "filename": path}) else {
        return Ok(String::new());
    };
    let save = if physical { save_physical } else { save_virtual };
    save(emulator, &arguments).map(|_| String::new()).map_err(|refusal| refusal.description)
}

/// HMP's `dump-guest-memory [-p] [-d] [-z|-l|-s|-w] filename [begin length]`.
pub fn dump_line(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let (switches, words): (Vec<&str>, Vec<&str>) =
        line.split_whitespace().partition(|word| word.starts_with('-'));
    let path = words.first().ok_or("the file's name is missing")?.trim_matches('"');
    let mut members = json!({"paging": false, "protocol": format!("file:{path}")});
    for switch in switches {
        match switch {
            "-p" => members["paging"] = true.into(),
            "-d" => members["detach"] = true.into(),
            "-z" => members["format"] = "kdump-zlib".into(),
            "-l" => members["format"] = "kdump-lzo".into(),
            "-s" => members["format"] = "kdump-snappy".into(),
            "-w" => members["format"] = "win-dmp".into(),
            other => return Err(format!("unsupported option {other}")),
        }
    }
    for (name, word) in ["begin", "length"].into_iter().zip(words.iter().skip(1)) {
        members[name] = Reader::new(word, None).value()?.into();
    }
    let Value::Object(arguments) = members else { return Ok(String::new()) };
    dump_memory(emulator, &arguments).map(|_| String::new()).map_err(|refusal| refusal.description)
}

/// HMP's `info dump`.
pub fn info(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    let dump = emulator.dump.describe();
    let mut text = format!("Status: {}\n", dump["status"].as_str().unwrap_or_default());
    if dump["status"] == "active" {
        let count = |name: &str| dump[name].as_u64().unwrap_or_default();
        let share = 100.0 * count("completed") as f64 / count("total").max(1) as f64;
        text.push_str(&format!("Finished: {share:.2} %\n"));
    }
    Ok(text)
}
