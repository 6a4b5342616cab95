use std::sync::Arc;

use ::net::{Backend, Capabilities, Card, Offload};
use device::pci::spec;
use device::{
    Entropy, HostClock, Inputs, NoEvents, NullStream, Properties, PropertyValue, RecordedIrq,
    Screens, Timers,
};
use memory::AddressSpace;

use crate::catalog::{Attachment, BuildError, Built, PciPlace, Request, model};
use crate::surroundings::{Backends, NoFirmware, Surroundings};

struct Nobody;

impl Backend for Nobody {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
    fn transmit(&self, _frame: &[u8], _offload: Offload) {}
    fn attach(&self, _card: std::sync::Weak<dyn Card>) {}
    fn set_guest_offload(&self, _granted: Capabilities) {}
    fn room(&self) {}
    fn link(&self) -> bool {
        true
    }
    fn info(&self) -> String {
        String::new()
    }
}

struct Zeros;

impl Entropy for Zeros {
    fn fill(&self, bytes: &mut [u8]) -> usize {
        bytes.len()
    }
}

fn surroundings() -> Surroundings {
    let backends = Backends::default();
    let mode = block::open::OpenMode::default();
    let options = block::OpenOptions::default();
    let disk = block::open::open(Some("null-co://"), options, &mode).unwrap();
    assert!(backends.drives.insert("d0", disk));
    assert!(backends.networks.insert("n0", Arc::new(Nobody)));
    assert!(backends.streams.insert("c0", Arc::new(NullStream)));
    assert!(backends.entropy.insert("r0", Arc::new(Zeros)));
    Surroundings {
        memory: Arc::new(AddressSpace::new()),
        ports: Arc::new(AddressSpace::new()),
        clock: Arc::new(HostClock::new()),
        timers: Timers::new(|| {}),
        isa_irqs: Arc::new(RecordedIrq::default()),
        pci: None,
        events: Arc::new(NoEvents),
        screens: Arc::new(Screens::default()),
        inputs: Arc::new(Inputs::default()),
        firmware: Arc::new(NoFirmware),
        backends: Arc::new(backends),
        ram_bytes: 1 << 30,
        power: Arc::new(device::NoPower),
    }
}

fn text(text: &str) -> PropertyValue {
    PropertyValue::Text(text.to_owned())
}

fn build(
    around: &Surroundings,
    name: &str,
    place: PciPlace,
    bus: Option<&Arc<dyn std::any::Any + Send + Sync>>,
    set: &[(&str, PropertyValue)],
) -> Result<Built, BuildError> {
    let model = model(name).unwrap_or_else(|| panic!("{name} is in the catalog"));
    let mut properties = Properties::defaults(model.declared());
    for (property, value) in set {
        assert!(model.declared().any(|known| known.name == *property), "{name} has {property}");
        properties.set(property, value.clone());
    }
    let request =
        Request { id: "x0", properties: &properties, surroundings: around, pci_place: place, bus };
    (model.build)(&request)
}

fn identity(built: &Built) -> (u32, u32) {
    let Attachment::Pci(function) = &built.attachment else { panic!("it is on PCI") };
    let read = |at, size| function.connection().config_read(at, size);
    (read(spec::DEVICE, 2), read(spec::CLASS, 4) >> 8 & 0xff_ff | read(spec::CLASS, 1) << 16)
}

/// Needs of each model: what must be set.
fn needs(name: &str) -> Vec<(&'static str, PropertyValue)> {
    match name {
        name if name.contains("blk") => vec![("drive", text("d0"))],
        name if name.contains("net") => vec![("netdev", text("n0"))],
        _ => Vec::new(),
    }
}

