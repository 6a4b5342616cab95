//! Events: who wants which, and telling them.

use std::sync::{Arc, Weak};

use libvirt_compat::event::{Class, Event, MONITOR_EVENT};
use libvirt_compat::rpc::PROGRAM_REMOTE;
use libvirt_compat::rpc::types::Domain;
use libvirt_compat::rpc::xdr::to_bytes;
use libvirt_compat::{Code, Error, Result};
use parking_lot::Mutex;

use crate::client::Client;

/// What one client asked for.
struct Registration {
    client: Weak<Client>,
    callback: i32,
    interest: Interest,
}

enum Interest {
    /// Events of a class under an id, of one object or of all.
    Event { class: Class, id: i32, subject: Option<Vec<u8>> },
    /// A monitor's own events, of one domain or of all, of one name or of all.
    Monitor { domain: Option<Vec<u8>>, name: Option<String> },
}

/// Registrations a single world accepts from all its clients.
const REGISTRATIONS_MAX: usize = 100_000;

/// The registrations of one world.
#[derive(Default)]
pub struct Hub {
    /// A leaf: nothing is called back under it, sending never waits.
    registrations: Mutex<Vec<Registration>>,
}

impl Hub {
    /// Registers a client and returns the callback's id.
    pub fn register(
        &self,
        client: &Arc<Client>,
        class: Class,
        id: i32,
        subject: Option<Vec<u8>>,
    ) -> Result<i32> {
        self.add(client, Interest::Event { class, id, subject })
    }

    /// Registers a client for a monitor's events.
    pub fn register_monitor(
        &self,
        client: &Arc<Client>,
        domain: Option<Vec<u8>>,
        name: Option<String>,
    ) -> Result<i32> {
        self.add(client, Interest::Monitor { domain, name })
    }

    fn add(&self, client: &Arc<Client>, interest: Interest) -> Result<i32> {
        let mut registrations = self.registrations.lock();
        if registrations.len() >= REGISTRATIONS_MAX {
            return Err(Error::new(Code::InternalError, "too many event registrations"));
        }
        let callback = client.new_callback();
        registrations.push(Registration { client: Arc::downgrade(client), callback, interest });
        Ok(callback)
    }

    /// Ends a registration.
    pub fn deregister(&self, client: &Arc<Client>, callback: i32) -> Result<()> {
        let mut registrations = self.registrations.lock();
        let place = registrations.iter().position(|registration| {
            registration.callback == callback && registration.client.as_ptr() == Arc::as_ptr(client)
        });
        match place {
            Some(place) => {
                registrations.swap_remove(place);
                Ok(())
            }
            None => Err(Error::new(
                Code::InternalError,
                format!("domain event callback {callback} not registered"),
            )),
        }
    }

    /// Ends all registrations of a client that has left.
    pub fn forget(&self, client: &Client) {
        self.registrations
            .lock()
            .retain(|registration| !std::ptr::eq(registration.client.as_ptr(), client));
    }

    /// Tells everyone who registered for it.
    pub fn emit(&self, event: &Event) {
        let subject = event.subject();
        for registration in self.registrations.lock().iter() {
            let Interest::Event { class, id, subject: wanted } = &registration.interest else {
                continue;
            };
            let matches = *class == event.class()
                && event.ids().contains(id)
                && wanted.as_ref().is_none_or(|wanted| *wanted == subject);
            if !matches {
                continue;
            }
            if let Some(client) = registration.client.upgrade() {
                let (procedure, payload) = event.encode(*id, registration.callback);
                client.send_event(PROGRAM_REMOTE, procedure, payload);
            }
        }
    }

    /// Passes a monitor's event on.
    pub fn emit_monitor(&self, domain: &Domain, name: &str, time: (i64, u32), details: &str) {
        for registration in self.registrations.lock().iter() {
            let Interest::Monitor { domain: wanted, name: wanted_name } = &registration.interest
            else {
                continue;
            };
            let matches = wanted.as_ref().is_none_or(|wanted| *wanted == domain.uuid.0)
                && wanted_name.as_ref().is_none_or(|wanted| wanted == name);
            if !matches {
                continue;
            }
            if let Some(client) = registration.client.upgrade() {
                let start = (registration.callback, domain.clone(), name.to_owned());
                let payload = to_bytes(&(start, time, Some(details.to_owned())));
                client.send_event(MONITOR_EVENT.0, MONITOR_EVENT.1, payload);
            }
        }
    }
}
