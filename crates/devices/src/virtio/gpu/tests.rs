use super::*;
use crate::virtio::guest::{Guest, Part, hostile};

fn gpu() -> Arc<Gpu> {
    Gpu::new(GpuConfig { size: (1280, 800), edid: true, memory_bytes_max: 1 << 20 })
}

/// A command of words: the answer's type, and the words behind its header.
fn command(guest: &mut Guest, queue: usize, kind: u32, words: &[u32]) -> (u32, Vec<u32>) {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.resize(spec::HEADER_BYTES, 0);
    words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    let (answer, written) = guest.request(queue, &[Part::Out(&bytes), Part::In(2048)]);
    let words =
        answer[..written as usize].as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b));
    let words: Vec<u32> = words.collect();
    (words[0], words[6..].to_vec())
}

/// A picture of 4 by 2 pixels in two pieces of guest memory, shown.
fn shown(guest: &mut Guest) -> [u64; 2] {
    assert_eq!(command(guest, 0, spec::CREATE_2D, &[5, 2, 4, 2]).0, spec::OK);
    let pieces = [guest.allocate(20), guest.allocate(12)];
    let backing = [5, 2, pieces[0] as u32, 0, 20, 0, pieces[1] as u32, 0, 12, 0];
    assert_eq!(command(guest, 0, spec::ATTACH_BACKING, &backing).0, spec::OK);
    assert_eq!(command(guest, 0, spec::SET_SCANOUT, &[0, 0, 4, 2, 0, 5]).0, spec::OK);
    pieces
}

#[test]
fn what_the_guest_draws_is_seen() {
    let gpu = gpu();
    let mut guest = Guest::ready(Arc::clone(&gpu) as _, spec::F_EDID);
    let mut picture = Picture::default();
    let all = |width, height| vec![Rectangle { x: 0, y: 0, width, height }];
    assert_eq!(gpu.refresh(&mut picture, false), all(1280, 800));
    assert!(gpu.refresh(&mut picture, false).is_empty());
    let pieces = shown(&mut guest);
    assert_eq!(gpu.refresh(&mut picture, false), all(4, 2));

    // The second row begins in the first piece and goes on in the second.
    guest.ram.write_value(pieces[0] + 16, 4, 0xff11_2233);
    guest.ram.write_value(pieces[1], 4, 0x4455_6677);
    let transfer = [0, 1, 2, 1, 16, 0, 5, 0];
    assert_eq!(command(&mut guest, 0, spec::TRANSFER, &transfer).0, spec::OK);
    assert_eq!(command(&mut guest, 0, spec::FLUSH, &[0, 0, 4, 2, 5, 0]).0, spec::OK);
    let changed = gpu.refresh(&mut picture, false);
    assert_eq!(changed, [Rectangle { x: 0, y: 1, width: 2, height: 1 }]);
    assert_eq!(picture.pixels, [0, 0, 0, 0, 0x11_2233, 0x55_6677, 0, 0]);
    assert!(gpu.refresh(&mut picture, false).is_empty());
    assert_eq!(gpu.refresh(&mut picture, true), all(4, 2));
    guest.write(0x70, 0);
    assert_eq!(gpu.refresh(&mut picture, false), all(1280, 800));
}

#[test]
fn the_formats_differ_in_the_places_of_the_colours() {
    for (format, pixel) in
        [(1, 0x4433_2211), (3, 0x1122_3344), (67, 0x4411_2233), (121, 0x1144_3322)]
    {
        let gpu = gpu();
        let mut guest = Guest::ready(Arc::clone(&gpu) as _, 0);
        let memory = guest.allocate(4) as u32;
        guest.ram.write_value(memory.into(), 4, 0x4433_2211);
        command(&mut guest, 0, spec::CREATE_2D, &[1, format, 1, 1]);
        command(&mut guest, 0, spec::ATTACH_BACKING, &[1, 1, memory, 0, 4, 0]);
        assert_eq!(command(&mut guest, 0, spec::TRANSFER, &[0, 0, 1, 1, 0, 0, 1, 0]).0, spec::OK);
        assert_eq!(gpu.state.lock().resources[&1].pixels, [pixel], "{format}");
    }
}

#[test]
fn a_viewer_can_ask_for_another_size() {
    let gpu = gpu();
    let mut guest = Guest::ready(Arc::clone(&gpu) as _, spec::F_EDID);
    let size = |guest: &mut Guest| command(guest, 0, spec::GET_DISPLAY_INFO, &[]).1[..5].to_vec();
    assert_eq!(size(&mut guest), [0, 0, 1280, 800, 1]);
    gpu.suggest_size(1024, 768);
    assert_eq!((guest.read(0x60) & 2, guest.read(0x100)), (2, 1));
    guest.write(0x104, 1);
    assert_eq!((guest.read(0x100), size(&mut guest)), (0, vec![0, 0, 1024, 768, 1]));
    let (kind, edid) = command(&mut guest, 0, spec::GET_EDID, &[0, 0]);
    assert_eq!((kind, edid[0], edid.len()), (spec::OK_EDID, 128, 2 + 256));
    assert_eq!(edid[2], 0xffff_ff00);
}

