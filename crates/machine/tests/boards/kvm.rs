//! Boards on KVM. A software KVM is slow, so guests are small.

use std::sync::Arc;

use machine::kvm::{Options, Vm};
use machine::{Accelerator, BoardKind, Progress, RunState};

use crate::rig::{Rig, boot_disk, firmware, part, text};

/// A ROM of 64 KiB with this code at its start, to which the reset vector leads.
fn rom(code: &[u8]) -> Vec<u8> {
    let mut rom = vec![0xf4; 64 << 10];
    rom[..code.len()].copy_from_slice(code);
    // jmp 0xf000:0
    rom[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
    rom
}

fn rig(board: BoardKind, rom: Vec<u8>) -> Option<Rig> {
    let vm = Vm::new().ok()?;
    let mut rig = Rig::new(board, rom);
    rig.config.accelerator = Accelerator::Kvm(Options { vm, migratable: true });
    Some(rig)
}

/// The 8254's interrupt through the 8259, in real mode, as firmware has it.
#[test]
fn the_timer_interrupts_through_the_8259() {
    let code = [
        0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x70, // ds = ss = 0; mov sp, 0x7000
        0xc7, 0x06, 0x20, 0x00, 0x40, 0x00, // mov word [0x20], 0x40: vector 8
        0xc7, 0x06, 0x22, 0x00, 0x00, 0xf0, // mov word [0x22], 0xf000
        0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x08, 0xe6, 0x21, // 8259: ICW1; ICW2, vectors from 8
        0xb0, 0x04, 0xe6, 0x21, 0xb0, 0x01, 0xe6, 0x21, // ICW3; ICW4
        0xb0, 0xfe, 0xe6, 0x21, // line 0 only
        0xb0, 0x34, 0xe6, 0x43, 0xb0, 0x00, 0xe6, 0x40, // 8254: a rate of
        0xb0, 0x10, 0xe6, 0x40, 0xfb, // 0x1000 / 1.19 MHz; sti
        0xf4, 0xeb, 0xfd, // hlt; jmp
    ];
    // mov dx, 0x402; mov al, 't'; out dx, al; mov al, 0x20; out 0x20, al; iret
    let handler = [0xba, 0x02, 0x04, 0xb0, b't', 0xee, 0xb0, 0x20, 0xe6, 0x20, 0xcf];
    let mut code = code.to_vec();
    code.resize(0x40, 0xf4);
    code.extend(handler);
    for board in [BoardKind::Pc, BoardKind::Q35] {
        let Some(rig) = rig(board, rom(&code)) else {
            tests::skip!("no KVM that can be used here");
        };
        let log = rig.run_until("tttt");
        assert!(log.chars().all(|letter| letter == 't'), "{log}");
    }
}

#[test]
fn a_reset_from_outside_starts_the_guest_again() {
    // mov dx, 0x402; mov al, 'a'; out dx, al; cli; hlt
    let code = [0xba, 0x02, 0x04, 0xb0, b'a', 0xee, 0xfa, 0xf4];
    let Some(rig) = rig(BoardKind::Pc, rom(&code)) else {
        tests::skip!("no KVM that can be used here");
    };
    let debug = Arc::clone(&rig.debug);
    let (log, ..) = rig.run(move |machine, _| {
        (1..4).all(|times| {
            let seen = debug.wait_for_times("a", times);
            machine.requests().put(machine::Request::Reset(machine::Cause::HostReset));
            seen
        })
    });
    assert!(log.starts_with("aaa"), "{log}");
}

#[test]
fn seabios_speaks() {
    let Some(image) = firmware("seabios/bios-256k.bin") else {
        tests::skip!("SeaBIOS was not fetched");
    };
    let Some(rig) = rig(BoardKind::Q35, image) else {
        tests::skip!("no KVM that can be used here");
    };
    let log = rig.run_until("No bootable device");
    assert!(log.contains("SeaBIOS (version"), "{log}");
}

/// The queue's doorbell, the worker and the interrupt, all beside the guest.
#[test]
fn seabios_boots_from_a_virtio_disk() {
    let Some(image) = firmware("seabios/bios-256k.bin") else {
        tests::skip!("SeaBIOS was not fetched");
    };
    let Some(mut rig) = rig(BoardKind::Q35, image) else {
        tests::skip!("no KVM that can be used here");
    };
    let disk = boot_disk("the boot sector speaks\n");
    rig.config.backends.drives.insert("disk", disk as Arc<dyn block::Node>);
    rig.config.parts.push(part("virtio-blk-pci", &[("drive", text("disk"))]));
    let serial = Arc::clone(&rig.serial);
    rig.run(move |_, _| serial.wait_for("the boot sector speaks"));
}

/// Letters from a timer's interrupt, one after the other: from memory, a register, and all the chips
/// between the timer and the processor.
fn alphabet() -> Vec<u8> {
    let mut code = vec![
        0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x70, // ds = ss = 0; mov sp, 0x7000
        0xc7, 0x06, 0x20, 0x00, 0x60, 0x00, // mov word [0x20], 0x60: vector 8
        0xc7, 0x06, 0x22, 0x00, 0x00, 0xf0, // mov word [0x22], 0xf000
        0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x08, 0xe6, 0x21, // 8259: ICW1; ICW2, vectors from 8
        0xb0, 0x04, 0xe6, 0x21, 0xb0, 0x01, 0xe6, 0x21, // ICW3; ICW4
        0xb0, 0xfe, 0xe6, 0x21, // line 0 only
        0xb0, 0x34, 0xe6, 0x43, 0xb0, 0x00, 0xe6, 0x40, // 8254: a rate of
        0xb0, 0x10, 0xe6, 0x40, // 0x1000 / 1.19 MHz
        0xbb, 0x61, 0x00, 0xfb, // mov bx, 'a'; sti
        0xf4, 0xeb, 0xfd, // hlt; jmp
    ];
    code.resize(0x60, 0xf4);
    code.extend([
        0xba, 0x02, 0x04, 0x88, 0xd8, 0xee, // mov dx, 0x402; mov al, bl; out dx, al
        0x43, 0x80, 0xfb, 0x7b, 0x75, 0x02, 0xb3, 0x61, // inc bx; after 'z' comes 'a'
        0xb0, 0x20, 0xe6, 0x20, 0xcf, // mov al, 0x20; out 0x20, al; iret
    ]);
    code
}

/// On KVM as on the translator.
#[test]
fn a_saved_machine_goes_on_where_it_was() {
    let kvm = || rig(BoardKind::Q35, rom(&alphabet()));
    let translator = || Some(Rig::new(BoardKind::Pc, rom(&alphabet())));
    let Some(_) = kvm() else {
        tests::skip!("no KVM that can be used here");
    };
    for make in [&kvm as &dyn Fn() -> Option<Rig>, &translator] {
        let (first, second) = (make().unwrap(), make().unwrap());
        let mut state = Vec::new();
        let debug = Arc::clone(&first.debug);
        let (before, ..) = first.run(|machine, _| {
            let seen = debug.wait_for("xyzabcdef");
            machine.control().stop(RunState::Paused);
            machine.save(&mut state, &Progress::default(), true).expect("it can be saved");
            seen
        });
        let debug = Arc::clone(&second.debug);
        let (after, ..) = second.run(|machine, _| {
            machine.control().stop(RunState::Paused);
            machine.load(&mut &state[..]).expect("it can be loaded");
            let already = debug.text().len();
            machine.control().resume();
            let seen =
                debug.wait_for_times("efgh", 1 + debug.text()[..already].matches("efgh").count());
            // What was said before the state came is of another life.
            debug.forget(already);
            seen
        });
        let next = |letter: u8| if letter == b'z' { b'a' } else { letter + 1 };
        let last = before.bytes().last().unwrap();
        assert_eq!(after.bytes().next(), Some(next(last)), "{before}, then {after}");
        let rest = after.as_bytes();
        assert!(rest.windows(2).all(|two| two[1] == next(two[0])), "{after}");
    }
}
