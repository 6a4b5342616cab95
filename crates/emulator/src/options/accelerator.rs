//! `-accel` and `-enable-kvm`: what runs the guest's instructions.

use qemu_compat::system::values;

use super::{Refusal, pairs, parsed};

const CACHE_DEFAULT_BYTES: usize = 128 << 20;

/// What runs the guest's instructions: the first of the list that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accelerator {
    /// In the order of preference. Empty: nobody has said.
    pub wanted: Vec<Wanted>,
    /// Bytes of translated code.
    pub cache_bytes: usize,
    /// All vCPUs take turns on one thread.
    pub single_thread: bool,
}

/// One of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// QEMU's name.
    pub name: String,
    /// The option, where messages are to name it.
    pub typed: Option<String>,
}

impl Accelerator {
    pub(super) fn unset() -> Self {
        Self { wanted: Vec::new(), cache_bytes: CACHE_DEFAULT_BYTES, single_thread: false }
    }

    pub(super) fn take(&mut self, option: &str, value: &str) -> Result<(), Refusal> {
        if option == "enable-kvm" {
            return self.add("kvm", None);
        }
        let typed = value;
        for (key, value) in pairs(typed, "accel")? {
            match key.as_str() {
                "accel" => self.add(&value, Some(&format!("-accel {typed}")))?,
                "kernel-irqchip" => irqchip(&value)?,
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
    pub(super) fn add(&mut self, names: &str, typed: Option<&str>) -> Result<(), Refusal> {
        for name in names.split(':') {
            if !["kvm", "tcg", "jit"].contains(&name) {
                return Err(format!("invalid accelerator {name}"));
            }
            let typed = typed.map(str::to_owned);
            self.wanted.push(Wanted { name: name.to_owned(), typed });
        }
        Ok(())
    }
}

/// `kernel-irqchip`: the local APICs are in the kernel and the rest is not, which is QEMU's `split`;
/// `on` leaves the choice to us as far as a guest can tell.
pub fn irqchip(value: &str) -> Result<(), Refusal> {
    match value {
        "on" | "split" => Ok(()),
        "off" => Err("'kernel-irqchip=off' is not built in Hostel".to_owned()),
        _ => Err(format!("Invalid parameter '{value}'")),
    }
}
