//! The commands for people. Most are the QMP commands in other words.

use std::fmt::Write;
use std::sync::Arc;

use net::user::ConnectionKind;
use qemu_compat::system::character;
use serde_json::Map;

use super::{
    Answer, Arguments, Command, blocks, devices, input, interrupts, lines, memory, migration,
    plain, registers, run, screen, snapshots, text, tree,
};
use crate::emulator::Emulator;
use crate::networks::User;
use crate::{QEMU_VERSION, networks, options};

pub const COMMANDS: &[Command] = &[plain(
    "human-monitor-command",
    "{ command-line: str, cpu-index?: int }",
    "str",
    human_monitor_command,
)];

fn human_monitor_command(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let index = arguments.get("cpu-index").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let processor = std::cell::Cell::new(index as usize);
    let line = text(arguments, "command-line");
    let text = registers::looking_at(&processor, || execute(emulator, line));
    // Programs get line ends as a terminal does.
    Ok(text.replace('\n', "\r\n").into())
}

/// A row: names, arguments, help, and what it prints.
pub struct Row {
    names: &'static [&'static str],
    takes: &'static str,
    help: &'static str,
    run: fn(&Arc<Emulator>, &str) -> Result<String, String>,
}

/// One.
pub const fn row(
    names: &'static [&'static str],
    takes: &'static str,
    help: &'static str,
    run: fn(&Arc<Emulator>, &str) -> Result<String, String>,
) -> Row {
    Row { names, takes, help, run }
}

