//! The few figures that lists and statistics need, so that no document is parsed for them.

use super::kibibytes;
use crate::xml::Element;

/// A domain document's figures.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// `<memory>` in KiB.
    pub memory_kib_max: u64,
    /// `<currentMemory>` in KiB.
    pub memory_kib: u64,
    /// `<vcpu>`.
    pub vcpus_max: u32,
    /// `<vcpu current=...>`.
    pub vcpus: u32,
    /// `<os><type>`.
    pub os_type: String,
}

impl Summary {
    /// Reads a document that has its defaults already.
    pub fn of(domain: &Element) -> Self {
        let size = |name| domain.child(name).and_then(|element| kibibytes(element).ok());
        let memory_kib_max = size("memory").unwrap_or(0);
        let vcpu = domain.child("vcpu");
        let vcpus_max = vcpu.and_then(|vcpu| vcpu.text().trim().parse().ok()).unwrap_or(1);
        let current = vcpu.and_then(|vcpu| vcpu.attribute("current")?.parse().ok());
        Self {
            memory_kib_max,
            memory_kib: size("currentMemory").unwrap_or(memory_kib_max),
            vcpus_max,
            vcpus: current.unwrap_or(vcpus_max),
            os_type: domain.text_at("os/type").unwrap_or_default(),
        }
    }
}
