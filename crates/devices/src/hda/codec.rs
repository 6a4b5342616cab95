//! A codec: a tree of widgets that answers orders (chapter 7).

use device::saved;

/// What a codec has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A line out.
    Output,
    /// A line out and a line in.
    Duplex,
    /// A speaker and a microphone.
    Micro,
}

/// What a converter is set to.
#[derive(Clone, Debug, Default)]
pub struct Converter {
    /// The stream's tag in the upper half, the first of its channels in the lower.
    pub stream: u8,
    pub format: u16,
    /// Muted by bit 7; left, right.
    gains: [u8; 2],
}

saved!(Converter { stream, format, gains });

/// The registers of all widgets.
#[derive(Clone, Debug)]
pub struct Codec {
    kind: Kind,
    has_mixer: bool,
    /// The one that plays, and the one that records.
    converters: [Converter; 2],
    /// Pins' switches, likewise.
    pins: [u8; 2],
    power: u8,
}

saved!(Codec { converters, pins, power });

/// Nodes, by number.
const ROOT: u8 = 0;
const GROUP: u8 = 1;
const PLAYER: u8 = 2;
const OUTPUT_PIN: u8 = 3;
const RECORDER: u8 = 4;
const INPUT_PIN: u8 = 5;

/// The gain at which nothing is changed; each step is a decibel.
const GAIN_STEPS: u8 = 0x4a;
const MUTED: u8 = 0x80;
/// 16 bits at 16 to 96 kHz.
const PCM: u32 = 0x0002_01fc;
const PIN_OUT: u8 = 0x40;
const PIN_IN: u8 = 0x20;
/// A vendor's number that is not on any board, for codecs that exist in emulators only.
const VENDOR: u32 = 0x1af4;

impl Codec {
    pub fn new(kind: Kind, has_mixer: bool) -> Self {
        let mut codec =
            Self { kind, has_mixer, converters: Default::default(), pins: [0; 2], power: 0 };
        codec.reset();
        codec
    }

    pub fn reset(&mut self) {
        let converter = Converter { stream: 0, format: 0, gains: [GAIN_STEPS; 2] };
        self.converters = [converter.clone(), converter];
        self.pins = [PIN_OUT, PIN_IN];
        self.power = 0;
    }

    /// The converter that plays.
    pub fn player(&self) -> &Converter {
        &self.converters[0]
    }

    fn identity(&self) -> u32 {
        let kind = match self.kind {
            Kind::Output => 0x10,
            Kind::Duplex => 0x20,
            Kind::Micro => 0x30,
        };
        VENDOR << 16 | kind | if self.has_mixer { 2 } else { 1 }
    }

    fn nodes(&self) -> u32 {
        if self.kind == Kind::Output { 2 } else { 4 }
    }

    /// Which of the two sides a node is on, if there is such a node.
    fn side(&self, node: u8) -> Option<usize> {
        match node {
            PLAYER | OUTPUT_PIN => Some(0),
            RECORDER | INPUT_PIN if self.kind != Kind::Output => Some(1),
            _ => None,
        }
    }

    /// Answers an order: a node's number, then four or twelve bits of verb and the rest.
    pub fn answer(&mut self, order: u32) -> u32 {
        let node = (order >> 20 & 0x7f) as u8;
        let (verb, long) = ((order >> 8 & 0xfff) as u16, (order & 0xffff) as u16);
        let short = (order & 0xff) as u8;
        let is_pin = matches!(node, OUTPUT_PIN | INPUT_PIN);
        let side = self.side(node);
        match (verb, side) {
            (0xf00, _) => self.parameter(node, short),
            (0xf02, Some(side)) if short == 0 => match node {
                OUTPUT_PIN => PLAYER.into(),
                RECORDER => INPUT_PIN.into(),
                _ => u32::from(side > 1),
            },
            (0xf05, _) => u32::from(self.power) << 4 | u32::from(self.power),
            (0x705, _) => {
                self.power = short & 3;
                0
            }
            (0xf06, Some(side)) if !is_pin => self.converters[side].stream.into(),
            (0x706, Some(side)) if !is_pin => {
                self.converters[side].stream = short;
                0
            }
            (0xf07, Some(side)) if is_pin => self.pins[side].into(),
            (0x707, Some(side)) if is_pin => {
                self.pins[side] = short;
                0
            }
            (0xf09, Some(_)) if is_pin => 1 << 31, // something is plugged in
            (0xf1c, Some(side)) if is_pin => self.default_configuration(side),
            (0xf20, _) if node == GROUP => self.identity(),
            (0x7ff, _) if node == GROUP => {
                self.reset();
                0
            }
            _ => match (verb >> 8, side) {
                (0x2, Some(side)) if !is_pin => {
                    self.converters[side].format = long;
                    0
                }
                (0xa, Some(side)) if !is_pin => self.converters[side].format.into(),
                (0x3, Some(side)) if !is_pin && self.has_mixer => {
                    self.set_gain(side, long);
                    0
                }
                (0xb, Some(side)) if !is_pin => {
                    let gains = self.converters[side].gains;
                    gains[usize::from(long & 1 << 13 == 0)].into()
                }
                _ => 0,
            },
        }
    }

    fn set_gain(&mut self, side: usize, order: u16) {
        // Bit 15 sets what goes out, bit 14 what comes in.
        let direction = if side == 0 { 1 << 15 } else { 1 << 14 };
        if order & direction == 0 {
            return;
        }
        let gain = (order & 0x7f).min(GAIN_STEPS.into()) as u8 | (order & 0x80) as u8;
        for (index, bit) in [13, 12].into_iter().enumerate() {
            if order & 1 << bit != 0 {
                self.converters[side].gains[index] = gain;
            }
        }
    }

