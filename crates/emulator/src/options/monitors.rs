//! `-monitor`, `-qmp`, `-mon`.

use qemu_compat::system::character::{self, Short};
use qemu_compat::system::values;

use super::{Options, Refusal, pairs, parsed};

/// What a monitor speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Lines for people.
    Readline,
    /// QMP.
    Control,
}

/// A monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorOption {
    pub character: Short,
    pub mode: Mode,
    /// QMP on several lines.
    pub pretty: bool,
}

impl MonitorOption {
    pub(super) fn readline(character: Short) -> Self {
        Self { character, mode: Mode::Readline, pretty: false }
    }
}

impl Options {
    pub(super) fn monitor(&mut self, option: &str, value: &str) -> Result<(), Refusal> {
        if option == "mon" {
            return self.mon(value);
        }
        let (mode, prefix) = match option {
            "monitor" => (Mode::Readline, "monitor"),
            _ => (Mode::Control, "compat_monitor"),
        };
        let id = format!("{prefix}{}", self.monitors.len());
        let character = parsed(character::parse_short(value, &id))?;
        if character != Short::None {
            let pretty = option == "qmp-pretty";
            self.monitors.push(MonitorOption { character, mode, pretty });
        }
        Ok(())
    }

    fn mon(&mut self, value: &str) -> Result<(), Refusal> {
        let (mut name, mut mode, mut pretty) = (None, Mode::Readline, false);
        for (key, value) in pairs(value, "chardev")? {
            match key.as_str() {
                "chardev" => name = Some(value),
                "mode" if value == "readline" => mode = Mode::Readline,
                "mode" if value == "control" => mode = Mode::Control,
                "mode" => return Err(format!("unknown monitor mode \"{value}\"")),
                "pretty" => pretty = parsed(values::switch("pretty", &value))?,
                "id" => {}
                _ => return Err(format!("Invalid parameter '{key}'")),
            }
        }
        let name = name.ok_or("Parameter 'chardev' is missing")?;
        self.monitors.push(MonitorOption { character: Short::Named(name), mode, pretty });
        Ok(())
    }
}
