//! The drives' rows of the catalog.

use std::sync::Arc;

use device::{
    DefaultValue, Device, DeviceEvent, EventSink, Fields, Property, PropertyKind, StateError,
};
use parking_lot::Mutex;

use super::channel::Shared;
use super::disk::Labels;
use super::{Cdrom, Channel, Disk, Drive};
use crate::catalog::{
    BuildError, Built, BusKind, Category, Child, Controls, DriveControl, Model, Request, declare,
};

/// A drive in its place.
struct Plugged {
    id: String,
    drive: Shared,
    channel: Arc<Channel>,
    unit: usize,
    events: Arc<dyn EventSink>,
}

impl Device for Plugged {
    fn reset(&self) {
        self.drive.lock().reset();
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        match &mut *self.drive.lock() {
            Drive::Disk(disk) => fields.item("disk", disk),
            Drive::Cdrom(cdrom) => fields.item("cdrom", cdrom),
        }
    }
}

impl Child for Plugged {
    fn unplug(&self) {
        self.channel.slots.take(self.unit);
        (self.channel.changed)();
    }
}

impl Plugged {
    fn with_cdrom<T>(&self, otherwise: T, change: impl FnOnce(&mut Cdrom) -> T) -> T {
        match &mut *self.drive.lock() {
            Drive::Cdrom(cdrom) => change(cdrom),
            Drive::Disk(_) => otherwise,
        }
    }

    fn tell_tray(&self, open: bool) {
        self.events.event(&self.id, DeviceEvent::TrayMoved { open });
    }
}

impl DriveControl for Plugged {
    fn resized(&self) {
        // A disk tells its size when it is asked; ATA has no way to tell by itself.
    }

    fn is_removable(&self) -> bool {
        self.with_cdrom(false, |_| true)
    }

    fn is_locked(&self) -> bool {
        self.with_cdrom(false, |cdrom| cdrom.is_locked())
    }

    fn tray(&self) -> Option<bool> {
        self.with_cdrom(None, |cdrom| Some(cdrom.is_open()))
    }

    fn open_tray(&self, force: bool) -> bool {
        let moved = self.with_cdrom(None, |cdrom| {
            if cdrom.is_locked() && !force {
                cdrom.ask_to_eject();
                return None;
            }
            let moved = !cdrom.is_open();
            cdrom.set_open(true);
            Some(moved)
        });
        if moved == Some(true) {
            self.tell_tray(true);
        }
        moved.is_some()
    }

    fn close_tray(&self) {
        let moved = self.with_cdrom(false, |cdrom| {
            let moved = cdrom.is_open();
            cdrom.set_open(false);
            moved
        });
        if moved {
            self.tell_tray(false);
        }
    }

    fn set_medium(&self, medium: Option<Arc<dyn block::Node>>) {
        self.with_cdrom((), |cdrom| cdrom.set_medium(medium));
    }
}

fn build(request: &Request<'_>, cdrom: bool) -> Result<Built, BuildError> {
    let surroundings = request.surroundings;
    let channel: Arc<Channel> = request.parent()?;
    let properties = request.properties;
    let node = surroundings.backends.drives.claim(request.id, properties, "drive")?;
    let unit = match properties.unsigned("unit") {
        Some(unit) => unit as usize,
        None => channel.slots.free().ok_or(BuildError::NoBus)?,
    };
    let text =
        |name: &str, otherwise: String| properties.text(name).map_or(otherwise, str::to_owned);
    let serial = text("serial", format!("HS{:05}", unit + 1));
    let firmware = text("ver", "1.0".to_owned());
    let drive = if cdrom {
        let model = text("model", "HOSTEL DVD-ROM".to_owned());
        Drive::Cdrom(Cdrom::new(node, [serial, firmware, model]))
    } else {
        let missing = BuildError::Missing { property: "drive".to_owned() };
        let labels = Labels {
            serial,
            firmware,
            model: text("model", "HOSTEL HARDDISK".to_owned()),
            wwn: properties.unsigned("wwn").unwrap_or(0),
            rotation: properties.unsigned("rotation_rate").unwrap_or(0) as u16,
        };
        Drive::Disk(Disk::new(node.ok_or(missing)?, labels))
    };
    let drive = Arc::new(Mutex::new(drive));
    if !channel.slots.put(unit, &drive) {
        return Err(request.bad_value("unit", "the place is taken, or there is none"));
    }
    (channel.changed)();
    let events = Arc::clone(&surroundings.events);
    let id = request.id.to_owned();
    let plugged = Arc::new(Plugged { id, drive, channel, unit, events });
    let control = Arc::clone(&plugged) as Arc<dyn DriveControl>;
    let controls = Controls { drive: Some(control), ..Controls::default() };
    Ok(Built::child(&plugged).with_controls(controls))
}

const COMMON: &[Property] = &[
    declare("drive", PropertyKind::Drive, None),
    declare("unit", PropertyKind::Unsigned(32), None),
    declare("serial", PropertyKind::Text, None),
    declare("ver", PropertyKind::Text, None),
    declare("model", PropertyKind::Text, None),
    declare("bootindex", PropertyKind::BootIndex, None),
];

const DISK: &[Property] = &[
    declare("wwn", PropertyKind::Unsigned(64), Some(DefaultValue::Unsigned(0))),
    declare("rotation_rate", PropertyKind::Unsigned(16), Some(DefaultValue::Unsigned(0))),
];

/// The drives' rows.
pub const MODELS: &[Model] = &[
    Model {
        name: "ide-cd",
        description: "virtual IDE CD-ROM",
        category: Category::Storage,
        bus: BusKind::Ata,
        offers: None,
        properties: &[COMMON],
        state_version: 1,
        build: |request| build(request, true),
    },
    Model {
        name: "ide-hd",
        description: "virtual IDE disk",
        category: Category::Storage,
        bus: BusKind::Ata,
        offers: None,
        properties: &[COMMON, DISK],
        state_version: 1,
        build: |request| build(request, false),
    },
];
