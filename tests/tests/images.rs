//! Disk images against the reference tools: what one writes, the other checks and reads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hostel-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary folder is writable");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0); // what is left over harms nobody
    }
}

/// The two implementations of a tool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tool {
    Ours,
    Reference,
}

fn run(tool: Tool, folder: &Path, line: &[&str]) -> (i32, String) {
    let mut command = match tool {
        Tool::Ours => {
            let mut command = tests::hostel();
            command.arg(line[0]);
            command
        }
        Tool::Reference => Command::new(line[0]),
    };
    let output = command
        .args(&line[1..])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the tool starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), format!("{text}{errors}"))
}

fn must(tool: Tool, folder: &Path, line: &[&str]) -> String {
    let (code, text) = run(tool, folder, line);
    assert_eq!(code, 0, "{tool:?} {line:?}: {text}");
    text
}

fn have_reference() -> bool {
    tests::program("qemu-img").is_some() && tests::program("qemu-io").is_some()
}

/// A generator of numbers, always the same ones.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A random load for qemu-io on a disk of 8 MiB.
fn load(random: &mut Random, requests: usize) -> Vec<String> {
    (0..requests)
        .map(|_| {
            let offset = random.below(16_000) * 512;
            let length = ((1 + random.below(300)) * 512).min((8 << 20) - offset);
            let pattern = 1 + random.below(255);
            match random.below(8) {
                0 => format!("write -z {offset} {length}"),
                1 => format!("write -z -u {offset} {length}"),
                2 => format!("discard {offset} {length}"),
                3 => "flush".into(),
                _ => format!("write -P {pattern} {offset} {length}"),
            }
        })
        .collect()
}

fn apply(tool: Tool, folder: &Path, image: &str, format: &str, load: &[String]) {
    let mut line = vec!["qemu-io", "-f", format, "-t", "writeback"];
    for request in load {
        line.extend(["-c", request]);
    }
    line.push(image);
    must(tool, folder, &line);
}

#[test]
fn what_is_not_obeyed_is_refused_by_name() {
    let folder = Folder::new("images-refused");
    let here = folder.0.as_path();
    must(Tool::Ours, here, &["qemu-img", "create", "-q", "-f", "qcow2", "a", "1M"]);
    let lines: [(&[&str], &str); 10] = [
        (&["qemu-img", "bench", "-n", "-c", "1", "a"], "native"),
        (&["qemu-img", "bench", "-i", "io_uring", "-c", "1", "a"], "io_uring"),
        (&["qemu-img", "info", "-t", "none", "a"], "'t'"),
        (&["qemu-img", "amend", "-o", "encrypt.state=active", "a"], "encryption"),
        (&["qemu-io", "-m", "-c", "length", "a"], "misalign"),
        (&["qemu-io", "-k", "-c", "length", "a"], "native-aio"),
        (&["qemu-io", "-i", "native", "-c", "length", "a"], "native"),
        (&["qemu-nbd", "--aio", "native", "a"], "native"),
        (&["qemu-img", "info", "--image-opts", "file.filename=a,file.aio=native"], "aio=native"),
        (
            &["qemu-img", "info", "--image-opts", "driver=qcow2,file=a,cache-clean-interval=9"],
            "cache-clean-interval",
        ),
    ];
    for (line, named) in lines {
        let (code, text) = run(Tool::Ours, here, line);
        assert!(code != 0 && text.contains(named), "{line:?}: {code}, {text}");
    }
    let obeyed: [&[&str]; 4] = [
        &["qemu-img", "bench", "-q", "-i", "threads", "-c", "1", "a"],
        &["qemu-img", "bench", "-w", "--flush-interval", "64", "--no-drain", "-c", "128", "a"],
        &["qemu-io", "-i", "threads", "-c", "length", "a"],
        &[
            "qemu-img",
            "info",
            "--image-opts",
            "driver=qcow2,refcount-cache-size=256k,cache-clean-interval=0,node-name=x,file.driver=file,file.filename=a,file.aio=threads,file.auto-read-only=on",
        ],
    ];
    for line in obeyed {
        must(Tool::Ours, here, line);
    }
}

