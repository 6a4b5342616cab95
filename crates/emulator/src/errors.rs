//! The machine's errors in QEMU's words.

use machine::catalog::BuildError;
use machine::{MachineError, PartError};

/// A machine that could not be built. `typed` are the options of its devices.
pub fn machine(error: MachineError, typed: &[String]) -> anyhow::Error {
    match error {
        MachineError::Part { id, model, source } => {
            let text = part(&model, *source);
            // The option is found by what it names; two of the same model may be confused.
            let named = |option: &&String| {
                option.contains(&id) || option.contains(&format!("-device {model}"))
            };
            match typed.iter().find(named) {
                Some(option) => anyhow::anyhow!("{option}: {text}"),
                None => anyhow::anyhow!("-device {model}: {text}"),
            }
        }
        other => other.into(),
    }
}

/// Why a device could not be plugged in.
pub fn part(model: &str, error: PartError) -> String {
    match error {
        PartError::NoSuchModel => format!("'{model}' is not a valid device model name"),
        PartError::NoSuchBus { bus } => format!("Bus '{bus}' not found"),
        PartError::NoFreeBus => format!("No free bus found for device '{model}'"),
        PartError::Build(BuildError::Missing { property }) => {
            format!("{model}: property '{property}' is required")
        }
        PartError::Build(BuildError::NoSuchBackend { property, value }) => {
            format!("Property '{model}.{property}' can't find value '{value}'")
        }
        PartError::Build(BuildError::InUse { property, value, by }) => {
            format!(
                "Property '{model}.{property}' can't take value '{value}', it's in use by '{by}'"
            )
        }
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(&other);
            while let Some(inner) = source {
                text = format!("{text}: {inner}");
                source = inner.source();
            }
            text
        }
    }
}
