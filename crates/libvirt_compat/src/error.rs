//! Errors: libvirt's codes, and the exact texts that scripts match.

use std::fmt;

use crate::rpc::types::WireError;

/// Shorthand for what every procedure returns.
pub type Result<T> = std::result::Result<T, Error>;

macro_rules! codes {
    ($($number:literal $name:ident $bare:literal $format:literal;)*) => {
        /// What went wrong. The number travels, clients switch on it.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Code {
            $(#[doc = $bare] $name = $number,)*
        }

        impl Code {
            /// The code with this number.
            pub fn from_number(number: i32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The text without a detail.
            fn bare(self) -> &'static str {
                match self { $(Self::$name => $bare,)* }
            }

            /// The text with `%s` in the detail's place.
            fn format(self) -> &'static str {
                match self { $(Self::$name => $format,)* }
            }
        }
    };
}

codes! {
    1 InternalError "internal error" "internal error: %s";
    2 NoMemory "out of memory" "out of memory: %s";
    3 NoSupport "this function is not supported by the connection driver" "this function is not supported by the connection driver: %s";
    4 UnknownHost "unknown host" "unknown host %s";
    5 NoConnect "no connection driver available" "no connection driver available for %s";
    6 InvalidConn "invalid connection pointer in" "invalid connection pointer in %s";
    7 InvalidDomain "invalid domain pointer in" "invalid domain pointer in %s";
    8 InvalidArg "invalid argument" "invalid argument: %s";
    9 OperationFailed "operation failed" "operation failed: %s";
    10 GetFailed "GET operation failed" "GET operation failed: %s";
    11 PostFailed "POST operation failed" "POST operation failed: %s";
    12 HttpError "got unknown HTTP error code" "got unknown HTTP error code %s";
    13 SexprSerial "failed to serialize S-Expr" "failed to serialize S-Expr: %s";
    14 NoXen "could not use Xen hypervisor entry" "could not use Xen hypervisor entry %s";
    15 XenCall "failed Xen syscall" "failed Xen syscall %s";
    16 OsType "unknown OS type" "unknown OS type %s";
    17 NoKernel "missing kernel information" "missing kernel information: %s";
    18 NoRoot "missing root device information" "missing root device information in %s";
    19 NoSource "missing source information for device" "missing source information for device %s";
    20 NoTarget "missing target information for device" "missing target information for device %s";
    21 NoName "missing name information" "missing name information in %s";
    22 NoOs "missing operating system information" "missing operating system information for %s";
    23 NoDevice "missing devices information" "missing devices information for %s";
    24 NoXenstore "could not connect to Xen Store" "could not connect to Xen Store %s";
    25 DriverFull "too many drivers registered" "too many drivers registered in %s";
    26 CallFailed "library call failed" "library call failed: %s";
    27 XmlError "XML description is invalid or not well formed" "XML error: %s";
    28 DomExist "this domain exists already" "domain %s exists already";
    29 OperationDenied "operation forbidden for read only access" "operation forbidden: %s";
    30 OpenFailed "failed to open configuration file" "failed to open configuration file %s";
    31 ReadFailed "failed to read configuration file" "failed to read configuration file %s";
    32 ParseFailed "failed to parse configuration file" "failed to parse configuration file %s";
    33 ConfSyntax "configuration file syntax error" "configuration file syntax error: %s";
    34 WriteFailed "failed to write configuration file" "failed to write configuration file: %s";
    35 XmlDetail "parser error" "%s";
    36 InvalidNetwork "invalid network pointer in" "invalid network pointer in %s";
    37 NetworkExist "this network exists already" "network %s exists already";
    38 SystemError "system call error" "%s";
    39 Rpc "RPC error" "%s";
    40 GnutlsError "GNUTLS call error" "%s";
    42 NoDomain "Domain not found" "Domain not found: %s";
    43 NoNetwork "Network not found" "Network not found: %s";
    44 InvalidMac "invalid MAC address" "invalid MAC address: %s";
    45 AuthFailed "authentication failed" "authentication failed: %s";
    46 InvalidStoragePool "invalid storage pool pointer in" "invalid storage pool pointer in %s";
    47 InvalidStorageVol "invalid storage volume pointer in" "invalid storage volume pointer in %s";
    49 NoStoragePool "Storage pool not found" "Storage pool not found: %s";
    50 NoStorageVol "Storage volume not found" "Storage volume not found: %s";
    52 InvalidNodeDevice "invalid node device pointer" "invalid node device pointer in %s";
    53 NoNodeDevice "Node device not found" "Node device not found: %s";
    54 NoSecurityModel "Security model not found" "Security model not found: %s";
    55 OperationInvalid "Requested operation is not valid" "Requested operation is not valid: %s";
    57 NoInterface "Interface not found" "Interface not found: %s";
    58 InvalidInterface "invalid interface pointer in" "invalid interface pointer in %s";
    59 MultipleInterfaces "multiple matching interfaces found" "multiple matching interfaces found: %s";
    61 InvalidNwfilter "Invalid network filter" "Invalid network filter: %s";
    62 NoNwfilter "Network filter not found" "Network filter not found: %s";
    63 BuildFirewall "Error while building firewall" "Error while building firewall: %s";
    65 InvalidSecret "Invalid secret" "Invalid secret: %s";
    66 NoSecret "Secret not found" "Secret not found: %s";
    67 ConfigUnsupported "unsupported configuration" "unsupported configuration: %s";
    68 OperationTimeout "Timed out during operation" "Timed out during operation: %s";
    69 MigratePersistFailed "Failed to make domain persistent after migration" "Failed to make domain persistent after migration: %s";
    70 HookScriptFailed "Hook script execution failed" "Hook script execution failed: %s";
    71 InvalidDomainSnapshot "Invalid domain snapshot" "Invalid domain snapshot: %s";
    72 NoDomainSnapshot "Domain snapshot not found" "Domain snapshot not found: %s";
    73 InvalidStream "invalid stream pointer" "invalid stream pointer in %s";
    74 ArgumentUnsupported "argument unsupported" "argument unsupported: %s";
    75 StorageProbeFailed "Storage pool probe failed" "Storage pool probe failed: %s";
    76 StoragePoolBuilt "Storage pool already built" "Storage pool already built: %s";
    77 SnapshotRevertRisky "revert requires force" "revert requires force: %s";
    78 OperationAborted "operation aborted" "operation aborted: %s";
    79 AuthCancelled "authentication cancelled" "authentication cancelled: %s";
    80 NoDomainMetadata "metadata not found" "metadata not found: %s";
    81 MigrateUnsafe "Unsafe migration" "Unsafe migration: %s";
    82 Overflow "numerical overflow" "numerical overflow: %s";
    83 BlockCopyActive "block copy still active" "block copy still active: %s";
    84 OperationUnsupported "Operation not supported" "Operation not supported: %s";
    85 Ssh "SSH transport error" "SSH transport error: %s";
    86 AgentUnresponsive "Guest agent is not responding" "Guest agent is not responding: %s";
    87 ResourceBusy "resource busy" "resource busy: %s";
    88 AccessDenied "access denied" "access denied: %s";
    89 DbusService "error from service" "error from service: %s";
    90 StorageVolExist "this storage volume exists already" "storage volume %s exists already";
    91 CpuIncompatible "the CPU is incompatible with host CPU" "the CPU is incompatible with host CPU: %s";
    92 XmlInvalidSchema "XML document failed to validate against schema" "XML document failed to validate against schema: %s";
    93 MigrateFinishOk "migration successfully aborted" "migration successfully aborted: %s";
    94 AuthUnavailable "authentication unavailable" "authentication unavailable: %s";
    95 NoServer "Server not found" "Server not found: %s";
    96 NoClient "Client not found" "Client not found: %s";
    97 AgentUnsynced "guest agent replied with wrong id to guest-sync command" "guest agent replied with wrong id to guest-sync command: %s";
    98 Libssh "libssh transport error" "libssh transport error: %s";
    99 DeviceMissing "device not found" "device not found: %s";
    100 InvalidNwfilterBinding "Invalid network filter binding" "Invalid network filter binding: %s";
    101 NoNwfilterBinding "Network filter binding not found" "Network filter binding not found: %s";
    102 InvalidDomainCheckpoint "Invalid domain checkpoint" "Invalid domain checkpoint: %s";
    103 NoDomainCheckpoint "Domain checkpoint not found" "Domain checkpoint not found: %s";
    104 NoDomainBackup "Domain backup job id not found" "Domain backup job id not found: %s";
    105 InvalidNetworkPort "Invalid network port pointer" "Invalid network port pointer: %s";
    106 NetworkPortExist "this network port exists already" "network port %s exists already";
    107 NoNetworkPort "network port not found" "network port not found: %s";
    108 NoHostname "no hostname found" "no hostname found: %s";
    109 CheckpointInconsistent "checkpoint inconsistent" "checkpoint inconsistent: %s";
    110 MultipleDomains "multiple matching domains found" "multiple matching domains found: %s";
}

