//! Debian's kernel, started directly, on our boards.

use crate::rig::{Rig, part};
use machine::{BoardKind, Part, Unplug};

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

#[test]
fn the_kernel_opens_the_way_to_a_device_behind_a_root_port() {
    let script = format!(
        "{LIST_PCI}\n/bin/busybox head -n 1 /sys/bus/pci/devices/0000:01:00.0/resource\n\
         /bin/busybox dmesg | /bin/busybox grep MMCONFIG"
    );
    let Some(mut rig) = Rig::kernel(BoardKind::Q35, &script) else {
        tests::skip!("the kernel or busybox was not fetched");
    };
    let on = |part: Part, id: &str, bus: &str| Part {
        id: Some(id.to_owned()),
        bus: Some(bus.to_owned()),
        ..part
    };
    rig.config.parts.extend([
        on(part("pcie-root-port", &[]), "port", "pcie.0"),
        on(part("xhci", &[]), "usb", "port"),
        part("VGA", &[]),
    ]);
    let console = rig.run_to_end();
    assert!(console.contains("PCI 0000:01:00.0 0x1b36 0x000d 0x0c0330"), "{console}");
    let bar = console.lines().find(|line| line.ends_with("0x0000000000140204"));
    let bar = bar.unwrap_or_else(|| panic!("no resource of the BAR: {console}"));
    assert!(!bar.starts_with("0x0000000000000000"), "the BAR has no address: {bar}");
    assert!(console.contains("reserved in ACPI motherboard resources"), "{console}");
}

#[test]
fn a_device_comes_and_goes_while_the_machine_runs() {
    let script = "d=/sys/bus/pci/devices/0000:01:00.0\necho READY\n\
        while [ ! -e $d ]; do /bin/busybox sleep 1; done\n\
        /bin/busybox cat $d/device; echo THERE\n\
        while [ -e $d ]; do /bin/busybox sleep 1; done\necho GONE";
    let Some(mut rig) = Rig::kernel(BoardKind::Q35, script) else {
        tests::skip!("the kernel or busybox was not fetched");
    };
    let on = |part: Part, id: &str, bus: &str| Part {
        id: Some(id.to_owned()),
        bus: Some(bus.to_owned()),
        ..part
    };
    rig.config.parts.push(on(part("pcie-root-port", &[]), "port", "pcie.0"));
    let usb = on(part("xhci", &[]), "usb", "port");
    let serial = std::sync::Arc::clone(&rig.serial);
    rig.run(move |machine, _| {
        assert_eq!(machine.request_unplug("usb"), Unplug::NoSuchDevice);
        let ready = serial.wait_for("READY\r\n");
        assert_eq!(machine.plug(&usb).expect("the slot is free"), "usb");
        let there = ready && serial.wait_for("0x000d\r\nTHERE");
        assert_eq!(machine.request_unplug("usb"), Unplug::Asked);
        let gone = there && serial.wait_for("GONE\r\n");
        // The folder goes first, then the power of the slot.
        let is_out = || machine.with_parts(|parts| parts.iter().all(|part| part.id != "usb"));
        let wait = || std::thread::sleep(std::time::Duration::from_millis(50));
        gone && (0..200).any(|_| {
            is_out() || {
                wait();
                false
            }
        })
    });
}
