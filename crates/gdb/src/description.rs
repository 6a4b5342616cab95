//! Registers by name, and the XML that tells gdb of them.

use std::fmt::Write;

/// A register.
#[derive(Clone, Debug)]
pub struct Register {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bits: usize,
    /// gdb's type.
    pub kind: &'static str,
}

impl Register {
    /// A number of so many bits.
    pub fn number(name: impl Into<String>, bits: usize) -> Self {
        Self { name: name.into(), bits, kind: "int" }
    }

    /// With a type of gdb's.
    pub fn typed(name: impl Into<String>, bits: usize, kind: &'static str) -> Self {
        Self { name: name.into(), bits, kind }
    }
}

/// Registers that belong together, under a name that gdb knows.
#[derive(Clone, Debug)]
pub struct Feature {
    /// Such as `org.gnu.gdb.aarch64.core`.
    pub name: &'static str,
    /// Definitions of types, as XML.
    pub types: &'static str,
    /// The registers.
    pub registers: Vec<Register>,
}

/// All of a processor.
#[derive(Clone, Debug)]
pub struct Description {
    /// gdb's name of the architecture.
    pub architecture: &'static str,
    /// gdb's name of the system, if programs of one are debugged.
    pub system: Option<&'static str>,
    /// The registers.
    pub features: Vec<Feature>,
}

impl Description {
    /// All registers in order.
    pub fn registers(&self) -> impl Iterator<Item = &Register> {
        self.features.iter().flat_map(|feature| &feature.registers)
    }

    /// Where a register lies among all, and its bytes.
    pub fn place(&self, number: usize) -> Option<(usize, usize)> {
        let register = self.registers().nth(number)?;
        let before: usize = self.registers().take(number).map(|register| register.bits / 8).sum();
        Some((before, register.bits / 8))
    }

    /// `target.xml`.
    pub fn xml(&self) -> String {
        let mut xml = String::from(
            "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target>",
        );
        _ = write!(xml, "<architecture>{}</architecture>", self.architecture);
        if let Some(system) = self.system {
            _ = write!(xml, "<osabi>{system}</osabi>");
        }
        let mut number = 0;
        for feature in &self.features {
            _ = write!(xml, "<feature name=\"{}\">{}", feature.name, feature.types);
            for Register { name, bits, kind } in &feature.registers {
                _ = write!(
                    xml,
                    "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\" regnum=\"{number}\"/>"
                );
                number += 1;
            }
            xml.push_str("</feature>");
        }
        xml.push_str("</target>\n");
        xml
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_lie_one_behind_the_other() {
        let registers = vec![Register::number("pc", 64), Register::number("flags", 32)];
        let features = vec![Feature { name: "core", types: "", registers }];
        let description = Description { architecture: "any", system: None, features };
        assert_eq!(description.place(1), Some((8, 4)));
        assert_eq!(description.place(2), None);
        assert!(
            description
                .xml()
                .contains("<reg name=\"flags\" bitsize=\"32\" type=\"int\" regnum=\"1\"/>")
        );
    }
}
