//! `images`, `image` and `find`: what can be launched, and what is here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use guests::cache::Cache;
use guests::library::{Image, Library};
use guests::simplestreams::{Filter, Product, chosen};
use guests::{Progress, catalogue, debian_image, spark};
use serde_json::{Map, Value, json};

use crate::arguments::{self, Find, Images, Import, Pull, Remove, Sync};
use crate::daemon::Connection;
use crate::failure::{Failure, USAGE};
use crate::output::List;
use crate::progress::Line;
use crate::verbs::launch::image::{by_address, by_name, source};
use crate::verbs::launch::workshop::Workshop;

/// What can always be launched, and what it is.
const BUILT_HERE: &[(&str, &str)] = &[
    ("spark", "Debian's kernel and busybox: a shell in seconds"),
    ("debian-12", "Debian 12 with systemd and cloud-init; building it takes minutes, once"),
    ("debian-13", "Debian 13, the same way"),
];

/// `hostel image`.
pub fn run(what: &arguments::Image) -> Result<u8, Failure> {
    match what {
        arguments::Image::Pull(what) => pull(what),
        arguments::Image::List(what) => local(what.format),
        arguments::Image::Remove(what) => remove(what),
        arguments::Image::Build(what) => build(what),
        arguments::Image::Import(what) => import(what),
        arguments::Image::Sync(what) => sync(what),
    }
}

fn library() -> Library {
    Library::of_cache(&Cache::of_user())
}

fn row(image: &Image) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("name".into(), image.name.clone().into());
    row.insert("aliases".into(), json!(image.aliases));
    row.insert("release".into(), image.release.clone().into());
    row.insert("kind".into(), image.kind.name().into());
    row.insert("bytes".into(), image.bytes().into());
    row.insert("size".into(), format!("{} MiB", image.bytes() >> 20).into());
    row.insert("sha256".into(), image.sha256.clone().into());
    row.insert("source".into(), image.origin.clone().into());
    row
}

/// `hostel images`: what is built here, and what is in the library.
pub fn images(what: &Images) -> Result<u8, Failure> {
    let built = BUILT_HERE.iter().map(|(name, description)| {
        let mut row = Map::new();
        row.insert("name".into(), (*name).into());
        row.insert("description".into(), (*description).into());
        row.insert("source".into(), "built here from packages".into());
        row
    });
    let known = library().images();
    let fetched = known.iter().filter(|image| BUILT_HERE.iter().all(|b| b.0 != image.name));
    let fetched = fetched.map(|image| {
        let mut row = row(image);
        let names = image.aliases.join(" ");
        let text = format!("{} {} {names}", image.kind.name(), image.release);
        row.insert("description".into(), text.trim().into());
        row
    });
    let columns = &[("Image", "name"), ("Description", "description"), ("Source", "source")];
    List { name: "images", columns, rows: built.chain(fetched).collect(), empty: "" }
        .print(what.format)?;
    Ok(0)
}

fn local(format: arguments::Format) -> Result<u8, Failure> {
    let list = List {
        name: "images",
        columns: &[
            ("Image", "name"),
            ("Aliases", "aliases"),
            ("Release", "release"),
            ("Kind", "kind"),
            ("Size", "size"),
            ("Source", "source"),
        ],
        rows: library().images().iter().map(row).collect(),
        empty: "No images. 'hostel image pull' fetches one; 'spark' needs none.",
    };
    list.print(format)?;
    Ok(0)
}

fn pull(what: &Pull) -> Result<u8, Failure> {
    let mut line = Line::new();
    let cache = Cache::of_user();
    if what.image == "spark" || debian_image::suite(&what.image).is_some() {
        return build(what);
    }
    let library = Library::of_cache(&cache);
    let is_address = what.image.starts_with("http://") || what.image.starts_with("https://");
    let image = match is_address {
        true => by_address(&library, &what.image, what.offline, &mut line)?,
        false => by_name(&cache, &library, &what.image, what.offline, &mut line)?,
    };
    drop(line);
    println!("{}", image.name);
    Ok(0)
}

fn build(what: &Pull) -> Result<u8, Failure> {
    if let Some(suite) = debian_image::suite(&what.image) {
        let mut line = Line::new();
        let cache = Cache::of_user();
        let image = debian_image::image(&cache, suite, what.offline, &mut Workshop, &mut line)?;
        drop(line);
        println!("{} {}", image.name, image.release);
        return Ok(0);
    }
    if what.image != "spark" {
        let failure = Failure::new(format!("The image '{}' is not built here", what.image));
        return Err(failure
            .hint("'spark' and 'debian' are; others are fetched by 'hostel image pull'")
            .code(USAGE));
    }
    let mut line = Line::new();
    let image = spark::image(&Cache::of_user(), what.offline, &mut line)?;
    drop(line);
    println!("spark {}", image.version);
    Ok(0)
}

/// Files on which machines lie.
fn in_use(connection: &mut Connection) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut files = Vec::new();
    for machine in connection.machines()? {
        let Some(note) = machine.note() else { continue };
        let library = library();
        let base = library.find(&note.image).map(|image| image.file);
        let medium = machine.definition.child("devices").into_iter().flat_map(|d| d.all("disk"));
        let media =
            medium.filter_map(|disk| disk.attribute_at("source", "file").map(PathBuf::from));
        files.extend(base.into_iter().chain(media).map(|file| (machine.name().to_owned(), file)));
    }
    Ok(files)
}

