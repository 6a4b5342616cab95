//! Large files: several connections at once, each fetching a range; what came stays, and the next
//! attempt fetches the rest.
//!
//! Beside the file lies a journal: what the server said of the whole, then a line for each step of
//! each piece. It goes when the file is complete.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use crate::{GuestError, Progress, Result, http};

/// What one connection fetches before it asks for more.
const RANGE_BYTES: u64 = 8 << 20;
/// How many there are; more is impolite.
const CONNECTIONS: usize = 4;
/// How often a range is tried without a byte that is new.
const ATTEMPTS: u32 = 4;
/// Before the second attempt; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(200);
/// How much comes between two lines of the journal.
const STEP_BYTES: u64 = 1 << 20;
/// A file of which one does not say how long it is ends here.
const FILE_BYTES_MAX: u64 = 1 << 44;

/// What a server says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Whole {
    bytes: u64,
    /// Its entity tag, or when it was changed; empty if it says neither.
    version: String,
}

/// Fetches into a file. What an earlier attempt has brought is not fetched again; the caller checks
/// the sum of the whole, and calls [`forget`] when it is wrong.
pub fn fetch(url: &str, path: &Path, progress: &mut dyn Progress) -> Result<()> {
    let probe = http::request(url, Some((0, Some(0))), None)?;
    let Some(whole) = whole_of(&probe) else {
        // A server without ranges, or an empty file.
        return stream(url, path, probe, progress);
    };
    drop(probe);
    let journal = journal_of(path);
    let done = match read_journal(&journal, path) {
        Some((known, done)) if known == whole => done,
        _ => BTreeMap::new(),
    };
    ranges(&Plan { url, path, journal, whole, done }, progress)
}

/// Takes a file away with what is known of it.
pub fn forget(path: &Path) {
    _ = fs::remove_file(path);
    _ = fs::remove_file(journal_of(path));
}

fn journal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".journal");
    name.into()
}

fn whole_of(probe: &http::Answer) -> Option<Whole> {
    let range = probe.header("content-range").filter(|_| probe.is_part)?;
    let bytes: u64 = range.rsplit('/').next()?.trim().parse().ok()?;
    // A weak tag does not promise the same bytes.
    let tag = probe.header("etag").filter(|tag| tag.starts_with('"'));
    let version = tag.or_else(|| probe.header("last-modified")).unwrap_or_default();
    (bytes > 0 && bytes < FILE_BYTES_MAX).then_some(Whole { bytes, version })
}

/// How much of each range there is.
type Done = BTreeMap<u64, u64>;

fn read_journal(journal: &Path, path: &Path) -> Option<(Whole, Done)> {
    let text = fs::read_to_string(journal).ok()?;
    path.is_file().then_some(())?;
    let (head, steps) = text.split_once('\n')?;
    let (bytes, version) = head.split_once(' ')?;
    let whole = Whole { bytes: bytes.parse().ok()?, version: version.to_owned() };
    let mut done = Done::new();
    for line in steps.split_inclusive('\n') {
        // The last line may be half of one.
        let numbers = line.strip_suffix('\n').and_then(|line| line.split_once(' '));
        let Some((Ok(range), Ok(bytes))) = numbers.map(|(a, b)| (a.parse(), b.parse::<u64>()))
        else {
            break;
        };
        done.insert(range, bytes.min(RANGE_BYTES));
    }
    Some((whole, done))
}

struct Plan<'a> {
    url: &'a str,
    path: &'a Path,
    journal: PathBuf,
    whole: Whole,
    done: Done,
}

impl Plan<'_> {
    fn length(&self, range: u64) -> u64 {
        RANGE_BYTES.min(self.whole.bytes - range * RANGE_BYTES)
    }

    fn have(&self, range: u64) -> u64 {
        self.done.get(&range).copied().unwrap_or(0).min(self.length(range))
    }
}

/// What the connections share.
struct Work<'a> {
    plan: &'a Plan<'a>,
    todo: Vec<u64>,
    next: AtomicUsize,
    stop: AtomicBool,
    file: File,
    /// Appended to, a line at a time.
    journal: File,
}

