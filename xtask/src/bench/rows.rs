//! The benchmarks: one row each.

use super::{Row, kernels};

macro_rules! user {
    ($program:literal, $line:literal) => {
        concat!($program, " target/assets/busybox-riscv64/usr/bin/busybox ", $line)
    };
}

/// All benchmarks.
pub fn all() -> Vec<Row> {
    ROWS.iter().map(Plain::row).chain(kernels::rows()).collect()
}

/// A row with one peer.
struct Plain {
    name: &'static str,
    needs: &'static [&'static str],
    ours: &'static str,
    theirs: &'static str,
    expect: &'static str,
}

impl Plain {
    fn row(&self) -> Row {
        Row {
            name: self.name.to_owned(),
            group: None,
            needs: self.needs.iter().map(|path| (*path).to_owned()).collect(),
            ours: self.ours.to_owned(),
            theirs: vec![self.theirs.to_owned()],
            expect: self.expect,
        }
    }
}

const ROWS: &[Plain] = &[
    Plain {
        name: "boot Debian 12 to busybox",
        needs: &[
            "target/release/hostel",
            "target/assets/bin/qemu-system-x86_64",
            "target/bench/vmlinuz",
            "target/bench/initrd",
        ],
        ours: "target/release/hostel qemu-system-x86_64 -m 256 -nographic -no-reboot \
               -kernel target/bench/vmlinuz -initrd target/bench/initrd \
               -append 'console=ttyS0 quiet'",
        theirs: "target/assets/bin/qemu-system-x86_64 -accel tcg -m 256 -nodefaults -display none \
                 -serial stdio -no-reboot -kernel target/bench/vmlinuz \
                 -initrd target/bench/initrd -append 'console=ttyS0 quiet'",
        expect: "INIT REACHED",
    },
    Plain {
        name: "riscv64 shell loop",
        needs: &[
            "target/release/hostel",
            "target/assets/busybox-riscv64/usr/bin/busybox",
            "target/assets/qemu-user-10/usr/bin/qemu-riscv64",
        ],
        ours: user!(
            "target/release/hostel qemu-riscv64",
            "sh -c 'i=0; s=0; while [ $i -lt 20000 ]; do i=$((i+1)); s=$((s+i)); done; echo $s'"
        ),
        theirs: user!(
            "target/assets/qemu-user-10/usr/bin/qemu-riscv64",
            "sh -c 'i=0; s=0; while [ $i -lt 20000 ]; do i=$((i+1)); s=$((s+i)); done; echo $s'"
        ),
        expect: "200010000",
    },
    Plain {
        name: "riscv64 start of a static program",
        needs: &[
            "target/release/hostel",
            "target/assets/busybox-riscv64/usr/bin/busybox",
            "target/assets/qemu-user-10/usr/bin/qemu-riscv64",
        ],
        ours: user!("target/release/hostel qemu-riscv64", "echo hello"),
        theirs: user!("target/assets/qemu-user-10/usr/bin/qemu-riscv64", "echo hello"),
        expect: "hello",
    },
    Plain {
        name: "x86_64 sha256 of the kernel",
        needs: &[
            "target/release/hostel",
            "target/bench/vmlinuz",
            "target/assets/busybox-amd64/bin/busybox",
            "target/assets/qemu-user-10/usr/bin/qemu-x86_64",
        ],
        ours: "target/release/hostel qemu-x86_64 target/assets/busybox-amd64/bin/busybox \
               sha256sum target/bench/vmlinuz",
        theirs: "target/assets/qemu-user-10/usr/bin/qemu-x86_64 \
                 target/assets/busybox-amd64/bin/busybox sha256sum target/bench/vmlinuz",
        expect: "target/bench/vmlinuz",
    },
    Plain {
        name: "qemu-img convert -c to qcow2",
        needs: &["target/release/hostel", "target/assets/bin/qemu-img", "target/bench/raw"],
        ours: "target/release/hostel qemu-img convert -c -O qcow2 target/bench/raw \
               target/bench/ours.qcow2",
        theirs: "target/assets/bin/qemu-img convert -c -O qcow2 target/bench/raw \
                 target/bench/theirs.qcow2",
        expect: "",
    },
];
