//! Networks.

use std::fs;

use libvirt_compat::Uuid;
use libvirt_compat::rpc::types::Network;

use super::syntax::Given;
use super::{Client, Command, Outcome, Shell, Thing, Trouble, autostart, doing, table};

pub const COMMANDS: &[Command] = &[
    Command {
        name: "net-autostart",
        syntax: "<network> [--disable]",
        summary: "autostart a network",
        run: autostart::<Network>,
    },
    Command {
        name: "net-create",
        syntax: "<file>",
        summary: "create a network from an XML file",
        run: create,
    },
    Command {
        name: "net-define",
        syntax: "<file>",
        summary: "define an inactive persistent virtual network or modify an existing persistent one from an XML file",
        run: define,
    },
    Command {
        name: "net-destroy",
        syntax: "<network>",
        summary: "destroy (stop) a network",
        run: |shell, given| {
            shell.act::<Network>(given, "destroy", "destroyed", |client, network| {
                client.network_destroy(network)
            })
        },
    },
    Command {
        name: "net-dhcp-leases",
        syntax: "<network> [<mac>]",
        summary: "print lease info for a given network",
        run: leases,
    },
    Command {
        name: "net-dumpxml",
        syntax: "<network> [--inactive]",
        summary: "network information in XML",
        run: dump,
    },
    Command { name: "net-info", syntax: "<network>", summary: "network information", run: info },
    Command {
        name: "net-list",
        syntax: "[--inactive] [--all] [--name]",
        summary: "list networks",
        run: list,
    },
    Command {
        name: "net-start",
        syntax: "<network>",
        summary: "start a (previously defined) inactive network",
        run: |shell, given| {
            shell.act::<Network>(given, "start", "started", |client, network| {
                client.network_create(network)
            })
        },
    },
    Command {
        name: "net-undefine",
        syntax: "<network>",
        summary: "undefine a persistent network",
        run: |shell, given| {
            shell.act::<Network>(given, "undefine", "has been undefined", |client, network| {
                client.network_undefine(network)
            })
        },
    },
    Command {
        name: "net-uuid",
        syntax: "<network>",
        summary: "convert a network name to network UUID",
        run: |shell, given| Ok(format!("{}\n", find(shell, given)?.uuid)),
    },
];

impl Thing for Network {
    const KIND: &'static str = "Network";
    const QUOTE: &'static str = "";
    const FAILED: &'static str = "failed";

    fn find(shell: &mut Shell, given: &Given) -> Result<Self, Trouble> {
        find(shell, given)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn set_autostart(self, client: &mut Client, on: i32) -> libvirt_compat::Result<()> {
        client.network_set_autostart(self, on)
    }
}

fn find(shell: &mut Shell, given: &Given) -> Result<Network, Trouble> {
    let word = given.text("network").unwrap_or_default().to_owned();
    let client = &mut shell.connection.client;
    if let Some(uuid) = Uuid::parse(&word)
        && let Ok(network) = client.network_lookup_by_uuid(uuid)
    {
        return Ok(network);
    }
    let found = client.network_lookup_by_name(word.clone());
    found.map_err(|error| {
        Trouble(vec![format!("failed to get network '{word}'"), error.to_string()])
    })
}

fn read(given: &Given) -> Result<(String, String), Trouble> {
    let file = given.text("file").unwrap_or_default();
    let text = fs::read_to_string(file).map_err(|error| {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default().to_owned();
        Trouble::new(format!("Failed to open file '{file}': {text}"))
    })?;
    Ok((file.to_owned(), text))
}

fn define(shell: &mut Shell, given: &Given) -> Outcome {
    let (file, text) = read(given)?;
    let defined = shell.connection.client.network_define_xml(text);
    let network = doing(format!("Failed to define network from {file}"), defined)?;
    shell.extra(format!("Network {} defined from {file}\n", network.name))
}

fn create(shell: &mut Shell, given: &Given) -> Outcome {
    let (file, text) = read(given)?;
    let created = shell.connection.client.network_create_xml(text);
    let network = doing(format!("Failed to create network from {file}"), created)?;
    shell.extra(format!("Network {} created from {file}\n", network.name))
}

fn dump(shell: &mut Shell, given: &Given) -> Outcome {
    let network = find(shell, given)?;
    let flags = given.bits(&[("inactive", 1)]);
    Ok(shell.connection.client.network_get_xml_desc(network, flags)?)
}

fn info(shell: &mut Shell, given: &Given) -> Outcome {
    let network = find(shell, given)?;
    let client = &mut shell.connection.client;
    let yes = |yes: i32| if yes != 0 { "yes" } else { "no" }.to_owned();
    let mut lines = vec![
        ("Name:", network.name.clone()),
        ("UUID:", network.uuid.to_string()),
        ("Active:", yes(client.network_is_active(network.clone())?)),
        ("Persistent:", yes(client.network_is_persistent(network.clone())?)),
        ("Autostart:", yes(client.network_get_autostart(network.clone())?)),
    ];
    if let Ok(bridge) = client.network_get_bridge_name(network) {
        lines.push(("Bridge:", bridge));
    }
    Ok(lines.iter().map(|(name, value)| format!("{name:<15} {value}\n")).collect())
}

fn list(shell: &mut Shell, given: &Given) -> Outcome {
    let flags = match (given.has("inactive"), given.has("all")) {
        (_, true) => 3,
        (true, false) => 1,
        (false, false) => 2,
    };
    let client = &mut shell.connection.client;
    let (mut networks, _) = client.connect_list_all_networks(1, flags)?;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    if given.has("name") {
        return Ok(networks.iter().map(|network| network.name.clone() + "\n").collect());
    }
    let mut rows = Vec::new();
    let yes = |yes: i32| if yes != 0 { "yes" } else { "no" }.to_owned();
    for network in networks {
        let is_active = client.network_is_active(network.clone())? != 0;
        rows.push(vec![
            network.name.clone(),
            if is_active { "active" } else { "inactive" }.to_owned(),
            yes(client.network_get_autostart(network.clone())?),
            yes(client.network_is_persistent(network)?),
        ]);
    }
    Ok(table::draw(&["Name", "State", "Autostart", "Persistent"], &rows, shell.is_quiet))
}

fn leases(shell: &mut Shell, given: &Given) -> Outcome {
    let network = find(shell, given)?;
    let name = network.name.clone();
    let mac = given.text("mac").map(str::to_owned);
    let leases = shell.connection.client.network_get_dhcp_leases(network, mac, 1, 0);
    let (leases, _) = doing(format!("Failed to get leases info for {name}"), leases)?;
    let rows: Vec<Vec<String>> = leases
        .into_iter()
        .map(|lease| {
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let kind = if lease.kind == 0 { "ipv4" } else { "ipv6" };
            vec![
                lease.expirytime.to_string(),
                or_dash(lease.mac),
                kind.to_owned(),
                format!("{}/{}", lease.ipaddr, lease.prefix),
                or_dash(lease.hostname),
                or_dash(lease.clientid),
            ]
        })
        .collect();
    let headings =
        &["Expiry Time", "MAC address", "Protocol", "IP address", "Hostname", "Client ID or DUID"];
    Ok(table::draw(headings, &rows, shell.is_quiet))
}
