//! libvirt's test world: everything happens in memory and succeeds at once.
//!
//! `test:///default` has one domain, one network, one pool and one interface; `test:///FILE` reads
//! a `<node>` document. Both are what clients' own test suites open.

mod complete;
mod default;
mod file;
mod machine;

use std::sync::Arc;

use libvirt_compat::domain::{Defaults, complete, complete_device};
use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Origin, Result};

use super::{CapabilitiesRequest, Driver, Registration, Start, Started};
use crate::domains::{Domains, Offline};
use crate::hub::Hub;
use crate::networks::{self, Networks};
use crate::node::{Node, NodeInfo};
use crate::random;
use crate::secrets::Secrets;
use crate::storage::{self, Pools};
use crate::world::{Uri, World, Worlds};

pub const REGISTRATION: Registration =
    Registration { scheme: "test", start: |_| Ok(Vec::new()), open };

fn open(_worlds: &Worlds, uri: &Uri) -> Result<(Arc<World>, bool)> {
    match uri.path.as_str() {
        "" | "/" => {
            let text = "testOpen: supply a path or use test:///default";
            Err(Error::new(Code::InvalidArg, text).from(Origin::Test))
        }
        "/default" => {
            let world = empty("test:///default");
            default::fill(&world)?;
            Ok((world, true))
        }
        path => {
            let world = empty(&format!("test://{path}"));
            file::fill(&world, path.as_ref())?;
            Ok((world, false))
        }
    }
}

fn empty(uri: &str) -> Arc<World> {
    Arc::new(World {
        uri: uri.to_owned(),
        driver: Arc::new(TestDriver),
        domains: Domains::default(),
        networks: Networks::new(networks::Backend::Memory),
        pools: Pools::new(storage::Backend::Memory),
        secrets: Secrets::default(),
        node: Node::default(),
        events: Hub::default(),
        place: None,
    })
}

/// What libvirt's test world answers "not supported" to. Clients' tests rely on it, and fall back.
/// A row stands for all procedures that start like it.
const LACKING: &[&str] = &[
    "connect_domain_xml",
    "connect_get_domain_capabilities",
    "connect_get_sysinfo",
    "connect_list_all_nwfilter",
    "connect_list_all_secrets",
    "connect_list_nwfilters",
    "connect_list_secrets",
    "connect_num_of_nwfilters",
    "connect_num_of_secrets",
    "domain_attach_device",
    "domain_detach_device",
    "domain_get_job",
    "domain_update_device",
    "network_get_dhcp_leases",
    "node_get_memory_stats",
    "node_get_memory_parameters",
    "nwfilter_",
    "secret_",
];

struct TestDriver;

fn with_defaults<R>(work: impl FnOnce(&mut Defaults<'_>) -> R) -> R {
    work(&mut Defaults {
        random: &mut random::bytes,
        os_type: "hvm",
        domain_types: &["test"],
        mac_prefix: [0x52, 0x54, 0x00],
    })
}

impl Driver for TestDriver {
    fn origin(&self) -> Origin {
        Origin::Test
    }

    fn lacks(&self, procedure: &str) -> bool {
        LACKING.iter().any(|start| procedure.starts_with(start))
    }

    fn kind(&self) -> &'static str {
        "TEST"
    }

    fn version(&self) -> Result<u64> {
        Ok(2)
    }

    fn vcpus_max(&self, _kind: Option<&str>) -> Result<i32> {
        Ok(32)
    }

    fn capabilities(&self) -> Result<String> {
        Ok(default::capabilities().to_xml())
    }

    fn domain_capabilities(&self, request: &CapabilitiesRequest) -> Result<String> {
        let text = |value: &Option<String>, fallback: &str| {
            value.clone().unwrap_or_else(|| fallback.to_owned())
        };
        let document = Element::new("domainCapabilities")
            .with_child(Element::with_text(
                "path",
                text(&request.emulator, "/usr/bin/test-emulator"),
            ))
            .with_child(Element::with_text("domain", text(&request.virt_type, "test")))
            .with_child(Element::with_text("arch", text(&request.arch, "x86_64")))
            .with_child(Element::new("vcpu").with("max", 32));
        Ok(document.to_xml())
    }

    fn node_info(&self) -> Result<NodeInfo> {
        Ok(NodeInfo {
            model: "i686".into(),
            memory_kib: 3 << 20,
            cpus: 16,
            mhz: 1400,
            nodes: 2,
            sockets: 2,
            cores: 2,
            threads: 2,
        })
    }

    fn cpu_models(&self, _arch: &str) -> Result<Vec<String>> {
        Ok(vec!["qemu64".into()])
    }

    fn complete(&self, text: &str) -> Result<Element> {
        let mut document = with_defaults(|defaults| complete(text, defaults))?;
        complete::fill(&mut document)?;
        Ok(document)
    }

    fn complete_device(&self, _domain: &Element, device: &mut Element) -> Result<()> {
        with_defaults(|defaults| complete_device(device, defaults))
    }

    fn start(&self, start: Start) -> Result<Started> {
        let reporter = start.reporter;
        Ok(Started { document: start.document, machine: Arc::new(machine::Machine::new(reporter)) })
    }

    fn snapshot_offline(&self, _domain: &Element, _name: &str, _what: Offline) -> Result<()> {
        Ok(())
    }
}
