//! Tight, with JPEG for clients that have asked for it.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::Tried;
use super::zlib::Inflater;
use crate::codec::{Bytes, PixelFormat, ProtocolError, bad};
use crate::surface::{Frame, Rect};

enum Filter {
    Pixels,
    Palette(Vec<u32>),
    Gradient,
}

pub fn decode(
    streams: &mut [Inflater; 4],
    bytes: &mut Bytes<'_>,
    frame: &mut Frame,
    rect: Rect,
    format: &PixelFormat,
) -> Tried {
    let control = bytes.u8()?;
    if control >> 4 == 8 {
        let colour = format.get_tight(bytes)?;
        reset(streams, control);
        frame.fill(rect, colour);
        return Some(Ok(()));
    }
    if control >> 4 == 9 {
        let length = length(bytes)?;
        let data = bytes.take(length)?;
        reset(streams, control);
        return Some(photograph(data, frame, rect));
    }
    if control >> 4 > 7 {
        return Some(Err(bad("kind of Tight rectangle")));
    }
    let filter = match if control & 0x40 != 0 { bytes.u8()? } else { 0 } {
        0 => Filter::Pixels,
        1 => {
            let count = usize::from(bytes.u8()?) + 1;
            let mut palette = Vec::with_capacity(count);
            for _ in 0..count {
                palette.push(format.get_tight(bytes)?);
            }
            Filter::Palette(palette)
        }
        2 if format.is_tight() => Filter::Gradient,
        _ => return Some(Err(bad("filter"))),
    };
    let width = rect.width as usize;
    let row_bytes = match &filter {
        Filter::Palette(palette) if palette.len() <= 2 => width.div_ceil(8),
        Filter::Palette(_) => width,
        Filter::Pixels | Filter::Gradient => width * format.tight_bytes(),
    };
    let size = row_bytes * rect.height as usize;
    if size < 12 {
        let data = bytes.take(size)?;
        reset(streams, control);
        return Some(paint(data, frame, rect, format, &filter));
    }
    let length = length(bytes)?;
    let compressed = bytes.take(length)?;
    reset(streams, control);
    let stream = &mut streams[usize::from(control >> 4 & 3)];
    Some(stream.inflate(compressed, size).and_then(|data| match data.len() == size {
        true => paint(&data, frame, rect, format, &filter),
        false => Err(bad("length of compressed data")),
    }))
}

/// A rectangle that is a whole JPEG file, of just its size.
fn photograph(data: &[u8], frame: &mut Frame, rect: Rect) -> Result<(), ProtocolError> {
    let (width, height) = (rect.width as usize, rect.height as usize);
    let options = DecoderOptions::default()
        .set_max_width(width)
        .set_max_height(height)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(data), options);
    let pixels = decoder.decode().map_err(|_| bad("JPEG"))?;
    if decoder.dimensions() != Some((width, height)) || pixels.len() != width * height * 3 {
        return Err(bad("size of a JPEG"));
    }
    for (row, bytes) in (0..rect.height).zip(pixels.chunks_exact(width * 3)) {
        for (pixel, rgb) in frame.row_mut(rect, row).iter_mut().zip(bytes.chunks_exact(3)) {
            *pixel = u32::from(rgb[0]) << 16 | u32::from(rgb[1]) << 8 | u32::from(rgb[2]);
        }
    }
    Ok(())
}

fn reset(streams: &mut [Inflater; 4], control: u8) {
    for (number, stream) in streams.iter_mut().enumerate() {
        if control >> number & 1 != 0 {
            *stream = Inflater::default();
        }
    }
}

fn length(bytes: &mut Bytes<'_>) -> Option<usize> {
    let mut length = 0;
    for shift in [0, 7] {
        let byte = usize::from(bytes.u8()?);
        length |= (byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(length);
        }
    }
    Some(length | usize::from(bytes.u8()?) << 14)
}

/// `data` is as long as the filter and the rectangle say.
fn paint(
    data: &[u8],
    frame: &mut Frame,
    rect: Rect,
    format: &PixelFormat,
    filter: &Filter,
) -> Result<(), ProtocolError> {
    let short = || bad("length of pixels");
    match filter {
        Filter::Pixels => {
            let mut bytes = Bytes::new(data);
            for row in 0..rect.height {
                for pixel in frame.row_mut(rect, row) {
                    *pixel = format.get_tight(&mut bytes).ok_or_else(short)?;
                }
            }
        }
        Filter::Palette(palette) => {
            let bits = if palette.len() <= 2 { 1 } else { 8 };
            let row_bytes = (rect.width as usize * bits).div_ceil(8);
            for (row, data) in (0..rect.height).zip(data.chunks(row_bytes.max(1))) {
                for (x, pixel) in frame.row_mut(rect, row).iter_mut().enumerate() {
                    let index = if bits == 8 { data[x] } else { data[x / 8] >> (7 - x % 8) & 1 };
                    let colour = palette.get(usize::from(index));
                    *pixel = *colour.ok_or_else(|| bad("colour's number"))?;
                }
            }
        }
        Filter::Gradient => gradient(data, frame, rect),
    }
    Ok(())
}

/// Each colour is what its neighbours to the left and above let expect, and a difference.
fn gradient(data: &[u8], frame: &mut Frame, rect: Rect) {
    let part = |pixel: u32, at: usize| (pixel >> (16 - 8 * at) & 0xff) as i32;
    let mut above = vec![0_u32; rect.width as usize];
    let mut bytes = data.iter();
    for row in 0..rect.height {
        let (mut left, mut corner) = (0, 0);
        for (x, pixel) in frame.row_mut(rect, row).iter_mut().enumerate() {
            let mut value = 0;
            for at in 0..3 {
                let sum = part(left, at) + part(above[x], at) - part(corner, at);
                let difference = bytes.next().copied().unwrap_or(0);
                let byte = (sum.clamp(0, 255) as u8).wrapping_add(difference);
                value = value << 8 | u32::from(byte);
            }
            corner = above[x];
            (above[x], left, *pixel) = (value, value, value);
        }
    }
}
