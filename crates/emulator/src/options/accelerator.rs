//! `-accel` and `-enable-kvm`: what runs the guest's instructions.

use qemu_compat::system::values;

use super::{Refusal, pairs, parsed};

const CACHE_DEFAULT_BYTES: usize = 128 << 20;

/// What runs the guest's instructions: the first of the list that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accelerator {
    /// By QEMU's names, in the order of preference. Empty: nobody has said.
    pub names: Vec<String>,
    /// Bytes of translated code.
    pub cache_bytes: usize,
    /// All vCPUs take turns on one thread.
    pub single_thread: bool,
}

impl Accelerator {
    pub(super) fn unset() -> Self {
        Self { names: Vec::new(), cache_bytes: CACHE_DEFAULT_BYTES, single_thread: false }
    }

    pub(super) fn take(&mut self, option: &str, value: &str) -> Result<(), Refusal> {
        if option == "enable-kvm" {
            return self.add("kvm");
        }
        for (key, value) in pairs(value, "accel")? {
            match key.as_str() {
                "accel" => self.add(&value)?,
                "thread" => match value.as_str() {
                    "multi" => {}
                    "single" => self.single_thread = true,
                    _ => return Err(format!("Invalid 'thread' setting {value}")),
                },
                "tb-size" => {
                    let mebibytes = parsed(values::unsigned("tb-size", &value))?;
                    // Zero leaves it to the emulator.
                    if mebibytes > 0 {
                        let mebibytes = usize::try_from(mebibytes.clamp(16, 4096)).unwrap_or(4096);
                        self.cache_bytes = mebibytes << 20;
                    }
                }
                _ => return Err(format!("Property 'accel.{key}' not found")),
            }
        }
        Ok(())
    }

    /// Adds names with colons between them.
    pub(super) fn add(&mut self, names: &str) -> Result<(), Refusal> {
        for name in names.split(':') {
            if !["kvm", "tcg", "jit"].contains(&name) {
                return Err(format!("invalid accelerator {name}"));
            }
            self.names.push(name.to_owned());
        }
        Ok(())
    }
}
