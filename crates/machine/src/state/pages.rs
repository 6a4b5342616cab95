//! Pages of memory in the stream: runs of one repeated word, pages that are like an earlier one, and
//! others as they are.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use device::state::{Reader, Value};
use memory::{PAGE_SIZE, Ram};

use super::stream::{Kind, Writer};
use super::{Progress, StreamError};

const PAGE: usize = PAGE_SIZE as usize;
/// What is gathered before it is written.
const FRAME_BYTES: usize = 256 << 10;
/// Pages whose contents are remembered.
const KNOWN_MAX: usize = 1 << 18;

const FILL: u8 = 0;
const DATA: u8 = 1;
const LIKE: u8 = 2;

/// A page's fingerprint: 128 bits, so that two that differ do not meet by accident. A guest can make
/// some that do; it would deceive itself about its own pages only.
pub type Print = [u64; 2];

/// The fingerprint of a page.
pub fn print(page: &[u8; PAGE]) -> Print {
    const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f];
    let mut sums = [1_u64, 2];
    for pair in page.as_chunks::<16>().0 {
        let value = u128::from_le_bytes(*pair);
        let words = [value as u64, (value >> 64) as u64];
        for at in 0..2 {
            let mixed = sums[at].rotate_left(29) ^ words[at] ^ words[1 - at].rotate_left(31);
            sums[at] = mixed.wrapping_mul(FACTORS[at]);
        }
    }
    [sums[0] ^ sums[1] >> 32, sums[1] ^ sums[0] >> 32]
}

/// The word of which a page consists, if it is one.
fn repeated(page: &[u8; PAGE]) -> Option<u64> {
    let word = page.first_chunk::<8>()?;
    (page[8..] == page[..PAGE - 8]).then(|| u64::from_le_bytes(*word))
}

/// Writes pages of one block.
struct Sender<'a, 'b, 'c> {
    name: &'a str,
    into: &'b mut Writer<'c>,
    progress: &'a Progress,
    bytes: Vec<u8>,
    /// The run that is not written yet: first page, number, word.
    run: Option<(u64, u64, u64)>,
}

impl Sender<'_, '_, '_> {
    fn fill(&mut self, page: u64, count: u64, word: u64) {
        match &mut self.run {
            Some((first, pages, same)) if *same == word && *first + *pages == page => {
                *pages += count;
            }
            _ => {
                self.end_run();
                self.run = Some((page, count, word));
            }
        }
        self.progress.filled.fetch_add(count, Ordering::Relaxed);
    }

    fn end_run(&mut self) {
        if let Some(run) = self.run.take() {
            FILL.save(&mut self.bytes);
            run.save(&mut self.bytes);
        }
    }

    fn like(&mut self, page: u64, other: u64) {
        self.end_run();
        LIKE.save(&mut self.bytes);
        (page, other).save(&mut self.bytes);
        self.progress.filled.fetch_add(1, Ordering::Relaxed);
    }

    fn data(&mut self, page: u64, contents: &[u8; PAGE]) {
        self.end_run();
        DATA.save(&mut self.bytes);
        page.save(&mut self.bytes);
        self.bytes.extend_from_slice(contents);
        self.progress.whole.fetch_add(1, Ordering::Relaxed);
    }

    fn write_when(&mut self, bytes: usize) -> Result<(), StreamError> {
        if self.bytes.len() <= bytes {
            return Ok(());
        }
        self.progress.check()?;
        let mut frame = Vec::with_capacity(self.name.len() + 8 + self.bytes.len());
        self.name.to_owned().save(&mut frame);
        frame.append(&mut self.bytes);
        self.into.frame(Kind::Pages, &frame).map_err(StreamError::Write)?;
        self.progress.bytes.store(self.into.written, Ordering::Relaxed);
        Ok(())
    }
}

/// What was written of a block, so that only changes follow.
#[derive(Default)]
pub struct Sent(Vec<Print>);

/// The fingerprint of what was never written. No page has it: it would have to be found.
const NEVER: Print = [0, 0];

