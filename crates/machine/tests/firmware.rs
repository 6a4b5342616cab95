//! Firmware from Debian's packages on our boards.

mod rig;

use std::sync::Arc;

use machine::BoardKind;
use rig::{Rig, boot_disk, firmware, part, text};

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
    for board in [BoardKind::Q35] {
        let mut rig = Rig::new(board, rom.clone());
        let disk = boot_disk("the boot sector speaks\n");
        rig.config.backends.drives.insert("disk", disk as Arc<dyn block::Node>);
        rig.config.parts.push(part("ide-hd", &[("drive", text("disk"))]));
        let serial = Arc::clone(&rig.serial);
        let (log, ..) = rig.run(move |_, _| serial.wait_for("the boot sector speaks"));
        assert!(log.contains("Booting from Hard Disk"), "{board:?}: {log}");
        println!("{log}");
    }
}
