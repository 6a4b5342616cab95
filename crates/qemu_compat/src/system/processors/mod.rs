//! `-cpu`: models, features, and what a model becomes where not all of its features are there.

mod features;
mod models;

use features::{SPELLINGS, WORDS};
use models::MODELS;

/// Where a word of features is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// In a register of CPUID's answer: EAX, EBX, ECX, EDX.
    Leaf {
        /// The leaf.
        leaf: u32,
        /// The subleaf.
        subleaf: u32,
        /// Which register.
        register: usize,
    },
    /// In a model-specific register.
    Msr(u32),
}

/// A model with all its versions.
struct Model {
    name: &'static str,
    vendor: &'static str,
    family: u32,
    /// Of the first version.
    features: &'static str,
    versions: &'static [Version],
}

/// A version of a model.
struct Version {
    /// What the guest reads.
    text: &'static str,
    /// What people read besides.
    note: &'static str,
    /// A name of its own.
    alias: &'static str,
    model: u32,
    stepping: u32,
    level: u32,
    xlevel: u32,
    /// Features that the first version has not or has.
    changes: &'static str,
}

/// How many words there are.
pub const WORD_COUNT: usize = WORDS.len();

/// A set of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features([u32; WORD_COUNT]);

/// A feature: the number of its word, and its bit.
pub type Feature = (usize, u32);

/// The feature of a name.
#[must_use]
pub fn feature(name: &str) -> Option<Feature> {
    let name = SPELLINGS.iter().find(|(other, _)| *other == name).map_or(name, |(_, usual)| usual);
    WORDS.iter().enumerate().find_map(|(word, (_, names))| {
        let found = names.iter().find(|(known, _)| *known == name);
        found.map(|(_, bit)| (word, *bit))
    })
}

/// A feature's usual name.
#[must_use]
pub fn feature_name((word, bit): Feature) -> Option<&'static str> {
    WORDS[word].1.iter().find(|(_, known)| *known == bit).map(|(name, _)| *name)
}

/// All names of features, other spellings included.
pub fn feature_names() -> impl Iterator<Item = &'static str> {
    let usual = WORDS.iter().flat_map(|(_, names)| names.iter().map(|(name, _)| *name));
    usual.chain(SPELLINGS.iter().map(|(name, _)| *name))
}

/// The usual names of features, sorted.
#[must_use]
pub fn usual_names() -> Vec<&'static str> {
    let mut names: Vec<&str> =
        WORDS.iter().flat_map(|(_, names)| names.iter().map(|(name, _)| *name)).collect();
    names.sort_unstable();
    names
}

impl Features {
    /// What somebody else has: asked word by word.
    pub fn of(word: impl Fn(Word) -> u32) -> Self {
        Self(std::array::from_fn(|number| word(WORDS[number].0)))
    }

    /// Whether a feature is in it.
    #[must_use]
    pub fn has(&self, (word, bit): Feature) -> bool {
        self.0[word] >> bit & 1 != 0
    }

    /// Puts a feature in, or takes it out.
    pub fn set(&mut self, (word, bit): Feature, on: bool) {
        self.0[word] = self.0[word] & !(1 << bit) | u32::from(on) << bit;
    }

    /// Words and their bits.
    pub fn words(&self) -> impl Iterator<Item = (Word, u32)> {
        WORDS.iter().zip(self.0).map(|((word, _), bits)| (*word, bits))
    }

    /// What is in it and not in the other, in the order of words and bits.
    #[must_use]
    pub fn without(&self, other: &Self) -> Vec<Feature> {
        let missing = |(word, (own, other)): (usize, (u32, u32))| {
            (0..32).filter(move |bit| own & !other & 1 << bit != 0).map(move |bit| (word, bit))
        };
        self.0.into_iter().zip(other.0).enumerate().flat_map(missing).collect()
    }

    /// What is in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    fn apply(&mut self, text: &str) {
        for word in text.split_whitespace() {
            let (name, on) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
                (Some(name), _) => (name, true),
                (_, Some(name)) => (name, false),
                _ => (word, true),
            };
            self.set(feature(name).expect("the tables name features that there are"), on);
        }
    }
}

/// A feature as QEMU's messages name it: `CPUID.01H:ECX.pcid [bit 17]`.
#[must_use]
pub fn describe(of: Feature) -> String {
    let name = feature_name(of).map_or(String::new(), |name| format!(".{name}"));
    let place = match WORDS[of.0].0 {
        Word::Leaf { leaf, register, .. } => {
            format!("CPUID.{leaf:02X}H:{}", ["EAX", "EBX", "ECX", "EDX"][register])
        }
        Word::Msr(number) => format!("MSR({number:X}H)"),
    };
    format!("{place}{name} [bit {}]", of.1)
}

