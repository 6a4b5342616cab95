//! A machine in a test, whose debug console is watched.

use std::fs;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use device::{Blob, Stream, StreamPeer};
use machine::surroundings::{Backends, Firmware};
use machine::{
    Accelerator, Actions, BoardKind, Boot, Cause, Config, End, Identity, Kernel, Machine, NoEvents,
    OldChips, PanicAction, Part, Properties, PropertyValue, Request, Smbios, Topology,
    TranslatorOptions,
};
use parking_lot::{Condvar, Mutex};

/// Generous for an unoptimised build on a busy machine; a hang is what it is for.
const RUN_MAX: Duration = Duration::from_secs(120);

/// Bytes of the guest, as they come.
#[derive(Default)]
pub struct Log {
    text: Mutex<Vec<u8>>,
    grown: Condvar,
}

impl Stream for Log {
    fn write(&self, bytes: &[u8]) -> usize {
        self.text.lock().extend(bytes);
        self.grown.notify_all();
        bytes.len()
    }

    fn attach(&self, _peer: Weak<dyn StreamPeer>) {}
}

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock()).into_owned()
    }

    /// Drops so many of the first bytes.
    pub fn forget(&self, bytes: usize) {
        self.text.lock().drain(..bytes);
    }

    /// Waits for a text. False when it has not come in time.
    pub fn wait_for(&self, wanted: &str) -> bool {
        self.wait_for_times(wanted, 1)
    }

    /// Waits until a text has come so many times.
    pub fn wait_for_times(&self, wanted: &str, times: usize) -> bool {
        let end = Instant::now() + RUN_MAX;
        let mut text = self.text.lock();
        while String::from_utf8_lossy(&text).matches(wanted).count() < times {
            if self.grown.wait_until(&mut text, end).timed_out() {
                return false;
            }
        }
        true
    }
}

/// Firmware images of Debian's packages.
struct Installed;

impl Firmware for Installed {
    fn load(&self, name: &str) -> Option<Vec<u8>> {
        firmware(&format!("seabios/{name}")).or_else(|| firmware(&format!("qemu/{name}")))
    }
}

/// A file of the packages' data folder.
pub fn firmware(name: &str) -> Option<Vec<u8>> {
    fs::read(tests::asset(&format!("qemu-system-10/usr/share/{name}"))?).ok()
}

/// A disk in memory.
pub struct MemoryDisk(pub Mutex<Vec<u8>>);

impl MemoryDisk {
    pub fn node(bytes: Vec<u8>) -> Arc<dyn block::Node> {
        Arc::new(Self(Mutex::new(bytes)))
    }
}

