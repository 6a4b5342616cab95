//! A domain's description, title and what other programs note in it.

use super::domain::affected;
use super::syntax::Given;
use super::{Command, Outcome, Shell, Trouble};

pub const COMMANDS: &[Command] = &[
    Command {
        name: "desc",
        syntax: "<domain> [--live] [--config] [--current] [--title] [<new-desc>...]",
        summary: "show or set domain's description or title",
        run: describe,
    },
    Command {
        name: "metadata",
        syntax: "<domain> <uri> [--live] [--config] [--current] [<key>] [<set>] [--remove]",
        summary: "show or set domain's custom XML metadata",
        run: metadata,
    },
];

/// `VIR_DOMAIN_METADATA_...`.
const DESCRIPTION: i32 = 0;
const TITLE: i32 = 1;
const ELEMENT: i32 = 2;

fn describe(shell: &mut Shell, given: &Given) -> Outcome {
    given.exclusive(&[("current", "live"), ("current", "config")])?;
    let domain = shell.domain(given)?;
    let name = domain.name.clone();
    let (kind, word) = match given.has("title") {
        true => (TITLE, "title"),
        false => (DESCRIPTION, "description"),
    };
    let flags = affected(given);
    let client = &mut shell.connection.client;
    if given.rest().is_empty() {
        return match client.domain_get_metadata(domain, kind, None, flags) {
            Ok(text) => Ok(format!("{text}\n").trim_end().to_owned()),
            Err(error) if error.code == libvirt_compat::Code::NoDomainMetadata => {
                shell.extra(format!("No {word} for domain: {name}"))
            }
            Err(error) => Err(error.into()),
        };
    }
    let text = Some(given.rest().join(" ")).filter(|text| !text.is_empty());
    let set = client.domain_set_metadata(domain, kind, text, None, None, flags);
    super::doing(format!("Failed to set new domain {word}"), set)?;
    shell.extra(format!("Domain {word} updated successfully"))
}

fn metadata(shell: &mut Shell, given: &Given) -> Outcome {
    given.exclusive(&[("remove", "set"), ("current", "live"), ("current", "config")])?;
    let new = given.text("set").map(str::to_owned);
    let key = given.text("key").map(str::to_owned);
    if new.is_some() && key.is_none() {
        return Err(Trouble::new("namespace key is required when modifying metadata"));
    }
    let domain = shell.domain(given)?;
    let uri = given.text("uri").map(str::to_owned);
    let flags = affected(given);
    let client = &mut shell.connection.client;
    if new.is_none() && !given.has("remove") {
        let text = client.domain_get_metadata(domain, ELEMENT, uri, flags)?;
        return Ok(format!("{text}\n"));
    }
    let done = if new.is_some() { "modified" } else { "removed" };
    client.domain_set_metadata(domain, ELEMENT, new, key, uri, flags)?;
    Ok(format!("Metadata {done}\n"))
}
