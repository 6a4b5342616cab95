//! `blkdebug`: errors on purpose, at chosen events of the format above.
//!
//! `blkdebug:rules.conf:disk.qcow2`, where `rules.conf` says for example
//! `[inject-error]`, `event = "write_aio"`, `errno = "28"`, `once = "on"`.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use super::Protocol;
use crate::error::{Error, Result};
use crate::node::{DebugCommand, Extent, Node, NodeRef, Preallocation, Zeroing};
use crate::open::{OpenMode, open_child};
use crate::options::OpenOptions;

pub(super) const PROTOCOL: Protocol = Protocol {
    name: "blkdebug",
    prefixes: &["blkdebug"],
    parse,
    open,
    create: None,
    create_options: &[],
};

/// More rules than this are a mistake.
const RULES_MAX: usize = 1024;

/// The kinds of requests that a rule can concern.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Request {
    Read,
    Write,
    WriteZeros,
    Discard,
    Flush,
    BlockStatus,
}

impl Request {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "read" => Self::Read,
            "write" => Self::Write,
            "write-zeroes" => Self::WriteZeros,
            "discard" => Self::Discard,
            "flush" => Self::Flush,
            "block-status" => Self::BlockStatus,
            _ => return None,
        })
    }
}

/// What a rule does when its event comes.
#[derive(Clone, Debug)]
enum Effect {
    Inject { errno: i32, sector: Option<u64>, once: bool, request: Option<Request> },
    SetState(u32),
}

#[derive(Clone, Debug)]
struct Rule {
    event: String,
    /// Only in this state; 0 is any.
    state: u32,
    effect: Effect,
}

#[derive(Default)]
struct State {
    state: u32,
    rules: Vec<Option<Rule>>,
    /// Rules whose event has come.
    active: Vec<usize>,
    /// Breakpoints: event and tag.
    breaks: Vec<(String, String)>,
    /// Tags of requests that stand at one.
    stopped: Vec<String>,
}

struct BlkDebug {
    name: String,
    image: NodeRef,
    align: u64,
    max_transfer: u64,
    max_zero: u64,
    opt_zero: u64,
    max_discard: u64,
    opt_discard: u64,
    state: Mutex<State>,
    resumed: Condvar,
}

fn parse(filename: &str, options: &mut OpenOptions) -> Result<()> {
    let Some(rest) = filename.strip_prefix("blkdebug:") else {
        options.set("x-image", filename);
        return Ok(());
    };
    let Some((config, image)) = rest.split_once(':') else {
        return Err(Error::invalid("blkdebug requires both config file and image path"));
    };
    if !config.is_empty() {
        options.set("config", config);
    }
    options.set("x-image", image);
    Ok(())
}

fn open(options: &mut OpenOptions, mode: &OpenMode) -> Result<NodeRef> {
    let given = options.clone();
    let mut rules = Vec::new();
    if let Some(config) = options.take_text("config") {
        let text = std::fs::read_to_string(&config)
            .map_err(|error| Error::from(error).during("Could not read blkdebug config file"))?;
        parse_config(&text, &mut rules)?;
    }
    for kind in ["inject-error", "set-state"] {
        let mut number = 0;
        while options.has_below(&format!("{kind}.{number}")) {
            let mut below = options.take_below(&format!("{kind}.{number}"));
            let pairs: Vec<_> = below.iter().map(|(key, _)| key.to_string()).collect();
            let pairs = pairs.into_iter().filter_map(|key| below.take_text(&key).map(|v| (key, v)));
            rules.push(Some(rule(kind, &pairs.collect::<Vec<_>>())?));
            number += 1;
        }
    }
    if rules.len() > RULES_MAX {
        return Err(Error::invalid("There are too many blkdebug rules"));
    }
    let mut size = |name: &str| Ok::<_, Error>(options.take_size(name)?.unwrap_or(0));
    let (align, max_transfer) = (size("align")?, size("max-transfer")?);
    let (opt_zero, max_zero) = (size("opt-write-zero")?, size("max-write-zero")?);
    let (opt_discard, max_discard) = (size("opt-discard")?, size("max-discard")?);
    let sensible = align == 0 || (align.is_power_of_two() && align < i32::MAX as u64);
    if !sensible {
        return Err(Error::invalid("Cannot meet constraints with align"));
    }
    let image = match options.take_text("x-image") {
        Some(name) => open_child(Some(&name), options.take_below("image"), mode)?,
        None => open_child(None, options.take_below("image"), mode)?,
    };
    let unlimited = |bytes: u64| if bytes == 0 { u64::MAX } else { bytes };
    let node = BlkDebug {
        name: name(&given, &image),
        image,
        align: align.max(1),
        max_transfer: unlimited(max_transfer),
        max_zero: unlimited(max_zero),
        opt_zero: opt_zero.max(1),
        max_discard: unlimited(max_discard),
        opt_discard: opt_discard.max(1),
        state: Mutex::new(State { state: 1, rules, ..State::default() }),
        resumed: Condvar::new(),
    };
    node.happen("none");
    Ok(Arc::new(node))
}