#[test]
fn a_pointer_is_shown_moved_and_hidden() {
    let gpu = gpu();
    let mut guest = Guest::ready(Arc::clone(&gpu) as _, 0);
    command(&mut guest, 0, spec::CREATE_2D, &[9, 1, 64, 64]);
    assert_eq!(command(&mut guest, 1, spec::UPDATE_CURSOR, &[0, 7, 8, 0, 9, 1, 2, 0]).0, spec::OK);
    let (cursor, at) = gpu.cursor().unwrap();
    assert_eq!((cursor.width, cursor.hot, at), (64, (1, 2), (7, 8)));
    command(&mut guest, 1, spec::MOVE_CURSOR, &[0, u32::MAX, 3, 0, 0, 0, 0, 0]);
    assert_eq!(gpu.cursor().unwrap().1, (-1, 3));
    command(&mut guest, 1, spec::UPDATE_CURSOR, &[0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(gpu.cursor().is_none());
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    let gpu = gpu();
    let mut guest = Guest::ready(Arc::clone(&gpu) as _, 0);
    let pieces = shown(&mut guest);
    command(&mut guest, 0, spec::CREATE_2D, &[6, 1, 4, 4]);
    for (kind, words, error) in [
        (0x999, &[][..], spec::ERROR),
        (spec::CREATE_2D, &[0, 1, 4, 4], spec::ERROR_RESOURCE),
        (spec::CREATE_2D, &[5, 1, 4, 4], spec::ERROR_RESOURCE),
        (spec::CREATE_2D, &[7, 99, 4, 4], spec::ERROR_PARAMETER),
        (spec::CREATE_2D, &[7, 1, 0, 4], spec::ERROR_PARAMETER),
        (spec::CREATE_2D, &[7, 1, u32::MAX, u32::MAX], spec::ERROR_PARAMETER),
        (spec::CREATE_2D, &[7, 1, 1024, 1024], spec::ERROR_MEMORY),
        (spec::CREATE_2D, &[7, 1], spec::ERROR_PARAMETER),
        (spec::SET_SCANOUT, &[0, 0, 4, 2, 1, 5], spec::ERROR_SCANOUT),
        (spec::SET_SCANOUT, &[0, 0, 5, 2, 0, 5], spec::ERROR_PARAMETER),
        (spec::SET_SCANOUT, &[u32::MAX, 0, 4, 2, 0, 5], spec::ERROR_PARAMETER),
        (spec::SET_SCANOUT, &[0, 0, 4, 2, 0, 8], spec::ERROR_RESOURCE),
        (spec::TRANSFER, &[0, 0, 4, 3, 0, 0, 5, 0], spec::ERROR_PARAMETER),
        (spec::TRANSFER, &[0, 0, 4, 2, 4, 0, 5, 0], spec::ERROR),
        (spec::TRANSFER, &[0, 0, 4, 2, u32::MAX, u32::MAX, 5, 0], spec::ERROR),
        (spec::TRANSFER, &[0, 0, 4, 4, 0, 0, 6, 0], spec::ERROR_PARAMETER),
        (spec::ATTACH_BACKING, &[5, 1, pieces[0] as u32, 0, 4, 0], spec::ERROR),
        (spec::ATTACH_BACKING, &[6, u32::MAX, 0, 0, 4, 0], spec::ERROR),
        (spec::ATTACH_BACKING, &[6, 2, 0, 0, 4, 0], spec::ERROR_PARAMETER),
        (spec::GET_EDID, &[1, 0], spec::ERROR_SCANOUT),
        (spec::UPDATE_CURSOR, &[0, 0, 0, 0, 5, 0, 0, 0], spec::ERROR_PARAMETER),
        (spec::UNREF, &[8, 0], spec::ERROR_RESOURCE),
    ] {
        assert_eq!(command(&mut guest, 0, kind, words).0, error, "{kind:#x} {words:?}");
    }
    command(&mut guest, 0, spec::UNREF, &[5, 0]);
    command(&mut guest, 0, spec::UNREF, &[6, 0]);
    let state = gpu.state.lock();
    assert_eq!((state.bytes, state.shown), (0, None));
}

#[test]
fn a_hostile_guest_breaks_nothing() {
    for seed in 1..5 {
        let gpu = gpu();
        hostile(Arc::clone(&gpu) as _, 3 << 28, 2000, seed);
        assert!(gpu.state.lock().bytes <= 1 << 20);
        _ = gpu.refresh(&mut Picture::default(), true);
    }
}
