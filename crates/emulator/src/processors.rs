//! `-cpu`: what becomes of a model on this accelerator, and what monitors are told of it.

use anyhow::{Result, bail};
use machine::identity::Features as Register;
use machine::{Accelerator, Identity, kvm, native_identity, native_register};
use qemu_compat::system::processors::{
    self as models, Feature, Features, Processor, ProcessorError, Resolved, Word,
};
use serde_json::{Map, Value, json};

use crate::options::Options;
use crate::{PROGRAM, boards};

/// Who runs guests whose processor may say so.
const TRANSLATOR_SIGNATURE: [u8; 12] = *b"TCGTCGTCGTCG";

/// Models that are all that the accelerator has.
pub fn is_whole_host(model: &str) -> bool {
    matches!(model, "host" | "max")
}

/// What the accelerator has: features, and the rest of the model `max`.
pub struct Offered {
    whole: Processor,
    is_kvm: bool,
}

/// What models have otherwise where the host's processors run the guest.
const ON_KVM: [(&str, bool); 4] =
    [("x2apic", true), ("svm", false), ("monitor", false), ("acpi", false)];

/// What the translator has but nobody should prefer there: with SMAP a system changes its mode at
/// each copy from and to a program.
const ONLY_ASKED_FOR: [&str; 1] = ["smap"];

fn word_of(answer: impl Fn(u32, u32) -> [u32; 4], register: impl Fn(u32) -> u64) -> Features {
    let mut features = Features::of(|word| match word {
        Word::Leaf { leaf, subleaf, register } => answer(leaf, subleaf)[register],
        Word::Msr(number) => register(number) as u32,
    });
    // These tell of the topology, and of nothing that a processor can or cannot do.
    for name in ["ht", "cmp-legacy", "hypervisor"] {
        if let Some(feature) = models::feature(name) {
            features.set(feature, true);
        }
    }
    features
}

impl Offered {
    /// Asks the accelerator.
    pub fn by(accelerator: &Accelerator) -> Result<Self> {
        Ok(match accelerator {
            Accelerator::Translator(options) => {
                let answer = |leaf, subleaf| native_identity(options, leaf, subleaf);
                Self { whole: whole(answer, native_register), is_kvm: false }
            }
            Accelerator::Kvm(kvm::Options { vm, migratable }) => {
                let supported = vm.supported(*migratable)?;
                let answer = |leaf, subleaf| supported.answer(leaf, subleaf);
                let register = |number| supported.register(number);
                Self { whole: whole(answer, register), is_kvm: true }
            }
        })
    }

    /// The model without a name: what boards have when nobody says. The translator's guests get
    /// all there is, for they were slower otherwise and could not go to another accelerator anyway.
    pub fn default_model(&self) -> &'static str {
        if self.is_kvm { "qemu64" } else { "max" }
    }

    /// A model with properties.
    pub fn resolve(
        &self,
        name: &str,
        properties: &[(String, String)],
    ) -> Result<Resolved, ProcessorError> {
        let processor = match name {
            "base" => Processor::base(),
            name if is_whole_host(name) => {
                let mut whole = self.whole.clone();
                for feature in ONLY_ASKED_FOR.iter().filter_map(|name| models::feature(name)) {
                    whole.features.set(feature, self.is_kvm && whole.features.has(feature));
                }
                whole
            }
            name => {
                let found = models::find(name);
                let mut found = found.ok_or_else(|| ProcessorError::Unknown(name.to_owned()))?;
                for (name, on) in ON_KVM.iter().filter(|_| self.is_kvm) {
                    if let Some(feature) = models::feature(name) {
                        found.features.set(feature, *on);
                    }
                }
                found
            }
        };
        models::resolve(name, processor, properties)
    }

    /// Features of a processor that are not to be had.
    pub fn missing(&self, processor: &Processor) -> Vec<Feature> {
        processor.features.without(&self.whole.features)
    }
}

