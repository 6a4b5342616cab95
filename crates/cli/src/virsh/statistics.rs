//! Figures of domains.

use libvirt_compat::rpc::types::{TypedParameter, Value, number_parameter};
use libvirt_compat::xml;

use super::devices::find_interface;
use super::domain::document_of;
use super::jobs::scaled;
use super::syntax::Given;
use super::{Command, Outcome, Shell, Trouble, doing, table, unserved};

pub const COMMANDS: &[Command] = &[
    Command {
        name: "cpu-stats",
        syntax: "<domain> [--total] [<start>] [<count>]",
        summary: "show domain cpu statistics",
        run: cpu_time,
    },
    Command {
        name: "domblkerror",
        syntax: "<domain>",
        summary: "Show errors on block devices",
        run: |shell, given| {
            shell.domain(given)?;
            Err(unserved("virDomainGetDiskErrors"))
        },
    },
    Command {
        name: "domblkinfo",
        syntax: "<domain> [<device>] [--human] [--all]",
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
        name: "domblkstat",
        syntax: "<domain> [<device>] [--human]",
        summary: "get device block stats for a domain",
        run: block_statistics,
    },
    Command {
        name: "domcontrol",
        syntax: "<domain>",
        summary: "domain control interface state",
        run: control,
    },
    Command {
        name: "domif-getlink",
        syntax: "<domain> <interface> [--config]",
        summary: "get link state of a virtual interface",
        run: link,
    },
    Command {
        name: "domifaddr",
        syntax: "<domain> [<interface>] [--full] [--source <string>]",
        summary: "Get network interfaces' addresses for a running domain",
        run: addresses,
    },
    Command {
        name: "domiflist",
        syntax: "<domain> [--inactive]",
        summary: "list all domain virtual interfaces",
        run: interface_list,
    },
    Command {
        name: "domifstat",
        syntax: "<domain> <interface>",
        summary: "get network interface stats for a domain",
        run: interface_statistics,
    },
    Command {
        name: "dommemstat",
        syntax: "<domain>",
        summary: "get memory statistics for a domain",
        run: memory_statistics,
    },
    Command {
        name: "domstats",
        syntax: "[--state] [--cpu-total] [--balloon] [--vcpu] [--interface] [--block] [--perf] [--iothread] [--memory] [--dirtyrate] [--vm] [--list-active] [--list-inactive] [--list-persistent] [--list-transient] [--list-running] [--list-paused] [--list-shutoff] [--list-other] [--raw] [--enforce] [--backing] [--nowait] [<domain>...]",
        summary: "get statistics about one or multiple domains",
        run: all,
    },
    Command {
        name: "schedinfo",
        syntax: "<domain> [--weight <number>] [--cap <number>] [--current] [--config] [--live] [<set>...]",
        summary: "show/set scheduler parameters",
        run: scheduler,
    },
];