const ROWS: &[Row] = &[
    row(&["balloon"], "target", "request VM to change its memory allocation (in MB)", balloon),
    row(
        &["change"],
        "device filename [format]",
        "change a removable medium, optional format; or `vnc password PASSWORD`",
        screen::change,
    ),
    row(&["chardev-add"], "args", "add chardev", add_character),
    row(&["chardev-remove"], "id", "remove chardev", remove_character),
    row(&["cpu"], "index", "set the default CPU", registers::choose),
    row(
        &["device_add"],
        "driver[,prop=value][,...]",
        "add device, like -device on the command line",
        device_add,
    ),
    row(&["delvm"], "tag", "delete a VM snapshot from its tag", snapshots::delete_line),
    row(&["device_del"], "device", "remove device", device_del),
    row(
        &["dump-guest-memory"],
        "[-p] [-d] [-z|-l|-s|-w] filename [begin length]",
        "dump guest memory into file 'filename' as an ELF core",
        memory::dump_line,
    ),
    row(&["eject"], "[-f] device", "eject a removable medium (use -f to force it)", eject),
    row(&["cont", "c"], "", "resume emulation", |emulator, _| silent(run::resume, emulator)),
    row(
        &["gdbserver"],
        "[device]",
        "start gdbserver on given device (default 'tcp::1234'), stop with 'none'",
        debugger,
    ),
    row(&["help", "?"], "[cmd]", "show the help", help),
    row(
        &["hostfwd_add"],
        "[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport",
        "redirect TCP or UDP connections from host to guest (requires -net user)",
        add_forward,
    ),
    row(
        &["hostfwd_remove"],
        "[netdev_id] [tcp|udp]:[hostaddr]:hostport",
        "remove host-to-guest TCP or UDP redirection",
        remove_forward,
    ),
    row(
        &["gva2gpa"],
        "addr",
        "print the guest physical address corresponding to a guest virtual address",
        registers::translate,
    ),
    row(&["i"], "/fmt addr", "I/O port read", registers::input),
    row(&["info"], "[subcommand]", "show various information about the system state", info),
    row(
        &["memsave"],
        "addr size file",
        "save to disk virtual memory dump starting at 'addr' of size 'size'",
        |emulator, line| memory::save_line(emulator, line, false),
    ),
    row(
        &["pmemsave"],
        "addr size file",
        "save to disk physical memory dump starting at 'addr' of size 'size'",
        |emulator, line| memory::save_line(emulator, line, true),
    ),
    row(
        &["migrate"],
        "[-d] uri",
        "migrate to URI (using -d to not wait for completion)",
        migration::migrate_line,
    ),
    row(&["migrate_cancel"], "", "cancel the current VM migration", |emulator, _| {
        emulator.migration.cancel();
        Ok(String::new())
    }),
    row(
        &["migrate_incoming"],
        "uri",
        "Continue an incoming migration from an -incoming defer",
        migration::incoming_line,
    ),
    row(
        &["migrate_set_capability"],
        "capability state",
        "Enable/Disable the usage of a capability for migration",
        migration::set_capability_line,
    ),
    row(
        &["migrate_set_parameter"],
        "parameter value",
        "Set the parameter for migration",
        migration::set_parameter_line,
    ),
    row(&["mouse_button"], "state", "change mouse button state (1=L, 2=M, 4=R)", input::buttons),
    row(&["mouse_move"], "dx dy [dz]", "send mouse move events", input::mouse_move),
    row(
        &["netdev_add"],
        "[user|tap|socket|stream|dgram|hubport],id=str[,prop=value][,...]",
        "add host network device",
        netdev_add,
    ),
    row(&["netdev_del"], "id", "remove host network device", netdev_del),
    row(&["nmi"], "", "inject an NMI", |emulator, _| silent(run::inject, emulator)),
    row(&["o"], "/fmt addr value", "I/O port write", registers::output),
    row(
        &["object_add"],
        "[qom-type=]type,id=str[,prop=value][,...]",
        "create QOM object",
        object_add,
    ),
    row(&["object_del"], "id", "destroy QOM object", object_del),
    row(
        &["print", "p"],
        "/fmt expr",
        "print expression value (use $reg for CPU register access)",
        registers::print,
    ),
    row(&["qom-get"], "path property", "print QOM property", qom_get),
    row(&["qom-list"], "path", "list QOM properties", qom_list),
    row(&["quit", "q"], "", "quit the emulator", |emulator, _| silent(run::quit, emulator)),
    row(&["loadvm"], "tag", "restore a VM snapshot from its tag", snapshots::load_line),
    row(
        &["savevm"],
        "tag",
        "save a VM snapshot. If no tag is provided, a new snapshot is created",
        snapshots::save_line,
    ),
    row(
        &["screendump"],
        "filename [-f format] [device [head]]",
        "save screen from head 'head' of display device 'device' in specified format 'format' as \
         image 'filename'",
        screen::dump_line,
    ),
    row(
        &["sendkey"],
        "keys [hold_ms]",
        "send keys to the VM (e.g. 'sendkey ctrl-alt-f1')",
        input::send_line,
    ),
    row(&["set_link"], "name on|off", "change the link status of a network adapter", set_link),
    row(&["sum"], "addr size", "compute the checksum of a memory region", registers::sum),
    row(&["stop", "s"], "", "stop emulation", |emulator, _| silent(run::stop, emulator)),
    row(&["system_powerdown"], "", "send system power down event", |emulator, _| {
        silent(run::power_down, emulator)
    }),
    row(&["system_reset"], "", "reset the system", |emulator, _| silent(run::reset, emulator)),
    row(&["x"], "/fmt addr", "virtual memory dump starting at 'addr'", registers::examine),
    row(
        &["xp"],
        "/fmt addr",
        "physical memory dump starting at 'addr'",
        registers::examine_physical,
    ),
];

