//! `virtio-gpu-pci`, and `virtio-vga`, which is VGA until its driver shows a picture.

use std::sync::{Arc, Weak};

use device::pci::{BarKind, Connection, PciFunction, Place};
use device::{
    Cursor, DefaultValue, Device, Fields, Picture, Property, PropertyKind, Rectangle, SIDE_MAX,
    Screen, StateError,
};
use memory::{Owner, Ram};

use super::{
    Build, RING_PROPERTIES, Tables, Variant, built, finished_function, function, number, on, on_pci,
};
use crate::catalog::{BuildError, Built, Category, Controls, Model, Request, declare};
use crate::vga::Vga;
use crate::virtio::VirtioDevice;
use crate::virtio::gpu::{Gpu, GpuConfig};
use crate::virtio::pci::VirtioPci;

const PROPERTIES: &[Property] = &[
    number("xres", 32, 1280),
    number("yres", 32, 800),
    on("edid"),
    declare("max_hostmem", PropertyKind::Size, Some(DefaultValue::Unsigned(256 << 20))),
];

const VGA_PROPERTIES: &[Property] = &[number("vgamem_mb", 32, 8)];

const fn model(name: &'static str, properties: Tables, build: Build) -> Model {
    on_pci(name, "a graphics card", Category::Display, properties, build)
}

pub(super) const MODELS: &[Model] = &[
    model("virtio-gpu-pci", &[RING_PROPERTIES, PROPERTIES], build),
    model("virtio-vga", &[RING_PROPERTIES, PROPERTIES, VGA_PROPERTIES], build_vga),
];

fn gpu(request: &Request<'_>) -> Result<Arc<Gpu>, BuildError> {
    let side = |name| {
        let asked = request.properties.unsigned(name).and_then(|side| u32::try_from(side).ok());
        let side = asked.filter(|side| (1..=SIDE_MAX).contains(side));
        side.ok_or_else(|| request.bad_value(name, format!("it must be from 1 to {SIDE_MAX}")))
    };
    Ok(Gpu::new(GpuConfig {
        size: (side("xres")?, side("yres")?),
        edid: request.properties.bool("edid"),
        memory_bytes_max: request.properties.unsigned("max_hostmem").unwrap_or(256 << 20),
    }))
}

fn build(request: &Request<'_>) -> Result<Built, BuildError> {
    let gpu = gpu(request)?;
    let device = Arc::clone(&gpu) as Arc<dyn VirtioDevice>;
    let function = function(request, Variant::NonTransitional, device, None)?;
    let weak: Weak<Gpu> = Arc::downgrade(&gpu);
    request.surroundings.screens.add(request.id, weak as Weak<dyn Screen>);
    Ok(built(&function, Controls::default()))
}

/// Where video memory is, and VGA's registers for firmware that uses no ports. Virtio's own
/// registers lie behind other BARs.
const VIDEO_BAR: u8 = 0;
/// See above.
const REGISTERS_BAR: u8 = 2;
/// A VGA card.
const VGA_CLASS: u32 = 0x03_0000;

fn build_vga(request: &Request<'_>) -> Result<Built, BuildError> {
    let mib = request.properties.unsigned("vgamem_mb").unwrap_or(8);
    if !mib.is_power_of_two() || mib > 512 {
        return Err(request.bad_value("vgamem_mb", "it must be a power of two up to 512"));
    }
    let memory = Ram::new(&format!("{}.vram", request.id), mib << 20);
    let memory = memory.map_err(|error| BuildError::Other(error.to_string()))?;
    let vga = Vga::new(Arc::new(memory));
    let gpu = gpu(request)?;
    let device = Arc::clone(&gpu) as Arc<dyn VirtioDevice>;
    let function =
        finished_function(request, Variant::NonTransitional, VGA_CLASS, device, |layout| {
            let owner = Owner::Ram(Arc::clone(vga.memory()));
            layout.bar(VIDEO_BAR, BarKind::Prefetchable32, mib << 20, owner);
            layout.bar(REGISTERS_BAR, BarKind::Memory32, 0x1000, vga.bar());
            vga.declare(layout);
            request.rom(layout, Some("vgabios-virtio.bin"))
        })?;
    let card = Arc::new(VirtioVga { function, gpu, vga });
    request.surroundings.screens.add(request.id, Arc::downgrade(&card) as Weak<dyn Screen>);
    Ok(Built::pci(&card))
}

/// Two cards in a slot with one screen.
struct VirtioVga {
    function: Arc<VirtioPci>,
    gpu: Arc<Gpu>,
    vga: Vga,
}

impl Device for VirtioVga {
    fn reset(&self) {
        self.function.reset();
        self.vga.reset();
    }

    fn set_running(&self, running: bool) {
        self.function.set_running(running);
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        self.vga.transfer(fields)?;
        self.function.transfer(fields)
    }
}

impl PciFunction for VirtioVga {
    fn connection(&self) -> &Connection {
        self.function.connection()
    }

    fn config_read(&self, at: u16, size: u8) -> u32 {
        self.function.config_read(at, size)
    }

    fn config_write(&self, at: u16, size: u8, value: u32) {
        self.function.config_write(at, size, value);
    }

    fn plugged(&self, place: &Place) {
        self.function.plugged(place);
    }
}

impl Screen for VirtioVga {
    fn refresh(&self, picture: &mut Picture, whole: bool) -> Vec<Rectangle> {
        if self.gpu.is_showing() {
            self.gpu.refresh(picture, whole)
        } else {
            self.vga.refresh(picture, whole)
        }
    }

    fn stamp(&self) -> Option<u64> {
        // The other part's memory is written without its knowledge.
        self.gpu.stamp().filter(|_| self.gpu.is_showing())
    }

    fn cursor(&self) -> Option<(Arc<Cursor>, (i32, i32))> {
        self.gpu.cursor()
    }

    fn can_resize(&self) -> bool {
        true
    }

    fn suggest_size(&self, width: u32, height: u32) {
        self.gpu.suggest_size(width, height);
    }
}
