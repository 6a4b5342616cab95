//! What has changed since a client saw it, by tiles, and what has only moved.

use std::collections::HashMap;

use crate::surface::{Frame, Rect};

/// Tiles are wide, as lines of text and rows in memory are.
const TILE: (u32, u32) = (64, 16);
/// More rectangles than this are one: each costs its head.
const RECTS_MAX: usize = 2048;
/// Fewer rows that have moved are not worth a search.
const MOVED_ROWS_MIN: u32 = 32;

/// Tiles that may have changed.
#[derive(Clone, Debug, Default)]
pub struct Dirty {
    width: u32,
    height: u32,
    tiles: Vec<bool>,
    any: bool,
}

impl Dirty {
    /// Of a frame of this size; nothing has changed.
    pub fn new(width: u32, height: u32) -> Self {
        let count = width.div_ceil(TILE.0) as usize * height.div_ceil(TILE.1) as usize;
        Self { width, height, tiles: vec![false; count], any: false }
    }

    /// Whether anything may have.
    pub fn any(&self) -> bool {
        self.any
    }

    /// This may have. What lies outside is left out.
    pub fn mark(&mut self, rect: Rect) {
        let all = Rect { x: 0, y: 0, width: self.width, height: self.height };
        let Some(rect) = rect.intersect(all) else { return };
        let columns = self.width.div_ceil(TILE.0) as usize;
        let (last_x, last_y) = (rect.x + rect.width - 1, rect.y + rect.height - 1);
        for row in rect.y / TILE.1..=last_y / TILE.1 {
            let row = row as usize * columns;
            let (first, last) = ((rect.x / TILE.0) as usize, (last_x / TILE.0) as usize);
            self.tiles[row + first..=row + last].fill(true);
        }
        self.any = true;
    }

    /// Marks in another of the same size what is marked here.
    pub fn pour_into(&self, other: &mut Self) {
        if (self.width, self.height) == (other.width, other.height) {
            other.tiles.iter_mut().zip(&self.tiles).for_each(|(to, from)| *to |= from);
            other.any |= self.any;
        }
    }

    /// The marked tiles that an area touches, row by row.
    fn each(&self, area: Rect) -> impl Iterator<Item = (usize, Rect)> + use<'_> {
        let columns = self.width.div_ceil(TILE.0).max(1) as usize;
        let place = move |(at, marked): (usize, &bool)| {
            let (x, y) = ((at % columns) as u32 * TILE.0, (at / columns) as u32 * TILE.1);
            let (width, height) = ((self.width - x).min(TILE.0), (self.height - y).min(TILE.1));
            let tile = Rect { x, y, width, height };
            (*marked && tile.intersect(area).is_some()).then_some((at, tile))
        };
        self.tiles.iter().enumerate().filter_map(place)
    }

    /// Takes the tiles of an area that differ from `old`, and brings `old` up to date there.
    /// Both frames have this size. `force`: those that do not differ too.
    pub fn take(&mut self, area: Rect, old: &mut Frame, new: &Frame, force: bool) -> Vec<Rect> {
        let mut rects: Vec<Rect> = Vec::new();
        // Of the row of tiles before, those that may grow downwards start here.
        let (mut above, mut current, mut at_y) = (0, 0, 0);
        let touched: Vec<(usize, Rect)> = self.each(area).collect();
        for (at, tile) in touched {
            self.tiles[at] = false;
            let is_same = |row: u32| old.row(tile, row) == new.row(tile, row);
            if !force && (0..tile.height).all(is_same) {
                continue;
            }
            for row in 0..tile.height {
                old.row_mut(tile, row).copy_from_slice(new.row(tile, row));
            }
            if tile.y != at_y {
                merge_down(&mut rects, above, current);
                (above, current, at_y) = (current.min(rects.len()), rects.len(), tile.y);
            }
            match rects.last_mut() {
                Some(last) if rects_touch(*last, tile) => last.width += tile.width,
                _ => rects.push(tile),
            }
        }
        merge_down(&mut rects, above, current);
        self.any = self.tiles.contains(&true);
        if rects.len() > RECTS_MAX {
            return bounds(rects.into_iter()).into_iter().collect();
        }
        rects
    }

    /// Looks for rows that have moved up or down: from where, and to where. Worth it only where
    /// much has changed.
    pub fn moved(&self, area: Rect, old: &Frame, new: &Frame) -> Option<((u32, u32), Rect)> {
        let place = bounds(self.each(area).map(|(_, tile)| tile))?;
        if place.height < 2 * MOVED_ROWS_MIN || place.pixels() < new.pixels.len() / 8 {
            return None;
        }
        let hashes = |frame: &Frame| -> Vec<u64> {
            (0..place.height).map(|row| hash(frame.row(place, row))).collect()
        };
        let (before, after) = (hashes(old), hashes(new));
        let mut places: HashMap<u64, Option<usize>> = HashMap::new();
        for (row, hash) in before.iter().enumerate() {
            places.entry(*hash).and_modify(|place| *place = None).or_insert(Some(row));
        }
        let mut votes: HashMap<isize, u32> = HashMap::new();
        for (row, hash) in after.iter().enumerate() {
            if let Some(Some(from)) = places.get(hash).filter(|_| before[row] != *hash) {
                *votes.entry(*from as isize - row as isize).or_default() += 1;
            }
        }
        let (distance, count) = votes.into_iter().max_by_key(|(_, count)| *count)?;
        if distance == 0 || count < MOVED_ROWS_MIN / 2 {
            return None;
        }
        let matches = |row: usize| {
            let from = row.checked_add_signed(distance);
            from.and_then(|from| before.get(from)) == Some(&after[row])
        };
        let (mut best, mut start) = (0..0, 0);
        for row in 0..=after.len() {
            if row == after.len() || !matches(row) {
                if row - start > best.len() {
                    best = start..row;
                }
                start = row + 1;
            }
        }
        if best.len() < MOVED_ROWS_MIN as usize {
            return None;
        }
        let to = Rect { y: place.y + best.start as u32, height: best.len() as u32, ..place };
        let from = to.y.checked_add_signed(i32::try_from(distance).ok()?)?;
        Some(((place.x, from), to))
    }
}