impl block::Node for MemoryDisk {
    fn driver(&self) -> &'static str {
        "memory"
    }

    fn filename(&self) -> String {
        String::new()
    }

    fn size(&self) -> u64 {
        self.0.lock().len() as u64
    }

    fn writable(&self) -> bool {
        true
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> block::Result<()> {
        let at = offset as usize;
        buffer.copy_from_slice(&self.0.lock()[at..at + buffer.len()]);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> block::Result<()> {
        let at = offset as usize;
        self.0.lock()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn flush(&self) -> block::Result<()> {
        Ok(())
    }
}

/// A disk whose boot sector writes `text` to the serial port, which it sets up by itself, and then
/// stops.
pub fn boot_disk(text: &str) -> Arc<MemoryDisk> {
    let mut disk = vec![0; 1 << 20];
    // mov si, text; cld; next: lodsb; test al, al; jz stop; mov dx, 0x3f8; out dx, al; jmp next;
    // stop: cli; hlt
    let code = [
        0xbe, 0x40, 0x7c, 0xfc, 0xac, 0x84, 0xc0, 0x74, 0x06, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf5,
        0xfa, 0xf4, 0xeb, 0xfc,
    ];
    disk[..code.len()].copy_from_slice(&code);
    disk[0x40..0x40 + text.len()].copy_from_slice(text.as_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    Arc::new(MemoryDisk(Mutex::new(disk)))
}

/// A machine to be.
pub struct Rig {
    pub config: Config,
    pub debug: Arc<Log>,
    pub serial: Arc<Log>,
}

/// A part by its model and what is set on it.
pub fn part(model: &str, properties: &[(&str, PropertyValue)]) -> Part {
    let mut set = Properties::default();
    for (name, value) in properties {
        set.set(name, value.clone());
    }
    Part { model: model.to_owned(), id: None, bus: None, properties: set }
}

pub fn text(value: &str) -> PropertyValue {
    PropertyValue::Text(value.to_owned())
}

impl Rig {
    /// A machine with this system ROM and a debug console.
    pub fn new(board: BoardKind, rom: Vec<u8>) -> Self {
        let (debug, serial) = (Arc::new(Log::default()), Arc::new(Log::default()));
        let backends = Arc::new(Backends::default());
        backends.streams.insert("debug", Arc::clone(&debug) as Arc<dyn Stream>);
        backends.streams.insert("serial", Arc::clone(&serial) as Arc<dyn Stream>);
        let port = ("iobase", PropertyValue::Unsigned(0x402));
        let config = Config {
            board,
            ram_bytes: 256 << 20,
            processors: 1,
            identity: Identity::native(Topology::of_cores(1)),
            boot: Boot { rom: Some(rom), ..Boot::default() },
            parts: vec![
                part("isa-debugcon", &[port, ("chardev", text("debug"))]),
                part("isa-serial", &[("chardev", text("serial"))]),
            ],
            backends,
            firmware_files: Arc::new(Installed),
            events: Arc::new(NoEvents),
            i8042: true,
            hpet: true,
            old_chips: OldChips::ALL,
            uuid: [7; 16],
            smbios: Smbios::default(),
            fw_cfg: Vec::new(),
            clock_offset_s: 0,
            actions: Actions {
                reset_is_shutdown: false,
                shutdown_pauses: false,
                panic: PanicAction::Shutdown,
            },
            accelerator: Accelerator::Translator(TranslatorOptions {
                cache_bytes: 32 << 20,
                ..TranslatorOptions::detect()
            }),
        };
        Self { config, debug, serial }
    }

    /// A Debian kernel with busybox and this init script, started directly. None without assets.
    pub fn kernel(board: BoardKind, script: &str) -> Option<Self> {
        let busybox = tests::asset("busybox-amd64/bin/busybox")?;
        let image = Blob::open(&tests::asset_file("kernel-12/boot", "vmlinuz")?).ok()?;
        let folder = tests::scratch(&format!("machine-{board:?}-{}", script.len()));
        let path = folder.join("initrd");
        let whole = format!(
            "/bin/busybox mount -t proc proc /proc\n/bin/busybox mount -t sysfs sysfs /sys\n\
             {script}\n/bin/busybox poweroff -f"
        );
        tests::initramfs::write(&path, &busybox, &whole).ok()?;
        let initrd = Blob::open(&path).ok()?;
        _ = fs::remove_dir_all(folder);
        let command_line = "console=ttyS0 panic=-1".to_owned();
        let mut rig = Self::new(board, Vec::new());
        rig.config.boot.rom = None;
        rig.config.boot.kernel = Some(Kernel { image, initrd, command_line });
        Some(rig)
    }

    /// Runs until the machine ends by itself: what was on the serial port.
    pub fn run_to_end(self) -> String {
        let (_, serial, end) = self.run(|_, has_ended| {
            let until = Instant::now() + RUN_MAX;
            while !has_ended() && Instant::now() < until {
                thread::sleep(Duration::from_millis(20));
            }
            has_ended()
        });
        assert_eq!(end, End::Shutdown, "{serial}");
        serial
    }

    /// Runs until the debug console shows a text: all of it.
    pub fn run_until(self, wanted: &str) -> String {
        let (debug, shown) = (Arc::clone(&self.debug), wanted.to_owned());
        self.run(move |_, _| debug.wait_for(&shown)).0
    }

    /// Runs until `done` returns: the debug console, the serial one, and the end.
    pub fn run(
        self,
        done: impl FnOnce(&Machine, &dyn Fn() -> bool) -> bool,
    ) -> (String, String, End) {
        let machine = Machine::new(self.config).expect("the machine can be built");
        let requests = machine.requests();
        machine.control().resume();
        let machine = Arc::new(machine);
        let running = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || machine.run())
        };
        let in_time = done(&machine, &|| running.is_finished());
        requests.put(Request::Quit(Cause::HostQuit));
        let end = running.join().expect("the machine ends without a panic");
        let (debug, serial) = (self.debug.text(), self.serial.text());
        assert!(in_time, "not in time; debug console:\n{debug}\nserial:\n{serial}");
        (debug, serial, end)
    }
}
