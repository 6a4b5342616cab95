//! How the machine and the process run: start, end, clock, files.

use machine::{Actions, PanicAction};
use qemu_compat::system::values;

use super::{Refusal, pairs, parsed};

/// How the machine and the process run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The machine's name, for people.
    pub name: Option<String>,
    /// The process's title.
    pub title: Option<String>,
    /// `-S`.
    pub paused: bool,
    pub actions: Actions,
    pub clock: Clock,
    pub daemonize: bool,
    pub pid_file: Option<String>,
    /// Messages begin with the time.
    pub timestamps: bool,
    pub sandbox: Vec<(String, String)>,
    pub lock_memory: bool,
    pub incoming: Option<String>,
    /// `-loadvm`.
    pub snapshot: Option<String>,
    /// `fd`, `set`, `opaque`.
    pub descriptors: Vec<(i32, u64, Option<String>)>,
    /// `-run-with` and its older spellings.
    pub user: Option<String>,
    pub chroot: Option<String>,
    pub log_file: Option<String>,
    pub log_items: Option<String>,
    /// Where gdb may connect.
    pub debugger: Option<String>,
}

/// `-rtc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    pub base: ClockBase,
    pub slew: bool,
}

/// Where the clock starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClockBase {
    Utc,
    LocalTime,
    /// Seconds since 1970.
    Fixed(i64),
}

/// By QEMU's names.
pub fn panic_action(name: &str) -> Option<PanicAction> {
    Some(match name {
        "pause" => PanicAction::Pause,
        "shutdown" => PanicAction::Shutdown,
        "exit-failure" => PanicAction::ExitFailure,
        "none" => PanicAction::Nothing,
        _ => return None,
    })
}

impl RunOptions {
    pub(super) fn unset() -> Self {
        Self {
            name: None,
            title: None,
            paused: false,
            actions: Actions {
                reset_is_shutdown: false,
                shutdown_pauses: false,
                panic: PanicAction::Shutdown,
            },
            clock: Clock { base: ClockBase::Utc, slew: false },
            daemonize: false,
            pid_file: None,
            timestamps: false,
            sandbox: Vec::new(),
            lock_memory: false,
            incoming: None,
            snapshot: None,
            descriptors: Vec::new(),
            user: None,
            chroot: None,
            log_file: None,
            log_items: None,
            debugger: None,
        }
    }

