//! The colours of a rectangle and their numbers.

/// Slots of the table, a power of two well above the most colours.
const SLOTS: usize = 1024;
const FREE: u16 = u16::MAX;

/// Colours in the order in which they came.
pub struct Palette {
    colours: Vec<u32>,
    slots: Box<[u16; SLOTS]>,
    most: usize,
}

impl Palette {
    /// An empty one that takes up to `most`, at most 256.
    pub fn new(most: usize) -> Self {
        Self { colours: Vec::new(), slots: Box::new([FREE; SLOTS]), most: most.min(256) }
    }

    /// Adds a colour that may be in already. False when there is no room.
    pub fn add(&mut self, colour: u32) -> bool {
        let slot = self.slot(colour);
        if self.slots[slot] == FREE {
            if self.colours.len() == self.most {
                return false;
            }
            self.slots[slot] = self.colours.len() as u16;
            self.colours.push(colour);
        }
        true
    }

    /// All of them.
    pub fn colours(&self) -> &[u32] {
        &self.colours
    }

    /// A colour's number. It is one of them.
    pub fn index(&self, colour: u32) -> u8 {
        (self.slots[self.slot(colour)] & 0xff) as u8
    }

    fn slot(&self, colour: u32) -> usize {
        let mut slot = (colour.wrapping_mul(0x9e37_79b1) >> 22) as usize;
        loop {
            match self.slots[slot] {
                FREE => return slot,
                number if self.colours[usize::from(number)] == colour => return slot,
                _ => slot = (slot + 1) % SLOTS,
            }
        }
    }
}
