//! Hypervisors. A driver is one folder here and one line in [`DRIVERS`].

mod qemu;
mod test;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use libvirt_compat::rpc::types::TypedParameter;
use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Origin, Result, Uuid};

use crate::domains::Offline;
use crate::node::NodeInfo;
use crate::options::Mode;
use crate::world::{Uri, World, Worlds};

/// How a driver makes itself known.
pub struct Registration {
    /// The scheme of its URIs.
    pub scheme: &'static str,
    /// Opens the worlds that live as long as the daemon.
    pub start: fn(&Arc<Worlds>) -> Result<Vec<Arc<World>>>,
    /// Opens any other; the flag says whether all connections share it.
    pub open: Open,
}

/// Opens a world, or says why not.
pub type Open = fn(&Worlds, &Uri) -> Result<(Arc<World>, bool)>;

impl Registration {
    /// What an empty URI means.
    pub fn default_uri(&self, mode: Mode) -> &'static str {
        match mode {
            Mode::System => "qemu:///system",
            Mode::Session => "qemu:///session",
        }
    }
}

/// Every hypervisor. The first is the daemon's own.
pub const DRIVERS: &[Registration] = &[qemu::REGISTRATION, test::REGISTRATION];

/// What a client asks domain capabilities for.
#[derive(Clone, Debug, Default)]
pub struct CapabilitiesRequest {
    pub emulator: Option<String>,
    pub arch: Option<String>,
    pub machine: Option<String>,
    pub virt_type: Option<String>,
}

/// A hypervisor. Called from many threads at once.
pub trait Driver: Send + Sync {
    /// Whose errors these are.
    fn origin(&self) -> Origin;
    /// Whether this hypervisor lacks a procedure that the daemon serves for others.
    fn lacks(&self, _procedure: &str) -> bool {
        false
    }
    /// What `virsh version` calls it.
    fn kind(&self) -> &'static str;
    /// Major * 1,000,000 + minor * 1,000 + release.
    fn version(&self) -> Result<u64>;
    /// vCPUs a domain of this type may have.
    fn vcpus_max(&self, kind: Option<&str>) -> Result<i32>;
    /// The host's document.
    fn capabilities(&self) -> Result<String>;
    /// What domains of one kind may have.
    fn domain_capabilities(&self, request: &CapabilitiesRequest) -> Result<String>;
    /// The host as this hypervisor shows it.
    fn node_info(&self) -> Result<NodeInfo>;
    /// Processor models of an architecture.
    fn cpu_models(&self, arch: &str) -> Result<Vec<String>>;
    /// Parses a definition and fills in everything that is left out.
    fn complete(&self, text: &str) -> Result<Element>;
    /// Fills in a device that is to join a domain: defaults, address.
    fn complete_device(&self, domain: &Element, device: &mut Element) -> Result<()>;
    /// Starts a domain. Blocks until it runs or has failed.
    fn start(&self, start: Start) -> Result<Started>;
    /// Takes over a domain that outlived an earlier daemon.
    fn adopt(&self, _status: &Element, _reporter: Reporter) -> Result<Adopted> {
        Err(Error::bare(Code::NoSupport))
    }
    /// Ends what an earlier daemon had begun to start when it was killed: nobody knows of it.
    fn put_down(&self, _uuid: &str) {}
    /// Works on a snapshot inside the images of a domain that is off.
    fn snapshot_offline(&self, _domain: &Element, _name: &str, _what: Offline) -> Result<()> {
        Err(unsupported("virDomainSnapshotCreateXML"))
    }
    /// The command line for a definition.
    fn to_native(&self, _domain: &Element) -> Result<String> {
        Err(unsupported("virConnectDomainXMLToNative"))
    }
}

/// A domain about to start.
pub struct Start {
    /// The definition; becomes the live document.
    pub document: Element,
    pub uuid: Uuid,
    pub name: String,
    pub id: i32,
    /// Stay paused.
    pub paused: bool,
    /// Go on from this file instead of booting.
    pub restore: Option<OwnedFd>,
    /// Go on from this internal snapshot.
    pub snapshot: Option<String>,
    /// The active networks that its interfaces name, by name.
    pub networks: BTreeMap<String, Element>,
    /// Where the machine tells what happens to it.
    pub reporter: Reporter,
}