fn ranges(plan: &Plan<'_>, progress: &mut dyn Progress) -> Result<()> {
    let in_file = |error| GuestError::io(plan.path, error);
    let begins = plan.done.is_empty();
    let mut options = OpenOptions::new();
    let file = options.create(true).write(true).truncate(begins).open(plan.path);
    let file = file.map_err(in_file)?;
    file.set_len(plan.whole.bytes).map_err(in_file)?;
    if begins {
        let head = format!("{} {}\n", plan.whole.bytes, plan.whole.version);
        fs::write(&plan.journal, head).map_err(|error| GuestError::io(&plan.journal, error))?;
    }
    let journal = OpenOptions::new().append(true).open(&plan.journal);
    let journal = journal.map_err(|error| GuestError::io(&plan.journal, error))?;
    let count = plan.whole.bytes.div_ceil(RANGE_BYTES);
    let todo: Vec<u64> = (0..count).filter(|r| plan.have(*r) < plan.length(*r)).collect();
    let mut done: u64 = (0..count).map(|range| plan.have(range)).sum();
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = Work { plan, todo, next, stop, file, journal };
    let (sender, receiver) = channel();
    let ended: Result<()> = thread::scope(|scope| {
        let connections = CONNECTIONS.min(work.todo.len());
        let threads: Vec<_> = (0..connections)
            .map(|_| {
                let (work, sender) = (&work, sender.clone());
                scope.spawn(move || work.run(&sender))
            })
            .collect();
        drop(sender);
        for bytes in receiver {
            done += bytes;
            progress.bytes(done, Some(plan.whole.bytes));
        }
        threads
            .into_iter()
            .try_for_each(|t| t.join().unwrap_or_else(|_| Err(broken(plan.url, "it panicked"))))
    });
    ended?;
    work.file.sync_data().map_err(in_file)?;
    fs::remove_file(&plan.journal).map_err(|error| GuestError::io(&plan.journal, error))
}

fn broken(url: &str, reason: &str) -> GuestError {
    let reason = format!("{reason}; the next attempt goes on from here");
    GuestError::Fetch { url: url.to_owned(), reason }
}

