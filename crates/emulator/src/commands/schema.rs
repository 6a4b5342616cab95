//! The types of the monitor's commands, and its events.

pub const TYPES: &str = "
enum QMPCapability { oob }
struct VersionTriple { major: int, minor: int, micro: int }
struct VersionInfo { qemu: VersionTriple, package: str }
struct CommandInfo { name: str }
struct NameInfo { name?: str }
struct UuidInfo { UUID: str }
struct GuidInfo { guid: str }
struct KvmInfo { enabled: bool, present: bool }
enum SysEmuTarget { x86_64 }
struct TargetInfo { arch: SysEmuTarget }
enum RunState { debug, inmigrate, internal-error, io-error, paused, postmigrate, prelaunch,
    finish-migrate, restore-vm, running, save-vm, shutdown, suspended, watchdog, guest-panicked,
    colo }
struct StatusInfo { running: bool, status: RunState }
enum ShutdownCause { none, host-error, host-qmp-quit, host-qmp-system-reset, host-signal,
    host-ui, guest-shutdown, guest-reset, guest-panic, subsystem-reset, snapshot-load }
enum RebootAction { reset, shutdown }
enum ShutdownAction { poweroff, pause }
enum PanicAction { pause, shutdown, exit-failure, none }
struct ChardevInfo { label: str, filename: str, frontend-open: bool }
struct ChardevBackendInfo { name: str }
struct ChardevReturn { pty?: str }
enum DataFormat { utf8, base64 }
enum ChardevBackendKind { file, pipe, socket, pty, null, stdio, ringbuf, memory }
struct ChardevFile { out: str, append?: bool, in?: str, logfile?: str, logappend?: bool }
struct ChardevHostdev { device: str, logfile?: str, logappend?: bool }
struct ChardevSocket { addr: SocketAddressLegacy, server?: bool, wait?: bool, nodelay?: bool,
    telnet?: bool, tn3270?: bool, websocket?: bool, reconnect?: int, reconnect-ms?: int,
    logfile?: str, logappend?: bool }
struct ChardevPty { path?: str, logfile?: str, logappend?: bool }
struct ChardevCommon { logfile?: str, logappend?: bool }
struct ChardevStdio { signal?: bool, logfile?: str, logappend?: bool }
struct ChardevRingbuf { size?: int, logfile?: str, logappend?: bool }
struct ChardevFileWrapper { data: ChardevFile }
struct ChardevHostdevWrapper { data: ChardevHostdev }
struct ChardevSocketWrapper { data: ChardevSocket }
struct ChardevPtyWrapper { data: ChardevPty }
struct ChardevCommonWrapper { data: ChardevCommon }
struct ChardevStdioWrapper { data: ChardevStdio }
struct ChardevRingbufWrapper { data: ChardevRingbuf }
union ChardevBackend (type) { type: ChardevBackendKind } { file: ChardevFileWrapper,
    pipe: ChardevHostdevWrapper, socket: ChardevSocketWrapper, pty: ChardevPtyWrapper,
    null: ChardevCommonWrapper, stdio: ChardevStdioWrapper, ringbuf: ChardevRingbufWrapper,
    memory: ChardevRingbufWrapper }
enum SocketAddressType { inet, unix, fd }
struct InetSocketAddress { host: str, port: str, numeric?: bool, to?: int, ipv4?: bool,
    ipv6?: bool }
struct UnixSocketAddress { path: str, abstract?: bool, tight?: bool }
struct FdSocketAddress { str: str }
struct InetSocketAddressWrapper { data: InetSocketAddress }
struct UnixSocketAddressWrapper { data: UnixSocketAddress }
struct FdSocketAddressWrapper { data: FdSocketAddress }
union SocketAddressLegacy (type) { type: SocketAddressType } { inet: InetSocketAddressWrapper,
    unix: UnixSocketAddressWrapper, fd: FdSocketAddressWrapper }
struct AddfdInfo { fdset-id: int, fd: int }
struct FdsetFdInfo { fd: int, opaque?: str }
struct FdsetInfo { fdset-id: int, fds: [FdsetFdInfo] }
struct CpuInstanceProperties { node-id?: int, socket-id?: int, die-id?: int, module-id?: int,
    core-id?: int, thread-id?: int }
enum CpuModelExpansionType { static, full }
struct CpuModelInfo { name: str, props?: any }
struct CpuModelExpansionInfo { model: CpuModelInfo }
struct CpuInfoFast { cpu-index: int, qom-path: str, thread-id: int, props?: CpuInstanceProperties,
    target: SysEmuTarget }
struct HotpluggableCPU { type: str, vcpus-count: int, props: CpuInstanceProperties,
    qom-path?: str }
struct PciMemoryRange { base: int, limit: int }
struct PciMemoryRegion { bar: int, type: str, address: int, size: int, prefetch?: bool,
    mem_type_64?: bool }
struct PciBusInfo { number: int, secondary: int, subordinate: int, io_range: PciMemoryRange,
    memory_range: PciMemoryRange, prefetchable_range: PciMemoryRange }