#[test]
fn a_cache_that_writes_through_flushes_each_write() {
    let folder = Folder::new("images-through");
    let here = folder.0.as_path();
    must(Tool::Ours, here, &["qemu-img", "create", "-q", "-f", "qcow2", "a", "1M"]);
    fs::write(here.join("rules"), "[inject-error]\nevent = \"flush_to_disk\"\n").unwrap();
    for (cache, code) in [("writeback", 0), ("writethrough", 1), ("directsync", 1)] {
        let line =
            ["qemu-img", "bench", "-f", "qcow2", "-w", "-c", "1", "-t", cache, "blkdebug:rules:a"];
        let (ended, text) = run(Tool::Ours, here, &line);
        assert_eq!(ended, code, "{cache}: {text}");
    }
}

#[test]
fn random_writes_by_both_give_the_same_disk() {
    if !have_reference() {
        tests::skip!("qemu-img and qemu-io of QEMU are not installed (package qemu-utils)");
    }
    let folder = Folder::new("images-random");
    let here = folder.0.as_path();
    let options = [
        ("raw", ""),
        ("qcow2", "cluster_size=512"),
        ("qcow2", "cluster_size=64k,lazy_refcounts=on"),
        ("qcow2", "cluster_size=2M"),
        ("qcow2", "compat=0.10"),
        ("qcow2", "refcount_bits=1"),
        ("qcow2", "refcount_bits=64,cluster_size=4k"),
        ("qcow2", "extended_l2=on,cluster_size=32k"),
        ("qcow2", "preallocation=metadata"),
        ("qcow2", "data_file=ext.raw"),
        ("vdi", ""),
        ("vpc", "force_size=on"),
        ("vhdx", "block_size=1M"),
        ("vhdx", "subformat=fixed"),
        ("parallels", ""),
        ("parallels", "cluster_size=64k"),
        ("vmdk", ""),
        ("vmdk", "subformat=twoGbMaxExtentSparse"),
    ];
    let mut random = Random(0x1234_5678_9abc_def1);
    for (number, (format, extra)) in options.into_iter().enumerate() {
        let load = load(&mut random, 40);
        for tool in [Tool::Ours, Tool::Reference] {
            let image = format!("{tool:?}-{number}");
            let extra = extra.replace("ext.raw", &format!("{image}.raw"));
            let mut create = vec!["qemu-img", "create", "-q", "-f", format];
            if !extra.is_empty() {
                create.extend(["-o", &extra]);
            }
            create.extend([image.as_str(), "8M"]);
            must(tool, here, &create);
            // The two take turns on the same image.
            let other = if tool == Tool::Ours { Tool::Reference } else { Tool::Ours };
            apply(tool, here, &image, format, &load[..20]);
            apply(other, here, &image, format, &load[20..]);
            if format == "qcow2" {
                must(Tool::Reference, here, &["qemu-img", "check", &image]);
                must(Tool::Ours, here, &["qemu-img", "check", &image]);
            }
        }
        let (ours, theirs) = (format!("Ours-{number}"), format!("Reference-{number}"));
        for tool in [Tool::Ours, Tool::Reference] {
            // What is discarded may read as anything that was there: only whole clusters go.
            if load.iter().all(|request| !request.starts_with("discard")) {
                must(
                    tool,
                    here,
                    &["qemu-img", "compare", "-f", format, "-F", format, &ours, &theirs],
                );
            }
            must(tool, here, &["qemu-img", "convert", "-f", format, "-O", "raw", &ours, "flat"]);
            must(tool, here, &["qemu-img", "compare", "-f", format, "-F", "raw", &ours, "flat"]);
        }
    }
}