const INFO: &[Row] = &[
    row(&["balloon"], "", "show balloon information", info_balloon),
    row(&["block"], "", "show info of one block device or all block devices", tree::info_block),
    row(&["blockstats"], "", "show block device statistics", tree::info_block_statistics),
    row(&["chardev"], "", "show the character devices", info_characters),
    row(&["cpus"], "", "show infos for each CPU", info_processors),
    row(&["dump"], "", "Display the latest dump status", memory::info),
    row(&["hotpluggable-cpus"], "", "show information about hotpluggable CPUs", tree::info_slots),
    row(&["iothreads"], "", "show iothreads", |_, _| Ok(String::new())),
    row(&["jit"], "", "show dynamic compiler info", tree::info_translator),
    row(&["kvm"], "", "show KVM information", |emulator, _| {
        let state = if emulator.machine.is_on_kvm() { "enabled" } else { "disabled" };
        Ok(format!("kvm support: {state}\n"))
    }),
    row(&["mem"], "", "show the active virtual memory mappings", registers::info_memory),
    row(
        &["memory_size_summary"],
        "",
        "show the amount of initially allocated and present hotpluggable (if enabled) memory in bytes.",
        tree::info_memory_size,
    ),
    row(&["mice"], "", "show which guest mouse is receiving events", input::info_mice),
    row(&["migrate"], "", "show migration status", migration::info),
    row(
        &["migrate_capabilities"],
        "",
        "show current migration capabilities",
        migration::info_capabilities,
    ),
    row(
        &["migrate_parameters"],
        "",
        "show current migration parameters",
        migration::info_parameters,
    ),
    row(
        &["mtree"],
        "[-f]",
        "show memory tree (-f: dump flat view for address spaces)",
        tree::info_mtree,
    ),
    row(&["name"], "", "show the current VM name", info_name),
    row(&["network"], "", "show the network state", info_network),
    row(&["pci"], "", "show PCI info", tree::info_pci),
    row(&["pic"], "", "show PIC state", interrupts::info_pic),
    row(&["qom-tree"], "", "show QOM composition tree", tree::info_objects),
    row(&["qtree"], "", "show device tree", tree::info_qtree),
    row(
        &["registers"],
        "[-a]",
        "show the cpu registers (-a: show register info for all cpus)",
        registers::info_registers,
    ),
    row(&["snapshots"], "", "show the currently saved VM snapshots", snapshots::info),
    row(&["tlb"], "", "show virtual to physical memory mappings", registers::info_tlb),
    row(&["usernet"], "", "show user network stack connection states", info_usernet),
    row(&["status"], "", "show the current VM status", info_status),
    row(&["uuid"], "", "show the current VM UUID", info_uuid),
    row(&["version"], "", "show the version of QEMU", |_, _| Ok(version())),
    row(&["vnc"], "", "show the vnc server status", screen::info_vnc),
];

/// All but those of `info`.
fn rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(lines::ROWS)
}

/// Runs a line and gives what it prints.
pub fn execute(emulator: &Arc<Emulator>, line: &str) -> String {
    let line = line.trim();
    if line.is_empty() {
        return String::new();
    }
    // A format may follow without a blank.
    let end = line.find(|sign: char| sign.is_whitespace() || sign == '/').unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    match rows().find(|row| row.names.contains(&name)) {
        Some(row) => {
            (row.run)(emulator, rest.trim()).unwrap_or_else(|error| format!("Error: {error}\n"))
        }
        None => format!("unknown command: '{name}'\n"),
    }
}

/// A QMP command with arguments, of which only an error is printed.
fn asked(
    command: fn(&Arc<Emulator>, &Arguments) -> Answer,
    emulator: &Arc<Emulator>,
    arguments: &Arguments,
) -> Result<String, String> {
    command(emulator, arguments).map(|_| String::new()).map_err(|refusal| refusal.description)
}

/// One argument.
fn one(name: &str, value: impl Into<serde_json::Value>) -> Arguments {
    let mut arguments = Map::new();
    arguments.insert(name.to_owned(), value.into());
    arguments
}

fn device_add(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let members = options::members("device", line, "driver")?;
    asked(devices::add, emulator, &members)
}

fn device_del(emulator: &Arc<Emulator>, id: &str) -> Result<String, String> {
    asked(devices::remove, emulator, &one("id", id))
}

fn netdev_add(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let members = options::members("netdev", line, "type")?;
    asked(devices::netdev_add, emulator, &members)
}

fn netdev_del(emulator: &Arc<Emulator>, id: &str) -> Result<String, String> {
    asked(devices::netdev_remove, emulator, &one("id", id))
}

fn object_add(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let members = options::members("object", line, "qom-type")?;
    asked(devices::object_add, emulator, &members)
}

fn object_del(emulator: &Arc<Emulator>, id: &str) -> Result<String, String> {
    asked(devices::object_remove, emulator, &one("id", id))
}

