//! Checkpoints, and the backups that begin at them.

use libvirt_compat::rpc::types::Checkpoint;
use libvirt_compat::xml::{Element, parse};

use super::moments::{Moment, date, described, tree};
use super::syntax::Given;
use super::{Command, Outcome, Shell, Trouble, read, table};

pub const COMMANDS: &[Command] = &[
    Command {
        name: "backup-begin",
        syntax: "<domain> [<backupxml>] [<checkpointxml>] [--reuse-external]",
        summary: "Start a disk backup of a live domain",
        run: backup,
    },
    Command {
        name: "backup-dumpxml",
        syntax: "<domain>",
        summary: "Dump XML for an ongoing domain block backup job",
        run: |shell, given| {
            let domain = shell.domain(given)?;
            Ok(shell.connection.client.domain_backup_get_xml_desc(domain, 0)?)
        },
    },
    Command {
        name: "checkpoint-create",
        syntax: "<domain> [<xmlfile>] [--redefine] [--redefine-validate] [--quiesce]",
        summary: "Create a checkpoint from XML",
        run: create,
    },
    Command {
        name: "checkpoint-create-as",
        syntax: "<domain> [<name>] [<description>] [--print-xml] [--quiesce] [<diskspec>...]",
        summary: "Create a checkpoint from a set of args",
        run: create_as,
    },
    Command {
        name: "checkpoint-delete",
        syntax: "<domain> [<checkpointname>] [--children] [--children-only] [--metadata]",
        summary: "Delete a domain checkpoint",
        run: delete,
    },
    Command {
        name: "checkpoint-dumpxml",
        syntax: "<domain> [<checkpointname>] [--security-info] [--no-domain] [--size]",
        summary: "Dump XML for a domain checkpoint",
        run: |shell, given| {
            let checkpoint = find(shell, given)?;
            let flags = given.bits(&[("security-info", 1), ("no-domain", 2), ("size", 4)]);
            Ok(shell.connection.client.domain_checkpoint_get_xml_desc(checkpoint, flags)?)
        },
    },
    Command {
        name: "checkpoint-info",
        syntax: "<domain> [<checkpointname>]",
        summary: "checkpoint information",
        run: info,
    },
    Command {
        name: "checkpoint-list",
        syntax: "<domain> [--parent] [--roots] [--leaves] [--no-leaves] [--tree] [<from>] [--descendants] [--name] [--topological]",
        summary: "List checkpoints for a domain",
        run: list,
    },
    Command {
        name: "checkpoint-parent",
        syntax: "<domain> [<checkpointname>]",
        summary: "Get the name of the parent of a checkpoint",
        run: parent,
    },
];

fn find(shell: &mut Shell, given: &Given) -> Result<Checkpoint, Trouble> {
    let domain = shell.domain(given)?;
    let name =
        given.text("checkpointname").ok_or_else(|| Trouble::new("--checkpointname is required"))?;
    let client = &mut shell.connection.client;
    Ok(client.domain_checkpoint_lookup_by_name(domain, name.to_owned(), 0)?)
}

fn moment(shell: &mut Shell, checkpoint: &Checkpoint) -> Result<Moment, Trouble> {
    /// `VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN`.
    const NO_DOMAIN: u32 = 2;
    let client = &mut shell.connection.client;
    let text = client.domain_checkpoint_get_xml_desc(checkpoint.clone(), NO_DOMAIN)?;
    let document = parse(&text, "(domain_checkpoint)")?;
    Ok(Moment {
        name: checkpoint.name.clone(),
        parent: document.text_at("parent/name"),
        seconds: document.text_at("creationTime").and_then(|text| text.parse().ok()).unwrap_or(0),
        state: String::new(),
    })
}

fn backup(shell: &mut Shell, given: &Given) -> Outcome {
    let xml = match given.text("backupxml") {
        Some(file) => read(file)?,
        None => "<domainbackup/>".to_owned(),
    };
    let checkpoint = given.text("checkpointxml").map(read).transpose()?;
    let domain = shell.domain(given)?;
    let flags = given.bits(&[("reuse-external", 1)]);
    shell.connection.client.domain_backup_begin(domain, xml, checkpoint, flags)?;
    Ok("Backup started\n".to_owned())
}

fn flags_of_creation(given: &Given) -> u32 {
    given.bits(&[("redefine", 1), ("quiesce", 2), ("redefine-validate", 4 | 1)])
}

fn create(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let file = given.text("xmlfile");
    let xml = match file {
        Some(file) => read(file)?,
        None => "<domaincheckpoint/>".to_owned(),
    };
    let client = &mut shell.connection.client;
    let made = client.domain_checkpoint_create_xml(domain, xml, flags_of_creation(given))?;
    Ok(match file {
        Some(file) => format!("Domain checkpoint {} created from '{file}'", made.name),
        None => format!("Domain checkpoint {} created", made.name),
    })
}

