//! What is known of domains: lists, states, documents. None of these waits for a job.

use libvirt_compat::constants::{state, xml_flags};
use libvirt_compat::rpc::types::{Domain, SecurityLabel, TypedParameter};
use libvirt_compat::rpc::xdr::Chars;
use libvirt_compat::xml::{self, Element};
use libvirt_compat::{Code, Error, Result, Uuid};

use super::{Call, at_most, counted};
use crate::agent::not_configured;
use crate::domains::{self, State};

/// `VIR_CONNECT_LIST_DOMAINS_*`, in pairs of which at least one has to match.
mod list {
    pub const ACTIVE: u32 = 1;
    pub const INACTIVE: u32 = 2;
    pub const PERSISTENT: u32 = 4;
    pub const TRANSIENT: u32 = 8;
    pub const RUNNING: u32 = 16;
    pub const PAUSED: u32 = 32;
    pub const SHUTOFF: u32 = 64;
    pub const OTHER: u32 = 128;
    pub const MANAGED_SAVE: u32 = 256;
    pub const NO_MANAGED_SAVE: u32 = 512;
    pub const AUTOSTART: u32 = 1024;
    pub const NO_AUTOSTART: u32 = 2048;
    pub const HAS_SNAPSHOT: u32 = 4096;
    pub const NO_SNAPSHOT: u32 = 8192;
    pub const HAS_CHECKPOINT: u32 = 16384;
    pub const NO_CHECKPOINT: u32 = 32768;
}

/// Whether a domain belongs into a list with these flags.
pub(super) fn is_listed(domain: &State, flags: u32) -> bool {
    let pick = |yes: bool, one: u32, other: u32| if yes { one } else { other };
    let own_state = match domain.state.0 {
        state::RUNNING => list::RUNNING,
        state::PAUSED => list::PAUSED,
        state::SHUTOFF => list::SHUTOFF,
        _ => list::OTHER,
    };
    let groups = [
        (list::ACTIVE | list::INACTIVE, pick(domain.live.is_some(), list::ACTIVE, list::INACTIVE)),
        (
            list::PERSISTENT | list::TRANSIENT,
            pick(domain.definition.is_some(), list::PERSISTENT, list::TRANSIENT),
        ),
        (list::RUNNING | list::PAUSED | list::SHUTOFF | list::OTHER, own_state),
        (
            list::MANAGED_SAVE | list::NO_MANAGED_SAVE,
            pick(domain.managed_save, list::MANAGED_SAVE, list::NO_MANAGED_SAVE),
        ),
        (
            list::AUTOSTART | list::NO_AUTOSTART,
            pick(domain.autostart, list::AUTOSTART, list::NO_AUTOSTART),
        ),
        (
            list::HAS_SNAPSHOT | list::NO_SNAPSHOT,
            pick(!domain.snapshots.is_empty(), list::HAS_SNAPSHOT, list::NO_SNAPSHOT),
        ),
        (list::HAS_CHECKPOINT | list::NO_CHECKPOINT, list::NO_CHECKPOINT),
    ];
    groups.into_iter().all(|(group, own)| flags & group == 0 || flags & own != 0)
}

fn select(call: &Call, flags: u32) -> Result<Vec<Domain>> {
    let all = call.world()?.domains.all();
    let references = all.iter().filter_map(|domain| {
        let state = domain.state.lock();
        is_listed(&state, flags).then(|| Domain {
            name: state.name.clone(),
            uuid: domain.uuid,
            id: state.id,
        })
    });
    Ok(references.collect())
}

pub fn connect_list_all_domains(
    call: &Call,
    need_results: i32,
    flags: u32,
) -> Result<(Vec<Domain>, u32)> {
    Ok(counted(select(call, flags)?, need_results))
}

pub fn connect_num_of_domains(call: &Call) -> Result<i32> {
    Ok(select(call, list::ACTIVE)?.len() as i32)
}

pub fn connect_list_domains(call: &Call, maximum: i32) -> Result<Vec<i32>> {
    let ids = select(call, list::ACTIVE)?.into_iter().map(|domain| domain.id);
    Ok(at_most(ids.collect(), maximum))
}

pub fn connect_num_of_defined_domains(call: &Call) -> Result<i32> {
    Ok(select(call, list::INACTIVE)?.len() as i32)
}

pub fn connect_list_defined_domains(call: &Call, maximum: i32) -> Result<Vec<String>> {
    let names = select(call, list::INACTIVE)?.into_iter().map(|domain| domain.name);
    Ok(at_most(names.collect(), maximum))
}

pub fn domain_lookup_by_name(call: &Call, name: String) -> Result<Domain> {
    let domain = call.world()?.domains.by_name(&name).ok_or_else(|| {
        Error::new(Code::NoDomain, format!("no domain with matching name '{name}'"))
    })?;
    Ok(domain.reference())
}

pub fn domain_lookup_by_uuid(call: &Call, uuid: Uuid) -> Result<Domain> {
    let domain = call.world()?.domains.by_uuid(uuid).ok_or_else(|| {
        Error::new(Code::NoDomain, format!("no domain with matching uuid '{uuid}'"))
    })?;
    Ok(domain.reference())
}

