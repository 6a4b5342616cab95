//! The types of the monitor's commands, and its events.

pub const TYPES: &str = "
enum QMPCapability { oob }
struct VersionTriple { major: int, minor: int, micro: int }
struct VersionInfo { qemu: VersionTriple, package: str }
struct CommandInfo { name: str }
struct NameInfo { name?: str }
struct UuidInfo { UUID: str }
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
struct CpuInstanceProperties { socket-id?: int, core-id?: int, thread-id?: int }
struct CpuInfoFast { cpu-index: int, qom-path: str, thread-id: int, props?: CpuInstanceProperties,
    target: SysEmuTarget }
struct HotpluggableCPU { type: str, vcpus-count: int, props: CpuInstanceProperties,
    qom-path?: str }
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
";

pub const EVENTS: &[(&str, &str)] = &[
    ("STOP", "{}"),
    ("RESUME", "{}"),
    ("POWERDOWN", "{}"),
    ("RESET", "{ guest: bool, reason: ShutdownCause }"),
    ("SHUTDOWN", "{ guest: bool, reason: ShutdownCause }"),
    ("BALLOON_CHANGE", "{ actual: int }"),
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
    ("VSERPORT_CHANGE", "{ id: str, open: bool }"),
    ("WATCHDOG", "{ action: str }"),
];
