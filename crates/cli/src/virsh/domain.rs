//! Domains.

use libvirt_compat::rpc::types::Domain;
use libvirt_compat::xml;

use super::syntax::Given;
use super::{Command, Outcome, Shell, Trouble, autostart, doing, read, table, unserved};
use crate::arguments::bytes;

pub const COMMANDS: &[Command] = &[
    Command {
        name: "autostart",
        syntax: "<domain> [--disable]",
        summary: "autostart a domain",
        run: autostart::<Domain>,
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
        name: "domid",
        syntax: "<domain>",
        summary: "convert a domain name or UUID to domain id",
        run: |shell, given| {
            let id = shell.domain(given)?.id;
            Ok(if id < 0 { "-\n".to_owned() } else { format!("{id}\n") })
        },
    },
    Command { name: "dominfo", syntax: "<domain>", summary: "domain information", run: info },
    Command {
        name: "domname",
        syntax: "<domain>",
        summary: "convert a domain id or UUID to domain name",
        run: |shell, given| Ok(format!("{}\n", shell.domain(given)?.name)),
    },
    Command {
        name: "domjobabort",
        syntax: "<domain> [--postcopy]",
        summary: "abort active domain job",
        run: |shell, given| {
            let domain = shell.domain(given)?;
            match given.bits(&[("postcopy", 1)]) {
                0 => shell.connection.client.domain_abort_job(domain)?,
                flags => shell.connection.client.domain_abort_job_flags(domain, flags)?,
            }
            Ok(String::new())
        },
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
        name: "dump",
        syntax: "<domain> <file> [--live] [--crash] [--bypass-cache] [--reset] [--memory-only] [<format>]",
        summary: "dump the core of a domain to a file for analysis",
        run: core,
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
        name: "managedsave-dumpxml",
        syntax: "<domain> [--security-info]",
        summary: "Domain information of managed save state file in XML",
        run: |shell, given| {
            let domain = shell.domain(given)?;
            let flags = given.bits(&[("security-info", 1)]);
            Ok(shell.connection.client.domain_managed_save_get_xml_desc(domain, flags)?)
        },
    },
    Command {
        name: "managedsave-remove",
        syntax: "<domain>",
        summary: "Remove managed save of a domain",
        run: managed_save_remove,
    },
    Command {
        name: "migrate",
        syntax: "<domain> <desturi> [--live] [--offline] [--p2p] [--direct] [--tunnelled] [--persistent] [--undefinesource] [--suspend] [--copy-storage-all] [--copy-storage-inc] [--change-protection] [--unsafe] [--verbose] [--compressed] [--auto-converge] [--abort-on-error] [--postcopy] [<migrateuri>] [--graphicsuri <string>] [--listen-address <string>] [<dname>] [--timeout <number>] [--timeout-suspend] [--xml <string>] [--persistent-xml <string>] [--migrate-disks <string>] [--tls] [--parallel] [--bandwidth <number>]",
        summary: "migrate domain to another host",
        run: migrate,
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

/// A domain's document.
pub fn document_of(shell: &mut Shell, domain: Domain, flags: u32) -> Result<xml::Element, Trouble> {
    let text = shell.connection.client.domain_get_xml_desc(domain, flags)?;
    Ok(xml::parse(&text, "(domain)")?)
}

/// `VIR_DOMAIN_AFFECT_...`.
pub fn affected(given: &Given) -> u32 {
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

fn managed_save_remove(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let name = domain.name.clone();
    let client = &mut shell.connection.client;
    if client.domain_has_managed_save_image(domain.clone(), 0)? == 0 {
        return shell.extra(format!("Domain '{name}' has no manage save image; removal skipped"));
    }
    let removed = client.domain_managed_save_remove(domain, 0);
    doing(format!("Failed to remove managed save image for domain '{name}'"), removed)?;
    shell.extra(format!("Removed managedsave image for domain '{name}'"))
}

/// Machines stay on their host: the daemon serves no migration, and says so here before any other
/// host is asked.
fn migrate(shell: &mut Shell, given: &Given) -> Outcome {
    shell.domain(given)?;
    Err(unserved("virDomainMigrate3"))
}

fn core(shell: &mut Shell, given: &Given) -> Outcome {
    const FORMATS: &[&str] = &["elf", "kdump-zlib", "kdump-lzo", "kdump-snappy", "win-dmp"];
    let domain = shell.domain(given)?;
    let (name, file) = (domain.name.clone(), given.text("file").unwrap_or_default());
    let flags = given.bits(&[
        ("crash", 1),
        ("live", 2),
        ("bypass-cache", 4),
        ("reset", 8),
        ("memory-only", 16),
    ]);
    let format = match given.text("format") {
        None => 0,
        Some(_) if !given.has("memory-only") => {
            return Err(Trouble::new("--format only works with --memory-only"));
        }
        Some(word) => FORMATS
            .iter()
            .position(|known| *known == word)
            .and_then(|place| u32::try_from(place).ok())
            .ok_or_else(|| {
                let text = format!(
                    "format '{word}' is not supported, expecting 'kdump-zlib', 'kdump-lzo', \
                     'kdump-snappy', 'win-dmp' or 'elf'"
                );
                Trouble::new(text)
            })?,
    };
    let doing_it = format!("Failed to core dump domain '{name}' to {file}");
    for (one, other) in [("crash", "live"), ("crash", "reset"), ("live", "reset")] {
        if given.has(one) && given.has(other) {
            // These are the words of the library, which looks before it asks.
            let (one, other) = (one.to_uppercase(), other.to_uppercase());
            let text =
                format!("Flags 'VIR_DUMP_{one}' and 'VIR_DUMP_{other}' are mutually exclusive");
            return Err(Trouble(vec![doing_it, text]));
        }
    }
    let client = &mut shell.connection.client;
    let dumped = match format {
        0 => client.domain_core_dump(domain, absolute(file), flags),
        format => client.domain_core_dump_with_format(domain, absolute(file), format, flags),
    };
    doing(doing_it, dumped)?;
    shell.extra(format!("\nDomain '{name}' dumped to {file}\n"))
}