pub fn domain_lookup_by_id(call: &Call, id: i32) -> Result<Domain> {
    let found = if id < 0 { None } else { call.world()?.domains.by_id(id) };
    let domain = found
        .ok_or_else(|| Error::new(Code::NoDomain, format!("no domain with matching id {id}")))?;
    Ok(domain.reference())
}

pub fn domain_get_state(call: &Call, dom: Domain, _flags: u32) -> Result<(i32, i32)> {
    let (_, domain) = call.domain(&dom)?;
    let state = domain.state.lock();
    Ok(state.state)
}

pub fn domain_get_info(call: &Call, dom: Domain) -> Result<(u32, u64, u64, u32, u64)> {
    let (_, domain) = call.domain(&dom)?;
    let (summary, own_state, machine, balloon) = {
        let state = domain.state.lock();
        let machine = state.live.as_ref().map(|live| live.machine.clone());
        (live_summary(&state), state.state.0, machine, state.balloon_kib)
    };
    let time = machine.as_ref().map_or(0, |machine| machine.cpu_time().0);
    let memory = match machine {
        Some(_) => balloon.unwrap_or(summary.memory_kib),
        None => summary.memory_kib,
    };
    Ok((own_state as u32, summary.memory_kib_max, memory, summary.vcpus, time))
}

/// Figures of what runs, or of what is stored.
pub(super) fn live_summary(state: &State) -> libvirt_compat::domain::Summary {
    match &state.live {
        Some(live) => libvirt_compat::domain::Summary::of(&live.document),
        None => state.summary.clone(),
    }
}

pub fn domain_get_os_type(call: &Call, dom: Domain) -> Result<String> {
    let (_, domain) = call.domain(&dom)?;
    let state = domain.state.lock();
    Ok(state.summary.os_type.clone())
}

pub fn domain_get_max_memory(call: &Call, dom: Domain) -> Result<u64> {
    let (_, domain) = call.domain(&dom)?;
    let state = domain.state.lock();
    Ok(live_summary(&state).memory_kib_max)
}

pub fn domain_get_max_vcpus(call: &Call, dom: Domain) -> Result<i32> {
    // Live and maximum.
    domain_get_vcpus_flags(call, dom, 4 | 1)
}

/// `VIR_DOMAIN_VCPU_MAXIMUM`.
const VCPU_MAXIMUM: u32 = 4;
/// `VIR_DOMAIN_VCPU_GUEST`.
const VCPU_GUEST: u32 = 8;

pub fn domain_get_vcpus_flags(call: &Call, dom: Domain, flags: u32) -> Result<i32> {
    let (_, domain) = call.domain(&dom)?;
    if flags & VCPU_GUEST != 0 {
        return Err(not_configured());
    }
    let impact = domains::impact(&domain, flags & 3)?;
    let state = domain.state.lock();
    let summary = if impact.live { live_summary(&state) } else { state.summary.clone() };
    Ok(if flags & VCPU_MAXIMUM != 0 { summary.vcpus_max } else { summary.vcpus } as i32)
}

pub fn domain_get_autostart(call: &Call, dom: Domain) -> Result<i32> {
    let (_, domain) = call.domain(&dom)?;
    let state = domain.state.lock();
    Ok(i32::from(state.autostart))
}

pub fn domain_is_active(call: &Call, dom: Domain) -> Result<i32> {
    Ok(i32::from(call.domain(&dom)?.1.is_active()))
}

pub fn domain_is_persistent(call: &Call, dom: Domain) -> Result<i32> {
    Ok(i32::from(call.domain(&dom)?.1.is_persistent()))
}

pub fn domain_is_updated(call: &Call, dom: Domain) -> Result<i32> {
    let (_, domain) = call.domain(&dom)?;
    let state = domain.state.lock();
    Ok(i32::from(state.updated))
}

pub fn domain_get_control_info(call: &Call, dom: Domain, _flags: u32) -> Result<(u32, u32, u64)> {
    call.domain(&dom)?.1.machine()?;
    Ok((0, 0, 0))
}

/// Nothing taints a domain here, and nothing is deprecated.
pub fn domain_get_messages(call: &Call, dom: Domain, _flags: u32) -> Result<Vec<String>> {
    call.domain(&dom)?;
    Ok(Vec::new())
}

pub fn domain_get_xml_desc(call: &Call, dom: Domain, flags: u32) -> Result<String> {
    let (_, domain) = call.domain(&dom)?;
    let secure = flags & xml_flags::SECURE != 0;
    if secure && call.client.is_readonly() {
        let text = "virDomainGetXMLDesc with secure flag";
        return Err(Error::new(Code::OperationDenied, text));
    }
    let inactive = flags & (xml_flags::INACTIVE | xml_flags::MIGRATABLE) != 0;
    let (text, live, id, balloon) = {
        let state = domain.state.lock();
        let live = state.live.as_ref().map(|live| live.document.clone());
        (state.definition.clone(), live, state.id, state.balloon_kib)
    };
    match (text, live) {
        (Some(text), None) => hide_passwords(&text, secure),
        (Some(text), Some(_)) if inactive => hide_passwords(&text, secure),
        (_, Some(live)) if inactive => {
            hide_passwords(&domains::without_live_parts(live).to_xml(), secure)
        }
        (_, Some(mut live)) => {
            live.set("id", id);
            if let Some(kib) = balloon {
                live.ensure("currentMemory").set_text(kib);
            }
            hide_passwords(&live.to_xml(), secure)
        }
        (None, None) => Err(domains::not_running()),
    }
}

