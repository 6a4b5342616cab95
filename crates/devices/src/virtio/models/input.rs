//! `virtio-keyboard-pci`, `virtio-mouse-pci`, `virtio-tablet-pci`.

use std::sync::{Arc, Weak};

use device::{InputDevice, Property, PropertyKind};

use super::{Build, RING_PROPERTIES, Variant, built, class_function, on_pci};
use crate::catalog::{BuildError, Built, Category, Controls, Model, Request, declare};
use crate::virtio::VirtioDevice;
use crate::virtio::input::{Input, InputModel};

const PROPERTIES: &[Property] = &[declare("serial", PropertyKind::Text, None)];

const fn model(name: &'static str, description: &'static str, build: Build) -> Model {
    on_pci(name, description, Category::Input, &[RING_PROPERTIES, PROPERTIES], build)
}

pub(super) const MODELS: &[Model] = &[
    model("virtio-keyboard-pci", "a keyboard", |request| {
        build(request, InputModel::Keyboard, 0x09_0000)
    }),
    model("virtio-mouse-pci", "a mouse", |request| build(request, InputModel::Mouse, 0x09_0200)),
    model("virtio-tablet-pci", "a tablet", |request| build(request, InputModel::Tablet, 0x09_8000)),
];

fn build(request: &Request<'_>, model: InputModel, class: u32) -> Result<Built, BuildError> {
    let serial = request.properties.text("serial").unwrap_or_default();
    let input = Input::new(model, serial);
    let device = Arc::clone(&input) as Arc<dyn VirtioDevice>;
    // There never was a legacy one.
    let function = class_function(request, Variant::NonTransitional, class, device, None)?;
    let weak: Weak<Input> = Arc::downgrade(&input);
    request.surroundings.inputs.add(request.id, weak as Weak<dyn InputDevice>);
    Ok(built(&function, Controls::default()))
}