/// The model `max`, from what CPUID answers.
fn whole(answer: impl Fn(u32, u32) -> [u32; 4], register: impl Fn(u32) -> u64) -> Processor {
    const BRAND: u32 = 0x8000_0002;
    let text = |words: &[u32]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        String::from_utf8_lossy(&bytes).trim_end_matches(['\0', ' ']).to_owned()
    };
    let [level, b, c, d] = answer(0, 0);
    let [signature, ..] = answer(1, 0);
    let (base, extended) = (signature >> 8 & 15, signature >> 20 & 0xff);
    let brand: Vec<u32> = (0..3).flat_map(|part| answer(BRAND + part, 0)).collect();
    Processor {
        vendor: text(&[b, d, c]),
        family: if base == 15 { base + extended } else { base },
        model: signature >> 4 & 15 | (signature >> 16 & 15) << 4,
        stepping: signature & 15,
        level,
        xlevel: answer(0x8000_0000, 0)[0],
        text: text(&brand),
        features: word_of(answer, register),
    }
}

const REGISTERS: [&str; 4] = ["EAX", "EBX", "ECX", "EDX"];

/// The processors that the machine got.
pub struct Chosen {
    pub offered: Offered,
    /// The model's name.
    pub name: String,
    /// With the features that are there.
    pub processor: Processor,
    /// Features that were asked for and are not there.
    pub missing: Vec<Feature>,
    checks: bool,
    enforces: bool,
}

/// Resolves `-cpu`: missing features are told on standard error, in QEMU's words.
pub fn choose(options: &Options, accelerator: &Accelerator) -> Result<(Chosen, Identity)> {
    let offered = Offered::by(accelerator)?;
    let board = &options.board;
    let name = board.processor.clone().unwrap_or_else(|| offered.default_model().to_owned());
    if name == "host" && !offered.is_kvm {
        bail!("CPU model 'host' requires KVM or HVF");
    }
    let Resolved { wanted, checks, enforces, shows_hypervisor } =
        offered.resolve(&name, &board.features)?;
    let missing = offered.missing(&wanted);
    let who = if offered.is_kvm { "host" } else { "TCG" };
    // Nothing runs on the board without anything.
    let told = board.name != boards::NONE && (checks || enforces);
    if told {
        for feature in &missing {
            let feature = models::describe(*feature);
            eprintln!("{PROGRAM}: warning: {who} doesn't support requested feature: {feature}");
        }
    }
    if told && enforces && !missing.is_empty() {
        let who = if offered.is_kvm { "Host" } else { who };
        bail!("{who} doesn't support requested features");
    }
    let mut processor = wanted;
    processor.features = processor.features.and(&offered.whole.features);
    let identity = identity(&offered, &name, &processor, shows_hypervisor, options);
    Ok((Chosen { offered, name, processor, missing, checks, enforces }, identity))
}

fn identity(
    offered: &Offered,
    name: &str,
    processor: &Processor,
    shows_hypervisor: bool,
    options: &Options,
) -> Identity {
    let topology = options.board.topology.neutral();
    let (whole, is_whole) = (&offered.whole, is_whole_host(name));
    let mut identity = Identity::native(topology);
    let changed = |same: bool| !is_whole || !same;
    if changed(processor.vendor == whole.vendor) {
        identity.vendor = processor.vendor.as_bytes().try_into().ok();
    }
    if changed(processor.signature() == whole.signature()) {
        identity.signature = Some(processor.signature());
    }
    if changed(processor.text == whole.text) {
        let mut brand = [0; 48];
        let bytes = processor.text.len().min(48);
        brand[..bytes].copy_from_slice(&processor.text.as_bytes()[..bytes]);
        identity.brand = Some(brand);
    }
    if changed((processor.level, processor.xlevel) == (whole.level, whole.xlevel)) {
        identity.levels = Some((processor.level, processor.xlevel));
    }
    if changed(processor.features == whole.features) {
        identity.features = Some(registers(processor));
    }
    let shows = models::feature("hypervisor").is_some_and(|bit| processor.features.has(bit));
    if !is_whole && !offered.is_kvm && shows && shows_hypervisor {
        identity.hypervisor = Some(TRANSLATOR_SIGNATURE);
    }
    identity
}

