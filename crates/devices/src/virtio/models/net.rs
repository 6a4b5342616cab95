//! `virtio-net-pci`.

use std::sync::Arc;

use ::net::Capabilities;
use device::{Property, PropertyKind};

use super::{
    Build, CHOICE_PROPERTIES, RING_PROPERTIES, Tables, Variant, built, function, number, off, on,
    on_pci,
};
use crate::catalog::{BuildError, Built, Category, Controls, LinkControl, Model, Request, declare};
use crate::virtio::VirtioDevice;
use crate::virtio::net::{Net, NetConfig, PAIRS_MAX};

pub(super) const PROPERTIES: &[Property] = &[
    declare("netdev", PropertyKind::Network, None),
    declare("mac", PropertyKind::Mac, None),
    off("mq"),
    on("csum"),
    on("guest_csum"),
    on("guest_tso4"),
    on("guest_tso6"),
    on("host_tso4"),
    on("host_tso6"),
    on("mrg_rxbuf"),
    on("ctrl_vq"),
    number("host_mtu", 16, 0),
    number("rx_queue_size", 16, 256),
    number("tx_queue_size", 16, 256),
    declare("bootindex", PropertyKind::BootIndex, None),
];

/// The address of a card that was given none. The machine counts on from here for the others.
const FIRST_ADDRESS: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
/// Pairs of queues where several are wanted and no number of vectors says how many.
const PAIRS: u16 = 4;
/// The expansion ROM that boots over the network.
const ROM: &str = "efi-virtio.rom";

const fn model(name: &'static str, properties: Tables, build: Build) -> Model {
    on_pci(name, "a virtio network card", Category::Network, properties, build)
}

pub(super) const MODELS: &[Model] = &[
    model("virtio-net-pci", &[CHOICE_PROPERTIES, RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::Chosen)
    }),
    model("virtio-net-pci-transitional", &[RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::Transitional)
    }),
    model("virtio-net-pci-non-transitional", &[RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::NonTransitional)
    }),
];

fn build(request: &Request<'_>, variant: Variant) -> Result<Built, BuildError> {
    let (device, controls) = device(request)?;
    Ok(built(&function(request, variant, device, Some(ROM))?, controls))
}

/// The device, apart from where it is plugged in.
pub(super) fn device(
    request: &Request<'_>,
) -> Result<(Arc<dyn VirtioDevice>, Controls), BuildError> {
    let card = Net::new(config(request)?);
    let link = Some(Arc::clone(&card) as Arc<dyn LinkControl>);
    Ok((card, Controls { link, ..Controls::default() }))
}

fn config(request: &Request<'_>) -> Result<NetConfig, BuildError> {
    let properties = request.properties;
    let receive_queue_size = super::queue_size(request, "rx_queue_size")?;
    let transmit_queue_size = super::queue_size(request, "tx_queue_size")?;
    let mtu = properties.unsigned("host_mtu").unwrap_or(0);
    let mtu = u16::try_from(mtu).map_err(|_| request.bad_value("host_mtu", "it has 16 bits"))?;
    if (1..68).contains(&mtu) {
        return Err(request.bad_value("host_mtu", "IPv4 needs at least 68"));
    }
    // Two vectors a pair, one for the configuration and one for orders.
    let vectors = properties.unsigned("vectors").and_then(|vectors| u16::try_from(vectors).ok());
    let several = vectors.map_or(PAIRS, |vectors| (vectors.saturating_sub(2) / 2).max(1));
    let pairs = if properties.bool("mq") { several.min(PAIRS_MAX) } else { 1 };
    let networks = &request.surroundings.backends.networks;
    let backend = networks.claim(request.id, properties, "netdev")?;
    let backend = backend.ok_or_else(|| BuildError::Missing { property: "netdev".to_owned() })?;
    let on = |name| properties.bool(name);
    Ok(NetConfig {
        id: request.id.to_owned(),
        backend,
        address: properties.mac("mac").unwrap_or(FIRST_ADDRESS),
        pairs,
        receive_queue_size,
        transmit_queue_size,
        mtu: (mtu > 0).then_some(mtu),
        offloads: Capabilities {
            takes_checksum: on("csum"),
            takes_tso4: on("host_tso4"),
            takes_tso6: on("host_tso6"),
            gives_checksum: on("guest_csum"),
            gives_tso4: on("guest_tso4"),
            gives_tso6: on("guest_tso6"),
        },
        merge_buffers: on("mrg_rxbuf"),
        control: on("ctrl_vq"),
        events: Arc::clone(&request.surroundings.events),
    })
}

impl LinkControl for Net {
    fn set_link(&self, up: bool) {
        self.set_plugged(up);
    }

    fn mac(&self) -> [u8; 6] {
        self.filter_quietly().address
    }
}
