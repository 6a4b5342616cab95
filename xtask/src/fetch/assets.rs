//! The table of assets: one row each.

/// Packages of one suite and architecture, unpacked into one folder.
pub struct Asset {
    /// The folder below `target/assets`.
    pub name: &'static str,
    pub suite: &'static str,
    pub architecture: &'static str,
    /// A name that ends in `*` is the newest package of that pattern.
    pub packages: &'static [&'static str],
    /// With everything they depend on, so that the folder is a root to run programs in.
    pub closure: bool,
    /// Programs to be found in `target/assets/bin`, with the options they need to find their data.
    pub programs: &'static [(&'static str, &'static str)],
}

impl Asset {
    /// What the asset is made from, as the manifest's first line.
    pub fn recipe(&self) -> String {
        let Self { suite, architecture, packages, closure, .. } = self;
        let extent = if *closure { "closure" } else { "packages" };
        format!("{suite} {architecture} {extent}: {}\n", packages.join(" "))
    }
}

pub const ASSETS: &[Asset] = &[
    Asset {
        name: "qemu-user-7.2",
        suite: "bookworm",
        architecture: "amd64",
        packages: &["qemu-user-static"],
        closure: false,
        programs: &[("qemu-riscv64-static", ""), ("qemu-aarch64-static", "")],
    },
    Asset {
        name: "qemu-user-10",
        suite: "trixie",
        architecture: "amd64",
        packages: &["qemu-user"],
        closure: false,
        programs: &[],
    },
    Asset {
        name: "kernel-12",
        suite: "bookworm",
        architecture: "amd64",
        packages: &["linux-image-6.1.0-*-cloud-amd64"],
        closure: false,
        programs: &[],
    },
    Asset {
        name: "kernel-13",
        suite: "trixie",
        architecture: "amd64",
        packages: &["linux-image-6.12.*+deb13-cloud-amd64"],
        closure: false,
        programs: &[],
    },
    Asset {
        name: "busybox-amd64",
        suite: "bookworm",
        architecture: "amd64",
        packages: &["busybox-static"],
        closure: false,
        programs: &[],
    },
    Asset {
        name: "busybox-riscv64",
        suite: "trixie",
        architecture: "riscv64",
        packages: &["busybox-static"],
        closure: false,
        programs: &[],
    },
    Asset {
        name: "busybox-arm64",
        suite: "trixie",
        architecture: "arm64",
        packages: &["busybox-static"],
        closure: false,
        programs: &[],
    },
    Asset {
        name: "programs-arm64",
        suite: "trixie",
        architecture: "arm64",
        packages: &["dash", "coreutils", "python3-minimal", "gawk"],
        closure: true,
        programs: &[],
    },
    Asset {
        name: "programs-i386",
        suite: "bookworm",
        architecture: "i386",
        packages: &[
            "dash",
            "coreutils",
            "python3-minimal",
            "perl-base",
            "sqlite3",
            "openssl",
            "git",
        ],
        closure: true,
        programs: &[],
    },
    Asset {
        name: "programs-riscv64",
        suite: "trixie",
        architecture: "riscv64",
        packages: &["dash", "coreutils", "python3-minimal", "perl-base", "sqlite3", "openssl"],
        closure: true,
        programs: &[],
    },
    Asset {
        name: "tools-arm64",
        suite: "trixie",
        architecture: "arm64",
        packages: &[
            "perl-base",
            "sqlite3",
            "openssl",
            "xz-utils",
            "luajit",
            "git",
            "tcc",
            "libc6-dev",
        ],
        closure: true,
        programs: &[],
    },
    Asset {
        name: "tools-riscv64",
        suite: "trixie",
        architecture: "riscv64",
        packages: &["xz-utils", "git"],
        closure: true,
        programs: &[],
    },
    Asset {
        name: "suite-arm64",
        suite: "trixie",
        architecture: "arm64",
        packages: &[
            "gcc",
            "libc6-dev",
            "python3",
            "libpython3.13-testsuite",
            "nodejs",
            "ripgrep",
            "gron",
        ],
        closure: true,
        programs: &[],
    },
    Asset {
        name: "qemu-system-10",
        suite: "trixie",
        architecture: "amd64",
        packages: &["qemu-system-x86", "qemu-utils", "seabios", "ovmf"],
        closure: true,
        programs: &[
            ("qemu-system-x86_64", "-L {root}/usr/share/seabios -L {root}/usr/share/qemu"),
            ("qemu-img", ""),
            ("qemu-io", ""),
            ("qemu-nbd", ""),
        ],
    },
    Asset {
        name: "nbd-tools",
        suite: "trixie",
        architecture: "amd64",
        packages: &["nbdkit", "libnbd-bin"],
        closure: true,
        programs: &[("nbdinfo", ""), ("nbdcopy", "")],
    },
    Asset {
        name: "memtest-12",
        suite: "bookworm",
        architecture: "amd64",
        packages: &["memtest86+"],
        closure: false,
        programs: &[],
    },
    Asset {
        name: "installer-12",
        suite: "bookworm",
        architecture: "amd64",
        packages: &["debian-installer-12-netboot-amd64"],
        closure: false,
        programs: &[],
    },
    Asset {
        name: "systemd-12",
        suite: "bookworm",
        architecture: "amd64",
        packages: &[
            "systemd-sysv",
            "udev",
            "util-linux",
            "login",
            "base-files",
            "bash",
            "coreutils",
        ],
        closure: true,
        programs: &[],
    },
];