fn create_as(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let mut document = described("domaincheckpoint", given);
    let mut disks = Element::new("disks");
    for word in given.rest() {
        let mut parts = word.split(',');
        let mut disk = Element::new("disk").with("name", parts.next().unwrap_or_default());
        for part in parts {
            match part.split_once('=') {
                Some((name @ ("checkpoint" | "bitmap"), value)) => disk.set(name, value),
                _ => return Err(Trouble::new(format!("unable to parse diskspec: {word}"))),
            }
        }
        disks.push(disk);
    }
    if !given.rest().is_empty() {
        document.push(disks);
    }
    if given.has("print-xml") {
        return Ok(document.to_xml() + "\n");
    }
    let client = &mut shell.connection.client;
    let flags = flags_of_creation(given);
    let made = client.domain_checkpoint_create_xml(domain, document.to_xml(), flags)?;
    Ok(format!("Domain checkpoint {} created", made.name))
}

fn delete(shell: &mut Shell, given: &Given) -> Outcome {
    given.exclusive(&[("children", "children-only")])?;
    let checkpoint = find(shell, given)?;
    let flags = given.bits(&[("children", 1), ("metadata", 2), ("children-only", 4)]);
    let name = checkpoint.name.clone();
    shell.connection.client.domain_checkpoint_delete(checkpoint, flags)?;
    Ok(match given.has("children-only") {
        true => format!("Domain checkpoint {name} children deleted\n"),
        false => format!("Domain checkpoint {name} deleted\n"),
    })
}

fn info(shell: &mut Shell, given: &Given) -> Outcome {
    /// `VIR_DOMAIN_CHECKPOINT_LIST_DESCENDANTS`.
    const DESCENDANTS: u32 = 1;
    let checkpoint = find(shell, given)?;
    let moment = moment(shell, &checkpoint)?;
    let client = &mut shell.connection.client;
    let (_, children) = client.domain_checkpoint_list_all_children(checkpoint.clone(), 0, 0)?;
    let (_, all) =
        client.domain_checkpoint_list_all_children(checkpoint.clone(), 0, DESCENDANTS)?;
    let lines = [
        ("Name:", moment.name),
        ("Domain:", checkpoint.dom.name),
        ("Parent:", moment.parent.unwrap_or_else(|| "-".to_owned())),
        ("Children:", children.to_string()),
        ("Descendants:", all.to_string()),
    ];
    Ok(lines.iter().map(|(name, value)| format!("{name:<15} {value}\n")).collect())
}

fn parent(shell: &mut Shell, given: &Given) -> Outcome {
    let checkpoint = find(shell, given)?;
    match moment(shell, &checkpoint)?.parent {
        Some(name) => Ok(name),
        None => Err(Trouble::new(format!("checkpoint '{}' has no parent", checkpoint.name))),
    }
}

fn list(shell: &mut Shell, given: &Given) -> Outcome {
    given.exclusive(&[
        ("tree", "name"),
        ("parent", "roots"),
        ("parent", "tree"),
        ("roots", "tree"),
        ("roots", "from"),
    ])?;
    let domain = shell.domain(given)?;
    let flags =
        given.bits(&[("descendants", 1), ("topological", 2), ("leaves", 4), ("no-leaves", 8)]);
    let client = &mut shell.connection.client;
    let mut found = match given.text("from") {
        None => {
            let flags = (flags & !1) | given.bits(&[("roots", 1)]);
            client.domain_list_all_checkpoints(domain, 1, flags)?.0
        }
        Some(from) => {
            let from = client.domain_checkpoint_lookup_by_name(domain, from.to_owned(), 0)?;
            let listed = client.domain_checkpoint_list_all_children(from.clone(), 1, flags)?.0;
            let own = given.has("tree").then_some(from);
            own.into_iter().chain(listed).collect()
        }
    };
    if !given.has("topological") {
        found.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let moments = found.iter().map(|one| moment(shell, one)).collect::<Result<Vec<_>, _>>()?;
    if given.has("tree") {
        return Ok(tree(&moments));
    }
    if given.has("name") {
        return Ok(moments.into_iter().map(|one| one.name + "\n").collect());
    }
    let row = |one: Moment| {
        let mut row = vec![one.name, date(one.seconds)];
        if given.has("parent") {
            row.push(one.parent.unwrap_or_default());
        }
        row
    };
    let rows: Vec<Vec<String>> = moments.into_iter().map(row).collect();
    let headings = match given.has("parent") {
        true => &["Name", "Creation Time", "Parent"][..],
        false => &["Name", "Creation Time"],
    };
    Ok(table::draw(headings, &rows, shell.is_quiet))
}