impl Work<'_> {
    fn run(&self, told: &Sender<u64>) -> Result<()> {
        while !self.stop.load(Ordering::Acquire) {
            let place = self.next.fetch_add(1, Ordering::AcqRel);
            let Some(range) = self.todo.get(place) else { return Ok(()) };
            if let Err(error) = self.range(*range, told) {
                self.stop.store(true, Ordering::Release);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Fetches one range, as often as that is worth it.
    fn range(&self, range: u64, told: &Sender<u64>) -> Result<()> {
        let (length, mut have) = (self.plan.length(range), self.plan.have(range));
        let mut failures = 0;
        while have < length {
            let before = have;
            let error = match self.attempt(range, &mut have, told) {
                Ok(()) if have == length => return Ok(()),
                Ok(()) => broken(self.plan.url, "the connection broke"),
                Err(error @ GuestError::Fetch { .. }) => error,
                Err(error) => return Err(error),
            };
            self.note(range, have)?;
            failures = if have > before { 1 } else { failures + 1 };
            if failures >= ATTEMPTS || self.stop.load(Ordering::Acquire) {
                return Err(error);
            }
            thread::sleep(PAUSE * (1 << (failures - 1)));
        }
        Ok(())
    }

    fn attempt(&self, range: u64, have: &mut u64, told: &Sender<u64>) -> Result<()> {
        let url = self.plan.url;
        let (start, length) = (range * RANGE_BYTES, self.plan.length(range));
        let wanted = (start + *have, Some(start + length - 1));
        let version = Some(self.plan.whole.version.as_str()).filter(|text| !text.is_empty());
        let answer = http::request(url, Some(wanted), version).map_err(|error| match error {
            GuestError::Fetch { reason, .. } => broken(url, &reason),
            other => other,
        })?;
        let begins_there = answer
            .header("content-range")
            .is_some_and(|text| text.starts_with(&format!("bytes {}-", wanted.0)));
        if !answer.is_part || !begins_there {
            return Err(broken(url, "the file has changed meanwhile"));
        }
        let mut body = answer.body().take(length - *have);
        let mut piece = vec![0; 64 << 10];
        let mut noted = *have;
        while !self.stop.load(Ordering::Acquire) {
            let count = body
                .read(&mut piece)
                .map_err(|error| broken(url, &format!("the connection broke: {error}")))?;
            if count == 0 {
                break;
            }
            let written = self.file.write_all_at(&piece[..count], start + *have);
            written.map_err(|error| GuestError::io(self.plan.path, error))?;
            *have += count as u64;
            _ = told.send(count as u64);
            if *have - noted >= STEP_BYTES || *have == length {
                self.note(range, *have)?;
                noted = *have;
            }
        }
        Ok(())
    }

    fn note(&self, range: u64, have: u64) -> Result<()> {
        let line = format!("{range} {have}\n");
        let written = (&self.journal).write_all(line.as_bytes());
        written.map_err(|error| GuestError::io(&self.plan.journal, error))
    }
}

/// All of it in one go.
fn stream(url: &str, path: &Path, answer: http::Answer, progress: &mut dyn Progress) -> Result<()> {
    forget(path);
    let in_file = |error| GuestError::io(path, error);
    let mut file = File::create(path).map_err(in_file)?;
    let total = answer.header("content-length").and_then(|length| length.parse::<u64>().ok());
    let mut body = answer.body().take(FILE_BYTES_MAX);
    let mut piece = vec![0; 64 << 10];
    let mut done = 0;
    let failed = |reason: String| GuestError::Fetch { url: url.to_owned(), reason };
    loop {
        let count = body
            .read(&mut piece)
            .map_err(|error| failed(format!("the connection broke: {error}")))?;
        if count == 0 {
            break;
        }
        file.write_all(&piece[..count]).map_err(in_file)?;
        done += count as u64;
        progress.bytes(done, total);
    }
    match total.is_some_and(|total| total != done) {
        true => Err(failed("the connection broke".to_owned())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;
    use crate::mirror::Mirror;

    fn data(bytes: u64) -> Vec<u8> {
        (0..bytes).map(|number| ((number * 31) >> 7) as u8).collect()
    }

    #[test]
    fn several_connections_bring_ranges_and_each_byte_comes_once() {
        let folder = ::tests::scratch("ranges");
        let path = folder.join("x");
        let file = data(5 * RANGE_BYTES + 12_345);
        let mirror = Mirror::new(vec![("x".into(), file.clone())]);
        fetch(&mirror.url("x"), &path, &mut Silent).unwrap();
        assert!(fs::read(&path).unwrap() == file && !journal_of(&path).exists());
        assert_eq!(mirror.requests("x").len(), 1 + 6, "{:?}", mirror.requests("x"));
        assert!(mirror.most_at_once() > 1, "one connection at a time");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn broken_connections_are_taken_up_where_they_broke() {
        let folder = ::tests::scratch("broken");
        let path = folder.join("x");
        let file = data(3 * RANGE_BYTES);
        let mirror = Mirror::new(vec![("x".into(), file.clone())]);
        for _ in 0..5 {
            mirror.breaks("x", 3_000_000);
        }
        fetch(&mirror.url("x"), &path, &mut Silent).unwrap();
        assert!(fs::read(&path).unwrap() == file);
        assert_eq!(mirror.sent("x"), file.len() as u64 + 1, "nothing comes twice");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_came_stays_for_the_next_attempt_unless_the_file_is_another() {
        let folder = ::tests::scratch("resumed");
        let path = folder.join("x");
        let file = data(3 * RANGE_BYTES);
        let mirror = Mirror::new(vec![("x".into(), file.clone())]);
        mirror.refuses_after("x", 2);
        let error = fetch(&mirror.url("x"), &path, &mut Silent).unwrap_err().to_string();
        assert!(error.contains("goes on from here"), "{error}");
        let before = mirror.sent("x");
        assert!(before > RANGE_BYTES, "{before}");
        mirror.refuses_after("x", usize::MAX);
        fetch(&mirror.url("x"), &path, &mut Silent).unwrap();
        assert!(fs::read(&path).unwrap() == file);
        assert_eq!(mirror.sent("x"), file.len() as u64 + 2);
        // Half of one file and half of another are neither.
        forget(&path);
        mirror.refuses_after("x", 2);
        assert!(fetch(&mirror.url("x"), &path, &mut Silent).is_err());
        let other = data(2 * RANGE_BYTES + 7);
        let mirror = mirror.with("x", other.clone());
        fetch(&mirror.url("x"), &path, &mut Silent).unwrap();
        assert!(fs::read(&path).unwrap() == other);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_server_without_ranges_is_taken_as_it_is() {
        let folder = ::tests::scratch("whole");
        let path = folder.join("x");
        let file = data(300_000);
        let mirror = Mirror::new(vec![("x".into(), file.clone())]);
        mirror.has_no_ranges();
        mirror.breaks("x", 100_000);
        let error = fetch(&mirror.url("x"), &path, &mut Silent).unwrap_err().to_string();
        assert!(error.contains("broke"), "{error}");
        fetch(&mirror.url("x"), &path, &mut Silent).unwrap();
        assert!(fs::read(&path).unwrap() == file);
        fs::remove_dir_all(folder).unwrap();
    }
}