fn remove(what: &Remove) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let used = in_use(&mut connection)?;
    let library = library();
    if let Some(days) = what.unused {
        let files: Vec<PathBuf> = used.into_iter().map(|(_, file)| file).collect();
        let age = Duration::from_secs(days.saturating_mul(24 * 3600));
        for name in library.expire(age, &files) {
            println!("{name}");
        }
    }
    let used = in_use(&mut connection)?;
    for name in &what.names {
        let image = library.find(name).ok_or_else(|| {
            Failure::new(format!("There is no image '{name}' here"))
                .hint("'hostel image list' lists them")
                .code(USAGE)
        })?;
        if let Some((machine, _)) = used.iter().find(|(_, file)| *file == image.file) {
            let failure = Failure::new(format!("The machine '{machine}' lies over '{name}'"));
            return Err(failure.hint(format!("'hostel delete --purge {machine}' first")));
        }
        library.remove(&image.name)?;
    }
    Ok(0)
}

fn import(what: &Import) -> Result<u8, Failure> {
    let path = Path::new(&what.file);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = what.name.clone().unwrap_or(stem);
    let mut line = Line::new();
    let image = library().import(&name, path, &mut line).map_err(|error| {
        Failure::new(format!("'{}' cannot be imported", what.file)).because(&error).code(USAGE)
    })?;
    drop(line);
    println!("{}", image.name);
    Ok(0)
}

fn sync(what: &Sync) -> Result<u8, Failure> {
    let mut source = source();
    if let Some(url) = &what.source {
        source.url.clone_from(url);
    }
    if let Some(keyring) = &what.keyring {
        source.keyring = Some(keyring.into());
    }
    if what.no_authentication {
        source.keyring = None;
    }
    let mut filters = filters(&what.filters)?;
    if !what.filters.iter().any(|filter| filter.starts_with("arch")) {
        filters.extend(Filter::parse("arch=amd64"));
    }
    let mut line = Line::new();
    let cache = Cache::of_user();
    let products = source.products(&cache, false, &mut line)?;
    let wanted = chosen(&products, &filters);
    let library = Library::of_cache(&cache);
    if wanted.is_empty() {
        let failure = Failure::new("No image of the catalogue fits").code(USAGE);
        return Err(failure.hint("'hostel find' lists what it has"));
    }
    for product in wanted {
        let known = library.find(&format!("{}-{}", product.release, product.arch));
        if known.is_some_and(|image| image.sha256 == product.sha256) {
            continue;
        }
        let image = library.fetch(&product.wanted(), &mut line)?;
        line.step("");
        println!("{} {}", image.name, image.release);
    }
    Ok(0)
}

/// Filters as they were typed.
pub fn filters(texts: &[String]) -> Result<Vec<Filter>, Failure> {
    let filter = |text: &String| {
        Filter::parse(text).ok_or_else(|| {
            Failure::new(format!("'{text}' is no FIELD=VALUE"))
                .hint("such as release=noble or arch=amd64")
                .code(USAGE)
        })
    };
    texts.iter().map(filter).collect()
}

/// `hostel find`.
pub fn find(what: &Find) -> Result<u8, Failure> {
    let mut line = Line::new();
    let known = source().products(&Cache::of_user(), what.offline, &mut line);
    drop(line);
    let (products, problem) = match known {
        Ok(products) => (products, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let fits = |name: &str| what.text.as_ref().is_none_or(|text| name.starts_with(text.as_str()));
    let mut rows: Vec<Map<String, Value>> = BUILT_HERE
        .iter()
        .filter(|(name, _)| fits(name))
        .map(|(name, description)| {
            let mut row = Map::new();
            row.insert("name".into(), (*name).into());
            row.insert("description".into(), (*description).into());
            row
        })
        .collect();
    for entry in catalogue::entries(&catalogue::own_file(), "amd64")? {
        if !fits(&entry.name) && !entry.aliases.iter().any(|alias| fits(alias)) {
            continue;
        }
        let mut row = Map::new();
        row.insert("name".into(), entry.name.into());
        row.insert("aliases".into(), json!(entry.aliases));
        row.insert("version".into(), entry.version.into());
        row.insert("arch".into(), entry.arch.into());
        row.insert("description".into(), entry.title.into());
        row.insert("source".into(), entry.url.into());
        row.insert("sums".into(), json!(entry.sums));
        rows.push(row);
    }
    let called = |product: &&Product| {
        fits(&product.release) || fits(&product.version) || product.aliases.iter().any(|a| fits(a))
    };
    for product in products.iter().filter(called).filter(|p| p.arch == "amd64" && p.supported) {
        let mut row = Map::new();
        row.insert("name".into(), product.release.clone().into());
        row.insert("aliases".into(), json!(product.aliases));
        row.insert("version".into(), product.serial.clone().into());
        let title = format!("{} {} {}", product.os, product.version, product.title);
        row.insert("description".into(), title.trim().into());
        rows.push(row);
    }
    let list = List {
        name: "images",
        columns: &[
            ("Image", "name"),
            ("Aliases", "aliases"),
            ("Version", "version"),
            ("Description", "description"),
        ],
        rows,
        empty: "No image is called so.",
    };
    list.print(what.format)?;
    match problem {
        // What is built here needs no catalogue.
        Some(problem) => {
            let failure = Failure::new("The catalogue of cloud images cannot be had");
            failure.because(&problem).print();
            Ok(0)
        }
        None => Ok(0),
    }
}
