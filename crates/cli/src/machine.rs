//! Machines: domains of the daemon with a note of ours in their metadata.

use std::path::PathBuf;

use libvirt_compat::rpc::types::Domain;
use libvirt_compat::xml::{Element, parse};

use crate::daemon::Connection;
use crate::failure::Failure;
use crate::nearest::nearest;

/// Our note's name space.
const NAMESPACE: &str = "urn:hostel:machine:1";
/// Give the definition, not what runs.
const XML_INACTIVE: u32 = 2;
/// Have the daemon say too what clients otherwise must not see.
const XML_SECURE: u32 = 1;

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Running,
    Suspended,
    Stopped,
    /// Deleted, and not forgotten yet.
    Deleted,
}

impl State {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Suspended => "Suspended",
            Self::Stopped => "Stopped",
            Self::Deleted => "Deleted",
        }
    }
}

/// A machine.
#[derive(Clone, Debug)]
pub struct Machine {
    pub domain: Domain,
    pub state: State,
    pub definition: Element,
}

/// What we note of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// What it was made from.
    pub image: String,
    /// The image's version.
    pub release: String,
    /// Its own disk, which goes with it.
    pub disk: Option<PathBuf>,
    /// It is deleted.
    pub deleted: bool,
    /// Ports of the host that lead to it.
    pub ports: Vec<(u16, u16)>,
    /// Whatever listens in it is reached from the host.
    pub forwards_all: bool,
    /// The disk from which it learns who it is.
    pub seed: Option<PathBuf>,
    /// Who works in it; root if nobody is named.
    pub user: Option<String>,
    /// Folders of the host in it.
    pub shares: Vec<Share>,
}

/// A folder of the host in a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The folder of the host.
    pub source: PathBuf,
    /// Where it is in the machine.
    pub target: String,
    /// The machine cannot change it.
    pub read_only: bool,
}

impl Note {
    /// As it stands in a definition.
    pub fn to_element(&self) -> Element {
        let mut note = Element::new("hostel:machine")
            .with("xmlns:hostel", NAMESPACE)
            .with("image", &self.image)
            .with("release", &self.release);
        if let Some(disk) = &self.disk {
            note.set("disk", disk.display());
        }
        if let Some(seed) = &self.seed {
            note.set("seed", seed.display());
        }
        if let Some(user) = &self.user {
            note.set("user", user);
        }
        if self.deleted {
            note.set("deleted", "yes");
        }
        if self.forwards_all {
            note.set("ports", "auto");
        }
        for share in &self.shares {
            let mut element = Element::new("hostel:share")
                .with("source", share.source.display())
                .with("target", &share.target);
            if share.read_only {
                element.set("readonly", "yes");
            }
            note.push(element);
        }
        for (host, guest) in &self.ports {
            note.push(Element::new("hostel:port").with("host", host).with("guest", guest));
        }
        note
    }

    fn from_element(note: &Element) -> Self {
        let text = |name: &str| note.attribute(name).unwrap_or_default().to_owned();
        let port = |element: &Element| {
            let number = |name: &str| element.attribute(name)?.parse().ok();
            Some((number("host")?, number("guest")?))
        };
        let share = |element: &Element| {
            Some(Share {
                source: element.attribute("source")?.into(),
                target: element.attribute("target")?.to_owned(),
                read_only: element.is("readonly", "yes"),
            })
        };
        Self {
            image: text("image"),
            release: text("release"),
            disk: note.attribute("disk").map(PathBuf::from),
            deleted: note.is("deleted", "yes"),
            ports: note.elements().filter_map(port).collect(),
            forwards_all: note.is("ports", "auto"),
            seed: note.attribute("seed").map(PathBuf::from),
            user: note.attribute("user").map(str::to_owned),
            shares: note.elements().filter_map(share).collect(),
        }
    }
}

impl Machine {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.domain.name
    }

    /// Our note; none for a machine that somebody else has defined.
    pub fn note(&self) -> Option<Note> {
        let metadata = self.definition.child("metadata")?;
        metadata.elements().find(|note| note.name.ends_with(":machine")).map(Note::from_element)
    }

    /// Where what it prints is kept.
    pub fn console_log(&self) -> Option<PathBuf> {
        let serial = self.definition.child("devices")?.child("serial")?;
        let log = serial.attribute_at("log", "file");
        let file = || serial.is("type", "file").then(|| serial.attribute_at("source", "path"));
        log.or_else(|| file().flatten()).map(PathBuf::from)
    }

    /// Where its agent is reached.
    pub fn socket(&self, connection: &Connection) -> PathBuf {
        let uuid = self.domain.uuid.to_string();
        connection.places.runtime.join("domains").join(uuid).join("vsock.sock")
    }
}

