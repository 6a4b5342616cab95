//! `throttle`: requests wait so that a group of users keeps to its limits.
//!
//! `-object throttle-group,id=g,x-iops-total=100 -blockdev driver=throttle,throttle-group=g,file=disk`

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{hand_on, open_file, stand_over};
use crate::error::{Error, Result};
use crate::node::{Node, NodeRef, Zeroing};
use crate::open::OpenMode;
use crate::options::{OpenOptions, parse_size};
use crate::protocols::Protocol;

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "throttle",
    prefixes: &[],
    parse: super::parse,
    open,
    create: None,
    create_options: &[],
};

/// No limit may be larger.
const LIMIT_MAX: u64 = 1_000_000_000_000_000;
/// Without a burst, this part of a second's amount may come at once.
const SLACK: f64 = 0.1;

/// One limit: an amount each second, and what may come above it for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Each second; 0 is no limit.
    pub average: u64,
    /// Each second of a burst; 0 allows none.
    pub maximum: u64,
    /// How many seconds a burst may last.
    pub burst_seconds: u64,
}

/// The kinds of limits, in the order of [`Limits::buckets`].
pub const KINDS: [&str; 6] =
    ["iops-total", "iops-read", "iops-write", "bps-total", "bps-read", "bps-write"];
const OPERATIONS: std::ops::Range<usize> = 0..3;

/// What a group may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// By [`KINDS`].
    pub buckets: [Limit; 6],
    /// Requests larger than this count as several operations; 0 counts each as one.
    pub operation_bytes: u64,
}

impl Limits {
    /// Takes one property: `iops-total`, `bps-read-max`, `iops-write-max-length`, `iops-size`.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let number = parse_size(name, value)?;
        if name == "iops-size" {
            self.operation_bytes = number;
            return Ok(());
        }
        for (kind, limit) in KINDS.iter().zip(&mut self.buckets) {
            let place = match name.strip_prefix(kind) {
                Some("") => &mut limit.average,
                Some("-max") => &mut limit.maximum,
                Some("-max-length") => &mut limit.burst_seconds,
                _ => continue,
            };
            *place = number;
            return Ok(());
        }
        Err(Error::invalid(format!("Invalid parameter '{name}'")))
    }

    /// Whether anything is limited.
    pub fn is_empty(&self) -> bool {
        self.buckets.iter().all(|limit| limit.average == 0)
    }

    /// Whether the limits make sense together.
    pub fn check(&self) -> Result<()> {
        let set = |number: usize| self.buckets[number].average != 0;
        let both = |total: usize| set(total) && (set(total + 1) || set(total + 2));
        if both(0) || both(3) {
            return Err(Error::invalid(
                "bps/iops/max total values and read/write values cannot be used at the same time",
            ));
        }
        for limit in &self.buckets {
            if limit.average > LIMIT_MAX || limit.maximum > LIMIT_MAX {
                return Err(Error::invalid(format!(
                    "bps/iops/max values must be within [0, {LIMIT_MAX}]"
                )));
            }
            if limit.average == 0 && limit.maximum != 0 {
                return Err(Error::invalid(
                    "bps_max/iops_max require corresponding bps/iops values",
                ));
            }
            if limit.maximum != 0 && limit.maximum < limit.average {
                return Err(Error::invalid("bps_max/iops_max cannot be lower than bps/iops"));
            }
            if limit.burst_seconds > 1 && limit.maximum == 0 {
                return Err(Error::invalid("burst length set without burst rate"));
            }
        }
        Ok(())
    }
}

/// How full a limit is.
#[derive(Clone, Copy, Default)]
struct Bucket {
    level: f64,
    burst_level: f64,
}

impl Bucket {
    fn leak(&mut self, limit: &Limit, seconds: f64) {
        self.level = (self.level - limit.average as f64 * seconds).max(0.0);
        self.burst_level = (self.burst_level - limit.maximum as f64 * seconds).max(0.0);
    }

    /// Seconds until the next request may go.
    fn wait(&self, limit: &Limit) -> f64 {
        if limit.average == 0 {
            return 0.0;
        }
        let (average, maximum) = (limit.average as f64, limit.maximum as f64);
        let length = limit.burst_seconds.max(1) as f64;
        let room = if limit.maximum == 0 { average * SLACK } else { maximum * length };
        let normal = (self.level - room) / average;
        let burst = if limit.burst_seconds > 1 {
            (self.burst_level - maximum * SLACK) / maximum
        } else {
            0.0
        };
        normal.max(burst).max(0.0)
    }
}

struct State {
    limits: Limits,
    buckets: [Bucket; 6],
    /// When the buckets were brought up to date.
    at: Instant,
}

/// Limits that several users share.
pub struct Group {
    name: String,
    state: Mutex<State>,
}

static GROUPS: Mutex<Option<HashMap<String, Weak<Group>>>> = Mutex::new(None);
/// Groups that were made as objects stay although nobody uses them.
static OBJECTS: Mutex<Vec<Arc<Group>>> = Mutex::new(Vec::new());