fn eject(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let (force, device) = match line.strip_prefix("-f ") {
        Some(device) => (true, device.trim()),
        None => (false, line),
    };
    let mut arguments = one("id", device);
    arguments.insert("force".to_owned(), force.into());
    asked(blocks::eject, emulator, &arguments)
}

fn set_link(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let (name, up) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let up = match up.trim() {
        "on" => true,
        "off" => false,
        other => return Err(format!("invalid parameter 'up': '{other}'")),
    };
    let mut arguments = one("name", name);
    arguments.insert("up".to_owned(), up.into());
    asked(devices::set_link, emulator, &arguments)
}

fn balloon(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let mebibytes: u64 = line.parse().map_err(|_| "invalid value".to_owned())?;
    asked(devices::balloon, emulator, &one("value", mebibytes.saturating_mul(1 << 20)))
}

fn info_balloon(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    let answer = devices::query_balloon(emulator, &Map::new());
    let answer = answer.map_err(|refusal| refusal.description)?;
    Ok(format!("balloon: actual={}\n", answer["actual"].as_u64().unwrap_or(0) >> 20))
}

fn qom_list(emulator: &Arc<Emulator>, path: &str) -> Result<String, String> {
    let path = if path.is_empty() { "/" } else { path };
    let list = devices::list(emulator, &one("path", path));
    let list = list.map_err(|refusal| refusal.description)?;
    let entries = list.as_array().into_iter().flatten();
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(entries
        .map(|entry| format!("{} ({})\n", word(&entry["name"]), word(&entry["type"])))
        .collect())
}

fn qom_get(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let (path, property) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let mut arguments = one("path", path);
    arguments.insert("property".to_owned(), property.trim().into());
    let value = devices::get(emulator, &arguments).map_err(|refusal| refusal.description)?;
    Ok(format!("{}\n", qemu_compat::json::pretty(&value)))
}

/// A QMP command without arguments, of which only an error is printed.
fn silent(
    command: fn(&Arc<Emulator>, &Arguments) -> Answer,
    emulator: &Arc<Emulator>,
) -> Result<String, String> {
    command(emulator, &Map::new()).map(|_| String::new()).map_err(|refusal| refusal.description)
}

fn line_of_help(row: &Row, prefix: &str) -> String {
    let names = row.names.join("|");
    format!("{prefix}{names} {} -- {}\n", row.takes, row.help)
}

fn help(_: &Arc<Emulator>, name: &str) -> Result<String, String> {
    let wanted = |row: &&Row| name.is_empty() || row.names.contains(&name);
    if name == "info" {
        return Ok(INFO.iter().map(|row| line_of_help(row, "info ")).collect());
    }
    Ok(rows().filter(wanted).map(|row| line_of_help(row, "")).collect())
}

fn info(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    if name.is_empty() {
        return help(emulator, "info");
    }
    match INFO.iter().find(|row| row.names.contains(&name)) {
        Some(row) => (row.run)(emulator, rest.trim()),
        None => Ok(format!("unknown command: 'info {name}'\n")),
    }
}

fn version() -> String {
    let (major, minor, micro) = QEMU_VERSION;
    format!("{major}.{minor}.{micro}{}\n", crate::PACKAGE)
}

fn debugger(emulator: &Arc<Emulator>, place: &str) -> Result<String, String> {
    let place = if place.is_empty() { "tcp::1234" } else { place };
    emulator.listen_for_debugger(place)?;
    Ok(match place {
        "none" => "Disabled gdbserver\n".to_owned(),
        _ => format!("Waiting for gdb connection on device '{place}'\n"),
    })
}

fn info_status(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    let status = emulator.status();
    let text = match status {
        "running" => "running".to_owned(),
        other => format!(
            "paused{}",
            if other == "paused" { String::new() } else { format!(" ({other})") }
        ),
    };
    Ok(format!("VM status: {text}\n"))
}

fn info_name(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    let name = emulator.options.run.name.as_deref();
    Ok(name.map_or(String::new(), |name| format!("{name}\n")))
}