/// Passwords of graphics are shown to those who ask for them only.
fn hide_passwords(text: &str, secure: bool) -> Result<String> {
    if secure || !text.contains("passwd") {
        return Ok(text.to_owned());
    }
    let mut document = xml::parse(text, "domain_definition")?;
    if let Some(devices) = document.child_mut("devices") {
        for graphics in devices.all_mut("graphics") {
            graphics.unset("passwd");
        }
    }
    Ok(document.to_xml())
}

/// `VIR_DOMAIN_METADATA_*`.
const METADATA_TITLE: i32 = 1;

pub fn domain_get_metadata(
    call: &Call,
    dom: Domain,
    kind: i32,
    uri: Option<String>,
    flags: u32,
) -> Result<String> {
    let (_, domain) = call.domain(&dom)?;
    let impact = domains::impact(&domain, flags & 3)?;
    let document = if impact.live { domain.document()? } else { domain.definition()? };
    let missing = |text: &str| Error::new(Code::NoDomainMetadata, text);
    match kind {
        0 | METADATA_TITLE => {
            let name = if kind == METADATA_TITLE { "title" } else { "description" };
            let found = document.child(name).map(Element::text);
            found.ok_or_else(|| missing("Requested metadata element is not present"))
        }
        _ => {
            let uri = uri.unwrap_or_default();
            let metadata = document.child("metadata");
            let found =
                metadata.and_then(|metadata| metadata.elements().find(|own| namespace(own) == uri));
            let found =
                found.ok_or_else(|| missing("Requested metadata element is not present"))?;
            let mut found = found.clone();
            strip_namespace(&mut found);
            Ok(found.to_xml().trim_end().to_owned())
        }
    }
}

/// Takes away what was put in when the application's element was stored.
fn strip_namespace(element: &mut Element) {
    let Some((prefix, _)) = element.name.split_once(':') else { return };
    let prefix = format!("{prefix}:");
    element.unset(&format!("xmlns:{}", prefix.trim_end_matches(':')));
    strip_prefix(element, &prefix);
}

fn strip_prefix(element: &mut Element, prefix: &str) {
    if let Some(name) = element.name.strip_prefix(prefix) {
        element.name = name.to_owned();
    }
    element.elements_mut().for_each(|child| strip_prefix(child, prefix));
}

/// The URI of an element's own prefix.
pub(super) fn namespace(element: &Element) -> &str {
    let attribute = match element.name.split_once(':') {
        Some((prefix, _)) => format!("xmlns:{prefix}"),
        None => "xmlns".to_owned(),
    };
    element.attribute(&attribute).unwrap_or_default()
}

pub fn domain_get_security_label(call: &Call, dom: Domain) -> Result<(Chars, i32)> {
    call.domain(&dom)?;
    Ok((Chars(Vec::new()), 0))
}

pub fn domain_get_security_label_list(
    call: &Call,
    dom: Domain,
) -> Result<(Vec<SecurityLabel>, i32)> {
    let (_, domain) = call.domain(&dom)?;
    if !domain.is_active() {
        return Ok((Vec::new(), 0));
    }
    let document = domain.document()?;
    let own = document.all("seclabel").filter_map(|label| label.text_at("label"));
    // One for each of the models that capabilities list; the first, "none", gives no labels.
    let labels: Vec<SecurityLabel> = std::iter::once(String::new())
        .chain(own)
        .map(|text| SecurityLabel { label: Chars(format!("{text}\0").into_bytes()), enforcing: 0 })
        .collect();
    let count = labels.len() as i32;
    Ok((labels, count))
}

pub fn domain_get_scheduler_type(call: &Call, dom: Domain) -> Result<(String, i32)> {
    call.domain(&dom)?;
    Ok(("posix".to_owned(), 0))
}

/// `VIR_DOMAIN_JOB_NONE`, and eleven counters.
pub type JobInfo = (i32, u64, u64, u64, u64, u64, u64, u64, u64, (u64, u64, u64));

pub fn domain_get_job_info(call: &Call, dom: Domain) -> Result<JobInfo> {
    call.domain(&dom)?.1.machine()?;
    Ok((0, 0, 0, 0, 0, 0, 0, 0, 0, (0, 0, 0)))
}

pub fn domain_get_job_stats(
    call: &Call,
    dom: Domain,
    _flags: u32,
) -> Result<(i32, Vec<TypedParameter>)> {
    call.domain(&dom)?.1.machine()?;
    Ok((0, Vec::new()))
}
