//! What the server encodes the client decodes to the same pixels.

use super::*;
use crate::encode::{self, Encoder};

/// A small generator of numbers that look random and are the same in each run.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self, below: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) % u64::from(below.max(1))) as u32
    }

    fn rect(&mut self, width: u32, height: u32) -> Rect {
        let (x, y) = (self.next(width), self.next(height));
        Rect { x, y, width: 1 + self.next(width - x), height: 1 + self.next(height - y) }
    }
}

/// A picture of so many colours: rectangles, or noise.
fn picture(numbers: &mut Numbers, width: u32, height: u32, colours: u32, noise: bool) -> Frame {
    let mut frame = Frame::new(width, height);
    let palette: Vec<u32> = (0..colours).map(|_| numbers.next(1 << 24)).collect();
    let colour = |numbers: &mut Numbers| palette[numbers.next(colours) as usize];
    for pixel in frame.pixels.iter_mut().filter(|_| noise) {
        *pixel = colour(numbers);
    }
    for _ in 0..if noise { 0 } else { 40 } {
        let rect = numbers.rect(width, height);
        let colour = colour(numbers);
        frame.fill(rect, colour);
    }
    frame
}

const FORMATS: [PixelFormat; 5] = [
    PixelFormat::NATIVE,
    PixelFormat { big_endian: true, ..PixelFormat::NATIVE },
    PixelFormat { shift: [8, 16, 24], ..PixelFormat::NATIVE },
    PixelFormat {
        bits: 16,
        depth: 16,
        max: [31, 63, 31],
        shift: [11, 5, 0],
        ..PixelFormat::NATIVE
    },
    PixelFormat { true_colour: true, ..PixelFormat::PALETTE },
];

fn check(encoding: i32, format: &PixelFormat, seed: u64) {
    let mut numbers = Numbers(seed);
    let (width, height) = (1 + numbers.next(300), 1 + numbers.next(200));
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let mut seen = Frame::new(width, height);
    for colours in [1, 2, 3, 4, 5, 16, 17, 100, 127, 128, 200, 256, 257, 5000] {
        let noise = numbers.next(2) == 0;
        let mut sent = picture(&mut numbers, width, height, colours, noise);
        // What the format cannot say is not asked for.
        sent.pixels.iter_mut().for_each(|pixel| *pixel = format.restore(format.convert(*pixel)));
        let rect = numbers.rect(width, height);
        let mut parts = Vec::new();
        encode::split(rect, encoding, &mut parts);
        for part in parts {
            let mut bytes = Vec::new();
            encoder.encode(&sent, part, encoding, format, &mut bytes);
            let mut reader = Bytes::new(&bytes);
            reader.take(12).unwrap();
            let about = format!("encoding {encoding}, {format:?}, seed {seed}, {colours} colours");
            let decoded = decoder.decode(&mut reader, &mut seen, part, encoding, format);
            assert_eq!(decoded, Some(Ok(())), "{about}");
            assert_eq!(reader.taken(), bytes.len(), "{about}");
            for row in 0..part.height {
                assert_eq!(seen.row(part, row), sent.row(part, row), "{about}");
            }
        }
    }
}

#[test]
fn every_encoding_brings_the_same_pixels() {
    for encoding in
        [encoding::RAW, encoding::HEXTILE, encoding::ZLIB, encoding::TIGHT, encoding::ZRLE]
    {
        for format in &FORMATS {
            (1..5).for_each(|seed| check(encoding, format, seed * 0x9e37_79b9));
        }
    }
}

#[test]
fn large_rectangles_are_split_and_cover_all() {
    for (encoding, width, height) in
        [(encoding::TIGHT, 5000, 300), (encoding::RAW, 5000, 3000), (encoding::ZRLE, 3, 16000)]
    {
        let mut parts = Vec::new();
        encode::split(Rect { x: 1, y: 2, width, height }, encoding, &mut parts);
        let all: usize = parts.iter().map(|part| part.pixels()).sum();
        assert_eq!(all, width as usize * height as usize);
        assert!(parts.iter().all(|part| encoding != encoding::TIGHT || part.width <= 2048));
        assert!(parts.iter().all(|part| part.pixels() <= 1 << 19), "{parts:?}");
    }
}

#[test]
fn pointers_keep_their_shape() {
    let pixels = (0..9 * 3).map(|at| if at % 4 == 0 { 0 } else { 0xff00_0000 | (at * 77) });
    let pointer = Pointer { width: 9, height: 3, hot: (2, 1), pixels: pixels.collect() };
    let rect = Rect { x: 2, y: 1, width: 9, height: 3 };
    let (mut plain, mut alpha) = (Vec::new(), Vec::new());
    encode::cursor(&pointer, &PixelFormat::NATIVE, &mut plain);
    encode::cursor_alpha(&pointer, &mut alpha);
    let decoded = cursor(&mut Bytes::new(&plain[12..]), rect, &PixelFormat::NATIVE);
    assert_eq!(decoded, Some(pointer.clone()));
    assert_eq!(cursor_alpha(&mut Bytes::new(&alpha[12..]), rect), Some(Ok(pointer)));
}

