//! The host.

use super::syntax::Given;
use super::{Command, Outcome, Shell, doing};

/// Of libvirt, whose client this stands for.
pub const LIBRARY_VERSION: &str = "9.0.0";

pub const COMMANDS: &[Command] = &[
    Command {
        name: "capabilities",
        syntax: "",
        summary: "capabilities",
        run: |shell, _| Ok(shell.connection.client.connect_get_capabilities()? + "\n"),
    },
    Command {
        name: "domcapabilities",
        syntax: "",
        summary: "domain capabilities",
        run: |shell, _| {
            let client = &mut shell.connection.client;
            Ok(client.connect_get_domain_capabilities(None, None, None, None, 0)? + "\n")
        },
    },
    Command {
        name: "hostname",
        syntax: "",
        summary: "print the hypervisor hostname",
        run: |shell, _| {
            let name = shell.connection.client.connect_get_hostname();
            Ok(format!("{}\n", doing("failed to get hypervisor hostname", name)?))
        },
    },
    Command { name: "nodeinfo", syntax: "", summary: "node information", run: node_info },
    Command {
        name: "uri",
        syntax: "",
        summary: "print the hypervisor canonical URI",
        run: |shell, _| {
            if shell.uri.contains("?socket=") {
                return Ok(format!("{}\n", shell.uri)); // which is what leads there
            }
            Ok(format!("{}\n", shell.connection.client.connect_get_uri()?))
        },
    },
    Command { name: "version", syntax: "", summary: "show version", run: version },
];

fn node_info(shell: &mut Shell, _given: &Given) -> Outcome {
    let client = &mut shell.connection.client;
    let info = doing("failed to get node information", client.node_get_info())?;
    let (model, memory, cpus, mhz, nodes, sockets, cores, threads) = info;
    let lines = [
        ("CPU model:", String::from_utf8_lossy(&model.0).trim_end_matches('\0').to_owned()),
        ("CPU(s):", cpus.to_string()),
        ("CPU frequency:", format!("{mhz} MHz")),
        ("CPU socket(s):", sockets.to_string()),
        ("Core(s) per socket:", cores.to_string()),
        ("Thread(s) per core:", threads.to_string()),
        ("NUMA cell(s):", nodes.to_string()),
        ("Memory size:", format!("{memory} KiB")),
    ];
    Ok(lines.iter().map(|(name, value)| format!("{name:<20} {value}\n")).collect())
}

fn version(shell: &mut Shell, _given: &Given) -> Outcome {
    let client = &mut shell.connection.client;
    let dotted =
        |number: u64| format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000);
    let kind = doing("failed to get hypervisor type", client.connect_get_type())?;
    let hypervisor = client.connect_get_version()?;
    Ok(format!(
        "Compiled against library: libvirt {LIBRARY_VERSION}\nUsing library: libvirt \
         {LIBRARY_VERSION}\nUsing API: {kind} {LIBRARY_VERSION}\nRunning hypervisor: {kind} {}\n",
        dotted(hypervisor)
    ))
}
