//! `images`.

use serde_json::Map;

use crate::arguments::Images;
use crate::failure::Failure;
use crate::output::List;

/// What can be launched, and what it is.
const IMAGES: &[(&str, &str, &str)] =
    &[("spark", "Debian's kernel and busybox: a shell in seconds", "built here from packages")];

/// `hostel images`.
pub fn run(what: &Images) -> Result<u8, Failure> {
    let row = |(name, description, source): &(&str, &str, &str)| {
        let mut row = Map::new();
        row.insert("name".into(), (*name).into());
        row.insert("description".into(), (*description).into());
        row.insert("source".into(), (*source).into());
        row
    };
    let columns = &[("Image", "name"), ("Description", "description"), ("Source", "source")];
    List { name: "images", columns, rows: IMAGES.iter().map(row).collect(), empty: "" }
        .print(what.format)?;
    Ok(0)
}