struct PciBridgeInfo { bus: PciBusInfo, devices?: [PciDeviceInfo] }
struct PciDeviceClass { desc?: str, class: int }
struct PciDeviceId { device: int, vendor: int, subsystem?: int, subsystem-vendor?: int }
struct PciDeviceInfo { bus: int, slot: int, function: int, class_info: PciDeviceClass,
    id: PciDeviceId, irq?: int, irq_pin: int, qdev_id: str, pci_bridge?: PciBridgeInfo,
    regions: [PciMemoryRegion] }
struct PciInfo { bus: int, devices: [PciDeviceInfo] }
struct MachineInfo { name: str, alias?: str, is-default?: bool, cpu-max: int,
    hotpluggable-cpus: bool, numa-mem-supported: bool, deprecated: bool, default-cpu-type?: str,
    default-ram-id?: str, acpi: bool }
struct CurrentMachineParams { wakeup-suspend-support: bool }
struct CpuDefinitionInfo { name: str, migration-safe?: bool, static: bool,
    unavailable-features?: [str], typename: str, alias-of?: str, deprecated: bool }
struct IOThreadInfo { id: str, thread-id: int, poll-max-ns: int, poll-grow: int,
    poll-shrink: int, aio-max-batch: int }
struct BalloonInfo { actual: int }
struct ObjectPropertyInfo { name: str, type: str, description?: str, default-value?: any }
struct ObjectTypeInfo { name: str, abstract?: bool, parent?: str }
struct MemoryInfo { base-memory: int, plugged-memory?: int }
enum QKeyCode { shift, shift_r, alt, alt_r, ctrl, ctrl_r, menu, esc, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0,
    minus, equal, backspace, tab, q, w, e, r, t, y, u, i, o, p, bracket_left, bracket_right, ret,
    a, s, d, f, g, h, j, k, l, semicolon, apostrophe, grave_accent, backslash, z, x, c, v, b, n,
    m, comma, dot, slash, asterisk, spc, caps_lock, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10,
    num_lock, scroll_lock, kp_divide, kp_multiply, kp_subtract, kp_add, kp_enter, kp_decimal,
    sysrq, kp_0, kp_1, kp_2, kp_3, kp_4, kp_5, kp_6, kp_7, kp_8, kp_9, less, f11, f12, print,
    home, pgup, pgdn, end, left, up, down, right, insert, delete, stop, again, props, undo, front,
    copy, open, paste, find, cut, lf, help, meta_l, meta_r, compose, pause, ro, hiragana, henkan,
    yen, muhenkan, katakanahiragana, kp_comma, kp_equals, power, sleep, wake, audionext,
    audioprev, audiostop, audioplay, audiomute, volumeup, volumedown, mediaselect, mail,
    calculator, computer, ac_home, ac_back, ac_forward, ac_refresh, ac_bookmarks, lang1, lang2,
    f13, f14, f15, f16, f17, f18, f19, f20, f21, f22, f23, f24 }
enum KeyValueKind { number, qcode }
struct IntWrapper { data: int }
struct QKeyCodeWrapper { data: QKeyCode }
union KeyValue (type) { type: KeyValueKind } { number: IntWrapper, qcode: QKeyCodeWrapper }
enum InputButton { left, middle, right, wheel-up, wheel-down, side, extra, wheel-left,
    wheel-right }
enum InputAxis { x, y }
struct InputKeyEvent { key: KeyValue, down: bool }
struct InputBtnEvent { button: InputButton, down: bool }
struct InputMoveEvent { axis: InputAxis, value: int }
struct InputKeyEventWrapper { data: InputKeyEvent }
struct InputBtnEventWrapper { data: InputBtnEvent }
struct InputMoveEventWrapper { data: InputMoveEvent }
enum InputEventKind { key, btn, rel, abs }
union InputEvent (type) { type: InputEventKind } { key: InputKeyEventWrapper,
    btn: InputBtnEventWrapper, rel: InputMoveEventWrapper, abs: InputMoveEventWrapper }
struct MouseInfo { name: str, index: int, current: bool, absolute: bool }
enum ImageFormat { ppm, png }
enum JobType { commit, stream, mirror, backup, create, snapshot-load, snapshot-save,
    snapshot-delete }
enum JobStatus { undefined, created, running, paused, ready, standby, waiting, pending, aborting,
    concluded, null }
struct JobInfo { id: str, type: JobType, status: JobStatus, current-progress: int,
    total-progress: int, error?: str }
enum BlockdevChangeReadOnlyMode { retain, read-only, read-write }
enum DumpGuestMemoryFormat { elf, kdump-zlib, kdump-lzo, kdump-snappy, kdump-raw-zlib,
    kdump-raw-lzo, kdump-raw-snappy, win-dmp }