impl Connection {
    /// All machines, by name.
    pub fn machines(&mut self) -> Result<Vec<Machine>, Failure> {
        let (domains, _) = self.client.connect_list_all_domains(1, 0)?;
        let mut machines = Vec::with_capacity(domains.len());
        for domain in domains {
            // One that somebody else takes away meanwhile is no error.
            if let Ok(machine) = self.machine_of(domain) {
                machines.push(machine);
            }
        }
        machines.sort_by(|a, b| a.domain.name.cmp(&b.domain.name));
        Ok(machines)
    }

    fn machine_of(&mut self, domain: Domain) -> Result<Machine, Failure> {
        let text = self.client.domain_get_xml_desc(domain.clone(), XML_INACTIVE | XML_SECURE)?;
        let definition = parse(&text, "(domain_definition)").map_err(|error| {
            Failure::new(format!("The definition of '{}' is unreadable", domain.name))
                .because(&error)
        })?;
        let (state, _) = self.client.domain_get_state(domain.clone(), 0)?;
        let mut machine = Machine { domain, state: State::Stopped, definition };
        machine.state = match state {
            // Running, blocked, shutting down.
            1 | 2 | 4 => State::Running,
            3 | 7 => State::Suspended,
            _ if machine.note().is_some_and(|note| note.deleted) => State::Deleted,
            _ => State::Stopped,
        };
        Ok(machine)
    }

    /// A machine by its name. One that is deleted is there only for those who bring it back.
    pub fn machine(&mut self, name: &str) -> Result<Machine, Failure> {
        let machine = self.any_machine(name)?;
        if machine.state == State::Deleted {
            let hint = format!("'hostel recover {name}' brings it back");
            return Err(Failure::new(format!("The machine '{name}' is deleted")).hint(hint));
        }
        Ok(machine)
    }

    /// A machine by its name, deleted or not.
    pub fn any_machine(&mut self, name: &str) -> Result<Machine, Failure> {
        if let Ok(domain) = self.client.domain_lookup_by_name(name.to_owned()) {
            return self.machine_of(domain);
        }
        let failure = Failure::new(format!("There is no machine '{name}'"));
        let known = self.machines()?;
        Err(match nearest(name, known.iter().map(Machine::name)) {
            Some(other) => failure.hint(format!("did you mean '{other}'?")),
            None => failure.hint("'hostel list' shows those that there are"),
        })
    }

    /// Changes a machine's note.
    pub fn change_note(
        &mut self,
        machine: &Machine,
        change: impl FnOnce(&mut Note),
    ) -> Result<(), Failure> {
        let mut note = machine.note().unwrap_or_default();
        change(&mut note);
        let mut definition = machine.definition.clone();
        let metadata = definition.ensure("metadata");
        metadata.remove(|element| element.name.ends_with(":machine"));
        metadata.push(note.to_element());
        self.client.domain_define_xml(definition.to_xml())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_survive_a_definition() {
        let note = Note {
            image: "spark".into(),
            release: "6.1".into(),
            disk: Some("/x/y.qcow2".into()),
            deleted: true,
            ports: vec![(8080, 80)],
            forwards_all: true,
            seed: Some("/x/y.iso".into()),
            user: Some("ann".into()),
            shares: vec![Share {
                source: "/home/ann".into(),
                target: "/mnt".into(),
                read_only: true,
            }],
        };
        let text = note.to_element().to_xml();
        assert_eq!(Note::from_element(&parse(&text, "(note)").unwrap()), note);
    }

    #[test]
    fn names_that_are_nearly_right_are_found() {
        let known = ["web", "primary", "database"];
        assert_eq!(nearest("wed", known.into_iter()), Some("web"));
        assert_eq!(nearest("primry", known.into_iter()), Some("primary"));
        assert_eq!(nearest("zzzzz", known.into_iter()), None);
    }
}
