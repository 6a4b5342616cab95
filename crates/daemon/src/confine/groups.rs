//! Control groups (version 2): limits of a machine's share of processors, memory, disks and tasks.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use libvirt_compat::domain::kibibytes;
use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Result};

use crate::files;

/// The controllers that machines are given.
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];
/// Machines' groups lie in this one.
const FOLDER: &str = "hostel.machines";
/// Tasks of a machine: vCPUs, workers of its disks, far from what a fork bomb makes.
const TASKS_MAX: u32 = 8192;
/// The kernel's own, in microseconds.
const PERIOD_DEFAULT: u64 = 100_000;
/// Waits for the kernel to see that a group's last process is gone.
const REMOVE_TRIES: u32 = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// What a document limits: the controller's file and the line to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits(Vec<(&'static str, String)>);

impl Limits {
    /// The file of the first limit.
    pub fn first(&self) -> Option<&'static str> {
        self.0.first().map(|(file, _)| *file)
    }
}

/// libvirt's texts for limits that cannot be had.
pub fn unavailable(file: &str, why: &str) -> Error {
    let what = match file.split('.').next() {
        Some("cpu") => "CPU tuning",
        Some("io") => "Block I/O tuning",
        _ => "Memory tuning",
    };
    Error::new(Code::ConfigUnsupported, format!("{what} {why}"))
}

fn unsupported(name: &str) -> Error {
    Error::new(Code::ConfigUnsupported, format!("element <{name}> is not supported"))
}

fn number(element: &Element) -> Result<i64> {
    let text = element.text();
    text.trim().parse().map_err(|_| {
        let text = format!("Invalid value for element '{}': '{}'.", element.name, text.trim());
        Error::new(Code::XmlError, text)
    })
}

/// The limits of a document.
pub fn limits(document: &Element) -> Result<Limits> {
    let mut limits = Limits::default();
    if let Some(tune) = document.child("cputune") {
        processors(tune, &mut limits)?;
    }
    if let Some(tune) = document.child("memtune") {
        memory(tune, &mut limits)?;
    }
    if let Some(tune) = document.child("blkiotune") {
        disks(tune, &mut limits)?;
    }
    Ok(limits)
}

fn processors(tune: &Element, limits: &mut Limits) -> Result<()> {
    let (mut quota, mut period) = (None, PERIOD_DEFAULT);
    for element in tune.elements() {
        match element.name.as_str() {
            "vcpupin" => {}
            "shares" => {
                let shares = number(element)?;
                if !(1..=10_000).contains(&shares) {
                    let text = format!("shares '{shares}' must be in range [1, 10000]");
                    return Err(Error::new(Code::InvalidArg, text));
                }
                limits.0.push(("cpu.weight", shares.to_string()));
            }
            "global_quota" => quota = Some(number(element)?),
            "global_period" => period = number(element)?.unsigned_abs(),
            other => return Err(unsupported(&format!("cputune><{other}"))),
        }
    }
    if let Some(quota) = quota {
        let quota = if quota < 0 { "max".to_owned() } else { quota.to_string() };
        limits.0.push(("cpu.max", format!("{quota} {period}")));
    }
    Ok(())
}

fn memory(tune: &Element, limits: &mut Limits) -> Result<()> {
    let kib = |name: &str| tune.child(name).map(kibibytes).transpose();
    let bytes = |kib: u64| (kib * 1024).to_string();
    let (hard, swap) = (kib("hard_limit")?, kib("swap_hard_limit")?);
    if let Some(other) = tune.elements().find(|element| {
        !matches!(element.name.as_str(), "hard_limit" | "soft_limit" | "swap_hard_limit")
    }) {
        return Err(unsupported(&format!("memtune><{}", other.name)));
    }
    limits.0.extend(hard.map(|kib| ("memory.max", bytes(kib))));
    limits.0.extend(kib("soft_limit")?.map(|kib| ("memory.high", bytes(kib))));
    if let Some(swap) = swap {
        // libvirt counts memory and swap together, the kernel swap alone.
        let text = "memory hard_limit tunable value must be lower than or equal to swap_hard_limit";
        let hard = hard.filter(|hard| *hard <= swap);
        let hard = hard.ok_or_else(|| Error::new(Code::InvalidArg, text))?;
        limits.0.push(("memory.swap.max", bytes(swap - hard)));
    }
    Ok(())
}