/// Words as CPUID tells them. AMD's processors repeat the oldest ones.
fn registers(processor: &Processor) -> Vec<Register> {
    const REPEATED: u32 = 0x0183_f3ff;
    let place = |wanted: (u32, usize)| {
        processor.features.words().find_map(|(word, bits)| match word {
            Word::Leaf { leaf, register, .. } if (leaf, register) == wanted => Some(bits),
            _ => None,
        })
    };
    let is_amd = matches!(processor.vendor.as_str(), "AuthenticAMD" | "HygonGenuine");
    let repeated = if is_amd { place((1, 3)).unwrap_or(0) & REPEATED } else { 0 };
    let register = |(word, bits)| match word {
        Word::Leaf { leaf: leaf @ 0x8000_0001, subleaf, register: 3 } => {
            Some(Register { leaf, subleaf, register: 3, bits: bits | repeated })
        }
        Word::Leaf { leaf, subleaf, register } => Some(Register { leaf, subleaf, register, bits }),
        Word::Msr(_) => None,
    };
    processor.features.words().filter_map(register).collect()
}

/// A processor's properties as objects and expansions show them.
pub fn properties(processor: &Processor) -> Map<String, Value> {
    let mut members = Map::new();
    for name in models::feature_names() {
        let on = models::feature(name).is_some_and(|feature| processor.features.has(feature));
        members.insert(name.to_owned(), on.into());
    }
    for (name, number) in [
        ("family", processor.family),
        ("model", processor.model),
        ("stepping", processor.stepping),
        ("level", processor.level),
        ("xlevel", processor.xlevel),
        ("min-level", processor.level),
        ("min-xlevel", processor.xlevel),
    ] {
        members.insert(name.to_owned(), number.into());
    }
    members.insert("vendor".to_owned(), processor.vendor.trim_end_matches('\0').into());
    members.insert("model-id".to_owned(), processor.text.clone().into());
    members
}

impl Chosen {
    /// The type of a model's objects.
    pub fn type_name(&self) -> String {
        format!("{}-x86_64-cpu", self.name)
    }

    /// All of a vCPU's properties.
    pub fn object(&self, place: &Value, apic: u32) -> Map<String, Value> {
        let mut members = properties(&self.processor);
        let missing = self.missing.iter().filter_map(|feature| models::feature_name(*feature));
        let words = self.processor.features.words().filter_map(|(word, bits)| match word {
            Word::Leaf { leaf, subleaf, register } => Some(json!({"cpuid-input-eax": leaf,
                "cpuid-input-ecx": subleaf, "features": bits,
                "cpuid-register": REGISTERS[register]})),
            Word::Msr(_) => None,
        });
        for (name, value) in [
            ("type", self.type_name().into()),
            ("realized", true.into()),
            ("hotplugged", false.into()),
            ("hotpluggable", false.into()),
            ("start-powered-off", false.into()),
            ("check", self.checks.into()),
            ("enforce", self.enforces.into()),
            ("unavailable-features", missing.collect::<Vec<_>>().into()),
            ("feature-words", words.collect::<Vec<_>>().into()),
            ("apic-id", apic.into()),
            ("socket-id", place["socket-id"].clone()),
            ("die-id", place.get("die-id").cloned().unwrap_or(0.into())),
            ("module-id", place.get("module-id").cloned().unwrap_or(0.into())),
            ("core-id", place["core-id"].clone()),
            ("thread-id", place["thread-id"].clone()),
        ] {
            members.insert(name.to_owned(), value);
        }
        members
    }
}

/// The kind of a property, by its value.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::Number(_) => "int",
        Value::Array(_) => "strList",
        _ => "string",
    }
}
