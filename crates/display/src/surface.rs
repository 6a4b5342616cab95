//! What is shown, and who takes keys and the pointer: the seam to whoever has a screen.

use std::sync::Arc;

/// The most pixels that a side of a screen has.
pub const SIDE_MAX: u32 = 16384;

/// Pixels of a screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// 0x00RRGGBB, row by row without gaps.
    pub pixels: Vec<u32>,
}

impl Frame {
    /// A black one. Sides are cut to [`SIDE_MAX`].
    #[must_use]
    pub fn new(width: u32, height: u32) -> Self {
        let (width, height) = (width.min(SIDE_MAX), height.min(SIDE_MAX));
        Self { width, height, pixels: vec![0; width as usize * height as usize] }
    }

    /// All of it.
    #[must_use]
    pub fn area(&self) -> Rect {
        Rect { x: 0, y: 0, width: self.width, height: self.height }
    }

    /// The part of a row that a rectangle covers. The rectangle lies within the frame.
    #[must_use]
    pub fn row(&self, rect: Rect, row: u32) -> &[u32] {
        let at = (rect.y + row) as usize * self.width as usize + rect.x as usize;
        &self.pixels[at..][..rect.width as usize]
    }

    /// The same, to change it.
    pub fn row_mut(&mut self, rect: Rect, row: u32) -> &mut [u32] {
        let at = (rect.y + row) as usize * self.width as usize + rect.x as usize;
        &mut self.pixels[at..][..rect.width as usize]
    }

    /// Paints a rectangle that lies within.
    pub fn fill(&mut self, rect: Rect, pixel: u32) {
        for row in 0..rect.height {
            self.row_mut(rect, row).fill(pixel);
        }
    }

    /// Moves pixels within the frame; both places lie within, and may overlap.
    pub fn copy(&mut self, from: (u32, u32), to: Rect) {
        let width = self.width as usize;
        let mut row = |row: u32| {
            let source = (from.1 + row) as usize * width + from.0 as usize;
            let target = (to.y + row) as usize * width + to.x as usize;
            self.pixels.copy_within(source..source + to.width as usize, target);
        };
        match to.y > from.1 {
            true => (0..to.height).rev().for_each(&mut row),
            false => (0..to.height).for_each(&mut row),
        }
    }
}

/// A part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// The left edge.
    pub x: u32,
    /// The upper edge.
    pub y: u32,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

impl Rect {
    /// What two have in common, if anything.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        let (x, y) = (self.x.max(other.x), self.y.max(other.y));
        let end = |a: u32, b: u32, c: u32, d: u32| (a.saturating_add(b)).min(c.saturating_add(d));
        let width = end(self.x, self.width, other.x, other.width).checked_sub(x)?;
        let height = end(self.y, self.height, other.y, other.height).checked_sub(y)?;
        (width > 0 && height > 0).then_some(Self { x, y, width, height })
    }

    /// How many pixels.
    #[must_use]
    pub fn pixels(self) -> usize {
        self.width as usize * self.height as usize
    }
}

/// A pointer's picture, drawn by the viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// The pixel of it that points.
    pub hot: (u32, u32),
    /// 0xAARRGGBB.
    pub pixels: Vec<u32>,
}

/// A screen to be shown. Called from the server's threads, without its clients' locks.
pub trait Surface: Send + Sync {
    /// Brings `frame` up to date, of whatever size it is now, and says what has changed.
    fn refresh(&self, frame: &mut Frame, whole: bool) -> Vec<Rect>;

    /// The pointer's picture where the screen has one; none when it draws its own.
    fn pointer(&self) -> Option<Arc<Pointer>> {
        None
    }

    /// Whether [`Surface::resize`] can do anything.
    fn can_resize(&self) -> bool {
        false
    }

    /// A viewer would like this size.
    fn resize(&self, width: u32, height: u32) {
        _ = (width, height);
    }
}

/// What a viewer's pointer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointerInput {
    /// Buttons: left, middle, right, wheel up, down, left, right, and one more, from bit 0.
    pub buttons: u16,
    /// Where it is, or how far it has moved.
    pub motion: Motion,
}

/// A place on the screen or a movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    /// This pixel of a screen of this size.
    To {
        /// The pixel.
        at: (u32, u32),
        /// The screen's size.
        of: (u32, u32),
    },
    /// So far right and down.
    By(i32, i32),
}

/// Takes keys and the pointer. Called from the server's threads.
pub trait InputSink: Send + Sync {
    /// A key by its number in Linux's `input-event-codes.h`.
    fn key(&self, code: u16, down: bool);

    /// The pointer. `changed` has a bit set for each button that was not so before.
    fn pointer(&self, input: PointerInput, changed: u16);

    /// Whether places are wanted rather than movements.
    fn is_absolute(&self) -> bool;

    /// Lights of the keyboard: scroll, num, caps lock from bit 0.
    fn lights(&self) -> Option<u8>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_have_something_in_common_or_not() {
        let rect = |x, y, width, height| Rect { x, y, width, height };
        let check = |a: Rect, b: Rect, common| {
            assert_eq!((a.intersect(b), b.intersect(a)), (common, common), "{a:?} {b:?}");
        };
        check(rect(0, 0, 4, 4), rect(2, 3, 4, 4), Some(rect(2, 3, 2, 1)));
        check(rect(0, 0, 4, 4), rect(4, 0, 4, 4), None);
        check(rect(5, 5, u32::MAX, 1), rect(9, 0, 1, 9), Some(rect(9, 5, 1, 1)));
    }

    #[test]
    fn overlapping_rows_are_copied_whole() {
        let mut frame = Frame::new(1, 4);
        frame.pixels = vec![1, 2, 3, 4];
        frame.copy((0, 0), Rect { x: 0, y: 1, width: 1, height: 3 });
        assert_eq!(frame.pixels, [1, 1, 2, 3]);
        frame.copy((0, 1), Rect { x: 0, y: 0, width: 1, height: 3 });
        assert_eq!(frame.pixels, [1, 2, 3, 3]);
    }
}
