//! What runs the guest's instructions: the first of those asked for that there is.

use std::error::Error;

use anyhow::{Result, bail};
use machine::kvm::{self, KvmError};
use machine::{Accelerator, TranslatorOptions};

use crate::PROGRAM;
use crate::options::{Options, Wanted};

/// Tries one after the other, and says on standard error why one is passed over.
pub fn choose(options: &Options) -> Result<Accelerator> {
    let wanted = &options.accelerator.wanted;
    for (at, each) in wanted.iter().enumerate() {
        if each.name != "kvm" {
            if at > 0 {
                eprintln!("{PROGRAM}: falling back to tcg");
            }
            return Ok(translator(options));
        }
        match kvm::Vm::new() {
            Ok(vm) => {
                let migratable = is_migratable(options);
                return Ok(Accelerator::Kvm(kvm::Options { vm, migratable }));
            }
            Err(error) if at + 1 == wanted.len() => bail!(refusal(each, &error)),
            Err(error) => eprintln!("{PROGRAM}: {}", refusal(each, &error)),
        }
    }
    Ok(translator(options))
}

fn translator(options: &Options) -> Accelerator {
    let cache_bytes = options.accelerator.cache_bytes;
    Accelerator::Translator(TranslatorOptions { cache_bytes, ..TranslatorOptions::detect() })
}

/// The whole host may be asked for with what another host could not go on with.
fn is_migratable(options: &Options) -> bool {
    let board = &options.board;
    let fixed = board.features.iter().rev().find(|(name, _)| name == "migratable");
    fixed.is_none_or(|(_, value)| value != "off")
}

/// The two lines of QEMU's; the second without the program's name, which others put before it.
fn refusal(wanted: &Wanted, error: &KvmError) -> String {
    let before = wanted.typed.as_ref().map(|typed| format!("{typed}: ")).unwrap_or_default();
    let source = error.source().map(reason);
    let first = match &source {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let second = source.unwrap_or_else(|| "Function not implemented".to_owned());
    format!("{before}{first}\n{PROGRAM}: {before}failed to initialize kvm: {second}")
}

/// The system's words without the number behind them.
fn reason(error: &(dyn Error + 'static)) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(words, _)| words.to_owned())
}