    /// Parameters (section 7.3.4).
    fn parameter(&self, node: u8, number: u8) -> u32 {
        let identity = self.identity();
        let amplifier = if self.has_mixer {
            1 << 31 | 3 << 16 | u32::from(GAIN_STEPS) << 8 | u32::from(GAIN_STEPS)
        } else {
            0
        };
        // An amplifier of its own on the side of the converter, and stereo.
        let with_amplifier = |bit: u32| if self.has_mixer { 1 << 3 | bit } else { 0 };
        match (node, number) {
            (ROOT, 0x00) | (GROUP, 0x01) => identity,
            (ROOT, 0x02) => 0x0010_0101,
            (ROOT, 0x04) => 1 << 16 | 1,
            (GROUP, 0x04) => 2 << 16 | self.nodes(),
            (GROUP, 0x05) => 1,
            (GROUP | PLAYER | RECORDER, 0x0a) => PCM,
            (GROUP | PLAYER | RECORDER, 0x0b) => 1,
            (PLAYER, 0x09) => 1 << 4 | with_amplifier(1 << 2) | 1,
            (PLAYER, 0x12) => amplifier,
            (OUTPUT_PIN, 0x09) => 4 << 20 | 1 << 8 | 1,
            (OUTPUT_PIN, 0x0c) => 1 << 4,
            (OUTPUT_PIN | RECORDER, 0x0e) => 1,
            _ if self.kind == Kind::Output => 0,
            (RECORDER, 0x09) => 1 << 20 | 1 << 8 | 1 << 4 | with_amplifier(1 << 1) | 1,
            (RECORDER, 0x0d) => amplifier,
            (INPUT_PIN, 0x09) => 4 << 20 | 1,
            (INPUT_PIN, 0x0c) => 1 << 5,
            _ => 0,
        }
    }

    /// What is behind a pin (section 7.3.3.31).
    fn default_configuration(&self, side: usize) -> u32 {
        const GREEN: u32 = 4 << 12;
        const RED: u32 = 5 << 12;
        const UNKNOWN: u32 = 0 << 16;
        let (what, colour, place) = match (self.kind, side) {
            (Kind::Micro, 0) => (1, UNKNOWN, 0x10),
            (Kind::Micro, _) => (0xa, RED, 0x20),
            (_, 0) => (0, GREEN, 0x10),
            (_, _) => (8, RED, 0x20),
        };
        what << 20 | colour | place
    }

    /// Makes frames as loud as they are to be.
    pub fn amplify(&self, frames: &mut [[i16; 2]]) {
        for (side, gain) in self.converters[0].gains.into_iter().enumerate() {
            match gain {
                _ if !self.has_mixer => {}
                GAIN_STEPS => {}
                _ if gain & MUTED != 0 => frames.iter_mut().for_each(|frame| frame[side] = 0),
                _ => {
                    let below = f32::from(GAIN_STEPS) - f32::from(gain.min(GAIN_STEPS));
                    // In parts of 65,536.
                    let factor = (65_536.0 * 10_f32.powf(-below / 20.0)).round() as i32;
                    for frame in frames.iter_mut() {
                        frame[side] = ((i32::from(frame[side]) * factor) >> 16) as i16;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(node: u8, verb: u16, value: u8) -> u32 {
        u32::from(node) << 20 | u32::from(verb) << 8 | u32::from(value)
    }

    #[test]
    fn the_tree_can_be_walked() {
        for (kind, nodes) in [(Kind::Output, 2), (Kind::Duplex, 4), (Kind::Micro, 4)] {
            let mut codec = Codec::new(kind, true);
            assert_eq!(codec.answer(order(0, 0xf00, 4)), 1 << 16 | 1);
            assert_eq!(codec.answer(order(1, 0xf00, 5)), 1, "an audio group");
            assert_eq!(codec.answer(order(1, 0xf00, 4)), 2 << 16 | nodes);
            assert_eq!(codec.answer(order(3, 0xf02, 0)), 2, "the pin hears the converter");
            let recorder = codec.answer(order(4, 0xf00, 9));
            assert_eq!(recorder != 0, kind != Kind::Output);
        }
    }

    #[test]
    fn converters_keep_what_they_are_told() {
        let mut codec = Codec::new(Kind::Duplex, true);
        codec.answer(order(2, 0x706, 0x50));
        codec.answer(2 << 20 | 0x2_4011);
        assert_eq!((codec.player().stream, codec.player().format), (0x50, 0x4011));
        assert_eq!(codec.answer(order(2, 0xa00, 0)), 0x4011);
        codec.answer(2 << 20 | 0x3_a000 | 0x80); // the left side falls silent
        let mut frames = [[1000, 1000], [-7, -7]];
        codec.amplify(&mut frames);
        assert_eq!(frames, [[0, 1000], [0, -7]]);
        codec.answer(2 << 20 | 0x3_b000 | (0x4a - 20)); // a tenth
        let mut frames = [[1000, -1000]];
        codec.amplify(&mut frames);
        assert_eq!(frames, [[100, -101]]);
        codec.answer(order(1, 0x7ff, 0));
        assert_eq!(codec.player().stream, 0);
    }

    #[test]
    fn no_order_is_too_strange() {
        let mut codec = Codec::new(Kind::Micro, false);
        let mut seed = 1_u32;
        for _ in 0..200_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            codec.answer(seed ^ seed >> 13);
            codec.amplify(&mut [[i16::MIN, i16::MAX]]);
        }
    }
}