/// The part of libvirt that raised an error: `virErrorDomain`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody in particular.
    None = 0,
    /// The XML layer.
    Xml = 5,
    /// The API layer of domains.
    Dom = 6,
    /// The RPC layer.
    Rpc = 7,
    /// The QEMU driver.
    Qemu = 10,
    /// The test driver.
    Test = 12,
    /// The remote driver.
    Remote = 13,
    /// Storage pools and volumes.
    Storage = 18,
    /// Networks.
    Network = 19,
    /// Domain documents.
    Domain = 20,
    /// Host devices.
    NodeDevice = 22,
    /// Security labels.
    Security = 24,
    /// Host interfaces.
    Interface = 26,
    /// Secrets.
    Secret = 30,
    /// Processor models.
    Cpu = 31,
    /// Network filters.
    Nwfilter = 33,
    /// Snapshots.
    DomainSnapshot = 35,
    /// Streams.
    Streams = 38,
    /// Host capabilities.
    Capabilities = 44,
    /// Authentication.
    Auth = 46,
    /// Devices of domains.
    Device = 49,
    /// Checkpoints.
    DomainCheckpoint = 69,
}

impl Origin {
    const ALL: [Self; 22] = [
        Self::None,
        Self::Xml,
        Self::Dom,
        Self::Rpc,
        Self::Qemu,
        Self::Test,
        Self::Remote,
        Self::Storage,
        Self::Network,
        Self::Domain,
        Self::NodeDevice,
        Self::Security,
        Self::Interface,
        Self::Secret,
        Self::Cpu,
        Self::Nwfilter,
        Self::DomainSnapshot,
        Self::Streams,
        Self::Capabilities,
        Self::Auth,
        Self::Device,
        Self::DomainCheckpoint,
    ];

