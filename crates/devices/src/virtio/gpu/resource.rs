//! A picture that the driver has made: pixels of ours, and guest memory that they come from.

use device::Rectangle;
use memory::FlatView;

/// The order of the colours in a pixel's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Format {
    /// Which byte is blue, green, red, and alpha if there is alpha.
    places: [u8; 3],
    alpha: Option<u8>,
}

device::saved!(Format {
    places,
    alpha,
} check |format: &Format| {
    format.places.iter().all(|place| *place < 4) && format.alpha.is_none_or(|place| place < 4)
});

impl Format {
    /// By its number (5.7.6.8).
    pub fn new(number: u32) -> Option<Self> {
        let (places, alpha) = match number {
            1 => ([0, 1, 2], Some(3)),   // B8G8R8A8
            2 => ([0, 1, 2], None),      // B8G8R8X8
            3 => ([3, 2, 1], Some(0)),   // A8R8G8B8
            4 => ([3, 2, 1], None),      // X8R8G8B8
            67 => ([2, 1, 0], Some(3)),  // R8G8B8A8
            68 => ([1, 2, 3], None),     // X8B8G8R8
            121 => ([1, 2, 3], Some(0)), // A8B8G8R8
            134 => ([2, 1, 0], None),    // R8G8B8X8
            _ => return None,
        };
        Some(Self { places, alpha })
    }

    /// 0xAARRGGBB.
    fn pixel(self, bytes: [u8; 4]) -> u32 {
        let [blue, green, red] = self.places.map(|place| bytes[usize::from(place & 3)]);
        let alpha = self.alpha.map_or(0xff, |place| bytes[usize::from(place & 3)]);
        u32::from_le_bytes([blue, green, red, alpha])
    }
}

/// A piece of guest memory, and where it begins in the picture's bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Backing {
    from: u64,
    address: u64,
    bytes: u32,
}

device::saved!(Backing { from, address, bytes });

/// A picture.
#[derive(Default)]
pub(super) struct Resource {
    pub width: u32,
    pub height: u32,
    format: Format,
    /// 0xAARRGGBB, row by row.
    pub pixels: Vec<u32>,
    backing: Vec<Backing>,
}

device::saved!(Resource {
    width,
    height,
    format,
    pixels,
    backing,
} check |resource: &Resource| {
    let sides = 1..=device::SIDE_MAX;
    sides.contains(&resource.width)
        && sides.contains(&resource.height)
        && resource.pixels.len() as u64
            == u64::from(resource.width) * u64::from(resource.height)
});

impl Resource {
    pub fn new(width: u32, height: u32, format: Format) -> Self {
        let pixels = vec![0; width as usize * height as usize];
        Self { width, height, format, pixels, backing: Vec::new() }
    }

    /// Bytes that it takes here.
    pub fn bytes(&self) -> u64 {
        self.pixels.len() as u64 * 4
    }

    pub fn is_backed(&self) -> bool {
        !self.backing.is_empty()
    }

    /// Says where its guest memory is.
    pub fn attach(&mut self, entries: impl Iterator<Item = (u64, u32)>) {
        let mut from = 0;
        self.backing = entries
            .map(|(address, bytes)| {
                let entry = Backing { from, address, bytes };
                from += u64::from(bytes);
                entry
            })
            .collect();
    }

    pub fn detach(&mut self) {
        self.backing.clear();
    }

    /// Whether all of a part lies in the picture.
    pub fn holds(&self, part: &Rectangle) -> bool {
        let inside = |start: u32, length: u32, all: u32| {
            start.checked_add(length).is_some_and(|end| end <= all)
        };
        inside(part.x, part.width, self.width) && inside(part.y, part.height, self.height)
    }

    /// Copies a part, whose first pixel lies at `offset`, from guest memory. False when that is
    /// not where the driver said it was.
    pub fn transfer(&mut self, part: &Rectangle, offset: u64, memory: &FlatView) -> bool {
        debug_assert!(self.holds(part), "the caller has looked");
        let mut row = vec![0; part.width as usize * 4];
        for y in 0..part.height {
            let stride = u64::from(self.width) * 4;
            let Some(from) = offset.checked_add(u64::from(y) * stride) else { return false };
            if !self.read(from, &mut row, memory) {
                return false;
            }
            let at = (part.y + y) as usize * self.width as usize + part.x as usize;
            let pixels = &mut self.pixels[at..at + part.width as usize];
            for (pixel, bytes) in pixels.iter_mut().zip(row.as_chunks::<4>().0) {
                *pixel = self.format.pixel(*bytes);
            }
        }
        true
    }

    /// Reads bytes of the backing.
    fn read(&self, from: u64, into: &mut [u8], memory: &FlatView) -> bool {
        let mut done = 0;
        while done < into.len() {
            let here = from + done as u64;
            let at = self.backing.partition_point(|entry| entry.from <= here);
            let Some(entry) = at.checked_sub(1).and_then(|at| self.backing.get(at)) else {
                return false;
            };
            let within = here - entry.from;
            let left = u64::from(entry.bytes).saturating_sub(within);
            let step = left.min((into.len() - done) as u64) as usize;
            let Some(address) = entry.address.checked_add(within) else { return false };
            if step == 0 || !memory.read_memory(address, &mut into[done..done + step]) {
                return false;
            }
            done += step;
        }
        true
    }
}