fn document(shell: &mut Shell, given: &Given) -> Result<xml::Element, Trouble> {
    let domain = shell.domain(given)?;
    document_of(shell, domain, given.bits(&[("inactive", 2)]))
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

fn block_info(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let show = |bytes: u64| match given.has("human") {
        true => {
            let (number, unit) = scaled(bytes);
            format!("{number:.3} {unit}")
        }
        false => bytes.to_string(),
    };
    if given.has("all") {
        let document = document_of(shell, domain.clone(), 0)?;
        let mut rows = Vec::new();
        for disk in document.child("devices").into_iter().flat_map(|devices| devices.all("disk")) {
            let target = disk.attribute_at("target", "dev").unwrap_or_default().to_owned();
            let Some(_) = disk.child("source") else {
                rows.push(vec![target, "-".to_owned(), "-".to_owned(), "-".to_owned()]);
                continue;
            };
            let client = &mut shell.connection.client;
            let sizes = client.domain_get_block_info(domain.clone(), target.clone(), 0)?;
            rows.push(vec![target, show(sizes.1), show(sizes.0), show(sizes.2)]);
        }
        let headings = &["Target", "Capacity", "Allocation", "Physical"];
        return Ok(table::draw(headings, &rows, shell.is_quiet));
    }
    let Some(device) = given.text("device") else {
        return Err(Trouble::new("command 'domblkinfo' requires <device> option"));
    };
    let sizes = shell.connection.client.domain_get_block_info(domain, device.to_owned(), 0)?;
    // On the wire: allocation, capacity, physical.
    let lines = [("Capacity:", sizes.1), ("Allocation:", sizes.0), ("Physical:", sizes.2)];
    Ok(lines.iter().map(|(name, bytes)| format!("{name:<15} {}\n", show(*bytes))).collect())
}

/// How virsh calls what libvirt counts, for programs and for people.
const BLOCK_FIGURES: &[(&str, &str, &str)] = &[
    ("rd_operations", "rd_req", "number of read operations:     "),
    ("rd_bytes", "rd_bytes", "number of bytes read:          "),
    ("wr_operations", "wr_req", "number of write operations:    "),
    ("wr_bytes", "wr_bytes", "number of bytes written:       "),
    ("errs", "errs", "error count:                   "),
    ("flush_operations", "flush_operations", "number of flush operations:    "),
    ("rd_total_times", "rd_total_times", "total duration of reads (ns):  "),
    ("wr_total_times", "wr_total_times", "total duration of writes (ns): "),
    ("flush_total_times", "flush_total_times", "total duration of flushes (ns):"),
];

fn block_statistics(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let device = given.text("device").unwrap_or_default().to_owned();
    let client = &mut shell.connection.client;
    let (_, count) = client.domain_block_stats_flags(domain.clone(), device.clone(), 0, 0)?;
    let (figures, _) = client.domain_block_stats_flags(domain, device.clone(), count, 0)?;
    let mut text = match given.has("human") {
        true => format!("Device: {device}\n"),
        false => String::new(),
    };
    for (name, short, long) in BLOCK_FIGURES {
        let Some(value) = number_parameter(&figures, name) else { continue };
        text.push_str(&match given.has("human") {
            true => format!(" {long} {value}\n"),
            false => format!("{device} {short} {value}\n"),
        });
    }
    Ok(text)
}

fn interface_statistics(shell: &mut Shell, given: &Given) -> Outcome {
    const NAMES: &[&str] = &[
        "rx_bytes",
        "rx_packets",
        "rx_errs",
        "rx_drop",
        "tx_bytes",
        "tx_packets",
        "tx_errs",
        "tx_drop",
    ];
    let domain = shell.domain(given)?;
    let device = given.text("interface").unwrap_or_default();
    let doing_it = format!("Failed to get interface stats {} {device}", domain.name);
    let client = &mut shell.connection.client;
    let figures = doing(doing_it, client.domain_interface_stats(domain, device.to_owned()))?;
    let (a, b, c, d, e, f, g, h) = figures;
    let lines = NAMES.iter().zip([a, b, c, d, e, f, g, h]).filter(|(_, value)| *value >= 0);
    Ok(lines.map(|(name, value)| format!("{device} {name} {value}\n")).collect())
}

fn link(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let document = document_of(shell, domain, given.bits(&[("config", 2)]))?;
    let called = given.text("interface").unwrap_or_default();
    let devices = document.child("devices").into_iter().flat_map(xml::Element::elements);
    let Some(card) = find_interface(devices.cloned().collect(), called) else {
        let kind = if called.contains(':') { "mac" } else { "dev" };
        return Err(Trouble::new(format!("Interface ({kind}: {called}) not found.")));
    };
    let state = card.attribute_at("link", "state").unwrap_or("up");
    Ok(format!("{called} {state}"))
}

fn addresses(shell: &mut Shell, given: &Given) -> Outcome {
    const SOURCES: &[&str] = &["lease", "agent", "arp"];
    let domain = shell.domain(given)?;
    let source = given.text("source").unwrap_or("lease");
    let number = SOURCES.iter().position(|known| *known == source);
    let number = number.and_then(|number| u32::try_from(number).ok());
    let number = number.ok_or_else(|| Trouble::new(format!("Unknown data source '{source}'")))?;
    let found = shell.connection.client.domain_interface_addresses(domain, number, 0);
    let found = doing("Failed to query for interfaces addresses", found)?;
    let heading = format!(
        " {:<10} {:<20} {:<8}     {}\n{}\n",
        "Name",
        "MAC address",
        "Protocol",
        "Address",
        "-".repeat(79)
    );
    let mut text = shell.extra(heading)?;
    let line = |name: &str, mac: &str, protocol: &str, address: &str| {
        format!(" {name:<10} {mac:<17}    {protocol:<12} {address}\n")
    };
    for one in found {
        if given.text("interface").is_some_and(|wanted| wanted != one.name) {
            continue;
        }
        let mac = one.hwaddr.as_deref().unwrap_or("N/A");
        if one.addrs.is_empty() {
            text.push_str(&line(&one.name, mac, "N/A", "N/A"));
        }
        for (place, address) in one.addrs.iter().enumerate() {
            let protocol = if address.kind == 0 { "ipv4" } else { "ipv6" };
            let number = format!("{}/{}", address.addr, address.prefix);
            text.push_str(&match place == 0 || given.has("full") {
                true => line(&one.name, mac, protocol, &number),
                false => line("-", "-", protocol, &number),
            });
        }
    }
    Ok(text)
}

fn control(shell: &mut Shell, given: &Given) -> Outcome {
    const STATES: &[&str] = &["ok", "background job", "occupied", "error"];
    let domain = shell.domain(given)?;
    let (state, _, milliseconds) = shell.connection.client.domain_get_control_info(domain, 0)?;
    let name = STATES.get(state as usize).unwrap_or(&"unknown");
    Ok(match state {
        1 | 2 => format!("{name} ({:.3}s)\n", milliseconds as f64 / 1000.0),
        _ => format!("{name}\n"),
    })
}

fn scheduler(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let (kind, count) = shell.connection.client.domain_get_scheduler_type(domain)?;
    println!("{:<15}: {kind}", "Scheduler");
    // There is nothing to set, and to virsh nothing to show is a failure.
    match count {
        0 => Err(Trouble(Vec::new())),
        _ => Err(unserved("virDomainGetSchedulerParametersFlags")),
    }
}

fn cpu_time(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let failed = format!("Failed to retrieve CPU statistics for domain '{}'", domain.name);
    let start: Option<i32> = given.number("start")?;
    let _count: Option<u32> = given.number("count")?;
    let client = &mut shell.connection.client;
    let mut text = String::new();
    if !given.has("total") {
        let one = client.domain_get_cpu_stats(domain.clone(), 0, start.unwrap_or(0), 1, 0);
        doing(failed.clone(), one)?;
    }
    let (_, count) =
        doing(failed.clone(), client.domain_get_cpu_stats(domain.clone(), 0, -1, 1, 0))?;
    let count = u32::try_from(count).unwrap_or(0);
    let figures = client.domain_get_cpu_stats(domain, count, -1, 1, 0);
    let (figures, _) = doing(failed, figures)?;
    text.push_str("Total:\n");
    for TypedParameter { field, value } in &figures {
        let Value::ULong(value) = value else { continue };
        text.push_str(&format!(
            "\t{field:<12} {:>9}.{:09} seconds\n",
            value / 1_000_000_000,
            value % 1_000_000_000
        ));
    }
    Ok(text)
}

/// A figure as text.
fn shown(value: &Value) -> String {
    match value {
        Value::Int(value) => value.to_string(),
        Value::UInt(value) => value.to_string(),
        Value::Long(value) => value.to_string(),
        Value::ULong(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        Value::Bool(value) => if *value { "yes" } else { "no" }.to_owned(),
        Value::Text(value) => value.clone(),
    }
}

fn all(shell: &mut Shell, given: &Given) -> Outcome {
    let kinds = given.bits(&[
        ("state", 1),
        ("cpu-total", 2),
        ("balloon", 4),
        ("vcpu", 8),
        ("interface", 16),
        ("block", 32),
        ("perf", 64),
        ("iothread", 128),
        ("memory", 256),
        ("dirtyrate", 512),
        ("vm", 1024),
    ]);
    let flags = given.bits(&[
        ("list-active", 1),
        ("list-inactive", 2),
        ("list-persistent", 4),
        ("list-transient", 8),
        ("list-running", 16),
        ("list-paused", 32),
        ("list-shutoff", 64),
        ("list-other", 128),
        ("nowait", 1 << 29),
        ("backing", 1 << 30),
        ("enforce", 1 << 31),
    ]);
    let mut domains = Vec::new();
    for word in given.rest() {
        domains.push(shell.domain_called(word)?);
    }
    let client = &mut shell.connection.client;
    let records = client.connect_get_all_domain_stats(domains, kinds, flags)?;
    let text = records.iter().map(|record| {
        let lines = record.params.iter();
        let lines = lines.map(|one| format!("  {}={}\n", one.field, shown(&one.value)));
        format!("Domain: '{}'\n{}", record.dom.name, lines.collect::<String>())
    });
    Ok(text.collect::<Vec<String>>().join("\n"))
}
