//! Firmware from Debian's packages on our boards.

use std::sync::Arc;

use crate::rig::{MemoryDisk, Rig, boot_disk, firmware, part, text};
use machine::{BoardKind, Part, Picture, PropertyValue};
use parking_lot::Mutex;

#[test]
fn seabios_looks_for_something_to_boot_on_both_boards() {
    let Some(rom) = firmware("seabios/bios-256k.bin") else {
        tests::skip!("SeaBIOS was not fetched");
    };
    for board in [BoardKind::Pc, BoardKind::Q35] {
        let log = Rig::new(board, rom.clone()).run_until("No bootable device");
        assert!(log.contains("SeaBIOS (version"), "{board:?}: {log}");
    }
}

#[test]
fn a_boot_sector_runs_from_a_disk() {
    let Some(rom) = firmware("seabios/bios-256k.bin") else {
        tests::skip!("SeaBIOS was not fetched");
    };
    for board in [BoardKind::Pc, BoardKind::Q35] {
        let mut rig = Rig::new(board, rom.clone());
        let disk = boot_disk("the boot sector speaks\n");
        rig.config.backends.drives.insert("disk", disk as Arc<dyn block::Node>);
        rig.config.parts.push(part("ide-hd", &[("drive", text("disk"))]));
        let serial = Arc::clone(&rig.serial);
        let (log, ..) = rig.run(move |_, _| serial.wait_for("the boot sector speaks"));
        assert!(log.contains("Booting from Hard Disk"), "{board:?}: {log}");
    }
}

#[test]
fn ovmf_comes_to_its_shell() {
    let code = firmware("OVMF/OVMF_CODE_4M.fd");
    let variables = firmware("OVMF/OVMF_VARS_4M.fd");
    let (Some(code), Some(variables)) = (code, variables) else {
        tests::skip!("OVMF was not fetched");
    };
    for board in [BoardKind::Q35, BoardKind::Pc] {
        let mut rig = Rig::new(board, Vec::new());
        rig.config.boot.rom = None;
        let store = Arc::new(MemoryDisk(Mutex::new(variables.clone())));
        let kept = Arc::clone(&store) as Arc<dyn block::Node>;
        rig.config.boot.flash = [Some(MemoryDisk::node(code.clone())), Some(kept)];
        let serial = Arc::clone(&rig.serial);
        let (_, console, _) = rig.run(move |_, _| serial.wait_for("Shell>"));
        assert!(console.contains("UEFI Interactive Shell"), "{board:?}: {console}");
        assert_ne!(*store.0.lock(), variables, "{board:?}: the boot order was stored");
    }
}

#[test]
fn a_reset_starts_the_firmware_again() {
    let Some(rom) = firmware("seabios/bios-256k.bin") else {
        tests::skip!("SeaBIOS was not fetched");
    };
    for board in [BoardKind::Pc, BoardKind::Q35] {
        let mut rig = Rig::new(board, rom.clone());
        rig.config.boot.retry_ms = Some(1);
        let debug = Arc::clone(&rig.debug);
        rig.run(move |_, _| debug.wait_for_times("SeaBIOS (version", 6));
    }
}

#[test]
fn seabios_writes_on_the_screen() {
    let Some(rom) = firmware("seabios/bios-256k.bin") else {
        tests::skip!("SeaBIOS was not fetched");
    };
    for board in [BoardKind::Pc, BoardKind::Q35] {
        let mut rig = Rig::new(board, rom.clone());
        rig.config.parts.push(part("VGA", &[]));
        let (debug, picture) = (Arc::clone(&rig.debug), Arc::new(Mutex::new(Picture::default())));
        let seen = Arc::clone(&picture);
        rig.run(move |machine, _| {
            let shown = debug.wait_for("No bootable device");
            machine.screens().all()[0].1.refresh(&mut seen.lock(), false);
            shown
        });
        let picture = picture.lock();
        assert_eq!((picture.width, picture.height), (720, 400), "{board:?}: text mode");
        let lit = picture.pixels.iter().filter(|pixel| **pixel != 0).count();
        assert!(lit > 1000, "{board:?}: {lit} pixels are lit");
    }
}

#[test]
fn seabios_starts_the_kernel_that_it_is_given() {
    let Some(rom) = firmware("seabios/bios-256k.bin") else {
        tests::skip!("SeaBIOS was not fetched");
    };
    for board in [BoardKind::Pc, BoardKind::Q35] {
        let Some(mut rig) = Rig::kernel(board, "echo started by $((6 * 7)) firmware") else {
            tests::skip!("the kernel or busybox was not fetched");
        };
        rig.config.boot.rom = Some(rom.clone());
        rig.config.processors = 4;
        let console = rig.run_to_end();
        assert!(console.contains("started by 42 firmware"), "{board:?}: {console}");
        assert!(console.contains("DMI: "), "{board:?}: {console}");
        assert!(console.contains("Total of 4 processors activated"), "{board:?}: {console}");
    }
}

#[test]
fn seabios_finds_a_usb_keyboard_behind_a_root_port() {
    let Some(rom) = firmware("seabios/bios-256k.bin") else {
        tests::skip!("SeaBIOS was not fetched");
    };
    let mut rig = Rig::new(BoardKind::Q35, rom);
    let on = |part: Part, id: &str, bus: &str| Part {
        id: Some(id.to_owned()),
        bus: Some(bus.to_owned()),
        ..part
    };
    let fifteen = PropertyValue::Unsigned(15);
    let ports = [("p2", fifteen.clone()), ("p3", fifteen)];
    rig.config.parts.extend([
        on(part("pcie-root-port", &[]), "port", "pcie.0"),
        on(part("xhci", &ports), "usb", "port"),
        on(part("usb-tablet", &[]), "tablet", "usb.0"),
        on(part("usb-kbd", &[]), "keyboard", "usb.0"),
    ]);
    let log = rig.run_until("No bootable device");
    assert!(log.contains("USB keyboard initialized"), "{log}");
}