#[test]
fn encrypted_images_and_their_keys_are_the_same_for_both() {
    if !have_reference() {
        tests::skip!("qemu-img and qemu-io of QEMU are not installed (package qemu-utils)");
    }
    let folder = Folder::new("images-keys");
    let here = folder.0.as_path();
    let objects = [
        "--object",
        "secret,id=a,data=first",
        "--object",
        "secret,id=b,data=c2Vjb25k,format=base64",
    ];
    let line = |tool: &str, rest: &[&str]| -> Vec<String> {
        let tool = tool.split(' ').chain(objects).chain(rest.iter().copied());
        tool.map(str::to_owned).collect()
    };
    let do_it = |by: Tool, tool: &str, rest: &[&str]| {
        let words = line(tool, rest);
        run(by, here, &words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let good = |by: Tool, tool: &str, rest: &[&str]| {
        let (code, text) = do_it(by, tool, rest);
        assert_eq!(code, 0, "{by:?} {tool} {rest:?}: {text}");
    };
    let pairs = [(Tool::Ours, Tool::Reference), (Tool::Reference, Tool::Ours)];
    let kinds = [
        ("qcow2", "encrypt.", "encrypt.format=luks,"),
        ("qcow2", "encrypt.", "encrypt.format=aes,"),
        ("qcow2", "encrypt.", "encrypt.format=luks,cluster_size=4k,encrypt.cipher-alg=aes-128,"),
        ("luks", "", ""),
        ("luks", "", "cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,"),
    ];
    for (maker, reader) in pairs {
        for (format, prefix, options) in kinds {
            _ = fs::remove_file(here.join("disk"));
            let has_slots = !options.contains("aes,");
            let time = if has_slots { format!(",{prefix}iter-time=10") } else { String::new() };
            let options = format!("{options}{prefix}key-secret=a{time}");
            good(maker, "qemu-img create", &["-q", "-f", format, "-o", &options, "disk", "4M"]);
            let with =
                |key: &str| format!("driver={format},file.filename=disk,{prefix}key-secret={key}");
            let (first, second) = (with("a"), with("b"));
            let write = ["-c", "write -P 17 1000 70000", "--image-opts", &first];
            good(maker, "qemu-io", &write);
            let read =
                ["-c", "read -P 17 1000 70000", "-c", "write -P 18 3000 1", "--image-opts", &first];
            good(reader, "qemu-io", &read);
            if has_slots {
                let new = format!("{prefix}state=active,{prefix}new-secret=b,{prefix}iter-time=10");
                good(reader, "qemu-img amend", &["--image-opts", &first, "-o", &new]);
                let gone = format!("{prefix}state=inactive,{prefix}old-secret=a");
                good(maker, "qemu-img amend", &["--image-opts", &second, "-o", &gone]);
                for tool in [maker, reader] {
                    let (code, _) =
                        do_it(tool, "qemu-io", &["-c", "length", "--image-opts", &first]);
                    assert_ne!(code, 0, "{tool:?} still takes the first passphrase");
                }
                let read = [
                    "-c",
                    "read -P 18 3000 1",
                    "-c",
                    "read -P 17 3001 60000",
                    "--image-opts",
                    &second,
                ];
                good(maker, "qemu-io", &read);
                good(reader, "qemu-io", &read);
            }
            if format == "qcow2" {
                let key = if has_slots { &second } else { &first };
                good(Tool::Reference, "qemu-img check", &["--image-opts", key]);
                good(Tool::Ours, "qemu-img check", &["--image-opts", key]);
            }
        }
    }
}

#[test]
fn compressed_images_and_chains_are_read_by_the_other() {
    if !have_reference() {
        tests::skip!("qemu-img and qemu-io of QEMU are not installed (package qemu-utils)");
    }
    let folder = Folder::new("images-chain");
    let here = folder.0.as_path();
    for (maker, reader) in [(Tool::Ours, Tool::Reference), (Tool::Reference, Tool::Ours)] {
        for name in ["base", "mid", "top", "packed", "flat"] {
            _ = fs::remove_file(here.join(name));
        }
        must(maker, here, &["qemu-img", "create", "-q", "-f", "qcow2", "base", "8M"]);
        apply(maker, here, "base", "qcow2", &["write -P 17 0 3M".into()]);
        must(
            maker,
            here,
            &["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "mid"],
        );
        apply(
            maker,
            here,
            "mid",
            "qcow2",
            &["write -P 34 1M 300k".into(), "write -z 2M 64k".into()],
        );
        must(
            maker,
            here,
            &["qemu-img", "create", "-q", "-f", "qcow2", "-b", "mid", "-F", "qcow2", "top"],
        );
        apply(maker, here, "top", "qcow2", &["write -P 51 1100k 512".into()]);
        for method in ["zlib", "zstd"] {
            let options = format!("compression_type={method}");
            must(
                maker,
                here,
                &["qemu-img", "convert", "-c", "-O", "qcow2", "-o", &options, "top", "packed"],
            );
            must(reader, here, &["qemu-img", "check", "packed"]);
            must(reader, here, &["qemu-img", "compare", "top", "packed"]);
        }
        must(maker, here, &["qemu-img", "snapshot", "-c", "one", "top"]);
        apply(reader, here, "top", "qcow2", &["write -P 68 0 1M".into()]);
        must(maker, here, &["qemu-img", "check", "top"]);
        must(reader, here, &["qemu-img", "snapshot", "-a", "one", "top"]);
        must(reader, here, &["qemu-img", "compare", "top", "packed"]);
        must(reader, here, &["qemu-img", "snapshot", "-d", "one", "top"]);
        must(maker, here, &["qemu-img", "rebase", "-b", "base", "-F", "qcow2", "top"]);
        must(reader, here, &["qemu-img", "compare", "top", "packed"]);
        must(maker, here, &["qemu-img", "commit", "-q", "top"]);
        must(reader, here, &["qemu-img", "compare", "base", "packed"]);
        must(reader, here, &["qemu-img", "check", "base"]);
    }
}

#[test]
fn texts_and_codes_are_those_of_the_reference() {
    if !have_reference() {
        tests::skip!("qemu-img and qemu-io of QEMU are not installed (package qemu-utils)");
    }
    let folder = Folder::new("images-texts");
    let here = folder.0.as_path();
    must(Tool::Reference, here, &["qemu-img", "create", "-q", "-f", "qcow2", "a", "1G"]);
    must(
        Tool::Reference,
        here,
        &["qemu-img", "create", "-q", "-f", "qcow2", "-b", "a", "-F", "qcow2", "b"],
    );
    must(Tool::Reference, here, &["qemu-img", "bitmap", "--add", "b", "bits"]);
    must(Tool::Reference, here, &["qemu-img", "snapshot", "-c", "s", "a"]);
    apply(Tool::Reference, here, "a", "qcow2", &["write -P 1 5M 100k".into()]);
    must(Tool::Reference, here, &["qemu-img", "create", "-q", "flat", "1M"]);
    let lines: &[&[&str]] = &[
        &["info", "a"],
        &["info", "--output=json", "--backing-chain", "b"],
        &["info", "flat"],
        &["info", "nothing"],
        &["info", "-f", "qcow2", "flat"],
        &["info"],
        &["info", "--nonsense", "a"],
        &["map", "b"],
        &["map", "--output=json", "b"],
        &["check", "a"],
        &["check", "--output=json", "a"],
        &["check", "flat"],
        &["compare", "a", "b"],
        &["compare", "a", "flat"],
        &["compare", "-s", "a", "flat"],
        &["snapshot", "-l", "a"],
        &["snapshot", "-a", "none", "a"],
        &["snapshot", "-d", "none", "a"],
        &["measure", "-O", "qcow2", "b"],
        &["measure", "-O", "raw", "--size", "1G"],
        &["measure", "-O", "qcow2", "--output=json", "--size", "5T"],
        &["create", "-f", "qcow2", "x", "64M"],
        &["create", "-f", "qcow2", "-o", "cluster_size=3", "x", "64M"],
        &["create", "-f", "qcow2", "-o", "nonsense=1", "x", "64M"],
        &["create", "-f", "qcow2", "-b", "a", "x"],
        &["create", "-f", "qcow2", "-o", "help"],
        &["amend", "-f", "qcow2", "-o", "help"],
        &["resize", "flat"],
        &["resize", "b", "2G"],
        &["rebase", "-b", "a", "b"],
        &["convert", "a"],
        &["convert", "-m", "99", "a", "x"],
        &["convert", "-n", "-O", "raw", "a", "flat"],
        &["commit", "a"],
        &["nonsense"],
    ];
    let mut differing = Vec::new();
    for line in lines {
        let mut full = vec!["qemu-img"];
        full.extend(*line);
        let (our_code, ours) = run(Tool::Ours, here, &full);
        let (code, theirs) = run(Tool::Reference, here, &full);
        if (our_code, &ours) != (code, &theirs) {
            differing.push(format!(
                "qemu-img {line:?}\nours {our_code}: {ours}\ntheirs {code}: {theirs}"
            ));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n\n"));
}