fn disks(tune: &Element, limits: &mut Limits) -> Result<()> {
    for element in tune.elements() {
        match element.name.as_str() {
            "weight" => limits.0.push(("io.weight", format!("default {}", number(element)?))),
            "device" => device(element, limits)?,
            other => return Err(unsupported(&format!("blkiotune><{other}"))),
        }
    }
    Ok(())
}

fn device(element: &Element, limits: &mut Limits) -> Result<()> {
    let path = element.text_at("path").unwrap_or_default();
    let facts = fs::metadata(&path)
        .map_err(|error| files::system(format!("Path '{path}' is not accessible"), &error))?;
    let number_of = facts.rdev();
    let device = format!("{}:{}", rustix::fs::major(number_of), rustix::fs::minor(number_of));
    let mut line = String::new();
    for own in element.elements() {
        let key = match own.name.as_str() {
            "path" => continue,
            "weight" => {
                limits.0.push(("io.weight", format!("{device} {}", number(own)?)));
                continue;
            }
            "read_bytes_sec" => "rbps",
            "write_bytes_sec" => "wbps",
            "read_iops_sec" => "riops",
            "write_iops_sec" => "wiops",
            other => return Err(unsupported(&format!("blkiotune><device><{other}"))),
        };
        let value = number(own)?;
        // 0 is libvirt's word for no limit.
        let value = if value == 0 { "max".to_owned() } else { value.to_string() };
        line.push_str(&format!(" {key}={value}"));
    }
    if !line.is_empty() {
        limits.0.push(("io.max", device + &line));
    }
    Ok(())
}

/// Where machines' groups are made.
#[derive(Default)]
pub struct Groups(OnceLock<Option<Base>>);

struct Base {
    folder: PathBuf,
    controllers: Vec<&'static str>,
}

impl Groups {
    /// Makes a machine's group with its limits. None where the host does not let us.
    pub fn make(&self, uuid: &str, limits: &Limits) -> Result<Option<PathBuf>> {
        let base = self.0.get_or_init(|| {
            let base = mount_point().and_then(|root| Base::under(&root));
            if base.is_none() {
                eprintln!("warning: Machines run without control groups: none can be made here");
            }
            base
        });
        let refused = |file| unavailable(file, "is not available on this host");
        let Some(base) = base else {
            return limits.first().map_or(Ok(None), |file| Err(refused(file)));
        };
        let has = |file: &str| base.controllers.iter().any(|name| file.starts_with(name));
        if let Some((file, _)) = limits.0.iter().find(|(file, _)| !has(file)) {
            return Err(refused(file));
        }
        let folder = base.folder.join(uuid);
        remove(&folder);
        let failed = |doing: String| move |error: io::Error| files::system(doing, &error);
        fs::create_dir(&folder).map_err(failed(format!("cannot make '{}'", folder.display())))?;
        if has("pids.max") {
            let tasks = fs::write(folder.join("pids.max"), TASKS_MAX.to_string());
            tasks.map_err(failed("Unable to limit a machine's tasks".to_owned()))?;
        }
        for (file, line) in &limits.0 {
            if let Err(error) = fs::write(folder.join(file), line) {
                remove(&folder);
                return Err(failed(format!("Unable to write '{line}' to '{file}'"))(error));
            }
        }
        Ok(Some(folder))
    }
}

impl Base {
    /// Makes the folder of all machines, and hands on to it what there is to be handed on.
    fn under(root: &Path) -> Option<Self> {
        let offered = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
        let offered: Vec<&str> = offered.split_whitespace().collect();
        let wanted = CONTROLLERS.into_iter().filter(|name| offered.contains(name));
        let folder = root.join(FOLDER);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return None,
            _ => {}
        }
        // One by one: the others do not suffer from one that is in use elsewhere.
        let hand_on = |name: &&str| {
            [root, &folder]
                .iter()
                .all(|at| fs::write(at.join("cgroup.subtree_control"), format!("+{name}")).is_ok())
        };
        let controllers: Vec<_> = wanted.filter(hand_on).collect();
        if controllers.is_empty() {
            _ = fs::remove_dir(&folder);
            return None;
        }
        Some(Self { folder, controllers })
    }
}

