//! The structures that procedures carry, field by field as they lie on the wire.

use super::xdr::{Chars, Opaque, Reader, Xdr, XdrError};
use crate::Uuid;

macro_rules! structures {
    ($($(#[doc = $doc:literal])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $($(#[doc = $doc])*
        #[derive(Clone, PartialEq, Debug)]
        pub struct $name {
            $(#[doc = concat!("`", stringify!($field), "` on the wire.")] pub $field: $type,)*
        }

        impl Xdr for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$field.encode(out);)*
            }
            fn decode(input: &mut Reader<'_>) -> Result<Self, XdrError> {
                Ok(Self { $($field: <$type>::decode(input)?,)* })
            }
        })*
    };
}

structures! {
    /// A domain is looked up by its UUID; the id is -1 while it is shut off.
    Domain { name: String, uuid: Uuid, id: i32 }
    /// A virtual network.
    Network { name: String, uuid: Uuid }
    /// A port of a network.
    NetworkPort { net: Network, uuid: Uuid }
    /// A network filter.
    Nwfilter { name: String, uuid: Uuid }
    /// A network filter bound to a port's device.
    NwfilterBinding { portdev: String, filtername: String }
    /// A host interface.
    Interface { name: String, mac: String }
    /// A storage pool.
    StoragePool { name: String, uuid: Uuid }
    /// A storage volume; in file pools the key is its path.
    StorageVol { pool: String, name: String, key: String }
    /// A host device.
    NodeDevice { name: String }
    /// A secret.
    Secret { uuid: Uuid, usage_type: i32, usage_id: String }
    /// A checkpoint of a domain.
    Checkpoint { name: String, dom: Domain }
    /// A snapshot of a domain.
    Snapshot { name: String, dom: Domain }
    /// One vCPU.
    VcpuInfo { number: u32, state: i32, cpu_time: u64, cpu: i32 }
    /// A count with a name: node CPU and memory statistics.
    NamedCount { field: String, value: u64 }
    /// A disk and what is wrong with it.
    DiskError { disk: String, error: i32 }
    /// One figure of a domain's memory.
    MemoryStat { tag: i32, value: u64 }
    /// An I/O thread and the CPUs it may run on.
    IothreadInfo { iothread_id: u32, cpumap: Opaque }
    /// A security label.
    SecurityLabel { label: Chars, enforcing: i32 }
    /// A DHCP lease of a network.
    DhcpLease {
        iface: String, expirytime: i64, kind: i32, mac: Option<String>, iaid: Option<String>,
        ipaddr: String, prefix: u32, hostname: Option<String>, clientid: Option<String>,
    }
    /// All statistics of one domain.
    StatsRecord { dom: Domain, params: Vec<TypedParameter> }
    /// A file system inside a guest.
    FilesystemInfo { mountpoint: String, name: String, fstype: String, dev_aliases: Vec<String> }
    /// An address of a guest.
    IpAddress { kind: i32, addr: String, prefix: u32 }
    /// An interface of a guest.
    DomainInterface { name: String, hwaddr: Option<String>, addrs: Vec<IpAddress> }
    /// A name with a value.
    TypedParameter { field: String, value: Value }
    /// An error as it travels. go-libvirt reads the message as if it were always there.
    WireError {
        code: i32, domain: i32, message: Option<String>, level: i32, dom: Option<Domain>,
        str1: Option<String>, str2: Option<String>, str3: Option<String>, int1: i32, int2: i32,
        net: Option<Network>,
    }
}

/// What a typed parameter holds.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A signed 32-bit number.
    Int(i32),
    /// An unsigned 32-bit number.
    UInt(u32),
    /// A signed 64-bit number.
    Long(i64),
    /// An unsigned 64-bit number.
    ULong(u64),
    /// A floating point number.
    Double(f64),
    /// Yes or no.
    Bool(bool),
    /// Text; only for clients that said they take it.
    Text(String),
}

impl Xdr for Value {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int(value) => (1i32, *value).encode(out),
            Self::UInt(value) => (2i32, *value).encode(out),
            Self::Long(value) => (3i32, *value).encode(out),
            Self::ULong(value) => (4i32, *value).encode(out),
            Self::Double(value) => (5i32, *value).encode(out),
            Self::Bool(value) => (6i32, i32::from(*value)).encode(out),
            Self::Text(value) => {
                7i32.encode(out);
                value.encode(out);
            }
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, XdrError> {
        Ok(match i32::decode(input)? {
            1 => Self::Int(i32::decode(input)?),
            2 => Self::UInt(u32::decode(input)?),
            3 => Self::Long(i64::decode(input)?),
            4 => Self::ULong(u64::decode(input)?),
            5 => Self::Double(f64::decode(input)?),
            6 => Self::Bool(i32::decode(input)? != 0),
            7 => Self::Text(String::decode(input)?),
            tag => return Err(XdrError::BadTag { tag }),
        })
    }
}

impl TypedParameter {
    /// A parameter with this value.
    pub fn new(field: impl Into<String>, value: Value) -> Self {
        Self { field: field.into(), value }
    }
}

/// The text of the parameter of this name.
pub fn text_parameter<'a>(parameters: &'a [TypedParameter], name: &str) -> Option<&'a str> {
    parameters.iter().find(|parameter| parameter.field == name).and_then(|parameter| {
        match &parameter.value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        }
    })
}

/// The number of the parameter of this name, whatever its width.
pub fn number_parameter(parameters: &[TypedParameter], name: &str) -> Option<u64> {
    let parameter = parameters.iter().find(|parameter| parameter.field == name)?;
    match parameter.value {
        Value::Int(value) => u64::try_from(value).ok(),
        Value::UInt(value) => Some(u64::from(value)),
        Value::Long(value) => u64::try_from(value).ok(),
        Value::ULong(value) => Some(value),
        Value::Bool(value) => Some(u64::from(value)),
        Value::Double(_) | Value::Text(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::xdr::{from_bytes, to_bytes};
    use super::*;

    #[test]
    fn typed_parameters_come_back_as_they_were_sent() {
        let values = [
            Value::Int(-1),
            Value::UInt(1),
            Value::Long(-2),
            Value::ULong(u64::MAX),
            Value::Double(0.5),
            Value::Bool(true),
            Value::Text("x".into()),
        ];
        for value in values {
            let parameter = TypedParameter::new("name", value);
            assert_eq!(from_bytes(&to_bytes(&parameter)), Ok(parameter));
        }
        assert_eq!(from_bytes::<Value>(&[0, 0, 0, 8]), Err(XdrError::BadTag { tag: 8 }));
    }
}