fn info_uuid(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    let uuid = emulator.options.board.uuid.unwrap_or_default();
    Ok(format!("{}\n", super::identity::uuid_text(uuid)))
}

fn info_characters(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    let list = emulator.characters.list();
    Ok(list.iter().map(|(label, filename, _)| format!("{label}: filename={filename}\n")).collect())
}

fn info_processors(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    let mut text = String::new();
    for index in 0..emulator.options.board.topology.count {
        let mark = if index == 0 { '*' } else { ' ' };
        let thread = emulator.thread_of_processor(index);
        _ = writeln!(text, "{mark} CPU #{index}: thread_id={thread}");
    }
    Ok(text)
}

fn add_character(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let character = character::parse(line).map_err(|error| error.to_string())?;
    match emulator.characters.add(&character) {
        Ok(Some(pty)) => {
            let id = &character.id;
            Ok(format!("char device redirected to {pty} (label {id})\n"))
        }
        Ok(None) => Ok(String::new()),
        Err(error) => Err(error.to_string()),
    }
}

fn remove_character(emulator: &Arc<Emulator>, id: &str) -> Result<String, String> {
    emulator.characters.remove(id).map(|()| String::new()).map_err(|error| error.to_string())
}

/// The network that a line names first, or the only one, and the rest of the line.
fn user_network<'a>(emulator: &Emulator, line: &'a str) -> Result<(User, &'a str), String> {
    let (first, rest) = line.split_once(char::is_whitespace).unwrap_or(("", line));
    let found = match first {
        "" => emulator.networks.user(None),
        id => emulator.networks.user(Some(id)),
    };
    let none = || match first {
        "" => "no user-mode network".to_owned(),
        id => format!("unrecognized netdev id '{id}'"),
    };
    found.map(|(_, user)| (user, rest.trim())).ok_or_else(none)
}

fn add_forward(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let (User { network, guest, .. }, rule) = user_network(emulator, line)?;
    let forward = networks::host_forward(rule, guest)?;
    network.add_forward(&forward).map(|_| String::new()).map_err(|error| {
        format!("could not set up host forwarding rule '{rule}': {}", networks::full(&error))
    })
}

fn remove_forward(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let (User { network, .. }, rule) = user_network(emulator, line)?;
    let end = networks::host_end(rule).ok_or("invalid format")?;
    Ok(match network.remove_forward(&end) {
        Ok(()) => format!("host forwarding rule for {rule} removed\n"),
        Err(_) => format!("host forwarding rule for {rule} not found\n"),
    })
}

fn info_network(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    let mut text = String::new();
    for id in emulator.networks.names() {
        let info = emulator.networks.info(&id).unwrap_or_default();
        _ = writeln!(text, "{id}: index=0,{info}");
    }
    Ok(text)
}

fn info_usernet(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    let Some((id, User { network, .. })) = emulator.networks.user(None) else {
        return Ok(String::new());
    };
    let mut text = format!("Hub -1 ({id}):\n");
    text.push_str(
        "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n",
    );
    for connection in network.connections() {
        let kind = match connection.kind {
            ConnectionKind::TcpOpening => "TCP[SYN_SENT]",
            ConnectionKind::TcpOpen => "TCP[ESTABLISHED]",
            ConnectionKind::TcpClosing => "TCP[CLOSING]",
            ConnectionKind::Udp => "UDP",
            ConnectionKind::TcpForward => "TCP[HOST_FORWARD]",
            ConnectionKind::UdpForward => "UDP[HOST_FORWARD]",
        };
        let (source, port) = connection
            .source
            .map_or(("*".to_owned(), 0), |from| (from.ip().to_string(), from.port()));
        let (to, to_port) = (connection.destination.ip(), connection.destination.port());
        let (received, sent) = connection.queued;
        _ = writeln!(
            text,
            "  {kind:<19} {:3} {source:>15} {port:5} {to:>15} {to_port:5} {received:5} {sent:5}",
            connection.descriptor.unwrap_or(-1),
        );
    }
    Ok(text)
}