enum DumpStatus { none, active, completed, failed }
struct DumpQueryResult { status: DumpStatus, completed: int, total: int }
struct DumpGuestMemoryCapability { formats: [DumpGuestMemoryFormat] }
enum MigrationStatus { none, setup, cancelling, cancelled, active, completed, failed, device }
enum MigrationCapability { events }
struct MigrationCapabilityStatus { capability: MigrationCapability, state: bool }
struct MigrationParameters { max-bandwidth?: int, downtime-limit?: int }
struct MigrationRAMStats { transferred: int, remaining: int, total: int, duplicate: int,
    skipped: int, normal: int, normal-bytes: int, dirty-pages-rate: int, mbps: number,
    dirty-sync-count: int, postcopy-requests: int, page-size: int, multifd-bytes: int,
    pages-per-second: int, precopy-bytes: int, downtime-bytes: int, postcopy-bytes: int,
    dirty-sync-missed-zero-copy: int }
struct MigrationInfo { status?: MigrationStatus, ram?: MigrationRAMStats, total-time?: int,
    expected-downtime?: int, downtime?: int, setup-time?: int, error-desc?: str }
enum MirrorSyncMode { top, full, none, incremental, bitmap }
enum BitmapSyncMode { on-success, never, always }
enum NewImageMode { existing, absolute-paths }
enum BlockdevOnError { report, ignore, enospc, stop, auto }
enum MirrorCopyMode { background, write-blocking }
struct BlockDirtyBitmapOrStr { node?: str, name: str }
struct NbdServerOptionsLegacy { addr: SocketAddressLegacy }
enum BlockExportType { nbd }
struct BlockExportInfo { id: str, type: BlockExportType, node-name: str, shutting-down: bool }
enum DisplayProtocol { vnc, spice }
enum SetPasswordAction { keep, fail, disconnect }
enum DisplayReloadType { vnc }
enum NetworkAddressFamily { ipv4, ipv6, unix, vsock, unknown }
enum VncPrimaryAuth { none, vnc }
struct VncBasicInfo { host: str, service: str, family: NetworkAddressFamily, websocket: bool }
struct VncServerInfo { host: str, service: str, family: NetworkAddressFamily, websocket: bool,
    auth?: str }
struct VncServerInfo2 { host: str, service: str, family: NetworkAddressFamily, websocket: bool,
    auth: VncPrimaryAuth }
struct VncInfo { enabled: bool, host?: str, family?: NetworkAddressFamily, service?: str,
    auth?: str, clients?: [VncBasicInfo] }
struct VncInfo2 { id: str, server: [VncServerInfo2], clients: [VncBasicInfo],
    auth: VncPrimaryAuth, display?: str }
";

pub const EVENTS: &[(&str, &str)] = &[
    ("STOP", "{}"),
    ("MIGRATION", "{ status: MigrationStatus }"),
    ("MIGRATION_PASS", "{ pass: int }"),
    ("RESUME", "{}"),
    ("DUMP_COMPLETED", "{ result: DumpQueryResult, error?: str }"),
    ("POWERDOWN", "{}"),
    ("RESET", "{ guest: bool, reason: ShutdownCause }"),
    ("SHUTDOWN", "{ guest: bool, reason: ShutdownCause }"),
    ("BALLOON_CHANGE", "{ actual: int }"),
    ("JOB_STATUS_CHANGE", "{ id: str, status: JobStatus }"),
    (
        "BLOCK_JOB_COMPLETED",
        "{ type: JobType, device: str, len: int, offset: int, speed: int, error?: str }",
    ),
    ("BLOCK_JOB_CANCELLED", "{ type: JobType, device: str, len: int, offset: int, speed: int }"),
    ("BLOCK_JOB_READY", "{ type: JobType, device: str, len: int, offset: int, speed: int }"),
    ("BLOCK_JOB_PENDING", "{ type: JobType, id: str }"),
    ("BLOCK_EXPORT_DELETED", "{ id: str }"),
    (
        "BLOCK_IO_ERROR",
        "{ qom-path: str, device: str, operation: str, action: str, nospace?: bool, reason: str }",
    ),
    ("DEVICE_DELETED", "{ device?: str, path: str }"),
    ("DEVICE_TRAY_MOVED", "{ device: str, id: str, tray-open: bool }"),
    ("DEVICE_UNPLUG_GUEST_ERROR", "{ device?: str, path: str }"),
    ("GUEST_CRASHLOADED", "{ action: str }"),
    ("GUEST_PANICKED", "{ action: str }"),
    ("NIC_RX_FILTER_CHANGED", "{ name?: str, path: str }"),
    ("RTC_CHANGE", "{ offset: int, qom-path: str }"),
    ("VNC_CONNECTED", "{ server: VncServerInfo, client: VncBasicInfo }"),
    ("VNC_DISCONNECTED", "{ server: VncServerInfo, client: VncBasicInfo }"),
    ("VNC_INITIALIZED", "{ server: VncServerInfo, client: VncBasicInfo }"),
    ("VSERPORT_CHANGE", "{ id: str, open: bool }"),
    ("WATCHDOG", "{ action: str }"),
];