    /// Takes an option; false when it is none of these.
    pub(super) fn take(&mut self, option: &str, value: &str) -> Result<bool, Refusal> {
        match option {
            "name" => self.take_name(value)?,
            "S" => self.paused = true,
            "no-reboot" => self.actions.reset_is_shutdown = true,
            "no-shutdown" => self.actions.shutdown_pauses = true,
            "action" => self.take_action(value)?,
            "rtc" => self.take_clock(value)?,
            "daemonize" => self.daemonize = true,
            "pidfile" => self.pid_file = Some(value.to_owned()),
            "msg" => self.take_messages(value)?,
            "sandbox" => self.sandbox = pairs(value, "enable")?,
            "overcommit" => self.take_overcommit(value)?,
            "incoming" => self.incoming = Some(value.to_owned()),
            "loadvm" => self.snapshot = Some(value.to_owned()),
            "add-fd" => self.take_descriptor(value)?,
            "run-with" => self.take_run_with(value)?,
            "runas" => self.user = Some(value.to_owned()),
            "chroot" => self.chroot = Some(value.to_owned()),
            "D" => self.log_file = Some(value.to_owned()),
            "d" => self.log_items = Some(value.to_owned()),
            "gdb" => self.debugger = Some(value.to_owned()),
            "s" => self.debugger = Some("tcp::1234".to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_name(&mut self, value: &str) -> Result<(), Refusal> {
        for (key, value) in pairs(value, "guest")? {
            match key.as_str() {
                "guest" => self.name = Some(value),
                "process" => self.title = Some(value),
                // Threads have names in any case.
                "debug-threads" => _ = parsed(values::switch(&key, &value))?,
                _ => return Err(format!("Invalid parameter '{key}'")),
            }
        }
        Ok(())
    }

    fn take_action(&mut self, value: &str) -> Result<(), Refusal> {
        for (key, value) in pairs(value, "")? {
            match (key.as_str(), value.as_str()) {
                ("reboot", "reset") => self.actions.reset_is_shutdown = false,
                ("reboot", "shutdown") => self.actions.reset_is_shutdown = true,
                ("shutdown", "poweroff") => self.actions.shutdown_pauses = false,
                ("shutdown", "pause") => self.actions.shutdown_pauses = true,
                ("panic", name) => {
                    let refusal = || format!("Parameter '{key}' does not accept value '{value}'");
                    self.actions.panic = panic_action(name).ok_or_else(refusal)?;
                }
                ("reboot" | "shutdown", _) => {
                    return Err(format!("Parameter '{key}' does not accept value '{value}'"));
                }
                ("watchdog", _) => {
                    return Err("there is no watchdog device in Hostel".to_owned());
                }
                _ => return Err(format!("Invalid parameter '{key}'")),
            }
        }
        Ok(())
    }

    fn take_clock(&mut self, value: &str) -> Result<(), Refusal> {
        for (key, value) in pairs(value, "base")? {
            match (key.as_str(), value.as_str()) {
                ("base", "utc") => self.clock.base = ClockBase::Utc,
                ("base", "localtime") => self.clock.base = ClockBase::LocalTime,
                ("base", date) => {
                    let wrong = || {
                        "invalid datetime format\nvalid formats: \
                        '2006-06-17T16:01:21' or '2006-06-17'"
                            .to_owned()
                    };
                    self.clock.base = ClockBase::Fixed(seconds(date).ok_or_else(wrong)?);
                }
                ("clock", "host") => {}
                ("clock", "rt" | "vm") => {
                    return Err(format!("clock '{value}' is not built in Hostel"));
                }
                ("driftfix", "none") => self.clock.slew = false,
                ("driftfix", "slew") => self.clock.slew = true,
                ("clock" | "driftfix", _) => return Err(format!("invalid option value '{value}'")),
                _ => return Err(format!("Invalid parameter '{key}'")),
            }
        }
        Ok(())
    }

    fn take_messages(&mut self, value: &str) -> Result<(), Refusal> {
        for (key, value) in pairs(value, "")? {
            match key.as_str() {
                "timestamp" => self.timestamps = parsed(values::switch(&key, &value))?,
                "guest-name" => {
                    if parsed(values::switch(&key, &value))? {
                        return Err("'guest-name' is not built in Hostel".to_owned());
                    }
                }
                _ => return Err(format!("Invalid parameter '{key}'")),
            }
        }
        Ok(())
    }

    fn take_overcommit(&mut self, value: &str) -> Result<(), Refusal> {
        for (key, value) in pairs(value, "")? {
            let on = parsed(values::switch(&key, &value))?;
            match key.as_str() {
                "mem-lock" => self.lock_memory = on,
                "cpu-pm" if !on => {}
                "cpu-pm" => return Err("'cpu-pm' is not built in Hostel".to_owned()),
                _ => return Err(format!("Invalid parameter '{key}'")),
            }
        }
        Ok(())
    }

    fn take_descriptor(&mut self, value: &str) -> Result<(), Refusal> {
        let (mut fd, mut set, mut opaque) = (None, None, None);
        for (key, value) in pairs(value, "")? {
            match key.as_str() {
                "fd" => fd = value.parse().ok(),
                "set" => set = Some(parsed(values::unsigned("set", &value))?),
                "opaque" => opaque = Some(value),
                _ => return Err(format!("Invalid parameter '{key}'")),
            }
        }
        let fd = fd.filter(|fd| *fd > 2);
        let fd = fd.ok_or("fd cannot be a standard I/O stream, and must be a number")?;
        let set = set.ok_or("set option is required and must be non-negative")?;
        self.descriptors.push((fd, set, opaque));
        Ok(())
    }

    fn take_run_with(&mut self, value: &str) -> Result<(), Refusal> {
        for (key, value) in pairs(value, "")? {
            match key.as_str() {
                "user" => self.user = Some(value),
                "chroot" => self.chroot = Some(value),
                "async-teardown" if value == "off" => {}
                "async-teardown" => return Err("'async-teardown' is not built in Hostel".into()),
                _ => return Err(format!("Invalid parameter '{key}'")),
            }
        }
        Ok(())
    }
}

/// `YYYY-MM-DD[THH:MM:SS]` in UTC.
fn seconds(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T').unwrap_or((text, "0:0:0"));
    let numbers = |text: &str, separator| {
        let numbers: Option<Vec<i64>> =
            text.split(separator).map(|part| part.parse().ok()).collect();
        numbers.filter(|numbers| numbers.len() == 3)
    };
    let (date, time) = (numbers(date, '-')?, numbers(time, ':')?);
    let (year, month, day) = (date[0], date[1], date[2]);
    let in_range = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&time[0])
        && (0..60).contains(&time[1])
        && (0..61).contains(&time[2]);
    if !in_range {
        return None;
    }
    // Days since 1970, with years that begin in March, so that leap days come last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + time[0] * 3600 + time[1] * 60 + time[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(seconds("1970-01-01"), Some(0));
        assert_eq!(seconds("2006-06-17T16:01:21"), Some(1_150_560_081));
        assert_eq!(seconds("2000-02-29T00:00:00"), Some(951_782_400));
        assert_eq!((seconds("2000-13-01"), seconds("x"), seconds("2000-01")), (None, None, None));
    }
}
