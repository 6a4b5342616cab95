//! A machine's state is saved and goes on in another machine.

use std::time::Duration;

use machine::{BoardKind, Identity, Progress, RunState, StreamError, Topology};

use crate::rig::{Rig, part};

/// Counts, on every processor, and beside it in an open file in memory.
const COUNT: &str = "/bin/busybox mkdir -p /tmp\n/bin/busybox mount -t tmpfs none /tmp\n\
    for cpu in 1 2 3 4; do (while :; do :; done) & done\n\
    exec 3>>/tmp/log\nn=0\n\
    while [ $n -lt 60 ]; do n=$((n+1)); echo line $n >&3; echo COUNT $n; \
    /bin/busybox usleep 50000; done\n\
    echo LINES $(/bin/busybox wc -l </tmp/log) CPUS $(/bin/busybox nproc) \
    INTERRUPTS $(/bin/busybox grep -c . /proc/interrupts)";

fn rig(board: BoardKind, processors: usize) -> Option<Rig> {
    let mut rig = Rig::kernel(board, COUNT)?;
    rig.config.processors = processors;
    rig.config.identity = Identity::native(Topology::of_cores(processors as u32));
    let models: &[&str] = match board {
        BoardKind::Microvm => {
            &["virtio-rng-device", "virtio-balloon-device", "virtio-serial-device"]
        }
        _ => &[
            "VGA",
            "virtio-rng-pci",
            "virtio-balloon-pci",
            "virtio-serial-pci",
            "xhci",
            "usb-tablet",
        ],
    };
    rig.config.parts.extend(models.iter().map(|model| part(model, &[])));
    if board == BoardKind::Microvm {
        (rig.config.hpet, rig.config.i8042) = (false, false);
    }
    Some(rig)
}

/// Runs a machine until it has counted so far, and saves it.
fn saved(rig: Rig, counted: &str) -> Vec<u8> {
    let mut state = Vec::new();
    let serial = std::sync::Arc::clone(&rig.serial);
    rig.run(|machine, _| {
        let counted = serial.wait_for(counted);
        assert!(matches!(
            machine.save(&mut Vec::new(), &Progress::default(), true),
            Err(StreamError::Runs)
        ));
        machine.control().stop(RunState::Paused);
        machine.save(&mut state, &Progress::default(), true).expect("the machine can be saved");
        counted
    });
    state
}

fn moves(board: BoardKind, processors: usize) {
    let Some(first) = rig(board, processors) else {
        tests::skip!("the kernel or busybox was not fetched");
    };
    let state = saved(first, "COUNT 20\r");
    let second = rig(board, processors).expect("it was there just now");
    let serial = std::sync::Arc::clone(&second.serial);
    let (_, console, _) = second.run(|machine, has_ended| {
        machine.control().stop(RunState::Paused);
        assert!(machine.load(&mut &state[..]).expect("the machine can be loaded"));
        machine.control().resume();
        let done = serial.wait_for("LINES");
        (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            has_ended()
        }) && done
    });
    let counts: Vec<u32> = console
        .lines()
        .filter_map(|line| line.trim().strip_prefix("COUNT ")?.parse().ok())
        .collect();
    assert!(counts.first().is_some_and(|first| (20..30).contains(first)), "{console}");
    assert_eq!(counts.last(), Some(&60), "{console}");
    assert!(counts.windows(2).all(|two| two[1] == two[0] + 1), "nothing is lost: {counts:?}");
    assert!(console.contains(&format!("LINES 60 CPUS {processors}")), "{console}");
    let megabytes = state.len() >> 20;
    assert!(megabytes < 120, "{megabytes} MiB for what the guest has touched");
}

#[test]
fn a_q35_goes_on_in_another_machine() {
    moves(BoardKind::Q35, 1);
}

#[test]
fn a_pc_goes_on_in_another_machine_with_four_processors() {
    moves(BoardKind::Pc, 4);
}

#[test]
fn a_microvm_goes_on_in_another_machine() {
    moves(BoardKind::Microvm, 2);
}
