//! What an image says about itself.

use serde_json::{Map, Value, json};

use super::Qcow2;
use super::header::{Compression, LAZY_REFCOUNTS, incompatible};
use crate::bitmaps::Bitmaps;
use crate::info::{ImageInfo, Specific};

pub(super) fn describe(image: &Qcow2) -> ImageInfo {
    let bitmaps = image.list();
    let state = image.state.lock();
    let header = &state.meta.header;
    let mut data = Map::new();
    let v3 = header.version >= 3;
    data.insert("compat".into(), Value::from(if v3 { "1.1" } else { "0.10" }));
    let compression = match header.compression {
        Compression::Zlib => "zlib",
        Compression::Zstd => "zstd",
    };
    data.insert("compression-type".into(), Value::from(compression));
    if v3 {
        data.insert("lazy-refcounts".into(), Value::from(header.compatible & LAZY_REFCOUNTS != 0));
    }
    data.insert("refcount-bits".into(), Value::from(1u64 << header.refcount_order));
    if let Some(crypt) = &image.crypt {
        data.insert("encrypt".into(), Value::Object(crypt.describe()));
    }
    if v3 {
        let corrupt = header.incompatible & incompatible::CORRUPT != 0;
        data.insert("corrupt".into(), Value::from(corrupt));
        data.insert("extended-l2".into(), Value::from(image.geometry.extended()));
        if !bitmaps.is_empty() {
            let list = bitmaps.iter().map(|bitmap| {
                let mut flags = Vec::new();
                if bitmap.in_use {
                    flags.push("in-use");
                }
                if bitmap.auto {
                    flags.push("auto");
                }
                json!({"flags": flags, "name": bitmap.name, "granularity": bitmap.granularity})
            });
            data.insert("bitmaps".into(), Value::Array(list.collect()));
        }
        if header.has_data_file() {
            if let Some(name) = &header.data_file {
                data.insert("data-file".into(), Value::from(name.clone()));
            }
            data.insert("data-file-raw".into(), Value::from(header.data_file_raw()));
        }
    }
    ImageInfo {
        dirty: header.incompatible & incompatible::DIRTY != 0,
        encrypted: header.crypt_method != 0,
        backing_file: header.backing_file.clone(),
        backing_format: header.backing_format.clone(),
        compressed: false,
        specific: Some(Specific { kind: "qcow2", data }),
    }
}
