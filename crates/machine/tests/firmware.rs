//! Firmware from Debian's packages on our boards.

mod rig;

use machine::BoardKind;
use rig::{Rig, firmware};

#[test]
fn seabios_looks_for_something_to_boot_on_both_boards() {
    let Some(rom) = firmware("seabios/bios-256k.bin") else {
        tests::skip!("SeaBIOS was not fetched");
    };
    for board in [BoardKind::Pc, BoardKind::Q35] {
        let log = Rig::new(board, rom.clone()).run_until("No bootable device");
        println!("{log}");
        assert!(log.contains("SeaBIOS (version"), "{board:?}: {log}");
    }
}
