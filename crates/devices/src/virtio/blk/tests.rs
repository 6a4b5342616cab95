use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use block::Error;
use device::{DeviceEvent, NoEvents};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::*;
use crate::virtio::guest::{Guest, Part, Random, eventually, hostile};

/// An image in memory, which can be told to fail.
struct Image {
    bytes: Mutex<Vec<u8>>,
    fails: Mutex<Option<Errno>>,
    flushes: AtomicUsize,
    delay: Duration,
}

impl Image {
    fn new(bytes: usize) -> Arc<Self> {
        Self::slow(bytes, Duration::ZERO)
    }

    fn slow(bytes: usize, delay: Duration) -> Arc<Self> {
        let (bytes, fails) = (Mutex::new(vec![0; bytes]), Mutex::new(None));
        Arc::new(Self { bytes, fails, flushes: AtomicUsize::new(0), delay })
    }

    fn check(&self) -> block::Result<()> {
        std::thread::sleep(self.delay);
        self.fails.lock().map_or(Ok(()), |errno| Err(Error::Os(errno)))
    }
}

impl block::Node for Image {
    fn driver(&self) -> &'static str {
        "memory"
    }

    fn filename(&self) -> String {
        String::new()
    }

    fn size(&self) -> u64 {
        self.bytes.lock().len() as u64
    }

    fn writable(&self) -> bool {
        true
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> block::Result<()> {
        self.check()?;
        let offset = offset as usize;
        buffer.copy_from_slice(&self.bytes.lock()[offset..offset + buffer.len()]);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> block::Result<()> {
        self.check()?;
        let offset = offset as usize;
        self.bytes.lock()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn discard_at(&self, offset: u64, length: u64) -> block::Result<()> {
        self.zero_at(offset, length, Zeroing::Unmap)
    }

    fn flush(&self) -> block::Result<()> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.check()
    }
}

use block::Zeroing;

fn config(node: &Arc<Image>) -> BlkConfig {
    BlkConfig {
        id: "disk0".to_owned(),
        node: Arc::clone(node) as NodeRef,
        read_only: false,
        serial: "a serial number of 31 characters".to_owned(),
        logical_block_bytes: 512,
        physical_block_bytes: 4096,
        io_bytes: (4096, 65536),
        queues: 2,
        queue_size: 128,
        discard: true,
        write_zeroes: true,
        write_cache: true,
        on_read_error: ErrorPolicy::Report,
        on_write_error: ErrorPolicy::StopWhenFull,
        events: Arc::new(NoEvents),
    }
}

const ALL: u64 = spec::F_FLUSH | spec::F_MQ | spec::F_DISCARD | spec::F_WRITE_ZEROES | 3 << 28;

fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend([0; 4]);
    header.extend(sector.to_le_bytes());
    header
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

/// A request without data for the device to write: its status.
fn order(guest: &mut Guest, kind: u32, sector: u64, data: &[u8]) -> u8 {
    let head = header(kind, sector);
    guest.request(0, &[Part::Out(&head), Part::Out(data), Part::In(1)]).0[0]
}

#[test]
fn random_requests_agree_with_a_model() {
    let image = Image::new(1 << 20);
    let mut guest = Guest::ready(Blk::new(config(&image)), ALL);
    let (mut model, mut random) = (vec![0; 1 << 20], Random(7));
    for _ in 0..1500 {
        let queue = random.below(2) as usize;
        let sectors = 1 + random.below(64);
        let sector = random.below(2048 - sectors);
        let (from, to) = (sector as usize * 512, (sector + sectors) as usize * 512);
        match random.below(6) {
            0 | 1 => {
                let data = random.bytes(to - from);
                let cut = random.below(data.len() as u64) as usize;
                let head = header(spec::T_OUT, sector);
                let parts = [
                    Part::Out(&head),
                    Part::Out(&data[..cut]),
                    Part::Out(&data[cut..]),
                    Part::In(1),
                ];
                assert_eq!(guest.request(queue, &parts), (vec![0], 1));
                model[from..to].copy_from_slice(&data);
            }
            2 => {
                let kind =
                    if random.below(2) == 0 { spec::T_DISCARD } else { spec::T_WRITE_ZEROES };
                let data = range(sector, sectors as u32, 0);
                assert_eq!(order(&mut guest, kind, 0, &data), 0);
                model[from..to].fill(0);
            }
            _ => {
                let head = header(spec::T_IN, sector);
                let cut = random.below((to - from) as u64) as u32;
                let rest = (to - from) as u32 - cut + 1;
                let parts = [Part::Out(&head), Part::In(cut), Part::In(rest)];
                let (answer, written) = guest.request(queue, &parts);
                assert_eq!(written as usize, to - from + 1);
                let (status, data) = answer.split_last().unwrap();
                assert!(*status == 0 && data == &model[from..to], "sector {sector}");
            }
        }
    }
    assert_eq!(*image.bytes.lock(), model);
}

#[test]
fn many_requests_at_a_time_are_served_in_parallel() {
    let image = Image::slow(1 << 20, Duration::from_millis(40));
    let mut guest = Guest::ready(Blk::new(config(&image)), ALL);
    let start = std::time::Instant::now();
    for sector in 0..12 {
        guest.put(0, &[Part::Out(&header(spec::T_IN, sector)), Part::In(513)]);
    }
    guest.notify(0);
    (0..12).for_each(|_| assert_eq!(guest.wait(0).1, 513));
    assert!(start.elapsed() < Duration::from_millis(12 * 40), "{:?}", start.elapsed());
}

#[test]
fn requests_that_make_no_sense_fail_and_change_nothing() {
    let image = Image::new(1 << 16);
    let mut guest = Guest::ready(Blk::new(config(&image)), ALL);
    let data = vec![1; 512];
    for (kind, sector, data, status) in [
        (spec::T_OUT, 128, &data[..], spec::S_IOERR),
        (spec::T_OUT, u64::MAX, &data[..], spec::S_IOERR),
        (spec::T_OUT, u64::MAX / 512, &data[..], spec::S_IOERR),
        (spec::T_OUT, 0, &data[..511], spec::S_IOERR),
        (99, 0, &[], spec::S_UNSUPP),
        (spec::T_DISCARD, 0, &range(0, 8, 1), spec::S_UNSUPP),
        (spec::T_DISCARD, 0, &range(127, 2, 0), spec::S_IOERR),
        (spec::T_WRITE_ZEROES, 0, &range(u64::MAX, u32::MAX, 0), spec::S_IOERR),
        (spec::T_WRITE_ZEROES, 0, &range(0, 8, 0)[..15], spec::S_IOERR),
        (spec::T_WRITE_ZEROES, 0, &[], spec::S_IOERR),
        (spec::T_FLUSH, 5, &[], spec::S_OK),
    ] {
        assert_eq!(order(&mut guest, kind, sector, data), status, "{kind} {sector}");
    }
    assert!(image.bytes.lock().iter().all(|byte| *byte == 0) && !guest.needs_reset());
    for parts in [&[Part::Out(&[0; 15]), Part::In(1)][..], &[Part::Out(&[0; 16])]] {
        guest.put(0, parts);
        guest.notify(0);
        eventually("the device asks for a reset", || guest.needs_reset());
        guest.start(ALL, 64);
    }
}

#[test]
fn the_configuration_tells_of_the_disk() {
    let disk = Blk::new(config(&Image::new((1 << 20) + 100)));
    let guest = Guest::new(Arc::clone(&disk) as Arc<dyn VirtioDevice>);
    assert_eq!((guest.read(0x100), guest.read(0x104)), (2048, 0));
    assert_eq!(guest.read(0x10c), 126, "segments");
    assert_eq!(guest.read(0x114), 512);
    assert_eq!(guest.read(0x118), 0x0008_0003, "8 blocks in a physical one, and at the least");
    assert_eq!((guest.read(0x11c), guest.read(0x120)), (128, 0x0002_0001));
    assert_eq!(disk.config().len(), 60);
    let mut guest = Guest::ready(disk, ALL);
    let (serial, _) = guest.request(0, &[Part::Out(&header(spec::T_GET_ID, 0)), Part::In(21)]);
    assert_eq!(serial, b"a serial number of 3\0");
}

#[test]
fn without_a_cache_every_write_is_flushed() {
    for (features, flushes) in [(0, 1), (spec::F_FLUSH, 0), (spec::F_CONFIG_WCE, 0)] {
        let image = Image::new(1 << 16);
        let mut guest = Guest::ready(Blk::new(config(&image)), features);
        assert_eq!(order(&mut guest, spec::T_OUT, 0, &[1; 512]), 0);
        assert_eq!(image.flushes.load(Ordering::Relaxed), flushes, "{features:#x}");
        guest.mmio_write_byte(0x120, 0);
        assert_eq!(order(&mut guest, spec::T_OUT, 0, &[1; 512]), 0);
        let more = if features == spec::F_FLUSH { 0 } else { 1 };
        assert_eq!(image.flushes.load(Ordering::Relaxed), flushes + more, "{features:#x}");
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<DeviceEvent>>);

impl EventSink for Told {
    fn event(&self, id: &str, event: DeviceEvent) {
        assert_eq!(id, "disk0");
        self.0.lock().push(event);
    }
}

#[test]
fn a_full_disk_stops_the_machine_and_the_write_is_tried_again() {
    let (image, told) = (Image::new(1 << 16), Arc::new(Told::default()));
    let events = Arc::clone(&told) as Arc<dyn EventSink>;
    let disk = Blk::new(BlkConfig { events, ..config(&image) });
    let mut guest = Guest::ready(Arc::clone(&disk) as Arc<dyn VirtioDevice>, ALL);

    *image.fails.lock() = Some(Errno::IO);
    assert_eq!(order(&mut guest, spec::T_OUT, 0, &[1; 512]), spec::S_IOERR);
    *image.fails.lock() = Some(Errno::NOSPC);
    guest.put(0, &[Part::Out(&header(spec::T_OUT, 0)), Part::Out(&[7; 512]), Part::In(1)]);
    guest.notify(0);
    eventually("two failures are told", || told.0.lock().len() == 2);
    let stops = |event: &DeviceEvent| matches!(event, DeviceEvent::IoError { stops: true, .. });
    assert!(!stops(&told.0.lock()[0]) && stops(&told.0.lock()[1]));
    disk.set_running(false);
    assert_eq!(guest.take(0), None);

    *image.fails.lock() = None;
    disk.set_running(true);
    assert_eq!(guest.wait(0).1, 1);
    assert_eq!(image.bytes.lock()[..512], [7; 512]);
}

#[test]
fn errors_can_be_ignored() {
    let image = Image::new(1 << 16);
    *image.fails.lock() = Some(Errno::IO);
    let disk = BlkConfig { on_write_error: ErrorPolicy::Ignore, ..config(&image) };
    let mut guest = Guest::ready(Blk::new(disk), ALL);
    assert_eq!(order(&mut guest, spec::T_OUT, 0, &[1; 512]), spec::S_OK);
}

#[test]
fn a_read_only_disk_takes_no_writes() {
    let image = Image::new(1 << 16);
    let mut guest = Guest::ready(Blk::new(BlkConfig { read_only: true, ..config(&image) }), 0);
    assert_eq!(order(&mut guest, spec::T_OUT, 0, &[1; 512]), spec::S_IOERR);
    assert_eq!(order(&mut guest, spec::T_DISCARD, 0, &range(0, 8, 0)), spec::S_UNSUPP);
    assert_eq!(image.bytes.lock()[0], 0);
}

#[test]
fn a_reset_waits_for_what_is_in_flight() {
    let image = Image::slow(1 << 16, Duration::from_millis(50));
    let mut guest = Guest::ready(Blk::new(config(&image)), ALL);
    let sent = guest.put(0, &[Part::Out(&header(spec::T_IN, 0)), Part::In(513)]);
    guest.notify(0);
    std::thread::sleep(Duration::from_millis(10));
    image.bytes.lock().fill(9);
    guest.write(0x70, 0);
    let before = guest.answer(&sent);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(guest.answer(&sent), before, "nothing is written after the reset");
    assert_eq!(guest.take(0), None);
}

#[test]
fn a_resize_is_announced() {
    let image = Image::new(1 << 16);
    let disk = Blk::new(config(&image));
    let guest = Guest::ready(Arc::clone(&disk) as Arc<dyn VirtioDevice>, ALL);
    image.bytes.lock().resize(1 << 17, 0);
    disk.resized();
    assert_eq!((guest.read(0x60), guest.read(0x100)), (2, 256));
}

#[test]
fn a_hostile_guest_breaks_nothing() {
    for seed in 1..5 {
        let image = Image::new(1 << 16);
        hostile(Blk::new(config(&image)), ALL, 1500, seed);
        assert_eq!(image.bytes.lock().len(), 1 << 16);
    }
}
