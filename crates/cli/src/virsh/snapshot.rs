//! Snapshots.

use libvirt_compat::rpc::types::Snapshot;
use libvirt_compat::xml::{Element, parse};

use super::moments::{Moment, date, described, tree};
use super::syntax::Given;
use super::{Command, Outcome, Shell, Trouble, read, table};

pub const COMMANDS: &[Command] = &[
    Command {
        name: "snapshot-create",
        syntax: "<domain> [<xmlfile>] [--redefine] [--current] [--no-metadata] [--halt] [--disk-only] [--reuse-external] [--quiesce] [--atomic] [--live] [--validate]",
        summary: "Create a snapshot from XML",
        run: create,
    },
    Command {
        name: "snapshot-create-as",
        syntax: "<domain> [<name>] [<description>] [--print-xml] [--no-metadata] [--halt] [--disk-only] [--reuse-external] [--quiesce] [--atomic] [--live] [--validate] [--memspec <string>] [<diskspec>...]",
        summary: "Create a snapshot from a set of args",
        run: create_as,
    },
    Command {
        name: "snapshot-current",
        syntax: "<domain> [--name]",
        summary: "Get or set the current snapshot",
        run: current,
    },
    Command {
        name: "snapshot-delete",
        syntax: "<domain> [<snapshotname>] [--current] [--children] [--children-only] [--metadata]",
        summary: "Delete a domain snapshot",
        run: delete,
    },
    Command {
        name: "snapshot-dumpxml",
        syntax: "<domain> <snapshotname>",
        summary: "Dump XML for a domain snapshot",
        run: |shell, given| {
            let snapshot = find(shell, given)?;
            Ok(shell.connection.client.domain_snapshot_get_xml_desc(snapshot, 0)?)
        },
    },
    Command {
        name: "snapshot-info",
        syntax: "<domain> [<snapshotname>] [--current]",
        summary: "snapshot information",
        run: info,
    },
    Command {
        name: "snapshot-list",
        syntax: "<domain> [--parent] [--roots] [--leaves] [--no-leaves] [--metadata] [--no-metadata] [--inactive] [--active] [--disk-only] [--internal] [--external] [--tree] [<from>] [--descendants] [--current] [--name] [--topological]",
        summary: "List snapshots for a domain",
        run: list,
    },
    Command {
        name: "snapshot-parent",
        syntax: "<domain> [<snapshotname>] [--current]",
        summary: "Get the name of the parent of a snapshot",
        run: parent,
    },
    Command {
        name: "snapshot-revert",
        syntax: "<domain> [<snapshotname>] [--current] [--running] [--paused] [--force]",
        summary: "Revert a domain to a snapshot",
        run: revert,
    },
];

fn find(shell: &mut Shell, given: &Given) -> Result<Snapshot, Trouble> {
    let domain = shell.domain(given)?;
    let client = &mut shell.connection.client;
    if given.has("current") {
        return Ok(client.domain_snapshot_current(domain, 0)?);
    }
    let name = given
        .text("snapshotname")
        .ok_or_else(|| Trouble::new("--snapshotname or --current is required"))?;
    Ok(client.domain_snapshot_lookup_by_name(domain, name.to_owned(), 0)?)
}

fn create_as(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let mut document = described("domainsnapshot", given);
    if let Some(text) = given.text("memspec") {
        document.push(memory(text)?);
    }
    if !given.rest().is_empty() {
        let mut disks = Element::new("disks");
        for text in given.rest() {
            disks.push(disk(text)?);
        }
        document.push(disks);
    }
    if given.has("print-xml") {
        return Ok(document.to_xml() + "\n");
    }
    let client = &mut shell.connection.client;
    let flags = flags_of_creation(given);
    let made = client.domain_snapshot_create_xml(domain, document.to_xml(), flags)?;
    Ok(format!("Domain snapshot {} created", made.name))
}

fn current(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let client = &mut shell.connection.client;
    if client.domain_has_current_snapshot(domain.clone(), 0)? == 0 {
        return Err(Trouble::new(format!("domain '{}' has no current snapshot", domain.name)));
    }
    let snapshot = client.domain_snapshot_current(domain, 0)?;
    Ok(match given.has("name") {
        true => format!("{}\n", snapshot.name),
        false => client.domain_snapshot_get_xml_desc(snapshot, 0)?,
    })
}

