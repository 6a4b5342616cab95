//! The options of `qemu-system-*`: which there are, and which take an argument.

use std::ffi::OsString;

/// An option as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// The option's name, without dashes.
    pub name: &'static str,
    /// Its argument; empty for one that takes none.
    pub value: String,
}

/// What is wrong with a command line. The texts are QEMU's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    /// No such option.
    #[error("{typed}: invalid option")]
    Unknown {
        /// As typed.
        typed: String,
    },
    /// The argument is missing.
    #[error("{typed}: requires an argument")]
    NoArgument {
        /// As typed.
        typed: String,
    },
    /// Options are texts.
    #[error("An argument is not UTF-8")]
    NotText,
    /// More than one disk image without an option.
    #[error("only one disk image can be given without an option, and '{second}' is a second")]
    SecondImage {
        /// The second one.
        second: String,
    },
}

/// Options without an argument.
#[rustfmt::skip]
const FLAGS: &[&str] = &[
    "h", "help", "version", "V", "snapshot", "usb", "nographic", "full-screen", "win2k-hack",
    "no-fd-bootchk", "S", "s", "enable-kvm", "no-reboot", "no-shutdown", "daemonize",
    "only-migratable", "nodefaults", "no-user-config", "enable-sync-profile", "perfmap", "jitdump",
    "preconfig", "mem-prealloc", "no-acpi", "no-hpet", "singlestep", "one-insn-per-tb",
    "xen-attach", "xen-domid-restrict",
];

/// Options with one.
#[rustfmt::skip]
const WITH_ARGUMENT: &[&str] = &[
    "machine", "M", "cpu", "accel", "smp", "numa", "add-fd", "set", "global", "boot", "m",
    "mem-path", "k", "audio", "audiodev", "device", "name", "uuid", "fda", "fdb", "hda", "hdb",
    "hdc", "hdd", "cdrom", "blockdev", "drive", "mtdblock", "sd", "pflash", "fsdev", "virtfs",
    "iscsi", "usbdevice", "display", "spice", "vga", "g", "vnc", "acpitable", "smbios", "netdev",
    "nic", "net", "chardev", "tpmdev", "bios", "kernel", "shim", "append", "initrd", "dtb",
    "compat", "fw_cfg", "serial", "parallel", "monitor", "qmp", "qmp-pretty", "mon", "debugcon",
    "pidfile", "overcommit", "gdb", "d", "D", "dfilter", "seed", "L", "xen-domid", "action",
    "loadvm", "option-rom", "rtc", "icount", "watchdog-action", "echr", "incoming", "sandbox",
    "readconfig", "trace", "plugin", "run-with", "runas", "chroot", "msg", "dump-vmstate",
    "object", "watchdog",
];

/// Takes a command line apart. A word that is no option is the image of the first disk.
pub fn scan(arguments: &[OsString]) -> Result<Vec<Typed>, CommandLineError> {
    let mut typed = Vec::with_capacity(arguments.len());
    let mut image = false;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let word = word.to_str().ok_or(CommandLineError::NotText)?;
        let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) else {
            if std::mem::replace(&mut image, true) {
                return Err(CommandLineError::SecondImage { second: word.to_owned() });
            }
            typed.push(Typed { name: "hda", value: word.to_owned() });
            continue;
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        if let Some(name) = FLAGS.iter().find(|flag| **flag == name) {
            typed.push(Typed { name, value: String::new() });
        } else if let Some(name) = WITH_ARGUMENT.iter().find(|option| **option == name) {
            let value = words.next().ok_or(CommandLineError::NoArgument { typed: word.into() })?;
            let value = value.to_str().ok_or(CommandLineError::NotText)?.to_owned();
            typed.push(Typed { name, value });
        } else {
            return Err(CommandLineError::Unknown { typed: word.to_owned() });
        }
    }
    Ok(typed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<&[(&str, &str)], &str>) {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        match (scan(&arguments), expected) {
            (Ok(typed), Ok(expected)) => {
                let typed: Vec<_> =
                    typed.iter().map(|typed| (typed.name, typed.value.as_str())).collect();
                assert_eq!(typed, expected, "{line}");
            }
            (Err(error), Err(text)) => assert_eq!(error.to_string(), text, "{line}"),
            (scanned, _) => panic!("{line}: {scanned:?}"),
        }
    }

    #[test]
    fn options_images_and_errors() {
        check("-m 1G --nographic a.img", Ok(&[("m", "1G"), ("nographic", ""), ("hda", "a.img")]));
        check("-S -device -x", Ok(&[("S", ""), ("device", "-x")]));
        check("-foo", Err("-foo: invalid option"));
        check("-S --kernel", Err("--kernel: requires an argument"));
        check(
            "a b",
            Err("only one disk image can be given without an option, and 'b' is a second"),
        );
    }
}