#[test]
fn every_kind_of_device_has_its_numbers() {
    for (name, on_pci, on_express) in [
        ("virtio-net-pci", 0x1000, 0x1041),
        ("virtio-blk-pci", 0x1001, 0x1042),
        ("virtio-balloon-pci", 0x1002, 0x1045),
        ("virtio-serial-pci", 0x1003, 0x1043),
        ("virtio-rng-pci", 0x1005, 0x1044),
        ("virtio-keyboard-pci", 0x1052, 0x1052),
        ("virtio-blk-pci-transitional", 0x1001, 0x1001),
        ("virtio-blk-pci-non-transitional", 0x1042, 0x1042),
        ("virtio-net-pci-transitional", 0x1000, 0x1000),
        ("virtio-rng-pci-non-transitional", 0x1044, 0x1044),
    ] {
        for (place, number) in [
            (PciPlace::Conventional, on_pci),
            (PciPlace::ExpressRoot, on_pci),
            (PciPlace::ExpressPort, on_express),
        ] {
            let built = build(&surroundings(), name, place, None, &needs(name));
            let built = built.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(identity(&built).0, number, "{name} {place:?}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let around = surroundings();
    let yes = || PropertyValue::Bool(true);
    for (name, set, words) in [
        ("virtio-blk-pci", vec![], "'drive' is required"),
        ("virtio-blk-pci", vec![("drive", text("d9"))], "there is no 'd9'"),
        ("virtio-blk-pci", vec![("packed", yes())], "'packed'"),
        ("virtio-blk-pci", vec![("iommu_platform", yes())], "'iommu_platform'"),
        ("virtio-blk-pci", vec![("queue-size", PropertyValue::Unsigned(100))], "power of two"),
        ("virtio-blk-pci", vec![("logical_block_size", PropertyValue::Unsigned(4096))], "larger"),
        ("virtio-blk-pci", vec![("num-queues", PropertyValue::Unsigned(0))], "1 to 256"),
        ("virtio-net-pci", vec![("host_mtu", PropertyValue::Unsigned(10))], "68"),
        ("virtio-rng-pci", vec![("period", PropertyValue::Unsigned(0))], "positive"),
        ("virtio-rng-pci", vec![("vectors", PropertyValue::Unsigned(5000))], "2048"),
        ("virtio-serial-pci", vec![("max_ports", PropertyValue::Unsigned(32))], "1 to 31"),
        (
            "virtio-rng-pci",
            vec![("disable-legacy", yes()), ("disable-modern", yes())],
            "neither modern nor legacy",
        ),
    ] {
        let mut all = if set.is_empty() { Vec::new() } else { needs(name) };
        all.extend(set);
        let error = build(&around, name, PciPlace::Conventional, None, &all).err();
        let error = error.unwrap_or_else(|| panic!("{name}: {words}")).to_string();
        assert!(error.contains(words), "{name}: {error}");
    }
}

#[test]
fn ports_plug_into_their_controller_and_out() {
    let around = surroundings();
    let controller =
        build(&around, "virtio-serial-pci", PciPlace::Conventional, None, &[]).unwrap();
    let bus = &controller.buses[0].object;
    let add = |set: &[(&str, PropertyValue)]| {
        build(&around, "virtserialport", PciPlace::Conventional, Some(bus), set)
    };
    let set = [("chardev", text("c0")), ("nr", PropertyValue::Unsigned(1))];
    let port = add(&set).unwrap();
    assert!(add(&set[1..]).err().unwrap().to_string().contains("Port 1 is in use"));
    let Attachment::Child(child) = &port.attachment else { panic!("it is on the bus") };
    child.unplug();
    assert!(add(&set[1..]).is_ok());
    assert!(matches!(
        build(&around, "virtconsole", PciPlace::Conventional, None, &[]),
        Err(BuildError::NoBus)
    ));
}

#[test]
fn a_balloon_is_steered_from_outside() {
    let built =
        build(&surroundings(), "virtio-balloon-pci", PciPlace::Conventional, None, &[]).unwrap();
    let balloon = built.controls.balloon.unwrap();
    balloon.set_target(1 << 29);
    assert_eq!((balloon.actual(), balloon.polling()), (1 << 30, 0));
}