/// How the node can be opened again: in short, where a file has all the rules.
fn name(given: &OpenOptions, image: &NodeRef) -> String {
    let below = image.filename();
    let own =
        |key: &str| !key.starts_with("image.") && !["config", "x-image", "image"].contains(&key);
    if !below.starts_with("json:") && !given.iter().any(|(key, _)| own(key)) {
        return format!("blkdebug:{}:{below}", given.text("config").unwrap_or_default());
    }
    let mut options = OpenOptions::new();
    given
        .iter()
        .filter(|(key, _)| own(key))
        .for_each(|(key, value)| options.set(key, value.clone()));
    let mut tree = options.to_json();
    tree["driver"] = "blkdebug".into();
    tree["image"] = crate::open::names::described(image, &below);
    if let Some(config) = given.text("config") {
        tree["config"] = config.into();
    }
    format!("json:{tree}")
}

fn parse_config(text: &str, rules: &mut Vec<Option<Rule>>) -> Result<()> {
    let mut section: Option<(String, Vec<(String, String)>)> = None;
    for line in text.lines().map(str::trim).chain(["[end]"]) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split([']', ' ']).next()) {
            if let Some((kind, pairs)) = section.take() {
                rules.push(Some(rule(&kind, &pairs)?));
            }
            section = Some((name.to_string(), Vec::new()));
        } else if let (Some((_, pairs)), Some((key, value))) = (&mut section, line.split_once('='))
        {
            let value = value.trim().trim_matches('"').to_string();
            pairs.push((key.trim().to_string(), value));
        } else {
            return Err(Error::invalid("Could not parse blkdebug config file: parse error"));
        }
    }
    Ok(())
}

fn rule(kind: &str, pairs: &[(String, String)]) -> Result<Rule> {
    let get =
        |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let event = get("event").ok_or_else(|| Error::invalid("Missing event name for rule"))?;
    let number = |name: &str, default: i64| match get(name) {
        None => Ok(default),
        Some(text) => text
            .parse::<i64>()
            .map_err(|_| Error::invalid(format!("Parameter '{name}' expects a number"))),
    };
    let effect = match kind {
        "set-state" => Effect::SetState(number("new_state", 0)? as u32),
        "inject-error" => Effect::Inject {
            errno: number("errno", i64::from(Errno::IO.raw_os_error()))? as i32,
            sector: u64::try_from(number("sector", -1)?).ok(),
            once: matches!(get("once"), Some("on" | "true")),
            request: match get("iotype") {
                None => None,
                Some(text) => Some(
                    Request::parse(text)
                        .ok_or_else(|| Error::invalid(format!("Invalid parameter '{text}'")))?,
                ),
            },
        },
        other => return Err(Error::invalid(format!("There is no option group '{other}'"))),
    };
    Ok(Rule { event: event.replace('.', "_"), state: number("state", 0)? as u32, effect })
}

impl BlkDebug {
    /// An event: states change together, and new injections replace the active ones.
    fn happen(&self, event: &str) {
        let mut state = self.state.lock();
        let current = state.state;
        let mut next = current;
        let mut injections = Vec::new();
        for (index, rule) in state.rules.iter().enumerate() {
            let Some(rule) = rule else { continue };
            if rule.event != event.replace('.', "_") || (rule.state != 0 && rule.state != current) {
                continue;
            }
            match rule.effect {
                Effect::SetState(new) => next = new,
                Effect::Inject { .. } => injections.push(index),
            }
        }
        if !injections.is_empty() {
            state.active = injections;
        }
        state.state = next;
        let name = event.replace('.', "_");
        let Some(index) = state.breaks.iter().position(|(event, _)| *event == name) else { return };
        let (_, tag) = state.breaks.remove(index);
        crate::notices::print(&format!("blkdebug: Suspended request '{tag}'"));
        state.stopped.push(tag.clone());
        while state.stopped.contains(&tag) {
            self.resumed.wait(&mut state);
        }
        crate::notices::print(&format!("blkdebug: Resuming request '{tag}'"));
    }

    /// The error for a request, if a rule wants one.
    fn check(&self, kind: Request, offset: u64, length: u64) -> Result<()> {
        let mut state = self.state.lock();
        let wanted = state.active.iter().position(|index| {
            let Some(Some(Rule { effect: Effect::Inject { sector, request, .. }, .. })) =
                state.rules.get(*index)
            else {
                return false;
            };
            let concerns = match request {
                Some(request) => *request == kind,
                None => kind != Request::BlockStatus,
            };
            concerns
                && sector
                    .is_none_or(|sector| (offset..offset + length.max(1)).contains(&(sector * 512)))
        });
        let Some(position) = wanted else { return Ok(()) };
        let index = state.active[position];
        let Some(Rule { effect: Effect::Inject { errno, once, .. }, .. }) = &state.rules[index]
        else {
            return Ok(());
        };
        let (errno, once) = (*errno, *once);
        if once {
            state.active.remove(position);
            state.rules[index] = None;
        }
        if errno == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(errno).into()) }
    }

    /// The pieces of a request that keep to a limit, cut at multiples of `unit`.
    fn pieces(offset: u64, length: u64, limit: u64, unit: u64) -> Vec<(u64, u64)> {
        let mut pieces = Vec::new();
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let mut next = at.saturating_add(limit).min(end);
            if next < end && next - next % unit > at {
                next -= next % unit;
            }
            pieces.push((at, next - at));
            at = next;
        }
        pieces
    }

    /// The aligned range around a request.
    fn around(&self, offset: u64, length: u64) -> (u64, u64) {
        let start = offset - offset % self.align;
        (start, (offset + length).next_multiple_of(self.align) - start)
    }

    fn zero_pieces(&self, offset: u64, length: u64) -> Vec<(u64, u64)> {
        Self::pieces(offset, length, self.max_zero, self.opt_zero.max(self.align))
    }
}