/// What a processor says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Twelve letters.
    pub vendor: String,
    /// As people count it.
    pub family: u32,
    /// As people count it.
    pub model: u32,
    /// The revision.
    pub stepping: u32,
    /// The last basic leaf.
    pub level: u32,
    /// The last extended leaf.
    pub xlevel: u32,
    /// The name.
    pub text: String,
    /// What it can do.
    pub features: Features,
}

impl Processor {
    /// One that has nothing: to begin from.
    #[must_use]
    pub fn base() -> Self {
        Self {
            vendor: "\0".repeat(12),
            family: 0,
            model: 0,
            stepping: 0,
            level: 0,
            xlevel: 0,
            text: String::new(),
            features: Features::default(),
        }
    }

    /// Family, model and stepping as CPUID tells them.
    #[must_use]
    pub fn signature(&self) -> u32 {
        const FAMILY_MAX: u32 = 15;
        let (base, extended) = match self.family {
            0..=FAMILY_MAX => (self.family, 0),
            family => (FAMILY_MAX, family - FAMILY_MAX),
        };
        let model = (self.model & 15) << 4 | (self.model >> 4 & 15) << 16;
        extended << 20 | base << 8 | model | self.stepping & 15
    }
}

/// The processor of a model's name, versioned or not. Without a version it is the first, as the
/// boards of PCs have it.
#[must_use]
pub fn find(name: &str) -> Option<Processor> {
    let (model, index) = MODELS
        .iter()
        .find_map(|model| {
            let version = name.strip_prefix(model.name)?.strip_prefix("-v");
            let by_number = version.and_then(|number| number.parse::<usize>().ok());
            let index = match by_number {
                Some(number) => number.checked_sub(1).filter(|index| *index < model.versions.len()),
                None => (name == model.name).then_some(0),
            };
            index.map(|index| (model, index))
        })
        .or_else(|| {
            MODELS.iter().find_map(|model| {
                if name == model.name {
                    return Some((model, 0));
                }
                let own = |version: &Version| version.alias == name && !name.is_empty();
                model.versions.iter().position(own).map(|index| (model, index))
            })
        })?;
    let version = &model.versions[index];
    let mut features = Features::default();
    features.apply(model.features);
    features.apply(version.changes);
    Some(Processor {
        vendor: model.vendor.to_owned(),
        family: model.family,
        model: version.model,
        stepping: version.stepping,
        level: version.level,
        xlevel: version.xlevel,
        text: version.text.to_owned(),
        features,
    })
}

/// A name that `-cpu` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name.
    pub name: String,
    /// The version it stands for, if it is none itself.
    pub alias_of: Option<String>,
    /// What `-cpu help` says.
    pub text: String,
}

/// All names of models with versions, sorted.
#[must_use]
pub fn names() -> Vec<Name> {
    let mut names = Vec::new();
    for model in MODELS {
        let versioned = |index: usize| format!("{}-v{}", model.name, index + 1);
        names.push(Name {
            name: model.name.to_owned(),
            alias_of: Some(versioned(0)),
            text: "(alias configured by machine type)".to_owned(),
        });
        for (index, version) in model.versions.iter().enumerate() {
            let text = match (version.text, version.note) {
                (text, "") => text.to_owned(),
                (text, note) => format!("{text} {note}"),
            };
            names.push(Name { name: versioned(index), alias_of: None, text });
            if !version.alias.is_empty() {
                let target = versioned(index);
                let text = format!("(alias of {target})");
                let name = version.alias.to_owned();
                names.push(Name { name, alias_of: Some(target), text });
            }
        }
    }
    names.sort_by(|a, b| a.name.cmp(&b.name));
    names
}

/// `-cpu help`. The models that are no rows stand at the end.
#[must_use]
pub fn help() -> String {
    const WIDTH: usize = 75;
    let mut text = "Available CPUs:\n".to_owned();
    let others = [
        ("base", "base CPU model type with no features enabled"),
        ("host", "processor with all supported host features "),
        ("max", "Enables all features supported by the accelerator in the current host"),
    ];
    let rows = names().into_iter().map(|name| (name.name, name.text));
    for (name, what) in rows.chain(others.map(|(name, what)| (name.to_owned(), what.to_owned()))) {
        text.push_str(&format!("  {name:<20}  {what}\n"));
    }
    text.push_str("\nRecognized CPUID flags:\n");
    let mut line = String::from(" ");
    for name in usual_names() {
        if line.len() + name.len() + 1 > WIDTH {
            text.push_str(&line);
            text.push('\n');
            " ".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(name);
    }
    text.push_str(&line);
    text.push('\n');
    text
}

/// What is wrong with `-cpu`. The texts are QEMU's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcessorError {
    /// No such model.
    #[error("unable to find CPU model '{0}'")]
    Unknown(String),
    /// No such property, where a value was set.
    #[error("can't apply global {0}-x86_64-cpu.{1}={2}: Property '{0}-x86_64-cpu.{1}' not found")]
    NoProperty(String, String, String),
    /// No such feature.
    #[error("Property '{0}-x86_64-cpu.{1}' not found")]
    NoFeature(String, String),
    /// A value is wrong.
    #[error("can't apply global {0}-x86_64-cpu.{1}={2}: {3}")]
    Value(String, String, String, String),
}