/// A domain that has started.
pub struct Started {
    /// With what only a running domain has: aliases, ports, terminals.
    pub document: Element,
    pub machine: Arc<dyn Machine>,
}

/// A domain that was taken over.
pub struct Adopted {
    pub machine: Arc<dyn Machine>,
    /// libvirt's state and reason.
    pub state: (i32, i32),
}

/// Called by a machine, from its own thread, never under a lock that a handler may hold.
pub type Reporter = Arc<dyn Fn(Report) + Send + Sync>;

/// What a machine tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// The guest has finished its shutdown: who asked (`lifecycle::shutdown`).
    ShuttingDown(i32),
    /// It is gone: the reason as state (`shutoff`) and as event (`stopped`).
    Stopped { reason: i32, detail: i32 },
    /// The guest rebooted.
    Rebooted,
    /// It stopped by itself: reason as state (`paused`) and as event (`suspended`).
    Paused { reason: i32, detail: i32 },
    /// It goes on by itself.
    Resumed,
    /// Any event that needs no bookkeeping.
    Event(libvirt_compat::event::DomainEvent),
    /// A device is gone: its alias.
    DeviceRemoved(String),
    /// The guest opened or closed a channel: its alias.
    Channel { alias: String, open: bool },
    /// The balloon's size in KiB.
    Balloon(u64),
    /// A block job has come to a point: by the disk's target, with libvirt's numbers.
    BlockJob { target: String, path: String, kind: i32, status: i32, change: Option<DiskChange> },
    /// All disks are copied, or one could not be.
    BackupEnded { success: bool },
    /// An event as the monitor told it: name, seconds, microseconds, details.
    Monitor { name: String, seconds: i64, micros: u32, details: String },
}

/// What a disk is after a block job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskChange {
    /// The same file over other ones.
    Chain,
    /// Another file; the number of its nodes if they were made for it.
    Source { file: PathBuf, format: String, index: Option<u64> },
}

/// The kinds of block jobs, by libvirt's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockJobKind {
    Pull = 1,
    Copy = 2,
    Commit = 3,
    ActiveCommit = 4,
}

impl BlockJobKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Copy => "copy",
            Self::Commit => "commit",
            Self::ActiveCommit => "active-commit",
        }
    }
}

/// A block job to be begun; speeds are bytes per second, 0 is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockJob {
    /// Brings data of backing files above this one into the disk's own.
    Pull { base: Option<String>, speed: u64 },
    /// Brings data of upper files into a lower one; of the uppermost, when it is `active`.
    Commit { top: Option<String>, base: Option<String>, active: bool, speed: u64 },
    /// Copies the disk into an image that is there already.
    Copy { file: String, format: String, speed: u64 },
}

impl BlockJob {
    pub fn kind(&self) -> BlockJobKind {
        match self {
            Self::Pull { .. } => BlockJobKind::Pull,
            Self::Commit { active: true, .. } => BlockJobKind::ActiveCommit,
            Self::Commit { .. } => BlockJobKind::Commit,
            Self::Copy { .. } => BlockJobKind::Copy,
        }
    }

    pub fn speed(&self) -> u64 {
        match self {
            Self::Pull { speed, .. } | Self::Commit { speed, .. } | Self::Copy { speed, .. } => {
                *speed
            }
        }
    }
}

/// How far a block job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockJobInfo {
    pub kind: i32,
    pub bandwidth: u64,
    pub done: u64,
    pub total: u64,
}

/// An image to be put over a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    pub target: String,
    pub file: PathBuf,
    pub format: String,
    /// The number of its nodes, filled in.
    pub index: u64,
}

/// A bitmap of what is written to a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    pub target: String,
    pub name: String,
}

/// A disk to be copied into an image that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupDisk {
    pub target: String,
    pub file: PathBuf,
    pub format: String,
    /// The disk's size.
    pub bytes: u64,
    /// Only what was written since this bitmap was begun.
    pub since: Option<String>,
    /// Not copied, but served under this name as it is now: the image takes what is overwritten.
    pub export: Option<String>,
}

/// Where disks are served, by NBD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupServer {
    Unix(PathBuf),
    Tcp(String, String),
}

/// Memory figures: `virDomainMemoryStatTags` and values.
pub type MemoryStats = Vec<(i32, u64)>;