    fn from_number(number: i32) -> Self {
        let found = Self::ALL.into_iter().find(|origin| *origin as i32 == number);
        found.unwrap_or(Self::None)
    }
}

/// An error as a client sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// The number.
    pub code: Code,
    /// Who raised it; filled in from the procedure where nobody said.
    pub origin: Option<Origin>,
    /// What stands in for `%s`; empty for the bare text.
    pub detail: String,
    /// `errno` for system errors.
    pub errno: Option<i32>,
}

impl Error {
    /// An error with a detail.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, origin: None, detail: detail.into(), errno: None }
    }

    /// An error with libvirt's bare text.
    pub fn bare(code: Code) -> Self {
        Self::new(code, "")
    }

    /// Says who raised it.
    pub fn from(self, origin: Origin) -> Self {
        Self { origin: Some(origin), ..self }
    }

    /// A failed system call, with libvirt's "doing this: reason".
    pub fn system(doing: impl fmt::Display, errno: i32, reason: impl fmt::Display) -> Self {
        let error = Self::new(Code::SystemError, format!("{doing}: {reason}"));
        Self { errno: Some(errno), ..error }
    }

    /// The whole text.
    pub fn message(&self) -> String {
        if self.detail.is_empty() {
            return self.code.bare().to_owned();
        }
        self.code.format().replace("%s", &self.detail)
    }

    /// What goes over the wire.
    pub fn to_wire(&self) -> WireError {
        let (format, detail) = if self.detail.is_empty() {
            (self.code.bare(), None)
        } else {
            (self.code.format(), Some(self.detail.clone()))
        };
        WireError {
            code: self.code as i32,
            domain: self.origin.unwrap_or(Origin::None) as i32,
            message: Some(self.message()),
            level: LEVEL_ERROR,
            dom: None,
            str1: Some(format.to_owned()),
            str2: detail,
            str3: None,
            int1: self.errno.unwrap_or(-1),
            int2: -1,
            net: None,
        }
    }

    /// What came over the wire. Of a code that is unknown here the text is kept.
    pub fn from_wire(wire: WireError) -> Self {
        let code = Code::from_number(wire.code);
        let detail = match code {
            Some(_) if wire.str2.is_some() => wire.str2,
            Some(code) if wire.message.as_deref() == Some(code.bare()) => None,
            _ => wire.message,
        };
        let errno = (wire.int1 >= 0).then_some(wire.int1);
        Self {
            code: code.unwrap_or(Code::InternalError),
            origin: Some(Origin::from_number(wire.domain)),
            detail: detail.unwrap_or_default(),
            errno: errno.filter(|_| code == Some(Code::SystemError)),
        }
    }
}

/// `VIR_ERR_ERROR`.
const LEVEL_ERROR: i32 = 2;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_libvirts() {
        for (code, detail, text) in [
            (
                Code::NoDomain,
                "no domain with matching name 'x'",
                "Domain not found: no domain with matching name 'x'",
            ),
            (
                Code::NoSupport,
                "virDomainX",
                "this function is not supported by the connection driver: virDomainX",
            ),
            (Code::SystemError, "it broke", "it broke"),
            (Code::OperationDenied, "", "operation forbidden for read only access"),
            (Code::DomExist, "x", "domain x exists already"),
        ] {
            assert_eq!(Error::new(code, detail).message(), text);
        }
    }

    #[test]
    fn errors_come_back_as_they_were_sent() {
        for error in [
            Error::new(Code::NoNetwork, "x").from(Origin::Network),
            Error::bare(Code::OperationDenied).from(Origin::None),
            Error::system("Cannot open '/x'", 2, "No such file").from(Origin::Qemu),
        ] {
            assert_eq!(Error::from_wire(error.to_wire()), error);
        }
    }
}