/// A model with what was changed of it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What is asked for.
    pub wanted: Processor,
    /// Missing features are told.
    pub checks: bool,
    /// Missing features are an error.
    pub enforces: bool,
    /// A guest may see who runs it.
    pub shows_hypervisor: bool,
}

/// Properties that are neither features nor numbers: their names, and the values that ask for
/// nothing that is not so in any case.
const OTHERS: &[(&str, &[&str])] = &[
    ("pmu", &["off"]),
    ("lmce", &["off"]),
    ("migratable", &["on", "off"]),
    ("host-phys-bits", &["on", "off"]),
    ("host-cache-info", &["off"]),
    ("l3-cache", &["on"]),
    ("legacy-cache", &["on", "off"]),
    ("cpuid-0xb", &["on"]),
    ("full-cpuid-auto-level", &["on", "off"]),
    ("fill-mtrr-mask", &["on"]),
    ("vmware-cpuid-freq", &["on", "off"]),
    ("start-powered-off", &["off"]),
    ("topoext", &["off"]),
    ("phys-bits", &["0", "40"]),
    ("tsc-frequency", &["0"]),
    ("hv-time", &["off"]),
    ("hv-passthrough", &["off"]),
];

/// Names that begin so are features of virtualization within virtualization, and of other
/// hypervisors: there are none, and one may say so.
const ABSENT: [&str; 3] = ["vmx-", "hv-", "xen-"];

/// `processor` with properties as `-cpu` sets them: in their order, then what is added by `+`, then
/// what is taken away by `-`.
pub fn resolve(
    name: &str,
    mut processor: Processor,
    properties: &[(String, String)],
) -> Result<Resolved, ProcessorError> {
    let (mut checks, mut enforces, mut shows) = (true, false, true);
    let is_sign = |key: &str| key.starts_with('+') || key.starts_with('-');
    for (key, value) in properties.iter().filter(|(key, _)| !is_sign(key)) {
        let wrong = |text: &str| {
            let (key, value) = (key.clone(), value.clone());
            ProcessorError::Value(name.to_owned(), key, value, text.to_owned())
        };
        let switch = || match value.as_str() {
            "on" | "yes" | "true" | "y" => Ok(true),
            "off" | "no" | "false" | "n" => Ok(false),
            _ => Err(wrong(&format!("Parameter '{key}' expects 'on' or 'off'"))),
        };
        if let Some(feature) = feature(key) {
            processor.features.set(feature, switch()?);
            continue;
        }
        match key.as_str() {
            "check" => checks = switch()?,
            "enforce" => enforces = switch()?,
            "tcg-cpuid" | "kvm" => shows = switch()?,
            "vendor" if value.len() != 12 => {
                return Err(wrong(
                    "value of property 'vendor' must consist of exactly 12 characters",
                ));
            }
            "vendor" => processor.vendor.clone_from(value),
            "model-id" => processor.text.clone_from(value),
            "family" | "model" | "stepping" | "level" | "min-level" | "xlevel" | "min-xlevel" => {
                number(&mut processor, key, value).map_err(|text| wrong(&text))?;
            }
            key => {
                let known = OTHERS.iter().find(|(known, _)| *known == key);
                let absent = ABSENT.iter().any(|start| key.starts_with(start));
                match (known, absent) {
                    (Some((_, values)), _) if values.contains(&value.as_str()) => {}
                    (None, true) if value == "off" => {}
                    (Some(_), _) | (None, true) => {
                        return Err(wrong("this is not built in Hostel"));
                    }
                    (None, false) => {
                        let (key, value) = (key.to_owned(), value.clone());
                        return Err(ProcessorError::NoProperty(name.to_owned(), key, value));
                    }
                }
            }
        }
    }
    for sign in ['+', '-'] {
        for (key, _) in properties {
            let Some(key) = key.strip_prefix(sign) else { continue };
            match feature(key) {
                Some(feature) => processor.features.set(feature, sign == '+'),
                None if sign == '-' && ABSENT.iter().any(|start| key.starts_with(start)) => {}
                None => return Err(ProcessorError::NoFeature(name.to_owned(), key.to_owned())),
            }
        }
    }
    Ok(Resolved { wanted: processor, checks, enforces, shows_hypervisor: shows })
}