/// Writes the pages of a block that differ from what was `sent`, or all. `stands`: nobody changes
/// them meanwhile. How many there were.
pub fn send(
    name: &str,
    ram: &Arc<Ram>,
    into: &mut Writer<'_>,
    progress: &Progress,
    (sent, stands): (&mut Sent, bool),
) -> Result<u64, StreamError> {
    let pages = ram.len() / PAGE_SIZE;
    let first = sent.0.is_empty();
    sent.0.resize(pages as usize, NEVER);
    let empty = print(&[0; PAGE]);
    let mut sender = Sender { name, into, progress, bytes: Vec::new(), run: None };
    let (mut at, mut count) = (0, 0);
    let mut known: HashMap<Print, u64> = HashMap::new();
    let mut page = Box::new([0; PAGE]);
    let mut earlier = Box::new([0; PAGE]);
    // A fingerprint is no proof: one program of the guest could put its own page in another's place.
    let mut is_like = |page: &[u8; PAGE], other: u64| {
        ram.read(other * PAGE_SIZE, &mut earlier[..]) && *page == *earlier
    };
    loop {
        let part = ram.touched(at * PAGE_SIZE);
        let part = part.map_or(pages..pages, |part| part.start / PAGE_SIZE..part.end / PAGE_SIZE);
        for number in at..part.start {
            if first || sent.0[number as usize] != empty {
                sent.0[number as usize] = empty;
                sender.fill(number, 1, 0);
                count += 1;
            }
        }
        for number in part.clone() {
            let read = ram.read(number * PAGE_SIZE, &mut page[..]);
            debug_assert!(read, "the page lies in the block");
            let now = print(&page);
            if !first && sent.0[number as usize] == now {
                continue;
            }
            sent.0[number as usize] = now;
            count += 1;
            if let Some(word) = repeated(&page) {
                sender.fill(number, 1, word);
            } else if let Some(other) =
                known.get(&now).filter(|other| stands && is_like(&page, **other))
            {
                sender.like(number, *other);
            } else {
                if stands && known.len() < KNOWN_MAX {
                    known.insert(now, number);
                }
                sender.data(number, &page);
            }
            sender.write_when(FRAME_BYTES)?;
        }
        at = part.end;
        if at >= pages {
            break;
        }
    }
    sender.end_run();
    sender.write_when(0)?;
    Ok(count)
}

/// Puts a frame's pages into the blocks that they belong to.
pub fn receive(blocks: &[(String, Arc<Ram>)], frame: &[u8]) -> Result<(), StreamError> {
    let damaged = |_| StreamError::Damaged;
    let mut from = Reader::new(frame);
    let mut name = String::new();
    name.load(&mut from).map_err(damaged)?;
    let ram = blocks.iter().find(|(other, _)| *other == name).map(|(_, ram)| ram);
    let ram = ram.ok_or(StreamError::UnknownMemory { name })?;
    let mut page = Box::new([0; PAGE]);
    while !from.is_empty() {
        let mut kind = 0_u8;
        kind.load(&mut from).map_err(damaged)?;
        let done = match kind {
            FILL => {
                let mut run = (0_u64, 0_u64, 0_u64);
                run.load(&mut from).map_err(damaged)?;
                fill(ram, run, &mut page)
            }
            DATA => {
                let mut number = 0_u64;
                number.load(&mut from).map_err(damaged)?;
                let contents = from.take(PAGE).map_err(damaged)?;
                offset(number).is_some_and(|offset| ram.write(offset, contents))
            }
            LIKE => {
                let mut pages = (0_u64, 0_u64);
                pages.load(&mut from).map_err(damaged)?;
                let places = offset(pages.0).zip(offset(pages.1));
                places.is_some_and(|(to, other)| {
                    ram.read(other, &mut page[..]) && ram.write(to, &page[..])
                })
            }
            _ => false,
        };
        if !done {
            return Err(StreamError::Damaged);
        }
    }
    Ok(())
}

fn offset(page: u64) -> Option<u64> {
    page.checked_mul(PAGE_SIZE)
}