fn rects_touch(last: Rect, tile: Rect) -> bool {
    last.y == tile.y && last.x + last.width == tile.x
}

/// Runs of the last row of tiles that continue one above become one with it.
fn merge_down(rects: &mut Vec<Rect>, above: usize, current: usize) {
    let mut at = current;
    while at < rects.len() {
        let rect = rects[at];
        let fits = |upper: &&mut Rect| {
            (upper.x, upper.width) == (rect.x, rect.width) && upper.y + upper.height == rect.y
        };
        // Those that have grown stay where they were, so the search goes through all.
        let from = above.saturating_sub(64);
        match rects[from..current].iter_mut().rev().find(fits) {
            Some(upper) => {
                upper.height += rect.height;
                rects.remove(at);
            }
            None => at += 1,
        }
    }
}

fn bounds(rects: impl Iterator<Item = Rect>) -> Option<Rect> {
    rects.reduce(|a, b| {
        let (x, y) = (a.x.min(b.x), a.y.min(b.y));
        let right = (a.x + a.width).max(b.x + b.width);
        let bottom = (a.y + a.height).max(b.y + b.height);
        Rect { x, y, width: right - x, height: bottom - y }
    })
}

fn hash(row: &[u32]) -> u64 {
    let mix = |hash: u64, pixel: &u32| {
        (hash.rotate_left(5) ^ u64::from(*pixel)).wrapping_mul(0x517c_c1b7_2722_0a95)
    };
    row.iter().fold(0, mix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32, seed: u32) -> Frame {
        let mut frame = Frame::new(width, height);
        for (at, pixel) in frame.pixels.iter_mut().enumerate() {
            *pixel = (at as u32 / width).wrapping_mul(2_654_435_761 ^ seed) >> 8;
        }
        frame
    }

    #[test]
    fn only_what_differs_is_taken() {
        let (mut old, mut new) = (picture(200, 100, 0), picture(200, 100, 0));
        let mut dirty = Dirty::new(200, 100);
        dirty.mark(new.area());
        assert_eq!(dirty.take(new.area(), &mut old, &new, false), []);
        new.fill(Rect { x: 60, y: 30, width: 10, height: 4 }, 7);
        dirty.mark(new.area());
        let taken = dirty.take(new.area(), &mut old, &new, false);
        assert_eq!(taken, [Rect { x: 0, y: 16, width: 128, height: 32 }], "tiles become one");
        assert!(old == new && !dirty.any());
    }

    #[test]
    fn all_of_it_is_one_rectangle() {
        let (mut old, new) = (Frame::new(200, 100), picture(200, 100, 1));
        let mut dirty = Dirty::new(200, 100);
        dirty.mark(Rect { x: 0, y: 0, width: u32::MAX, height: u32::MAX });
        assert_eq!(dirty.take(new.area(), &mut old, &new, true), [new.area()]);
    }

    #[test]
    fn scrolled_text_is_found() {
        let old = picture(640, 400, 5);
        let mut new = old.clone();
        new.copy((0, 16), Rect { x: 0, y: 0, width: 640, height: 384 });
        new.fill(Rect { x: 0, y: 384, width: 640, height: 16 }, 0);
        let mut dirty = Dirty::new(640, 400);
        dirty.mark(new.area());
        let moved = dirty.moved(new.area(), &old, &new);
        assert_eq!(moved, Some(((0, 16), Rect { x: 0, y: 0, width: 640, height: 384 })));
        assert_eq!(dirty.moved(new.area(), &old, &picture(640, 400, 77)), None);
    }
}