fn number(processor: &mut Processor, key: &str, value: &str) -> Result<(), String> {
    let digits = value.strip_prefix("0x");
    let parsed = digits.map_or_else(|| value.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok());
    let number = parsed.ok_or_else(|| format!("Parameter '{key}' expects uint64"))?;
    let (place, most) = match key {
        "family" => (&mut processor.family, 0xff + 0xf),
        "model" => (&mut processor.model, 0xff),
        "stepping" => (&mut processor.stepping, 0xf),
        "level" | "min-level" => (&mut processor.level, u32::MAX),
        _ => (&mut processor.xlevel, u32::MAX),
    };
    let number = u32::try_from(number).ok().filter(|number| *number <= most);
    let number = number.ok_or_else(|| format!("parameter '{key}' can be at most {most}"))?;
    *place = if key.starts_with("min-") { (*place).max(number) } else { number };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> Result<Processor, String> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default();
        let properties: Vec<(String, String)> = parts
            .map(|part| part.split_once('=').unwrap_or((part, "on")))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let processor = find(name).ok_or(ProcessorError::Unknown(name.to_owned()));
        let resolved = processor.and_then(|processor| resolve(name, processor, &properties));
        resolved.map(|resolved| resolved.wanted).map_err(|error| error.to_string())
    }

    #[test]
    fn every_model_can_be_made_and_names_are_unique() {
        let names = names();
        for name in &names {
            let processor = find(&name.name).unwrap_or_else(|| panic!("{}", name.name));
            assert_eq!(processor.vendor.len(), 12);
            assert!(processor.text.len() <= 48, "{}", name.name);
            assert!(processor.features.has(feature("fpu").unwrap()), "{}", name.name);
            let others = names.iter().filter(|other| other.name == name.name);
            assert_eq!(others.count(), 1);
            if let Some(target) = &name.alias_of {
                assert_eq!(find(target).as_ref(), Some(&processor), "{}", name.name);
            }
        }
        assert_eq!(find("Haswell-v9"), None);
        assert_eq!(find(""), None);
        assert!(find("EPYC-Rome-v4").is_some() && find("EPYC-v4").is_some());
    }

    #[test]
    fn signatures_are_put_together() {
        for (name, signature) in
            [("qemu64", 0x60fb1), ("Haswell", 0x306c4), ("EPYC-v1", 0x80_0f12), ("486", 0x480)]
        {
            assert_eq!(find(name).unwrap().signature(), signature, "{name}");
        }
    }

    #[test]
    fn features_come_and_go() {
        let has =
            |text: &str, name: &str| resolved(text).unwrap().features.has(feature(name).unwrap());
        assert!(has("Haswell", "avx2") && !has("Haswell,-avx2", "avx2"));
        assert!(!has("Haswell,-avx2,avx2=on,+avx2", "avx2"), "what is taken away stays away");
        assert!(has("qemu64,sse4_1=on", "sse4.1") && has("qemu64,+sse4-1", "sse4.1"));
        assert!(!has("Haswell-noTSX", "rtm") && has("Haswell-v3", "spec-ctrl"));
        assert_eq!(resolved("qemu64,family=6,model=0x3c,stepping=3").unwrap().signature(), 0x306c3);
        assert_eq!(describe(feature("pcid").unwrap()), "CPUID.01H:ECX.pcid [bit 17]");
        assert_eq!(describe(feature("rdctl-no").unwrap()), "MSR(10AH).rdctl-no [bit 0]");
    }

    #[test]
    fn errors_are_the_references() {
        for (text, error) in [
            ("foo", "unable to find CPU model 'foo'"),
            ("Haswell,+bar", "Property 'Haswell-x86_64-cpu.bar' not found"),
            (
                "Haswell,bar=3",
                "can't apply global Haswell-x86_64-cpu.bar=3: Property 'Haswell-x86_64-cpu.bar' \
                 not found",
            ),
            (
                "Haswell,avx2=maybe",
                "can't apply global Haswell-x86_64-cpu.avx2=maybe: Parameter 'avx2' expects 'on' \
                 or 'off'",
            ),
            (
                "qemu64,vendor=abc",
                "can't apply global qemu64-x86_64-cpu.vendor=abc: value of property 'vendor' must \
                 consist of exactly 12 characters",
            ),
            (
                "qemu64,family=5000",
                "can't apply global qemu64-x86_64-cpu.family=5000: parameter 'family' can be at \
                 most 270",
            ),
            (
                "qemu64,family=x",
                "can't apply global qemu64-x86_64-cpu.family=x: Parameter 'family' expects uint64",
            ),
        ] {
            assert_eq!(resolved(text).unwrap_err(), error);
        }
    }
}
