//! Domains.

use std::fs;

use libvirt_compat::rpc::types::Domain;
use libvirt_compat::xml;

use super::syntax::Given;
use super::{Command, Outcome, Shell, Trouble, autostart, doing, table};
use crate::arguments::bytes;
use crate::daemon::Connection;

pub const COMMANDS: &[Command] = &[
    Command {
        name: "attach-device",
        syntax: "<domain> <file> [--persistent] [--config] [--live] [--current]",
        summary: "attach device from an XML file",
        run: |shell, given| device(shell, given, true),
    },
    Command {
        name: "autostart",
        syntax: "<domain> [--disable]",
        summary: "autostart a domain",
        run: autostart::<Domain>,
    },
    Command {
        name: "console",
        syntax: "<domain> [<devname>] [--force] [--safe]",
        summary: "connect to the guest console",
        run: console,
    },
    Command {
        name: "create",
        syntax: "<file> [--paused] [--autodestroy]",
        summary: "create a domain from an XML file",
        run: create,
    },
    Command {
        name: "define",
        syntax: "<file> [--validate]",
        summary: "define (but don't start) a domain from an XML file",
        run: define,
    },
    Command {
        name: "destroy",
        syntax: "<domain> [--graceful]",
        summary: "destroy (stop) a domain",
        run: destroy,
    },
    Command {
        name: "detach-device",
        syntax: "<domain> <file> [--persistent] [--config] [--live] [--current]",
        summary: "detach device from an XML file",
        run: |shell, given| device(shell, given, false),
    },
    Command {
        name: "domblkinfo",
        syntax: "<domain> <device>",
        summary: "domain block device size information",
        run: block_info,
    },
    Command {
        name: "domblklist",
        syntax: "<domain> [--inactive] [--details]",
        summary: "list all domain blocks",
        run: block_list,
    },
    Command {
        name: "domid",
        syntax: "<domain>",
        summary: "convert a domain name or UUID to domain id",
        run: |shell, given| {
            let id = shell.domain(given)?.id;
            Ok(if id < 0 { "-\n".to_owned() } else { format!("{id}\n") })
        },
    },
    Command {
        name: "domiflist",
        syntax: "<domain> [--inactive]",
        summary: "list all domain virtual interfaces",
        run: interface_list,
    },
    Command { name: "dominfo", syntax: "<domain>", summary: "domain information", run: info },
    Command {
        name: "dommemstat",
        syntax: "<domain>",
        summary: "get memory statistics for a domain",
        run: memory_statistics,
    },
    Command {
        name: "domname",
        syntax: "<domain>",
        summary: "convert a domain id or UUID to domain name",
        run: |shell, given| Ok(format!("{}\n", shell.domain(given)?.name)),
    },
    Command {
        name: "domrename",
        syntax: "<domain> <new-name>",
        summary: "rename a domain",
        run: rename,
    },
    Command {
        name: "domstate",
        syntax: "<domain> [--reason]",
        summary: "domain state",
        run: state,
    },
    Command {
        name: "domuuid",
        syntax: "<domain>",
        summary: "convert a domain name or id to domain UUID",
        run: |shell, given| Ok(format!("{}\n", shell.domain(given)?.uuid)),
    },
    Command {
        name: "dumpxml",
        syntax: "<domain> [--inactive] [--security-info]",
        summary: "domain information in XML",
        run: dump,
    },
    Command {
        name: "list",
        syntax: "[--inactive] [--all] [--uuid] [--name] [--id] [--state-running] [--state-paused] [--state-shutoff] [--title]",
        summary: "list domains",
        run: list,
    },
    Command {
        name: "managedsave",
        syntax: "<domain> [--running] [--paused]",
        summary: "managed save of a domain state",
        run: managed_save,
    },
    Command {
        name: "qemu-monitor-command",
        syntax: "<domain> <cmd> [--hmp] [--pretty]",
        summary: "QEMU Monitor Command",
        run: monitor,
    },
    Command {
        name: "reboot",
        syntax: "<domain>",
        summary: "reboot a domain",
        run: |shell, given| {
            shell.act::<Domain>(given, "reboot", "is being rebooted", |client, domain| {
                client.domain_reboot(domain, 0)
            })
        },
    },
    Command {
        name: "reset",
        syntax: "<domain>",
        summary: "reset a domain",
        run: |shell, given| {
            shell.act::<Domain>(given, "reset", "was reset", |client, domain| {
                client.domain_reset(domain, 0)
            })
        },
    },
    Command {
        name: "restore",
        syntax: "<file>",
        summary: "restore a domain from a saved state in a file",
        run: restore,
    },
    Command {
        name: "resume",
        syntax: "<domain>",
        summary: "resume a domain",
        run: |shell, given| {
            shell.act::<Domain>(given, "resume", "resumed", |client, domain| {
                client.domain_resume(domain)
            })
        },
    },
    Command {
        name: "save",
        syntax: "<domain> <file>",
        summary: "save a domain state to a file",
        run: save,
    },
    Command {
        name: "setmaxmem",
        syntax: "<domain> <size> [--config] [--live] [--current]",
        summary: "change maximum memory limit",
        run: set_max_memory,
    },
    Command {
        name: "setmem",
        syntax: "<domain> <size> [--config] [--live] [--current]",
        summary: "change memory allocation",
        run: set_memory,
    },
    Command {
        name: "setvcpus",
        syntax: "<domain> <count> [--maximum] [--config] [--live] [--current]",
        summary: "change number of virtual CPUs",
        run: set_cpus,
    },
    Command {
        name: "shutdown",
        syntax: "<domain> [--mode <string>]",
        summary: "gracefully shutdown a domain",
        run: shutdown,
    },
    Command {
        name: "start",
        syntax: "<domain> [--paused] [--force-boot] [--autodestroy]",
        summary: "start a (previously defined) inactive domain",
        run: start,
    },
    Command {
        name: "suspend",
        syntax: "<domain>",
        summary: "suspend a domain",
        run: |shell, given| {
            shell.act::<Domain>(given, "suspend", "suspended", |client, domain| {
                client.domain_suspend(domain)
            })
        },
    },
    Command {
        name: "undefine",
        syntax: "<domain> [--managed-save] [--snapshots-metadata] [--nvram] [--keep-nvram]",
        summary: "undefine a domain",
        run: undefine,
    },
    Command {
        name: "vcpucount",
        syntax: "<domain>",
        summary: "domain vcpu counts",
        run: cpu_count,
    },
];