impl Node for BlkDebug {
    fn driver(&self) -> &'static str {
        "blkdebug"
    }

    fn filename(&self) -> String {
        self.name.clone()
    }

    fn size(&self) -> u64 {
        self.image.size()
    }

    fn writable(&self) -> bool {
        self.image.writable()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let (start, length) = self.around(offset, buffer.len() as u64);
        let mut bytes = vec![0; length as usize];
        for (at, length) in Self::pieces(start, length, self.max_transfer, self.align) {
            self.check(Request::Read, at, length)?;
            let from = (at - start) as usize;
            self.image.read_at(&mut bytes[from..from + length as usize], at)?;
        }
        let skip = (offset - start) as usize;
        buffer.copy_from_slice(&bytes[skip..skip + buffer.len()]);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let (start, length) = self.around(offset, data.len() as u64);
        let mut bytes = Vec::new();
        let (data, start, length) = if length == data.len() as u64 {
            (data, offset, length)
        } else {
            bytes.resize(length as usize, 0);
            self.image.read_at(&mut bytes, start)?;
            let skip = (offset - start) as usize;
            bytes[skip..skip + data.len()].copy_from_slice(data);
            (&bytes[..], start, length)
        };
        for (at, length) in Self::pieces(start, length, self.max_transfer, self.align) {
            self.check(Request::Write, at, length)?;
            let from = (at - start) as usize;
            self.image.write_at(&data[from..from + length as usize], at)?;
        }
        Ok(())
    }

    fn zero_at(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        for (at, length) in self.zero_pieces(offset, length) {
            self.check(Request::WriteZeros, at, length)?;
            self.image.zero_at(at, length, zeroing)?;
        }
        Ok(())
    }

    fn zero_fast(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        for (at, length) in self.zero_pieces(offset, length) {
            self.check(Request::WriteZeros, at, length)?;
            self.image.zero_fast(at, length, zeroing)?;
        }
        Ok(())
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<()> {
        let unit = self.opt_discard.max(self.align);
        for (at, length) in Self::pieces(offset, length, self.max_discard, unit) {
            self.check(Request::Discard, at, length)?;
            self.image.discard_at(at, length)?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.check(Request::Flush, 0, 0)?;
        self.image.flush()
    }

    fn status(&self, offset: u64, length: u64) -> Result<Extent> {
        self.check(Request::BlockStatus, offset, length)?;
        let extent = self.image.status(offset, length)?;
        Ok(Extent { host: extent.host.map(|_| offset), ..extent })
    }

    fn children(&self) -> Vec<(&'static str, NodeRef)> {
        vec![("image", self.image.clone())]
    }

    fn file(&self) -> Option<NodeRef> {
        Some(self.image.clone())
    }

    fn resize(&self, size: u64, preallocation: Preallocation) -> Result<()> {
        self.image.resize(size, preallocation)
    }

    fn about_to(&self, event: &'static str) {
        self.happen(event);
    }

    fn debug(&self, command: &DebugCommand) -> Result<bool> {
        let mut state = self.state.lock();
        match command {
            DebugCommand::Break { event, tag } => {
                if state.breaks.len() >= RULES_MAX {
                    return Err(Error::invalid("There are too many breakpoints"));
                }
                state.breaks.push((event.replace('.', "_"), tag.clone()));
            }
            DebugCommand::Resume { tag } => {
                let before = state.stopped.len();
                state.stopped.retain(|stopped| stopped != tag);
                if state.stopped.len() == before {
                    return Err(Errno::NOENT.into());
                }
                self.resumed.notify_all();
            }
            DebugCommand::Remove { tag } => {
                let before = state.breaks.len() + state.stopped.len();
                state.breaks.retain(|(_, own)| own != tag);
                state.stopped.retain(|stopped| stopped != tag);
                if state.breaks.len() + state.stopped.len() == before {
                    return Err(Errno::NOENT.into());
                }
                self.resumed.notify_all();
            }
            DebugCommand::IsStopped { tag } => return Ok(state.stopped.contains(tag)),
        }
        Ok(true)
    }

    fn is_filter(&self) -> bool {
        true
    }
}
