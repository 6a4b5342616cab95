//! Which pages were written since somebody last asked.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::PAGE_SIZE;

/// One bit a page. Any thread may mark; a reader takes marks away page by page or all at once.
#[derive(Debug)]
pub struct DirtyBitmap {
    words: Box<[AtomicU64]>,
    pages: u64,
}

impl DirtyBitmap {
    /// A clean bitmap for `bytes` of memory.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let pages = bytes.div_ceil(PAGE_SIZE);
        let words = usize::try_from(pages.div_ceil(64)).expect("a bitmap fits into memory");
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect(), pages }
    }

    /// Marks the pages that hold `offset..offset + bytes`. Beyond the end is ignored.
    pub fn mark(&self, offset: u64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let last = (offset.saturating_add(bytes - 1) / PAGE_SIZE).min(self.pages.saturating_sub(1));
        for page in offset / PAGE_SIZE..=last {
            let bit = 1 << (page % 64);
            let Some(word) = self.words.get((page / 64) as usize) else { return };
            // Most marks repeat: reading first keeps the cache line shared.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Release);
            }
        }
    }

    /// Takes the marks of the pages that hold `offset..offset + bytes`; true when there was one.
    pub fn take(&self, offset: u64, bytes: u64) -> bool {
        let end = offset.saturating_add(bytes).div_ceil(PAGE_SIZE).min(self.pages);
        let mut dirty = false;
        for page in offset / PAGE_SIZE..end {
            let bit = 1 << (page % 64);
            let word = &self.words[(page / 64) as usize];
            if word.load(Ordering::Relaxed) & bit != 0 {
                dirty |= word.fetch_and(!bit, Ordering::AcqRel) & bit != 0;
            }
        }
        dirty
    }

    /// Takes all marks and hands over the numbers of the marked pages, in order.
    pub fn drain(&self, mut page: impl FnMut(u64)) {
        for (index, word) in self.words.iter().enumerate() {
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                page(index as u64 * 64 + u64::from(bits.trailing_zeros()));
                bits &= bits - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_cover_every_touched_page_once() {
        for (offset, bytes, pages) in [
            (0, 1, vec![0]),
            (4095, 2, vec![0, 1]),
            (4096, 4096, vec![1]),
            (63 * 4096, 8192, vec![63, 64]),
            (99 * 4096, u64::MAX, vec![99]),
            (u64::MAX, 1, vec![]),
            (0, 0, vec![]),
        ] {
            let bitmap = DirtyBitmap::new(100 * 4096);
            bitmap.mark(offset, bytes);
            let mut seen = Vec::new();
            bitmap.drain(|page| seen.push(page));
            assert_eq!(seen, pages, "{offset} {bytes}");
            bitmap.drain(|page| panic!("page {page} is marked twice"));
        }
    }

    #[test]
    fn taking_a_range_leaves_the_rest() {
        let bitmap = DirtyBitmap::new(10 * 4096);
        bitmap.mark(0, 10 * 4096);
        assert!(bitmap.take(4096, 4097));
        assert!(!bitmap.take(4096, 8192));
        let mut seen = Vec::new();
        bitmap.drain(|page| seen.push(page));
        assert_eq!(seen, [0, 3, 4, 5, 6, 7, 8, 9]);
    }
}
