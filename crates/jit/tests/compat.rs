//! `docs/compat/` says of each instruction set what the decode tables have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::{env, fs};

use iced_x86::{Code, CpuidFeature, EncodingKind, Mnemonic};

const WRITTEN_BY: &str = "Written by `UPDATE_GOLDEN=1 cargo test -p jit --test compat` from the \
                          tables that instructions are decoded by.";

/// Compares the page with what it should be; `UPDATE_GOLDEN` writes it.
fn check(name: &str, page: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/compat").join(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, page).expect("the page can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "run with UPDATE_GOLDEN=1 to write {}", path.display());
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// An extension's mnemonics: those that are implemented, and the others.
#[derive(Default)]
struct Extension {
    there: BTreeSet<String>,
    missing: BTreeSet<String>,
}

/// The extensions by CPUID feature, as the decoder names them.
fn x86_extensions() -> BTreeMap<String, Extension> {
    let implemented: BTreeSet<Mnemonic> = isa::x86::implemented().collect();
    let mut extensions: BTreeMap<String, Extension> = BTreeMap::new();
    for code in Code::values() {
        let decoded = matches!(code.encoding(), EncodingKind::Legacy | EncodingKind::VEX);
        let prefix = matches!(code, Code::INVALID | Code::DeclareByte | Code::DeclareWord)
            || matches!(code, Code::DeclareDword | Code::DeclareQword | Code::Zero_bytes);
        let older = code.cpuid_features().contains(&CpuidFeature::KNC);
        if !decoded || prefix || older {
            continue;
        }
        let features: Vec<String> =
            code.cpuid_features().iter().map(|feature| format!("{feature:?}")).collect();
        let extension = extensions.entry(features.join(" and ")).or_default();
        let mnemonic = code.mnemonic();
        let name = format!("{mnemonic:?}").to_lowercase();
        // The wide forms of these are extensions of their own.
        let wide = |feature| code.cpuid_features().contains(&feature);
        let beyond = wide(CpuidFeature::VAES) || wide(CpuidFeature::VPCLMULQDQ);
        match implemented.contains(&mnemonic) && !beyond {
            true => extension.there.insert(name),
            false => extension.missing.insert(name),
        };
    }
    extensions
}

#[test]
fn the_page_of_x86_is_up_to_date() {
    let extensions = x86_extensions();
    let mut page = format!(
        "# x86 instructions\n\n{WRITTEN_BY} Extensions are named as the decoder names their CPUID \
         features. What is not listed as implemented is an invalid opcode to a guest. AVX, AVX2, \
         FMA, F16C and SHA are told by CPUID where the host has them too; they work on every host. \
         Each implemented encoding without control transfer is compared with the host's processor \
         by `cargo test -p jit --test x86_native`.\n\n| extension | implemented | missing |\n|---|---|---|\n",
    );
    for (name, extension) in extensions.iter().filter(|(_, e)| !e.there.is_empty()) {
        let missing = match extension.missing.len() {
            0 => "-".to_owned(),
            _ => list(&extension.missing),
        };
        _ = writeln!(page, "| {name} | {} | {missing} |", list(&extension.there));
    }
    let absent: Vec<&str> = extensions
        .iter()
        .filter(|(_, extension)| extension.there.is_empty())
        .map(|(name, _)| name.as_str())
        .collect();
    _ = writeln!(page, "\n## Extensions of which nothing is implemented\n\n{}", absent.join(", "));
    for whole in ["AVX", "AVX2", "FMA", "F16C", "SHA", "BMI1", "BMI2", "ADX", "MOVBE"] {
        let missing = &extensions[whole].missing;
        assert!(missing.is_empty(), "{whole} lacks {}", list(missing));
    }
    check("x86.md", &page);
}

fn page_of_rows(title: &str, note: &str, names: impl Iterator<Item = &'static str>) -> String {
    let names: BTreeSet<String> =
        names.map(|name| name.trim_start_matches("r#").to_lowercase()).collect();
    let mut letters: BTreeMap<char, BTreeSet<String>> = BTreeMap::new();
    for name in names {
        let letter = name.chars().next().unwrap_or('-');
        letters.entry(letter).or_default().insert(name);
    }
    let count: usize = letters.values().map(BTreeSet::len).sum();
    let mut page = format!(
        "# {title}\n\n{WRITTEN_BY} {note} {count} rows; what no row describes is an illegal \
         instruction to a guest.\n\n| | rows |\n|---|---|\n"
    );
    for (letter, names) in letters {
        _ = writeln!(page, "| {letter} | {} |", list(&names));
    }
    page
}

#[test]
fn the_page_of_arm64_is_up_to_date() {
    let note = "Rows carry the manual's names; one with a suffix is one encoding of several.";
    check("arm64.md", &page_of_rows("AArch64 instructions", note, isa::arm64::implemented()));
}

#[test]
fn the_page_of_riscv_is_up_to_date() {
    let note = "Compressed instructions expand to these.";
    check("riscv64.md", &page_of_rows("RISC-V instructions", note, isa::riscv::implemented()));
}
