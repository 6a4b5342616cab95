//! The virtual machine's generation: a number that changes when a machine is started from a copy of
//! another, so that random-number generators are seeded anew. Specification: Microsoft, "Virtual
//! Machine Generation ID"; where firmware puts the page, QEMU's `docs/specs/vmgenid`.
//!
//! `-device vmgenid,guid=auto`

use std::sync::Arc;

use device::{Device, Fields, Property, PropertyKind, StateError};

use crate::catalog::{BuildError, Built, BusKind, Category, Model, Request, declare};

/// The device itself has no registers: the number lies in a page of the guest's, which the ACPI
/// tables tell of.
struct Generation;

impl Device for Generation {
    fn reset(&self) {}

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        _ = fields; // there is nothing to know
        Ok(())
    }
}

/// A number from its usual form; `auto` draws one.
#[must_use]
pub fn parse(text: &str) -> Option<[u8; 16]> {
    if text == "auto" {
        let mut number = [0; 16];
        let mut filled = 0;
        while filled < number.len() {
            let count =
                device::Entropy::fill(&crate::virtio::rng::KernelEntropy, &mut number[filled..]);
            if count == 0 {
                return None;
            }
            filled += count;
        }
        return Some(number);
    }
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    if lengths != [8, 4, 4, 4, 12] || !text.is_ascii() {
        return None;
    }
    let digits = groups.concat();
    let mut number = [0; 16];
    for (index, byte) in number.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(number)
}

fn build(request: &Request<'_>) -> Result<Built, BuildError> {
    let guid = request.properties.text("guid");
    let guid = guid.ok_or(BuildError::Missing { property: "guid".to_owned() })?;
    if parse(guid).is_none() {
        return Err(request.bad_value("guid", "it is neither 'auto' nor a UUID"));
    }
    Ok(Built::board(Arc::new(Generation)))
}

const PROPERTIES: &[Property] = &[declare("guid", PropertyKind::Text, None)];

/// The row.
pub const MODELS: &[Model] = &[Model {
    name: "vmgenid",
    description: "",
    category: Category::Other,
    bus: BusKind::Board,
    offers: None,
    properties: &[PROPERTIES],
    state_version: 1,
    build,
}];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_drawn() {
        let number = parse("324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87").expect("it is a UUID");
        assert_eq!((number[0], number[15]), (0x32, 0x87));
        assert_eq!(parse("324e6eaf"), None);
        assert_ne!(parse("auto"), parse("auto"));
    }
}