/// A gradient that is written by hand: only other servers send it.
#[test]
fn gradients_add_to_what_is_expected() {
    let rect = Rect { x: 0, y: 0, width: 2, height: 1 };
    let mut bytes = vec![0x40, 2];
    bytes.extend([10, 20, 30, 1, 1, 255]);
    let mut frame = Frame::new(2, 1);
    let mut reader = Bytes::new(&bytes);
    let mut decoder = Decoder::default();
    let done = decoder.decode(&mut reader, &mut frame, rect, encoding::TIGHT, &PixelFormat::NATIVE);
    assert_eq!((done, frame.pixels), (Some(Ok(())), vec![0x0a141e, 0x0b151d]));
}

/// Noise and damaged rectangles: whatever comes, nothing but an error does.
#[test]
fn damaged_rectangles_do_no_harm() {
    let mut numbers = Numbers(0x1234_5678_9abc);
    for round in 0..600 {
        let encoding = KNOWN[round % KNOWN.len()];
        let format = &FORMATS[round % FORMATS.len()];
        let sent = picture(&mut numbers, 90, 70, 2 + round as u32 % 40, round % 3 == 0);
        let mut bytes = Vec::new();
        match encoding {
            encoding::COPY_RECT => bytes.extend((0..16).map(|_| numbers.next(256) as u8)),
            _ => Encoder::default().encode(&sent, sent.area(), encoding, format, &mut bytes),
        }
        for _ in 0..1 + numbers.next(8) {
            let at = 12 + numbers.next(bytes.len() as u32 - 12) as usize;
            bytes[at] = numbers.next(256) as u8;
        }
        let count = bytes.len() - numbers.next(3) as usize;
        let mut frame = Frame::new(90, 70);
        let rect = frame.area();
        let mut reader = Bytes::new(&bytes[12..count]);
        _ = Decoder::default().decode(&mut reader, &mut frame, rect, encoding, format);
        assert_eq!(frame.pixels.len(), 90 * 70);
    }
}

/// A picture without edges, as a photograph of the sky.
fn sky(width: u32, height: u32) -> Frame {
    let mut frame = Frame::new(width, height);
    for (at, pixel) in (0..).zip(frame.pixels.iter_mut()) {
        let (x, y) = (at % width, at / width);
        let wave = |value: u32, of: u32| (value * 255 / of.max(1)) & 0xff;
        *pixel = wave(x, width) << 16 | wave(y, height) << 8 | (128 + (x * y) % 5);
    }
    frame
}

#[test]
fn photographs_are_small_and_look_the_same_only_if_asked_for() {
    let rect = Rect { x: 3, y: 5, width: 201, height: 117 };
    let sent = sky(240, 160);
    let mut sizes = Vec::new();
    for (level, most) in [(None, 0), (Some(9), 8), (Some(5), 16), (Some(0), 60)] {
        let mut encoder = Encoder::default();
        encoder.set_quality(level);
        let mut bytes = Vec::new();
        encoder.encode(&sent, rect, encoding::TIGHT, &PixelFormat::NATIVE, &mut bytes);
        let mut seen = Frame::new(240, 160);
        let mut reader = Bytes::new(&bytes[12..]);
        let mut decoder = Decoder::default();
        let (number, format) = (encoding::TIGHT, &PixelFormat::NATIVE);
        let done = decoder.decode(&mut reader, &mut seen, rect, number, format);
        assert_eq!(done, Some(Ok(())), "{level:?}");
        assert_eq!(reader.taken() + 12, bytes.len());
        let mut worst = 0;
        for row in 0..rect.height {
            for (one, other) in sent.row(rect, row).iter().zip(seen.row(rect, row)) {
                for shift in [0, 8, 16] {
                    worst = worst.max((one >> shift & 0xff).abs_diff(other >> shift & 0xff));
                }
            }
        }
        assert!(worst <= most, "level {level:?}: {worst} off");
        sizes.push(bytes.len());
    }
    assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2] && sizes[2] > sizes[3], "{sizes:?}");
}

#[test]
fn what_has_edges_is_never_a_photograph() {
    let mut numbers = Numbers(99);
    let mut encoder = Encoder::default();
    encoder.set_quality(Some(0));
    for colours in [2, 16, 300, 5000] {
        let sent = picture(&mut numbers, 200, 100, colours, true);
        let mut bytes = Vec::new();
        encoder.encode(&sent, sent.area(), encoding::TIGHT, &PixelFormat::NATIVE, &mut bytes);
        assert_ne!(bytes[12] >> 4, 9, "{colours} colours of noise");
    }
}