/// Where version 2 is mounted.
fn mount_point() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut rows = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    rows.find(|row| row.get(2) == Some(&"cgroup2")).map(|row| PathBuf::from(row[1]))
}

/// Removes a machine's group, with whatever is left in it.
pub fn remove(folder: &Path) {
    if !folder.exists() {
        return;
    }
    _ = fs::write(folder.join("cgroup.kill"), "1");
    for _ in 0..REMOVE_TRIES {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                thread::sleep(REMOVE_PAUSE);
            }
            _ => return,
        }
    }
    eprintln!("warning: The control group {} is still in use", folder.display());
}

#[cfg(test)]
mod tests {
    use libvirt_compat::xml;

    use super::*;

    fn of(text: &str) -> Result<Vec<(&'static str, String)>> {
        let text = format!("<domain>{text}</domain>");
        limits(&xml::parse(&text, "domain_definition")?).map(|limits| limits.0)
    }

    #[test]
    fn limits_are_those_of_the_kernel() {
        let line = |file, text: &str| (file, text.to_owned());
        for (text, expected) in [
            ("<cputune><vcpupin vcpu='0' cpuset='0'/></cputune>", vec![]),
            ("<cputune><shares>500</shares></cputune>", vec![line("cpu.weight", "500")]),
            (
                "<cputune><global_quota>50000</global_quota></cputune>",
                vec![line("cpu.max", "50000 100000")],
            ),
            (
                "<cputune><global_period>20000</global_period><global_quota>-1</global_quota>\
                 </cputune>",
                vec![line("cpu.max", "max 20000")],
            ),
            (
                "<memtune><hard_limit unit='MiB'>1</hard_limit><soft_limit>512</soft_limit>\
                 <swap_hard_limit unit='MiB'>3</swap_hard_limit></memtune>",
                vec![
                    line("memory.max", "1048576"),
                    line("memory.high", "524288"),
                    line("memory.swap.max", "2097152"),
                ],
            ),
            (
                "<blkiotune><weight>300</weight><device><path>/dev/null</path>\
                 <read_bytes_sec>5</read_bytes_sec><write_iops_sec>0</write_iops_sec></device>\
                 </blkiotune>",
                vec![line("io.weight", "default 300"), line("io.max", "1:3 rbps=5 wiops=max")],
            ),
        ] {
            assert_eq!(of(text).unwrap(), expected, "{text}");
        }
        for (text, named) in [
            ("<cputune><vcpusched vcpus='0'/></cputune>", "vcpusched"),
            ("<cputune><quota>5</quota></cputune>", "quota"),
            ("<cputune><shares>0</shares></cputune>", "shares"),
            ("<memtune><min_guarantee>1</min_guarantee></memtune>", "min_guarantee"),
            ("<memtune><swap_hard_limit>1</swap_hard_limit></memtune>", "swap_hard_limit"),
        ] {
            assert!(of(text).unwrap_err().to_string().contains(named), "{text}");
        }
    }

    #[test]
    fn a_group_gets_its_limits_or_says_which_it_cannot_have() {
        let root = std::env::temp_dir().join(format!("hostel-groups-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("cgroup.controllers"), "cpuset cpu pids\n").unwrap();
        let base = Base::under(&root);
        let groups = Groups(OnceLock::new());
        assert!(groups.0.set(base).is_ok());
        let limits = Limits(vec![("cpu.weight", "7".to_owned())]);
        let group = groups.make("one", &limits).unwrap().unwrap();
        assert_eq!(group, root.join("hostel.machines/one"));
        for (file, text) in [("cpu.weight", "7"), ("pids.max", "8192")] {
            assert_eq!(fs::read_to_string(group.join(file)).unwrap(), text);
        }
        let error = groups.make("two", &Limits(vec![("memory.max", "1".to_owned())])).unwrap_err();
        assert!(error.to_string().contains("Memory tuning is not available"), "{error}");
        assert!(!root.join("hostel.machines/two").exists());
        fs::remove_dir_all(&root).unwrap();
    }
}
