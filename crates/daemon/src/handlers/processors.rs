//! Comparing processors: what several have in common.

use std::collections::BTreeSet;

use libvirt_compat::xml::{Element, parse};
use libvirt_compat::{Code, Error, Origin, Result};
use qemu_compat::system::processors;

use super::{Call, check_flags};

/// `VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES`: list the model's own features, too.
const EXPAND: u32 = 1;
/// `VIR_CONNECT_BASELINE_CPU_MIGRATABLE`: leave out what cannot move to another host.
const MIGRATABLE: u32 = 2;
/// Processors in one request.
const PROCESSORS_MAX: usize = 256;

/// A processor: its model's name, and all that it can do.
struct Processor {
    model: String,
    features: BTreeSet<String>,
}

/// The processor that all of the given ones can stand in for.
pub fn connect_baseline_cpu(_call: &Call, cpus: Vec<String>, flags: u32) -> Result<String> {
    check_flags(flags, EXPAND | MIGRATABLE, "virConnectBaselineCPU")?;
    baseline(&cpus, flags & EXPAND != 0)
}

pub fn connect_baseline_hypervisor_cpu(
    _call: &Call,
    _emulator: Option<String>,
    _arch: Option<String>,
    _machine: Option<String>,
    _virt_type: Option<String>,
    cpus: Vec<String>,
    flags: u32,
) -> Result<String> {
    check_flags(flags, EXPAND | MIGRATABLE, "virConnectBaselineHypervisorCPU")?;
    baseline(&cpus, flags & EXPAND != 0)
}

fn baseline(cpus: &[String], expand: bool) -> Result<String> {
    if cpus.is_empty() || cpus.len() > PROCESSORS_MAX {
        return Err(Error::new(Code::InvalidArg, "no CPUs given").from(Origin::Cpu));
    }
    let cpus: Vec<Processor> = cpus.iter().map(|text| read(text)).collect::<Result<_>>()?;
    let mut common = cpus[0].features.clone();
    for cpu in &cpus[1..] {
        common.retain(|feature| cpu.features.contains(feature));
    }
    let single = cpus.len() == 1;
    let (model, own) = if single {
        (cpus[0].model.clone(), own_features(&cpus[0].model).unwrap_or_default())
    } else {
        nearest(&common)?
    };
    let mut document = Element::new("cpu").with("mode", "custom").with("match", "exact");
    let fallback = if single { "forbid" } else { "allow" };
    document.push(Element::with_text("model", model).with("fallback", fallback));
    for name in common.iter().filter(|name| expand || !own.contains(*name)) {
        document.push(Element::new("feature").with("policy", "require").with("name", name));
    }
    for name in own.iter().filter(|name| !common.contains(*name)) {
        document.push(Element::new("feature").with("policy", "disable").with("name", name));
    }
    Ok(document.to_xml())
}

fn read(text: &str) -> Result<Processor> {
    let problem = |text: &str| Error::new(Code::XmlError, text).from(Origin::Cpu);
    let mut document = parse(text, "cpu_definition")?;
    if document.name == "capabilities" {
        let cpu = document.at("host/cpu").cloned();
        document = cpu.ok_or_else(|| problem("Missing CPU architecture"))?;
    }
    let arch = document.text_at("arch").filter(|arch| !arch.is_empty());
    let arch = arch.ok_or_else(|| problem("Missing CPU architecture"))?;
    let model = document.text_at("model").filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| problem("Missing CPU model name"))?;
    let known = matches!(arch.as_str(), "x86_64" | "i686").then(|| own_features(&model)).flatten();
    let mut features = known.ok_or_else(|| {
        Error::new(Code::InternalError, format!("Unknown CPU model {model}")).from(Origin::Cpu)
    })?;
    for feature in document.all("feature") {
        let name = feature.attribute("name").unwrap_or_default().to_owned();
        match feature.attribute("policy") {
            None | Some("require" | "force") => _ = features.insert(name),
            Some("disable" | "forbid") => _ = features.remove(&name),
            _ => {}
        }
    }
    Ok(Processor { model, features })
}

/// A model's features under libvirt's names.
fn own_features(model: &str) -> Option<BTreeSet<String>> {
    let processor = processors::find(model)?;
    let names = processors::feature_names().filter(|name| {
        *name != "hypervisor"
            && processors::feature(name).is_some_and(|feature| processor.features.has(feature))
    });
    Some(names.map(|name| if name == "lahf-lm" { "lahf_lm" } else { name }.to_owned()).collect())
}

/// The richest model that has nothing the common ground lacks.
fn nearest(common: &BTreeSet<String>) -> Result<(String, BTreeSet<String>)> {
    let names = processors::names().into_iter().map(|name| name.name);
    let fitting = names.filter(|name| !is_version(name)).filter_map(|name| {
        let own = own_features(&name)?;
        (!own.is_empty() && own.is_subset(common)).then_some((name, own))
    });
    fitting
        .max_by_key(|(_, own)| own.len())
        .ok_or_else(|| Error::new(Code::OperationFailed, "CPUs are incompatible").from(Origin::Cpu))
}

/// `Penryn-v1`: libvirt says `Penryn`.
fn is_version(name: &str) -> bool {
    let version = name.rsplit_once("-v").map(|(_, version)| version);
    version.is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKYLAKE: &str = "<cpu><arch>x86_64</arch><model>Skylake-Client-IBRS</model>\
                           <feature policy='require' name='ibpb'/></cpu>";

    #[test]
    fn one_processor_is_its_own_baseline() {
        let plain = baseline(&[SKYLAKE.to_owned()], false).unwrap();
        assert!(plain.contains("Skylake-Client-IBRS") && plain.contains("'ibpb'"), "{plain}");
        assert!(!plain.contains("'avx2'"), "{plain}");
        let expanded = baseline(&[SKYLAKE.to_owned()], true).unwrap();
        assert!(expanded.contains("'avx2'") && expanded.contains("'spec-ctrl'"), "{expanded}");
    }

    #[test]
    fn two_processors_meet_below_both() {
        let penryn = "<cpu><arch>x86_64</arch><model>Penryn</model></cpu>".to_owned();
        let both = baseline(&[penryn, SKYLAKE.to_owned()], false).unwrap();
        assert!(both.contains(">Penryn</model>"), "{both}");
    }

    #[test]
    fn refusals_have_libvirts_texts() {
        for (cpus, message) in [
            (vec![], "invalid argument: no CPUs given"),
            (vec!["<cpu/>"], "XML error: Missing CPU architecture"),
            (vec!["<cpu><arch>x86_64</arch></cpu>"], "XML error: Missing CPU model name"),
            (
                vec!["<cpu><arch>x86_64</arch><model>nope</model></cpu>"],
                "internal error: Unknown CPU model nope",
            ),
        ] {
            let cpus: Vec<String> = cpus.into_iter().map(str::to_owned).collect();
            assert_eq!(baseline(&cpus, false).unwrap_err().message(), message);
        }
    }
}