impl Group {
    /// The group of this name, made if need be.
    pub fn get(name: &str) -> Arc<Self> {
        let mut groups = GROUPS.lock();
        let groups = groups.get_or_insert_default();
        if let Some(group) = groups.get(name).and_then(Weak::upgrade) {
            return group;
        }
        let state =
            State { limits: Limits::default(), buckets: Default::default(), at: Instant::now() };
        let group = Arc::new(Self { name: name.to_owned(), state: Mutex::new(state) });
        groups.insert(name.to_owned(), Arc::downgrade(&group));
        group
    }

    /// Makes a group that stays until [`Self::forget`].
    pub fn define(name: &str, limits: Limits) -> Result<()> {
        limits.check()?;
        let group = Self::get(name);
        group.set(limits)?;
        OBJECTS.lock().push(group);
        Ok(())
    }

    /// Takes a group back that was defined. False when there is none.
    pub fn forget(name: &str) -> bool {
        let mut objects = OBJECTS.lock();
        let before = objects.len();
        objects.retain(|group| group.name != name);
        objects.len() < before
    }

    fn defined(name: &str) -> Option<Arc<Self>> {
        OBJECTS.lock().iter().find(|group| group.name == name).cloned()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        self.state.lock().limits
    }

    /// Changes the limits; what was used so far is forgotten.
    pub fn set(&self, limits: Limits) -> Result<()> {
        limits.check()?;
        let mut state = self.state.lock();
        *state = State { limits, buckets: Default::default(), at: Instant::now() };
        Ok(())
    }

    /// Waits until a request may go, and counts it.
    pub fn admit(&self, write: bool, bytes: u64) {
        loop {
            let wait = self.try_admit(write, bytes, Instant::now());
            if wait <= 0.0 {
                return;
            }
            thread::sleep(Duration::from_secs_f64(wait.min(1.0)));
        }
    }

    /// Counts a request and answers 0, or says how many seconds it has to wait.
    fn try_admit(&self, write: bool, bytes: u64, now: Instant) -> f64 {
        let mut state = self.state.lock();
        let State { limits, buckets, at } = &mut *state;
        let seconds = now.saturating_duration_since(*at).as_secs_f64();
        *at = now;
        for (bucket, limit) in buckets.iter_mut().zip(&limits.buckets) {
            bucket.leak(limit, seconds);
        }
        let direction = if write { 2 } else { 1 };
        let concerned = [0, direction, 3, 3 + direction];
        let wait = concerned
            .iter()
            .map(|number| buckets[*number].wait(&limits.buckets[*number]))
            .fold(0.0, f64::max);
        if wait > 0.0 {
            return wait;
        }
        let operations = match limits.operation_bytes {
            0 => 1.0,
            unit => (bytes as f64 / unit as f64).max(1.0),
        };
        for number in concerned {
            let amount = if OPERATIONS.contains(&number) { operations } else { bytes as f64 };
            buckets[number].level += amount;
            buckets[number].burst_level += amount;
        }
        0.0
    }
}

struct Throttle {
    file: NodeRef,
    group: Arc<Group>,
}

fn open(options: &mut OpenOptions, mode: &OpenMode) -> Result<NodeRef> {
    let name = options
        .take_text("throttle-group")
        .ok_or_else(|| Error::invalid("Please specify a throttle group"))?;
    let group = Group::defined(&name)
        .ok_or_else(|| Error::invalid(format!("Throttle group '{name}' does not exist")))?;
    Ok(Arc::new(Throttle { file: open_file(options, mode)?, group }))
}

impl Node for Throttle {
    hand_on!(file);
    stand_over!(file);

    fn driver(&self) -> &'static str {
        "throttle"
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.group.admit(false, buffer.len() as u64);
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.group.admit(true, data.len() as u64);
        self.file.write_at(data, offset)
    }

    fn zero_at(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        self.group.admit(true, length);
        self.file.zero_at(offset, length, zeroing)
    }

    fn zero_fast(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        self.group.admit(true, length);
        self.file.zero_fast(offset, length, zeroing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_above_the_average_wait_and_bursts_do_not() {
        for (maximum, burst, at_once) in [(0, 0, 11), (200, 1, 201), (200, 3, 21)] {
            let group = Group::get(&format!("test-{maximum}-{burst}"));
            let mut limits = Limits::default();
            limits.buckets[0] = Limit { average: 100, maximum, burst_seconds: burst };
            group.set(limits).unwrap();
            let now = Instant::now();
            let passed = (0..1000).take_while(|_| group.try_admit(true, 512, now) == 0.0).count();
            assert_eq!(passed, at_once, "max {maximum}, length {burst}");
            let later = now + Duration::from_millis(100);
            assert_eq!(group.try_admit(true, 512, later), 0.0);
        }
    }

    #[test]
    fn senseless_limits_are_refused() {
        for (settings, reason) in [
            (&[("iops-total", "1"), ("iops-read", "1")][..], "same time"),
            (&[("bps-total-max", "1")], "require"),
            (&[("bps-total", "5"), ("bps-total-max", "1")], "lower"),
        ] {
            let mut limits = Limits::default();
            settings.iter().for_each(|(name, value)| limits.set(name, value).unwrap());
            assert!(limits.check().unwrap_err().to_string().contains(reason));
        }
    }
}