fn destroy(shell: &mut Shell, given: &Given) -> Outcome {
    let flags = given.bits(&[("graceful", 1)]);
    shell.act::<Domain>(given, "destroy", "destroyed", |client, domain| match flags {
        0 => client.domain_destroy(domain),
        flags => client.domain_destroy_flags(domain, flags),
    })
}

fn shutdown(shell: &mut Shell, given: &Given) -> Outcome {
    let mode = match given.text("mode") {
        None => 0,
        Some("acpi") => 1,
        Some("agent") => 2,
        Some(other) => {
            let text = format!(
                "Unknown mode {other} value, expecting 'acpi', 'agent', 'initctl', 'signal', or \
                 'paravirt'"
            );
            return Err(Trouble::new(text));
        }
    };
    shell.act::<Domain>(given, "shutdown", "is being shutdown", |client, domain| match mode {
        0 => client.domain_shutdown(domain),
        mode => client.domain_shutdown_flags(domain, mode),
    })
}

fn start(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    if domain.id >= 0 {
        return Err(Trouble::new("Domain is already active"));
    }
    let flags = given.bits(&[("paused", 1), ("autodestroy", 2), ("force-boot", 8)]);
    let name = domain.name.clone();
    let started = shell.connection.client.domain_create_with_flags(domain, flags);
    doing(format!("Failed to start domain '{name}'"), started)?;
    shell.extra(format!("Domain '{name}' started\n"))
}

/// What is on a domain's screen and console can be read by people only.
fn console(shell: &mut Shell, given: &Given) -> Outcome {
    use crate::verbs::console::{ESCAPE, carry};
    let domain = shell.domain(given)?;
    if domain.id < 0 {
        return Err(Trouble::new("The domain is not running"));
    }
    let flags = given.bits(&[("force", 1), ("safe", 2)]);
    let device = given.text("devname").map(str::to_owned);
    // The connection is taken up by the console.
    let connection = Connection::of_uri(shell.asked.as_deref())?;
    println!("Connected to domain '{}'\nEscape character is ^] (Ctrl + ])", domain.name);
    carry(connection, domain, device, flags, ESCAPE)?;
    Ok("\n".to_owned())
}

