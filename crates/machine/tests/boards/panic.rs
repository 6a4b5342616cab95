//! Guests that say that they have panicked, by pvpanic's port.

use machine::{Actions, BoardKind, End, PanicAction, RunState};

use crate::rig::{Rig, part};

/// A ROM that says by the debug console that it is there, panics, and says that it goes on.
fn rom() -> Vec<u8> {
    let code = [
        0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, // mov dx, 0x505; mov al, 1; out dx, al
        0xb9, 0xff, 0xff, 0xe2, 0xfe, // mov cx, -1; loop $
        0xba, 0x02, 0x04, 0xb0, b'+', 0xee, 0xeb, 0xfe, // mov dx, 0x402; out; jmp $
    ];
    let mut rom = vec![0xf4; 64 << 10];
    rom[..code.len()].copy_from_slice(&code);
    rom[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
    rom
}

/// Runs it until the machine has ended or is in this state.
fn check(panic: PanicAction, shutdown_pauses: bool, state: Option<RunState>, expected: End) {
    let mut rig = Rig::new(BoardKind::Q35, rom());
    rig.config.parts.push(part("pvpanic", &[]));
    rig.config.actions = Actions { reset_is_shutdown: false, shutdown_pauses, panic };
    let debug = std::sync::Arc::clone(&rig.debug);
    let (.., end) = rig.run(move |machine, has_ended| {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let goes_on = state == Some(RunState::Running);
        while std::time::Instant::now() < end {
            let is_there = match state {
                None => has_ended(),
                Some(_) if goes_on && !debug.text().contains('+') => false,
                Some(state) => machine.control().state() == state,
            };
            if is_there {
                return true;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        false
    });
    assert_eq!(end, expected, "{panic:?} {shutdown_pauses}");
}

#[test]
fn a_panic_does_what_was_asked_for() {
    use PanicAction::{ExitFailure, Nothing, Pause, Shutdown};
    let panicked = Some(RunState::GuestPanicked);
    check(Pause, false, panicked, End::Quit);
    check(Shutdown, false, None, End::Shutdown);
    check(Shutdown, true, panicked, End::Quit);
    check(ExitFailure, true, None, End::Exit(1));
    check(Nothing, false, Some(RunState::Running), End::Quit);
}
