//! The table of applets: one row each, in the order `hostel --help` shows them.

use std::ffi::OsString;
use std::process::ExitCode;

/// An applet: a tool that people know, by the name they know it under.
pub struct Applet {
    /// The word on the command line and the name of its symbolic link.
    pub name: &'static str,
    /// The heading in `hostel --help`.
    pub layer: Layer,
    /// One line for `hostel --help`.
    pub summary: &'static str,
    /// Takes the applet's name, for its messages, and the arguments after it.
    pub run: fn(&str, &[OsString]) -> ExitCode,
}

/// The layers of the virtualization stack, from the hardware to the people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layer {
    /// Whole machines.
    Machines,
    /// Programs of other architectures, on the translator.
    Programs,
    /// Disk images.
    Disks,
    /// The daemon and its shell.
    Daemon,
    /// The friendly command lines that people know from elsewhere.
    People,
}

impl Layer {
    /// In the order of the help page.
    pub const ALL: [Self; 5] =
        [Self::Machines, Self::Programs, Self::Disks, Self::Daemon, Self::People];

    /// The heading in `hostel --help`.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Machines => "Run virtual machines",
            Self::Programs => "Run programs built for another processor",
            Self::Disks => "Disk images",
            Self::Daemon => "The daemon and its shell",
            Self::People => "Virtual machines, as other tools' users type it",
        }
    }
}

/// Every applet that is built. A new one is one row here.
pub const APPLETS: &[Applet] = &[
    Applet {
        name: "qemu-system-x86_64",
        layer: Layer::Machines,
        summary: "Run an x86 PC",
        run: emulator::run,
    },
    Applet {
        name: "qemu-x86_64",
        layer: Layer::Programs,
        summary: "Run an x86 (64 bits) Linux program",
        run: linux_user::run,
    },
    Applet {
        name: "qemu-i386",
        layer: Layer::Programs,
        summary: "Run an x86 (32 bits) Linux program",
        run: linux_user::run,
    },
    Applet {
        name: "qemu-aarch64",
        layer: Layer::Programs,
        summary: "Run an AArch64 (64 bits) Linux program",
        run: linux_user::run,
    },
    Applet {
        name: "qemu-riscv64",
        layer: Layer::Programs,
        summary: "Run a RISC-V (64 bits) Linux program",
        run: linux_user::run,
    },
    Applet {
        name: "qemu-img",
        layer: Layer::Disks,
        summary: "Make, convert, check and repair disk images",
        run: images::run,
    },
    Applet {
        name: "qemu-nbd",
        layer: Layer::Disks,
        summary: "Serve a disk image to other programs",
        run: images::run,
    },
    Applet {
        name: "qemu-io",
        layer: Layer::Disks,
        summary: "Read and write single ranges of a disk image",
        run: images::run,
    },
    Applet {
        name: "daemon",
        layer: Layer::Daemon,
        summary: "Domains, networks and storage behind libvirt's protocol",
        run: daemon::run,
    },
    Applet {
        name: "libvirtd",
        layer: Layer::Daemon,
        summary: "The same under libvirt's name",
        run: daemon::run,
    },
    Applet {
        name: "virsh",
        layer: Layer::Daemon,
        summary: "The daemon's shell: domains, networks, storage, snapshots",
        run: cli::run_virsh,
    },
    Applet {
        name: "virt-ssh-helper",
        layer: Layer::Daemon,
        summary: "What qemu+ssh:// starts on the far side",
        run: daemon::run_relay,
    },
    Applet {
        name: "virt-install",
        layer: Layer::Daemon,
        summary: "Create a domain from groups of options",
        run: cli::run_virt_install,
    },
    Applet {
        name: "multipass",
        layer: Layer::People,
        summary: "Multipass's commands over the verbs above",
        run: cli::run_multipass,
    },
    Applet {
        name: "uvt-kvm",
        layer: Layer::People,
        summary: "UVtool's machines",
        run: cli::run_uvt,
    },
    Applet {
        name: "uvt-simplestreams-libvirt",
        layer: Layer::People,
        summary: "UVtool's synchronised images",
        run: cli::run_uvt,
    },
];

/// The executable's own commands, which no crate provides.
pub const OWN_COMMANDS: &[(&str, &str)] = &[
    ("doctor", "Look at this host, and say what to do"),
    ("link DIR", "Make a symbolic link for every applet in DIR"),
    ("binfmt", "Let the kernel start foreign programs by name"),
    ("help", "Show this page"),
    ("version", "Show the version"),
];

/// The applet of exactly this name.
pub fn find(name: &str) -> Option<&'static Applet> {
    APPLETS.iter().find(|applet| applet.name == name)
}

/// Every word that can stand behind `hostel`.
pub fn words() -> impl Iterator<Item = &'static str> {
    let own = OWN_COMMANDS.iter().filter_map(|(usage, _)| usage.split(' ').next());
    APPLETS.iter().map(|applet| applet.name).chain(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = words().collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_layer_is_listed_once() {
        for applet in APPLETS {
            assert!(Layer::ALL.contains(&applet.layer), "{} has no heading", applet.name);
        }
    }
}