fn read(path: &str) -> Result<String, Trouble> {
    fs::read_to_string(path).map_err(|error| {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        Trouble::new(format!("Failed to open file '{path}': {text}"))
    })
}

fn define(shell: &mut Shell, given: &Given) -> Outcome {
    let file = given.text("file").unwrap_or_default();
    let defined = shell.connection.client.domain_define_xml(read(file)?);
    let domain = doing(format!("Failed to define domain from {file}"), defined)?;
    shell.extra(format!("Domain '{}' defined from {file}\n", domain.name))
}

fn create(shell: &mut Shell, given: &Given) -> Outcome {
    let file = given.text("file").unwrap_or_default();
    let flags = given.bits(&[("paused", 1), ("autodestroy", 2)]);
    let created = shell.connection.client.domain_create_xml(read(file)?, flags);
    let domain = doing(format!("Failed to create domain from {file}"), created)?;
    shell.extra(format!("Domain '{}' created from {file}\n", domain.name))
}

fn undefine(shell: &mut Shell, given: &Given) -> Outcome {
    let flags = given.bits(&[
        ("managed-save", 1),
        ("snapshots-metadata", 2),
        ("nvram", 4),
        ("keep-nvram", 8),
    ]);
    shell.act::<Domain>(given, "undefine", "has been undefined", |client, domain| match flags {
        0 => client.domain_undefine(domain),
        flags => client.domain_undefine_flags(domain, flags),
    })
}

fn rename(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let new = given.text("new-name").map(str::to_owned);
    shell.connection.client.domain_rename(domain, new, 0)?;
    shell.extra("Domain successfully renamed\n".to_owned())
}

/// A state's name; of those that exist by number.
pub fn state_name(state: i32) -> &'static str {
    const NAMES: &[&str] = &[
        "no state",
        "running",
        "idle",
        "paused",
        "in shutdown",
        "shut off",
        "crashed",
        "pmsuspended",
    ];
    usize::try_from(state).ok().and_then(|state| NAMES.get(state).copied()).unwrap_or("no state")
}

fn reason_name(state: i32, reason: i32) -> &'static str {
    let names: &[&str] = match state {
        1 => &[
            "unknown",
            "booted",
            "migrated",
            "restored",
            "from snapshot",
            "unpaused",
            "migration canceled",
            "save canceled",
            "event wakeup",
            "crashed",
            "post-copy",
        ],
        3 => &[
            "unknown",
            "user",
            "migrating",
            "saving",
            "dumping",
            "I/O error",
            "watchdog",
            "from snapshot",
            "shutting down",
            "creating snapshot",
            "crashed",
            "starting up",
        ],
        4 => &["unknown", "user"],
        5 => &[
            "unknown",
            "shutdown",
            "destroyed",
            "crashed",
            "migrated",
            "saved",
            "failed",
            "from snapshot",
            "daemon",
        ],
        6 => &["unknown", "panicked"],
        _ => &["unknown"],
    };
    usize::try_from(reason).ok().and_then(|reason| names.get(reason).copied()).unwrap_or("unknown")
}

fn state(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let (state, reason) = shell.connection.client.domain_get_state(domain, 0)?;
    Ok(match given.has("reason") {
        true => format!("{} ({})\n", state_name(state), reason_name(state, reason)),
        false => format!("{}\n", state_name(state)),
    })
}

fn dump(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let flags = given.bits(&[("security-info", 1), ("inactive", 2)]);
    Ok(shell.connection.client.domain_get_xml_desc(domain, flags)?)
}

