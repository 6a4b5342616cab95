//! Devices.

/// A device with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Names it towards monitors.
    pub id: String,
    /// Where it sits; `None` for what has no choice.
    pub place: Option<Place>,
    /// Its rank among what can be booted from.
    pub boot_index: Option<u32>,
    /// What it is.
    pub kind: Kind,
}

/// Where a device sits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a PCI bus of this name.
    Pci {
        /// The bus.
        bus: String,
        /// The device's number on it.
        slot: u8,
        /// Its function.
        function: u8,
        /// Other functions share the slot.
        multifunction: bool,
    },
    /// On a USB bus of this name.
    Usb {
        /// The bus.
        bus: String,
        /// The port's path.
        port: String,
    },
    /// On a storage bus.
    Drive {
        /// The bus of this name.
        bus: String,
        /// SCSI's target.
        target: u32,
        /// The unit.
        unit: u32,
    },
    /// On a serial bus of this name.
    Port {
        /// The bus.
        bus: String,
        /// The port's number.
        number: u32,
    },
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bridge, by its model.
    PciBridge {
        /// `pcie-root-port` and others.
        model: String,
        /// The chassis number.
        chassis: u32,
        /// The port number of a root port.
        port: Option<u32>,
    },
    /// A controller, by its model's name on the command line.
    Controller {
        /// `qemu-xhci`, `virtio-scsi-pci`, ...
        model: String,
        /// Ports of a USB 3 controller.
        ports: Option<u32>,
    },
    /// A disk, CD-ROM or floppy.
    Disk(Disk),
    /// A network card.
    Network(Network),
    /// A serial port of the board.
    Serial {
        /// Its number.
        number: u32,
        /// Where its bytes go.
        backend: Backend,
        /// Where what the guest says is kept, too.
        log: Option<Log>,
    },
    /// A port on a virtio serial bus.
    Channel {
        /// The guest finds it by this name.
        name: String,
        /// Where its bytes go.
        backend: Backend,
        /// Where what the guest says is kept, too.
        log: Option<Log>,
        /// A console rather than a plain channel.
        console: bool,
    },
    /// A screen for VNC clients.
    Vnc(Vnc),
    /// A graphics card, by its model's name.
    Video {
        /// `VGA`, `virtio-vga`, ...
        model: String,
        /// Memory in MiB.
        memory_mib: Option<u32>,
        /// Screens.
        heads: Option<u32>,
    },
    /// Something to point or type with, by its model's name.
    Input {
        /// `usb-tablet`, ...
        model: String,
    },
    /// A sound card, by its model's name, and the codec on its bus.
    Sound {
        /// `intel-hda`, ...
        model: String,
        /// `hda-duplex`, ...
        codec: Option<String>,
    },
    /// A sound back end that plays nothing.
    NoAudio,
    /// The memory balloon.
    Balloon {
        /// The guest's statistics are asked for so often.
        poll_seconds: Option<u32>,
        /// The guest may take memory back when it has no other.
        deflates_on_oom: bool,
        /// The guest tells by itself which memory it does not use.
        reports_free_pages: bool,
    },
    /// Randomness from a file of the host.
    Random {
        /// The file.
        file: String,
    },
    /// Sockets between guest and host.
    Vsock {
        /// The guest's number.
        context: u64,
        /// The host's side, for an emulator that serves it itself.
        socket: Option<String>,
    },
    /// A watchdog, by its model's name.
    Watchdog {
        /// `i6300esb`, ...
        model: String,
        /// What it does.
        action: String,
    },
    /// Tells the host that the guest panicked.
    Panic,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// How the guest sees it.
    pub bus: Bus,
    /// What kind of medium.
    pub medium: Medium,
    /// What is in it; an empty drive has none.
    pub image: Option<Image>,
    /// The serial number the guest sees.
    pub serial: Option<String>,
}

/// How a guest sees a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// virtio on PCI.
    Virtio,
    /// IDE or SATA.
    Ide,
    /// SCSI.
    Scsi,
    /// USB storage.
    Usb,
    /// Floppy.
    Floppy,
}

/// What kind of medium a drive takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A disk.
    Disk,
    /// A CD-ROM.
    Cdrom,
    /// A floppy.
    Floppy,
}

/// A disk image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The name of its format's node; the file's node is named after it.
    pub node: String,
    /// The file or block device.
    pub file: String,
    /// A block device of the host.
    pub is_block_device: bool,
    /// `raw`, `qcow2`, ...
    pub format: String,
    /// Nobody writes.
    pub read_only: bool,
    /// How the host's cache is used: `none`, `writeback`, ...
    pub cache: Option<String>,
    /// `native`, `threads`, `io_uring`.
    pub io: Option<String>,
    /// `unmap` or `ignore`.
    pub discard: Option<String>,
    /// Whether its own backing file is opened; false when it has none.
    pub backing: bool,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The model's name on the command line.
    pub model: String,
    /// The hardware address.
    pub mac: String,
    /// What it is plugged into.
    pub backend: Wire,
    /// The cable is out.
    pub link_down: bool,
}

/// What a network card is plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    /// A network stack inside the emulator.
    User {
        /// Its addresses; `None` leaves them to the emulator.
        subnet: Option<Subnet>,
        /// The guest reaches nothing beyond the stack itself.
        isolated: bool,
        /// `tcp:127.0.0.1:8080-:80` and the like.
        forwards: Vec<String>,
    },
    /// A tap device that is open already: a descriptor's number, or its name in the monitor.
    TapDescriptor {
        /// The number or the name.
        descriptor: String,
    },
    /// A tap device of the host.
    Tap {
        /// Its name.
        device: String,
    },
    /// Nothing.
    None,
}

/// The addresses of a network stack inside the emulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The gateway's address.
    pub gateway: String,
    /// How many bits of it are the network's.
    pub prefix: u8,
    /// The first address that guests get.
    pub first: Option<String>,
}

/// Where a character device's bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A new pseudo-terminal.
    Terminal,
    /// Nowhere.
    Null,
    /// A file.
    File {
        /// Its path.
        path: String,
        /// Behind what is there already.
        append: bool,
    },
    /// A socket.
    Socket {
        /// Its path.
        path: String,
        /// The emulator listens rather than connects.
        listen: bool,
    },
    /// A TCP socket.
    Tcp {
        /// Where.
        host: String,
        /// The port.
        port: String,
        /// The emulator listens rather than connects.
        listen: bool,
    },
}

/// A file that keeps what a character device has said, whoever reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its path.
    pub path: String,
    /// Behind what is there already.
    pub append: bool,
}

/// A screen for VNC clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vnc {
    /// The address to listen on, without the port; `None` with a socket.
    pub listen: Option<(String, u16)>,
    /// A socket to listen on.
    pub socket: Option<String>,
    /// Clients need a password, which is set later.
    pub password: bool,
    /// A WebSocket's port.
    pub websocket: Option<u16>,
    /// The keyboard's layout.
    pub keymap: Option<String>,
    /// How clients share the screen.
    pub share: Option<String>,
}
