//! Debian's kernel, started directly, on our boards.

use crate::rig::Rig;
use machine::BoardKind;

const LIST_PCI: &str = "for d in /sys/bus/pci/devices/*; do echo PCI ${d##*/} \
    $(/bin/busybox cat $d/vendor $d/device $d/class $d/irq); done";

#[test]
fn the_kernel_sees_the_chipset_on_pci() {
    for (board, expected) in [
        (BoardKind::Pc, &["0000:00:00.0 0x8086 0x1237", "0000:00:01.3 0x8086 0x7113"]),
        (BoardKind::Q35, &["0000:00:00.0 0x8086 0x29c0", "0000:00:1f.0 0x8086 0x2918"]),
    ] {
        let Some(rig) = Rig::kernel(board, LIST_PCI) else {
            tests::skip!("the kernel or busybox was not fetched");
        };
        let console = rig.run_to_end();
        for function in expected {
            assert!(console.contains(&format!("PCI {function}")), "{function}:\n{console}");
        }
    }
}