fn delete(shell: &mut Shell, given: &Given) -> Outcome {
    let snapshot = find(shell, given)?;
    let flags = given.bits(&[("children", 1), ("metadata", 2), ("children-only", 4)]);
    let name = snapshot.name.clone();
    shell.connection.client.domain_snapshot_delete(snapshot, flags)?;
    Ok(match given.has("children-only") {
        true => format!("Domain snapshot {name} children deleted\n"),
        false => format!("Domain snapshot {name} deleted\n"),
    })
}

fn revert(shell: &mut Shell, given: &Given) -> Outcome {
    let snapshot = find(shell, given)?;
    let flags = given.bits(&[("running", 1), ("paused", 2), ("force", 4)]);
    let name = snapshot.name.clone();
    shell.connection.client.domain_revert_to_snapshot(snapshot, flags)?;
    Ok(format!("Domain snapshot {name} reverted\n"))
}

fn moment(shell: &mut Shell, snapshot: &Snapshot) -> Result<Moment, Trouble> {
    let client = &mut shell.connection.client;
    let text = client.domain_snapshot_get_xml_desc(snapshot.clone(), 0)?;
    let document = parse(&text, "(domain_snapshot)")?;
    Ok(Moment {
        name: snapshot.name.clone(),
        parent: document.text_at("parent/name"),
        seconds: document.text_at("creationTime").and_then(|text| text.parse().ok()).unwrap_or(0),
        state: document.text_at("state").unwrap_or_default(),
    })
}

fn list(shell: &mut Shell, given: &Given) -> Outcome {
    given.exclusive(&[
        ("tree", "name"),
        ("parent", "roots"),
        ("parent", "tree"),
        ("roots", "tree"),
        ("roots", "from"),
        ("roots", "current"),
    ])?;
    let domain = shell.domain(given)?;
    let flags = given.bits(&[
        ("metadata", 2),
        ("leaves", 4),
        ("no-leaves", 8),
        ("no-metadata", 16),
        ("inactive", 32),
        ("active", 64),
        ("disk-only", 128),
        ("internal", 256),
        ("external", 512),
        ("topological", 1024),
    ]);
    let client = &mut shell.connection.client;
    let from = match given.text("from") {
        None if given.has("current") => Some(client.domain_snapshot_current(domain.clone(), 0)?),
        None => None,
        Some(from) => {
            Some(client.domain_snapshot_lookup_by_name(domain.clone(), from.to_owned(), 0)?)
        }
    };
    let mut snapshots = match from {
        None => {
            let flags = flags | given.bits(&[("roots", 1)]);
            client.domain_list_all_snapshots(domain, 1, flags)?.0
        }
        Some(from) => {
            let flags = flags | given.bits(&[("descendants", 1)]);
            let listed = client.domain_snapshot_list_all_children(from.clone(), 1, flags)?.0;
            let own = given.has("tree").then_some(from);
            own.into_iter().chain(listed).collect()
        }
    };
    if !given.has("topological") {
        snapshots.sort_by(|a, b| a.name.cmp(&b.name));
    }
    if given.has("name") {
        return Ok(snapshots.iter().map(|snapshot| snapshot.name.clone() + "\n").collect());
    }
    let moments = snapshots.iter().map(|one| moment(shell, one)).collect::<Result<Vec<_>, _>>()?;
    if given.has("tree") {
        return Ok(tree(&moments));
    }
    let row = |one: Moment| {
        let mut row = vec![one.name, date(one.seconds), one.state];
        if given.has("parent") {
            row.push(one.parent.unwrap_or_default());
        }
        row
    };
    let rows: Vec<Vec<String>> = moments.into_iter().map(row).collect();
    let headings = match given.has("parent") {
        true => &["Name", "Creation Time", "State", "Parent"][..],
        false => &["Name", "Creation Time", "State"],
    };
    Ok(table::draw(headings, &rows, shell.is_quiet))
}

fn parent(shell: &mut Shell, given: &Given) -> Outcome {
    let snapshot = find(shell, given)?;
    match moment(shell, &snapshot)?.parent {
        Some(name) => Ok(name),
        None => Err(Trouble::new(format!("snapshot '{}' has no parent", snapshot.name))),
    }
}

