//! Pictures of screens as files: PPM and PNG.

use std::fs::File;
use std::io::{self, Write};

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use machine::Picture;

/// How a picture is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Netpbm's raw pixels.
    Ppm,
    /// Portable Network Graphics (RFC 2083).
    Png,
}

/// Writes a picture into a file.
pub fn save(picture: &Picture, format: Format, path: &str) -> io::Result<()> {
    let bytes = match format {
        Format::Ppm => ppm(picture),
        Format::Png => png(picture)?,
    };
    File::create(path)?.write_all(&bytes)
}

fn colours(pixels: &[u32]) -> impl Iterator<Item = u8> + '_ {
    pixels.iter().flat_map(|pixel| [(pixel >> 16) as u8, (pixel >> 8) as u8, *pixel as u8])
}

fn ppm(picture: &Picture) -> Vec<u8> {
    let mut bytes = format!("P6\n{} {}\n255\n", picture.width, picture.height).into_bytes();
    bytes.extend(colours(&picture.pixels));
    bytes
}

fn png(picture: &Picture) -> io::Result<Vec<u8>> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut head = Vec::new();
    head.extend(picture.width.to_be_bytes());
    head.extend(picture.height.to_be_bytes());
    head.extend([8, 2, 0, 0, 0]); // 8 bits of red, green and blue, not interlaced
    chunk(*b"IHDR", &head, &mut bytes);
    let mut data = ZlibEncoder::new(Vec::new(), Compression::fast());
    for row in picture.pixels.chunks(picture.width.max(1) as usize) {
        let mut line = vec![0]; // no filter
        line.extend(colours(row));
        data.write_all(&line)?;
    }
    chunk(*b"IDAT", &data.finish()?, &mut bytes);
    chunk(*b"IEND", &[], &mut bytes);
    Ok(bytes)
}

fn chunk(kind: [u8; 4], data: &[u8], bytes: &mut Vec<u8>) {
    let mut sum = Crc::new();
    sum.update(&kind);
    sum.update(data);
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(kind);
    bytes.extend(data);
    bytes.extend(sum.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_have_their_pixels() {
        let picture = Picture { width: 2, height: 1, pixels: vec![0x010203, 0xfffefd] };
        assert_eq!(ppm(&picture), b"P6\n2 1\n255\n\x01\x02\x03\xff\xfe\xfd");
        let png = png(&picture).unwrap();
        // The checksum of an empty IEND is in every PNG file.
        assert!(png.ends_with(b"\0\0\0\0IEND\xae\x42\x60\x82"));
        let start = png.windows(4).position(|kind| kind == b"IDAT").unwrap() + 4;
        let mut data = flate2::read::ZlibDecoder::new(&png[start..]);
        let mut rows = Vec::new();
        io::Read::read_to_end(&mut data, &mut rows).unwrap();
        assert_eq!(rows, [0, 1, 2, 3, 255, 254, 253]);
    }
}