fn list(shell: &mut Shell, given: &Given) -> Outcome {
    let active = !given.has("inactive");
    let inactive = given.has("inactive") || given.has("all");
    let mut flags = u32::from(active) | u32::from(inactive) << 1;
    if given.has("all") {
        flags = 3;
    }
    flags |= given.bits(&[("state-running", 16), ("state-paused", 32), ("state-shutoff", 64)]);
    if flags & 64 != 0 {
        flags |= 2;
    }
    let (mut domains, _) = shell.connection.client.connect_list_all_domains(1, flags)?;
    // Running ones by their number, then the others by name.
    domains.sort_by(|a, b| {
        let key = |domain: &Domain| (domain.id < 0, domain.id.max(0));
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
    let mut columns: Vec<fn(&Domain) -> String> = Vec::new();
    for (flag, column) in [
        ("uuid", (|domain| domain.uuid.to_string()) as fn(&Domain) -> String),
        ("name", |domain| domain.name.clone()),
        ("id", |domain| if domain.id < 0 { "-".to_owned() } else { domain.id.to_string() }),
    ] {
        if given.has(flag) {
            columns.push(column);
        }
    }
    if !columns.is_empty() {
        let line = |domain: &Domain| {
            let cells: Vec<String> = columns.iter().map(|column| column(domain)).collect();
            cells.join(" ") + "\n"
        };
        return Ok(domains.iter().map(line).collect());
    }
    let mut rows = Vec::new();
    for domain in domains {
        let id = if domain.id < 0 { "-".to_owned() } else { domain.id.to_string() };
        let (state, _) = shell.connection.client.domain_get_state(domain.clone(), 0)?;
        let mut row = vec![id, domain.name.clone(), state_name(state).to_owned()];
        if given.has("title") {
            let text = shell.connection.client.domain_get_xml_desc(domain, 0)?;
            let document = xml::parse(&text, "(domain)").unwrap_or_default();
            row.push(document.text_at("title").unwrap_or_default());
        }
        rows.push(row);
    }
    let headings = if given.has("title") {
        &["Id", "Name", "State", "Title"][..]
    } else {
        &["Id", "Name", "State"]
    };
    Ok(table::draw(headings, &rows, shell.is_quiet))
}

fn info(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let client = &mut shell.connection.client;
    let (state, max, memory, cpus, time_ns) = client.domain_get_info(domain.clone())?;
    let kind = client.domain_get_os_type(domain.clone())?;
    let autostart = client.domain_get_autostart(domain.clone())? != 0;
    let persistent = client.domain_is_persistent(domain.clone())? != 0;
    let saved = client.domain_has_managed_save_image(domain.clone(), 0)? != 0;
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let id = if domain.id < 0 { "-".to_owned() } else { domain.id.to_string() };
    let mut lines = vec![
        ("Id:", id),
        ("Name:", domain.name.clone()),
        ("UUID:", domain.uuid.to_string()),
        ("OS Type:", kind),
        ("State:", state_name(state as i32).to_owned()),
        ("CPU(s):", cpus.to_string()),
    ];
    if time_ns > 0 {
        lines.push(("CPU time:", format!("{:.1}s", time_ns as f64 / 1e9)));
    }
    lines.extend([
        ("Max memory:", format!("{max} KiB")),
        ("Used memory:", format!("{memory} KiB")),
        ("Persistent:", yes(persistent)),
        ("Autostart:", if autostart { "enable" } else { "disable" }.to_owned()),
        ("Managed save:", yes(saved)),
        ("Security model:", "none".to_owned()),
        ("Security DOI:", "0".to_owned()),
    ]);
    Ok(lines.iter().map(|(name, value)| format!("{name:<15} {value}\n")).collect())
}

fn document(shell: &mut Shell, given: &Given) -> Result<xml::Element, Trouble> {
    let domain = shell.domain(given)?;
    let flags = given.bits(&[("inactive", 2)]);
    let text = shell.connection.client.domain_get_xml_desc(domain, flags)?;
    Ok(xml::parse(&text, "(domain)")?)
}

fn block_list(shell: &mut Shell, given: &Given) -> Outcome {
    let document = document(shell, given)?;
    let mut rows = Vec::new();
    for disk in document.child("devices").into_iter().flat_map(|devices| devices.all("disk")) {
        let source = disk.child("source");
        let source = ["file", "dev", "dir", "name"]
            .iter()
            .find_map(|name| source?.attribute(name))
            .unwrap_or("-");
        let target = disk.attribute_at("target", "dev").unwrap_or("-");
        let mut row = vec![target.to_owned(), source.to_owned()];
        if given.has("details") {
            row.insert(0, disk.attribute("device").unwrap_or("disk").to_owned());
            row.insert(0, disk.attribute("type").unwrap_or("file").to_owned());
        }
        rows.push(row);
    }
    let headings = match given.has("details") {
        true => &["Type", "Device", "Target", "Source"][..],
        false => &["Target", "Source"],
    };
    Ok(table::draw(headings, &rows, shell.is_quiet))
}

fn interface_list(shell: &mut Shell, given: &Given) -> Outcome {
    let document = document(shell, given)?;
    let mut rows = Vec::new();
    for card in document.child("devices").into_iter().flat_map(|devices| devices.all("interface")) {
        let source = card.child("source");
        let source =
            ["network", "bridge", "dev", "name"].iter().find_map(|name| source?.attribute(name));
        let text = |path: &str, name: &str| card.attribute_at(path, name).unwrap_or("-").to_owned();
        rows.push(vec![
            text("target", "dev"),
            card.attribute("type").unwrap_or("-").to_owned(),
            source.unwrap_or("-").to_owned(),
            text("model", "type"),
            text("mac", "address"),
        ]);
    }
    let headings = &["Interface", "Type", "Source", "Model", "MAC"];
    Ok(table::draw(headings, &rows, shell.is_quiet))
}

fn block_info(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let device = given.text("device").unwrap_or_default().to_owned();
    let sizes = shell.connection.client.domain_get_block_info(domain, device, 0)?;
    // On the wire: allocation, capacity, physical.
    let lines = [("Capacity:", sizes.1), ("Allocation:", sizes.0), ("Physical:", sizes.2)];
    Ok(lines.iter().map(|(name, value)| format!("{name:<15} {value}\n")).collect())
}

fn memory_statistics(shell: &mut Shell, given: &Given) -> Outcome {
    const TAGS: &[&str] = &[
        "swap_in",
        "swap_out",
        "major_fault",
        "minor_fault",
        "unused",
        "available",
        "actual",
        "rss",
        "usable",
        "last_update",
        "disk_caches",
        "hugetlb_pgalloc",
        "hugetlb_pgfail",
    ];
    let domain = shell.domain(given)?;
    let name = domain.name.clone();
    let statistics = shell.connection.client.domain_memory_stats(domain, TAGS.len() as u32, 0);
    let statistics =
        doing(format!("Failed to get memory statistics for domain {name}"), statistics)?;
    let line = |tag: i32, value: u64| {
        let tag = usize::try_from(tag).ok().and_then(|tag| TAGS.get(tag))?;
        Some(format!("{tag} {value}\n"))
    };
    Ok(statistics.iter().filter_map(|one| line(one.tag, one.value)).collect())
}

fn cpu_count(shell: &mut Shell, given: &Given) -> Outcome {
    /// `VIR_DOMAIN_AFFECT_LIVE`, `..._CONFIG`, `VIR_DOMAIN_VCPU_MAXIMUM`.
    const ROWS: &[(&str, &str, u32)] = &[
        ("maximum", "config", 2 | 4),
        ("maximum", "live", 1 | 4),
        ("current", "config", 2),
        ("current", "live", 1),
    ];
    let domain = shell.domain(given)?;
    let mut text = String::new();
    for (what, place, flags) in ROWS {
        if *place == "live" && domain.id < 0 {
            continue;
        }
        let count = shell.connection.client.domain_get_vcpus_flags(domain.clone(), *flags)?;
        text.push_str(&format!("{what:<12} {place:<12} {count:>3}\n"));
    }
    Ok(text)
}

/// `VIR_DOMAIN_AFFECT_...`.
fn affected(given: &Given) -> u32 {
    given.bits(&[("live", 1), ("config", 2)])
}

/// A size in KiB, unless it has a unit.
fn kibibytes(given: &Given) -> Result<u64, Trouble> {
    let text = given.text("size").unwrap_or_default();
    let wrong = || {
        Trouble::new(format!(
            "Scaled numeric value '{text}' for <size> option is malformed or out of range"
        ))
    };
    if let Ok(number) = text.parse::<u64>() {
        return Ok(number);
    }
    bytes(text).map(|bytes| bytes >> 10).map_err(|_| wrong())
}

fn set_memory(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let size = kibibytes(given)?;
    match affected(given) {
        0 if !given.has("current") => shell.connection.client.domain_set_memory(domain, size)?,
        flags => shell.connection.client.domain_set_memory_flags(domain, size, flags)?,
    }
    Ok(String::new())
}

fn set_max_memory(shell: &mut Shell, given: &Given) -> Outcome {
    const MAXIMUM: u32 = 4;
    let domain = shell.domain(given)?;
    let size = kibibytes(given)?;
    let set = match affected(given) {
        0 if !given.has("current") => shell.connection.client.domain_set_max_memory(domain, size),
        flags => shell.connection.client.domain_set_memory_flags(domain, size, flags | MAXIMUM),
    };
    doing("Unable to change MaxMemorySize", set)?;
    Ok(String::new())
}

fn set_cpus(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let text = given.text("count").unwrap_or_default();
    let count: u32 = text.parse().map_err(|_| {
        Trouble::new(format!(
            "Numeric value '{text}' for <count> option is malformed or out of range"
        ))
    })?;
    if count == 0 {
        return Err(Trouble::new("Can't set 0 processors for a VM"));
    }
    let flags = affected(given) | given.bits(&[("maximum", 4)]);
    match flags {
        0 if !given.has("current") => shell.connection.client.domain_set_vcpus(domain, count)?,
        flags => shell.connection.client.domain_set_vcpus_flags(domain, count, flags)?,
    }
    Ok(String::new())
}

fn device(shell: &mut Shell, given: &Given, attaches: bool) -> Outcome {
    let domain = shell.domain(given)?;
    let file = given.text("file").unwrap_or_default();
    let text = read(file)?;
    let mut flags = affected(given);
    if given.has("persistent") {
        flags |= 2 | u32::from(domain.id >= 0);
    }
    let client = &mut shell.connection.client;
    if attaches {
        let done = client.domain_attach_device_flags(domain, text, flags);
        doing(format!("Failed to attach device from {file}"), done)?;
        return shell.extra("Device attached successfully\n".to_owned());
    }
    let done = client.domain_detach_device_flags(domain, text, flags);
    doing(format!("Failed to detach device from {file}"), done)?;
    shell.extra("Device detached successfully\n".to_owned())
}

/// A path of this process's is the daemon's too only from the root.
fn absolute(path: &str) -> String {
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.display().to_string())
}

fn save(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let (name, file) = (domain.name.clone(), given.text("file").unwrap_or_default());
    let saved = shell.connection.client.domain_save(domain, absolute(file));
    doing(format!("Failed to save domain '{name}' to {file}"), saved)?;
    shell.extra(format!("\nDomain '{name}' saved to {file}\n"))
}

fn restore(shell: &mut Shell, given: &Given) -> Outcome {
    let file = given.text("file").unwrap_or_default();
    let restored = shell.connection.client.domain_restore(absolute(file));
    doing(format!("Failed to restore domain from {file}"), restored)?;
    shell.extra(format!("Domain restored from {file}\n"))
}

fn managed_save(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let name = domain.name.clone();
    let flags = given.bits(&[("running", 2), ("paused", 4)]);
    let saved = shell.connection.client.domain_managed_save(domain, flags);
    doing(format!("Failed to save domain '{name}' state"), saved)?;
    shell.extra(format!("\nDomain '{name}' state saved by libvirt\n"))
}

fn monitor(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let flags = given.bits(&[("hmp", 1)]);
    let mut command = given.text("cmd").unwrap_or_default().to_owned();
    if flags == 0 && !command.trim_start().starts_with('{') {
        command = serde_json::json!({"execute": command}).to_string();
    }
    let said = shell.connection.client.qemu_domain_monitor_command(domain, command, flags)?;
    if given.has("pretty")
        && let Ok(value) = serde_json::from_str::<serde_json::Value>(&said)
    {
        return Ok(format!("{value:#}\n"));
    }
    Ok(format!("{said}\n"))
}
