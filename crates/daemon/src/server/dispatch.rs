//! From a procedure's number to its handler. The match arms come from the table of procedures.

use libvirt_compat::rpc::xdr::{Xdr, XdrError, from_bytes, to_bytes};
use libvirt_compat::rpc::{
    self, Access, Header, PROGRAM_LXC, PROGRAM_QEMU, PROGRAM_REMOTE, PROGRAM_VERSION, Priority,
    Procedure, Standing,
};
use libvirt_compat::{Code, Error, Origin, Result};

use crate::handlers::{self, Call};

/// Whether the handler neither blocks nor writes, so that no other thread is needed.
pub fn answers_at_once(header: Header) -> bool {
    rpc::find(header.program, header.procedure).is_none_or(|row| {
        row.standing != Standing::Served
            || row.priority == Priority::High && row.access == Access::Read
    })
}

/// Whether the call may open a stream: `storage_vol_upload`, `domain_open_console` and so on.
pub fn opens_stream(header: Header) -> bool {
    const OPENERS: [&str; 5] = [
        "domain_open_channel",
        "domain_open_console",
        "domain_screenshot",
        "storage_vol_download",
        "storage_vol_upload",
    ];
    rpc::find(header.program, header.procedure).is_some_and(|row| OPENERS.contains(&row.name))
}

/// Runs a call: checks, decodes, handles, encodes.
pub fn run(call: &Call, payload: &[u8]) -> Result<Vec<u8>> {
    let Header { program, version, procedure, .. } = call.header;
    if program == PROGRAM_LXC {
        return Err(Error::bare(Code::NoSupport).from(Origin::Rpc));
    }
    let known = matches!(program, PROGRAM_REMOTE | PROGRAM_QEMU);
    if !known || version != PROGRAM_VERSION {
        let text = format!("Cannot find program {program} version {version}");
        return Err(Error::new(Code::Rpc, text).from(Origin::Rpc));
    }
    let Some(row) = rpc::find(program, procedure).filter(|row| row.standing != Standing::Event)
    else {
        let text = format!("unknown procedure: {procedure}");
        return Err(Error::new(Code::Rpc, text).from(Origin::Rpc));
    };
    if row.standing == Standing::Served && row.access == Access::Write && call.client.is_readonly()
    {
        return Err(Error::new(Code::OperationDenied, "read only access prevents this operation")
            .from(origin(row, call)));
    }
    if call.client.world().is_ok_and(|world| world.driver.lacks(row.name)) {
        return Err(unsupported(call).from(origin(row, call)));
    }
    let result = match program {
        PROGRAM_REMOTE => remote(call, payload),
        _ => qemu(call, payload),
    };
    result.map_err(|error| match error.origin {
        Some(_) => error,
        None => error.from(origin(row, call)),
    })
}

/// Who raises errors of a procedure where nothing better is known.
fn origin(row: &Procedure, call: &Call) -> Origin {
    let word = |word: &str| row.name.contains(word);
    if word("snapshot") {
        Origin::DomainSnapshot
    } else if word("checkpoint") {
        Origin::DomainCheckpoint
    } else if word("domain") {
        call.client.world().map_or(Origin::Dom, |world| world.driver.origin())
    } else if word("network") {
        Origin::Network
    } else if word("storage") {
        Origin::Storage
    } else if word("secret") {
        Origin::Secret
    } else if word("nwfilter") {
        Origin::Nwfilter
    } else if word("node_device") {
        Origin::NodeDevice
    } else if word("interface") {
        Origin::Interface
    } else if word("auth") {
        Origin::Auth
    } else {
        call.client.world().map_or(Origin::Rpc, |world| world.driver.origin())
    }
}

fn unsupported(call: &Call) -> Error {
    let row = rpc::find(call.header.program, call.header.procedure);
    Error::new(Code::NoSupport, api_name(row.map_or("", |row| row.name)))
}

/// `domain_get_vcpus` is called virDomainGetVcpus by users of the library.
pub fn api_name(procedure: &str) -> String {
    /// Words that the library writes its own way.
    const SPELLINGS: [(&str, &str); 18] = [
        ("cpu", "CPU"),
        ("dhcp", "DHCP"),
        ("fsfreeze", "FSFreeze"),
        ("fsinfo", "FSInfo"),
        ("fsthaw", "FSThaw"),
        ("fstrim", "FSTrim"),
        ("id", "ID"),
        ("iothread", "IOThread"),
        ("nmi", "NMI"),
        ("nwfilter", "NWFilter"),
        ("nwfilters", "NWFilters"),
        ("pm", "PM"),
        ("sev", "SEV"),
        ("ssh", "SSH"),
        ("uri", "URI"),
        ("uuid", "UUID"),
        ("wwn", "WWN"),
        ("xml", "XML"),
    ];
    let mut name = String::from("vir");
    for word in procedure.split('_') {
        if let Some((_, spelling)) = SPELLINGS.iter().find(|(plain, _)| *plain == word) {
            name.push_str(spelling);
            continue;
        }
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}

fn undecodable(error: &XdrError) -> Error {
    let text = format!("Unable to decode message payload: {error}");
    Error::new(Code::Rpc, text).from(Origin::Rpc)
}

fn decode<T: Xdr>(payload: &[u8]) -> Result<T> {
    from_bytes(payload).map_err(|error| undecodable(&error))
}

macro_rules! arms {
    (
        program $program:expr;
        served { $($number:literal $priority:ident $access:ident
            $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)* }
        $($rest:tt)*
    ) => {
        |call: &Call, payload: &[u8]| match call.header.procedure {
            $($number => {
                let ($($argument,)*) = decode::<($($type,)*)>(payload)?;
                handlers::$name(call, $($argument),*).map(|result| to_bytes(&result))
            })*
            _ => Err(unsupported(call)),
        }
    };
}

fn remote(call: &Call, payload: &[u8]) -> Result<Vec<u8>> {
    use libvirt_compat::Uuid;
    use libvirt_compat::rpc::types::*;
    use libvirt_compat::rpc::xdr::Opaque;
    libvirt_compat::remote_procedures!(arms)(call, payload)
}

fn qemu(call: &Call, payload: &[u8]) -> Result<Vec<u8>> {
    use libvirt_compat::rpc::types::*;
    libvirt_compat::qemu_procedures!(arms)(call, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_names_are_those_of_the_library() {
        assert_eq!(api_name("domain_get_xml_desc"), "virDomainGetXMLDesc");
    }
}
