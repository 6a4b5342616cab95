//! The boards by QEMU's names: which there are, and what they are called for short.

/// What is built when nobody says.
pub const DEFAULT: &str = "pc-i440fx-10.0";

/// A family of boards; its versions differ in nothing that is built.
struct Family {
    prefix: &'static str,
    alias: &'static str,
    description: &'static str,
    names: &'static [&'static str],
}

const FAMILIES: &[Family] = &[
    Family {
        prefix: "pc-i440fx-",
        alias: "pc",
        description: "Standard PC (i440FX + PIIX, 1996)",
        names: &[
            "pc-i440fx-10.0",
            "pc-i440fx-9.2",
            "pc-i440fx-9.1",
            "pc-i440fx-9.0",
            "pc-i440fx-8.2",
            "pc-i440fx-8.1",
            "pc-i440fx-8.0",
            "pc-i440fx-7.2",
        ],
    },
    Family {
        prefix: "pc-q35-",
        alias: "q35",
        description: "Standard PC (Q35 + ICH9, 2009)",
        names: &[
            "pc-q35-10.0",
            "pc-q35-9.2",
            "pc-q35-9.1",
            "pc-q35-9.0",
            "pc-q35-8.2",
            "pc-q35-8.1",
            "pc-q35-8.0",
            "pc-q35-7.2",
        ],
    },
    Family { prefix: MICROVM, alias: MICROVM, description: "microvm (i386)", names: &[MICROVM] },
    Family { prefix: NONE, alias: NONE, description: "empty machine", names: &[NONE] },
];

/// The board on which nothing runs: programs ask the monitor what there is.
pub const NONE: &str = "none";

/// The board without PCI.
pub const MICROVM: &str = "microvm";

/// The full name of a board by its name or short name.
pub fn full_name(name: &str) -> Option<&'static str> {
    FAMILIES.iter().find_map(|family| match name == family.alias {
        true => Some(family.names[0]),
        false => family.names.iter().find(|known| **known == name).copied(),
    })
}

/// What a board is.
pub fn description(name: &str) -> &'static str {
    let family = FAMILIES.iter().find(|family| family.names.contains(&name));
    family.map_or("", |family| family.description)
}

/// What kind of board this is, for the machine.
pub fn is_q35(name: &str) -> bool {
    name.starts_with(FAMILIES[1].prefix)
}

/// Name, description, and the short name where it has one.
pub fn all() -> impl Iterator<Item = (&'static str, String, Option<&'static str>)> {
    FAMILIES.iter().flat_map(|family| {
        family.names.iter().enumerate().map(|(index, name)| {
            let alias = (index == 0 && family.alias != *name).then_some(family.alias);
            (*name, family.description.to_owned(), alias)
        })
    })
}
