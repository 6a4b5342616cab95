//! What a display adapter shows, for whoever looks: a remote viewer, a screen dump.
//!
//! Pull, not push: a viewer asks for what has changed when it wants a picture, and an adapter
//! that nobody looks at does nothing. Each viewer has a [`Picture`] of its own.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Pixels of a screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// 0x00RRGGBB, row by row without gaps: `width * height` of them.
    pub pixels: Vec<u32>,
}

/// The most pixels that a side of a screen has.
pub const SIDE_MAX: u32 = 16384;

impl Picture {
    /// Makes it this large, black where that is new. True when it was not so before.
    pub fn resize(&mut self, width: u32, height: u32) -> bool {
        let (width, height) = (width.min(SIDE_MAX), height.min(SIDE_MAX));
        if (self.width, self.height) == (width, height) {
            return false;
        }
        (self.width, self.height) = (width, height);
        self.pixels.clear();
        self.pixels.resize(width as usize * height as usize, 0);
        true
    }

    /// One row of pixels.
    pub fn row_mut(&mut self, row: u32) -> &mut [u32] {
        let width = self.width as usize;
        &mut self.pixels[row as usize * width..][..width]
    }
}

/// A part of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    /// The left edge.
    pub x: u32,
    /// The upper edge.
    pub y: u32,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

/// A pointer's picture that the adapter draws over the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// The pixel of it that points.
    pub hot: (u32, u32),
    /// 0xAARRGGBB.
    pub pixels: Vec<u32>,
}

/// A display adapter's output.
///
/// Called from viewers' threads without locks; an adapter locks its own state.
pub trait Screen: Send + Sync {
    /// Brings `picture` up to date and says what has changed in it. `whole`: everything counts as
    /// changed. A picture of another size is made anew.
    fn refresh(&self, picture: &mut Picture, whole: bool) -> Vec<Rectangle>;

    /// A number that is another one after each change of what is shown; none where the adapter does
    /// not know. Taken before [`Screen::refresh`], it says whether the next look is of any use.
    fn stamp(&self) -> Option<u64> {
        None
    }

    /// The pointer's picture, where the adapter draws one, and where it is; none when hidden.
    fn cursor(&self) -> Option<(Arc<Cursor>, (i32, i32))> {
        None
    }

    /// Whether [`Screen::suggest_size`] can reach the guest.
    fn can_resize(&self) -> bool {
        false
    }

    /// The viewer would like this size. An adapter that can tell its guest does.
    fn suggest_size(&self, width: u32, height: u32) {
        _ = (width, height);
    }
}

/// All screens of a machine, in the order in which their adapters came.
#[derive(Default)]
pub struct Screens {
    all: Mutex<Vec<(String, Weak<dyn Screen>)>>,
}

impl Screens {
    /// Adds the screen of the device `id`.
    pub fn add(&self, id: &str, screen: Weak<dyn Screen>) {
        let mut all = self.all.lock();
        all.retain(|(_, screen)| screen.strong_count() > 0);
        all.push((id.to_owned(), screen));
    }

    /// Those that exist: the device's name and the screen.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Arc<dyn Screen>)> {
        let all = self.all.lock();
        all.iter().filter_map(|(id, screen)| Some((id.clone(), screen.upgrade()?))).collect()
    }
}