fn fill(ram: &Ram, (first, count, word): (u64, u64, u64), page: &mut [u8; PAGE]) -> bool {
    let range = offset(first).zip(offset(count)).and_then(|(start, bytes)| {
        let end = start.checked_add(bytes)?;
        (end <= ram.len()).then_some((start, bytes))
    });
    let Some((start, bytes)) = range else { return false };
    if word == 0 {
        // The host gets the memory back.
        return ram.release(start, bytes) || ram.fill(start, bytes, 0);
    }
    page.as_chunks_mut::<8>().0.fill(word.to_le_bytes());
    (0..count).all(|number| ram.write(start + number * PAGE_SIZE, &page[..]))
}

#[cfg(test)]
mod tests {
    use super::super::stream;
    use super::*;

    fn block(pages: u64) -> Arc<Ram> {
        Arc::new(Ram::new("test", pages * PAGE_SIZE).unwrap())
    }

    fn contents(ram: &Ram) -> Vec<u8> {
        let mut bytes = vec![0; ram.len() as usize];
        assert!(ram.read(0, &mut bytes));
        bytes
    }

    fn move_pages(from: &Arc<Ram>, to: &Arc<Ram>, sent: &mut Sent, stands: bool) -> (u64, usize) {
        let mut bytes = Vec::new();
        let progress = Progress::default();
        let mut writer = Writer::new(&mut bytes).unwrap();
        let count = send("ram", from, &mut writer, &progress, (sent, stands)).unwrap();
        writer.end().unwrap();
        let (length, mut bytes) = (bytes.len(), &bytes[..]);
        let mut reader = stream::Reader::new(&mut bytes).unwrap();
        while let (Kind::Pages, frame) = reader.frame().unwrap() {
            receive(&[("ram".to_owned(), Arc::clone(to))], &frame).unwrap();
        }
        (count, length)
    }

    #[test]
    fn pages_arrive_and_what_repeats_costs_little() {
        let (from, to) = (block(1024), block(1024));
        let noise: Vec<u8> = (0..PAGE).map(|at| ((at * at) >> 3) as u8).collect();
        for page in [3, 500, 501, 900] {
            assert!(from.write(page * PAGE_SIZE, &noise));
        }
        assert!(from.fill(10 * PAGE_SIZE, 20 * PAGE_SIZE, 0xcc) && to.fill(0, to.len(), 7));
        let mut sent = Sent::default();
        let (count, bytes) = move_pages(&from, &to, &mut sent, true);
        assert!(contents(&from) == contents(&to));
        assert_eq!(count, 1024);
        assert!(bytes < 2 * PAGE, "{bytes} bytes");

        from.write_value(700 * PAGE_SIZE + 8, 8, 5);
        assert!(from.fill(500 * PAGE_SIZE, PAGE_SIZE, 0));
        let (count, _) = move_pages(&from, &to, &mut sent, false);
        assert!(contents(&from) == contents(&to));
        assert_eq!(count, 2, "only what has changed");
    }

    #[test]
    fn damaged_pages_reach_nothing_outside() {
        let ram = block(4);
        let blocks = [("ram".to_owned(), Arc::clone(&ram))];
        let frame = |bytes: &[u8]| {
            let mut frame = Vec::new();
            "ram".to_owned().save(&mut frame);
            frame.extend(bytes);
            frame
        };
        let fill = |first: u64, count: u64| {
            let mut bytes = vec![FILL];
            (first, count, 1_u64).save(&mut bytes);
            frame(&bytes)
        };
        assert!(receive(&blocks, &fill(0, 4)).is_ok());
        for (first, count) in [(0, 5), (4, 1), (u64::MAX, 1), (1, u64::MAX), (1 << 52, 1)] {
            assert!(receive(&blocks, &fill(first, count)).is_err(), "{first} {count}");
        }
        let mut seed = 5_u64;
        for length in 0..2000 {
            let mut random = || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            };
            let bytes: Vec<u8> = (0..length % 60)
                .map(|at| if at == 0 { random() % 3 } else { random() % 5 })
                .collect();
            _ = receive(&blocks, &frame(&bytes));
        }
        assert!(matches!(
            receive(&[], &fill(0, 1)),
            Err(StreamError::UnknownMemory { name }) if name == "ram"
        ));
    }
}