fn info(shell: &mut Shell, given: &Given) -> Outcome {
    /// `VIR_DOMAIN_SNAPSHOT_LIST_DESCENDANTS`.
    const DESCENDANTS: u32 = 1;
    given.exclusive(&[("snapshotname", "current")])?;
    let snapshot = find(shell, given)?;
    let client = &mut shell.connection.client;
    let text = client.domain_snapshot_get_xml_desc(snapshot.clone(), 0)?;
    let document = parse(&text, "(domain_snapshot)")?;
    let yes = |yes: i32| if yes == 0 { "no" } else { "yes" }.to_owned();
    let disks = document.child("disks").into_iter().flat_map(|disks| disks.all("disk"));
    let is_external = document.at("memory").is_some_and(|memory| memory.is("snapshot", "external"))
        || disks.into_iter().any(|disk| disk.is("snapshot", "external"));
    let client = &mut shell.connection.client;
    let (_, children) = client.domain_snapshot_list_all_children(snapshot.clone(), 0, 0)?;
    let (_, all) = client.domain_snapshot_list_all_children(snapshot.clone(), 0, DESCENDANTS)?;
    let lines = [
        ("Name:", snapshot.name.clone()),
        ("Domain:", snapshot.dom.name.clone()),
        ("Current:", yes(client.domain_snapshot_is_current(snapshot.clone(), 0)?)),
        ("State:", document.text_at("state").unwrap_or_default()),
        ("Location:", if is_external { "external" } else { "internal" }.to_owned()),
        ("Parent:", document.text_at("parent/name").unwrap_or_else(|| "-".to_owned())),
        ("Children:", children.to_string()),
        ("Descendants:", all.to_string()),
        ("Metadata:", yes(client.domain_snapshot_has_metadata(snapshot, 0)?)),
    ];
    Ok(lines.iter().map(|(name, value)| format!("{name:<15} {value}\n")).collect())
}

fn flags_of_creation(given: &Given) -> u32 {
    given.bits(&[
        ("redefine", 1),
        ("no-metadata", 4),
        ("halt", 8),
        ("disk-only", 16),
        ("reuse-external", 32),
        ("quiesce", 64),
        ("atomic", 128),
        ("live", 256),
        ("validate", 512),
    ])
}

fn create(shell: &mut Shell, given: &Given) -> Outcome {
    /// `VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT`, which goes with `--redefine`.
    const CURRENT: u32 = 2;
    let domain = shell.domain(given)?;
    let file = given.text("xmlfile");
    let xml = match file {
        Some(file) => read(file)?,
        None => "<domainsnapshot/>".to_owned(),
    };
    let flags = flags_of_creation(given) | if given.has("current") { CURRENT } else { 0 };
    let made = shell.connection.client.domain_snapshot_create_xml(domain, xml, flags)?;
    Ok(match file {
        Some(file) => format!("Domain snapshot {} created from '{file}'", made.name),
        None => format!("Domain snapshot {} created", made.name),
    })
}

/// `file=F,snapshot=S` of the memory.
fn memory(text: &str) -> Result<Element, Trouble> {
    let mut memory = Element::new("memory");
    let mut file = None;
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("snapshot", value)) => memory.set("snapshot", value),
            Some(("file", value)) => file = Some(value),
            None if file.is_none() => file = Some(part),
            _ => return Err(Trouble::new(format!("unable to parse memspec: {text}"))),
        }
    }
    if let Some(file) = file {
        memory.set("file", file);
    }
    Ok(memory)
}

/// `DISK,snapshot=S,driver=D,stype=T,file=F`.
fn disk(text: &str) -> Result<Element, Trouble> {
    let mut parts = text.split(',');
    let mut disk = Element::new("disk").with("name", parts.next().unwrap_or_default());
    let (mut driver, mut kind, mut file) = (None, None, None);
    for part in parts {
        match part.split_once('=') {
            Some(("snapshot", value)) => disk.set("snapshot", value),
            Some(("driver", value)) => driver = Some(value),
            Some(("stype", value)) => kind = Some(value),
            Some(("file", value)) => file = Some(value),
            _ => return Err(Trouble::new(format!("unable to parse diskspec: {text}"))),
        }
    }
    if let Some(kind) = kind {
        disk.set("type", kind);
    }
    if let Some(driver) = driver {
        disk.push(Element::new("driver").with("type", driver));
    }
    if let Some(file) = file {
        let name = if kind == Some("block") { "dev" } else { "file" };
        disk.push(Element::new("source").with(name, file));
    }
    Ok(disk)
}