/// A disk's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockStats {
    pub read_requests: u64,
    pub read_bytes: u64,
    pub read_ns: u64,
    pub write_requests: u64,
    pub write_bytes: u64,
    pub write_ns: u64,
    pub flush_requests: u64,
    pub flush_ns: u64,
    pub write_highest: u64,
}

/// A disk's sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockInfo {
    pub capacity: u64,
    pub allocation: u64,
    pub physical: u64,
}

/// A vCPU of a running domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vcpu {
    pub number: u32,
    pub time_ns: u64,
    pub host_cpu: i32,
}

/// A running domain. Methods block; only one that changes something runs at a time.
pub trait Machine: Send + Sync {
    /// Pauses it.
    fn suspend(&self) -> Result<()>;
    /// Lets it go on.
    fn resume(&self) -> Result<()>;
    /// Presses the power button, or asks the agent.
    fn shutdown(&self, mode: u32) -> Result<()>;
    /// Asks the guest to reboot.
    fn reboot(&self, mode: u32) -> Result<()>;
    /// Presses the reset button.
    fn reset(&self) -> Result<()>;
    /// Ends it; returns when it is gone.
    fn kill(&self, graceful: bool) -> Result<()>;
    /// What is to be written next to the live document so that another daemon can adopt it.
    fn status(&self, _status: &mut Element) {}
    /// CPU time in ns, user and system.
    fn cpu_time(&self) -> (u64, u64, u64) {
        (0, 0, 0)
    }
    /// A command to the monitor, as text, in its human or its machine language.
    fn monitor_command(&self, _command: &str, _human: bool) -> Result<String> {
        Err(unsupported("virDomainQemuMonitorCommand"))
    }
    /// Sets the balloon's size.
    fn set_memory(&self, _kib: u64) -> Result<()> {
        Err(unsupported("virDomainSetMemory"))
    }
    /// Reads memory figures.
    fn memory_stats(&self) -> Result<MemoryStats> {
        Err(unsupported("virDomainMemoryStats"))
    }
    /// How often the balloon asks the guest, in seconds.
    fn set_memory_stats_period(&self, _seconds: i32) -> Result<()> {
        Err(unsupported("virDomainSetMemoryStatsPeriod"))
    }
    /// Plugs or unplugs vCPUs.
    fn set_vcpus(&self, _count: u32) -> Result<()> {
        Err(unsupported("virDomainSetVcpusFlags"))
    }
    /// The vCPUs.
    fn vcpus(&self) -> Result<Vec<Vcpu>> {
        Err(unsupported("virDomainGetVcpus"))
    }
    /// Keeps a vCPU to these CPUs of the host.
    fn pin_vcpu(&self, _vcpu: u32, _cpus: &[usize]) -> Result<()> {
        Err(unsupported("virDomainPinVcpu"))
    }
    /// Plugs in a device, which gets its alias here.
    fn attach(&self, _domain: &Element, _device: &mut Element) -> Result<()> {
        Err(unsupported("virDomainAttachDeviceFlags"))
    }
    /// Asks the guest to let a device go; true when it has.
    fn detach(&self, _domain: &Element, _device: &Element) -> Result<bool> {
        Err(unsupported("virDomainDetachDeviceFlags"))
    }
    /// Changes a device: media, link state, graphics password.
    fn update(&self, _domain: &Element, _old: &Element, _new: &mut Element) -> Result<()> {
        Err(unsupported("virDomainUpdateDeviceFlags"))
    }
    /// Counters of all disks, by target name.
    fn block_stats(&self, _domain: &Element) -> Result<Vec<(String, BlockStats)>> {
        Err(unsupported("virDomainBlockStats"))
    }
    /// Sizes of a disk.
    fn block_info(&self, _domain: &Element, _target: &str) -> Result<Option<BlockInfo>> {
        Ok(None)
    }
    /// Makes a disk larger.
    fn block_resize(&self, _domain: &Element, _target: &str, _bytes: u64) -> Result<()> {
        Err(unsupported("virDomainBlockResize"))
    }
    /// Limits a disk's rates.
    fn block_throttle(
        &self,
        _domain: &Element,
        _target: &str,
        _limits: &[TypedParameter],
    ) -> Result<()> {
        Err(unsupported("virDomainSetBlockIoTune"))
    }
    /// Begins a block job on a disk.
    fn block_job_start(&self, _domain: &Element, _target: &str, _job: &BlockJob) -> Result<()> {
        Err(unsupported("virDomainBlockPull"))
    }
    /// How far the block job of a disk is.
    fn block_job_info(&self, _target: &str) -> Result<Option<BlockJobInfo>> {
        Err(unsupported("virDomainGetBlockJobInfo"))
    }
    /// Limits the bytes per second of a disk's block job.
    fn block_job_set_speed(&self, _target: &str, _speed: u64) -> Result<()> {
        Err(unsupported("virDomainBlockJobSetSpeed"))
    }
    /// Ends a disk's block job, going over to its target or not.
    fn block_job_end(&self, _target: &str, _pivot: bool, _wait: bool) -> Result<()> {
        Err(unsupported("virDomainBlockJobAbort"))
    }
    /// Puts images over disks, all at the same moment.
    fn overlay(&self, _domain: &Element, _overlays: &mut [Overlay]) -> Result<()> {
        Err(unsupported("virDomainSnapshotCreateXML"))
    }
    /// Begins to note what is written to disks.
    fn add_bitmaps(&self, _domain: &Element, _bitmaps: &[Bitmap]) -> Result<()> {
        Err(unsupported("virDomainCheckpointCreateXML"))
    }
    /// Forgets what was noted.
    fn remove_bitmaps(&self, _domain: &Element, _bitmaps: &[Bitmap]) -> Result<()> {
        Err(unsupported("virDomainCheckpointDelete"))
    }
    /// Begins to copy disks, and to note what is written from the same moment on.
    fn begin_backup(
        &self,
        _domain: &Element,
        _disks: &[BackupDisk],
        _server: Option<&BackupServer>,
        _bitmaps: &[Bitmap],
    ) -> Result<()> {
        Err(unsupported("virDomainBackupBegin"))
    }
    /// Gives up the copies.
    fn abort_backup(&self) -> Result<()> {
        Err(unsupported("virDomainAbortJob"))
    }
    /// A picture of the screen: MIME type and file.
    fn screenshot(&self, _domain: &Element, _screen: u32) -> Result<(String, std::fs::File)> {
        Err(unsupported("virDomainScreenshot"))
    }
    /// Presses keys together: Linux key codes.
    fn send_keys(&self, _codes: &[u32], _hold_ms: u32) -> Result<()> {
        Err(unsupported("virDomainSendKey"))
    }
    /// Sends a non-maskable interrupt.
    fn inject_nmi(&self) -> Result<()> {
        Err(unsupported("virDomainInjectNMI"))
    }
    /// A terminal or socket of the guest, non-blocking: `path` from the live document.
    fn open_character_device(&self, _device: &Element) -> Result<OwnedFd> {
        Err(unsupported("virDomainOpenConsole"))
    }
    /// Writes the machine's state into a file; it is stopped afterwards.
    fn save(&self, _file: OwnedFd) -> Result<()> {
        Err(unsupported("virDomainSave"))
    }
    /// Writes the guest's memory into a file.
    fn dump(&self, _file: OwnedFd, _memory_only: bool) -> Result<()> {
        Err(unsupported("virDomainCoreDump"))
    }
    /// Keeps the state of memory and disks inside the disk images.
    fn snapshot_save(&self, _name: &str) -> Result<()> {
        Err(unsupported("virDomainSnapshotCreateXML"))
    }
    /// Deletes such a state.
    fn snapshot_delete(&self, _name: &str) -> Result<()> {
        Err(unsupported("virDomainSnapshotDelete"))
    }
    /// A socket to the graphics server, already let in.
    fn open_graphics(&self, _index: u32) -> Result<OwnedFd> {
        Err(unsupported("virDomainOpenGraphicsFD"))
    }
    /// Lets a client's own socket into the graphics server.
    fn add_graphics_client(&self, _index: u32, _socket: OwnedFd, _skip_auth: bool) -> Result<()> {
        Err(unsupported("virDomainOpenGraphics"))
    }
    /// What else a statistics call shows.
    fn statistics(&self, _domain: &Element, _groups: u32) -> Vec<TypedParameter> {
        Vec::new()
    }
}

/// "This function is not supported by the connection driver".
pub fn unsupported(function: &str) -> Error {
    Error::new(Code::NoSupport, function)
}

/// A file that a domain's document names.
pub fn disk_path(disk: &Element) -> Option<PathBuf> {
    let source = disk.child("source")?;
    source.attribute("file").or_else(|| source.attribute("dev")).map(PathBuf::from)
}
