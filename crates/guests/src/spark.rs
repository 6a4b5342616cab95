//! `spark`: Debian's kernel for clouds, busybox and our agent. It boots in about a second, has a
//! shell, a network and nothing else, and needs two packages.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use liblzma::read::XzDecoder;

use crate::cache::Cache;
use crate::cpio::Archive as Cpio;
use crate::debian::{Archive, Listed, Mirror, Package, sum};
use crate::{AGENT, GuestError, Progress, Result};

/// Counted up when the recipe changes, so that what was made before is made again.
const RECIPE: u32 = 5;

/// The kernel's modules that a guest of ours needs; what they depend on follows from them.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_net",
    "virtio_blk",
    "virtio_console",
    "virtio-rng",
    "virtio_balloon",
    "vmw_vsock_virtio_transport",
    "virtiofs",
    "overlay",
    "isofs",
    "nls_utf8",
];

/// Modules by their names.
pub(crate) type Modules = BTreeMap<String, Vec<u8>>;

/// What a machine boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial RAM disk, which is all of the system.
    pub initrd: PathBuf,
    /// What the kernel is told.
    pub command_line: String,
    /// The kernel's version, for people.
    pub version: String,
}

/// What the kernel is told. `no_timer_check`: a busy host delays the timer's interrupts, which the
/// kernel would take for broken hardware. `lockdown`: the kernel then makes no files for its tracing,
/// which are 9 MiB of nodes that are never freed, a seventh of all that an idle guest holds.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 reboot=t no_timer_check lsm=lockdown \
    lockdown=confidentiality";

/// The image, from the cache or made from packages.
pub fn image(cache: &Cache, offline: bool, progress: &mut dyn Progress) -> Result<Image> {
    if let Some(image) = remembered(cache) {
        return Ok(image);
    }
    let archive = Archive::new(Mirror::of_host()?, cache.clone(), "amd64", offline);
    let busybox = archive.find(&["busybox-static"], progress)?.remove(0);
    let kernel = kernel(&archive, progress)?;
    make(cache, &archive, &kernel, &busybox, progress)
}

/// The package of the present kernel for clouds.
pub(crate) fn kernel(archive: &Archive, progress: &mut dyn Progress) -> Result<Listed> {
    // It is only a name for the present version.
    let listed = archive.find(&["linux-image-cloud-amd64"], progress)?;
    let kernel_name = listed[0]
        .depends
        .split([',', '|'])
        .filter_map(|word| word.split_whitespace().next())
        .find(|name| name.starts_with("linux-image-") && name.ends_with("-cloud-amd64"))
        .ok_or_else(|| GuestError::Format {
            what: listed[0].name.clone(),
            reason: "it depends on no kernel".to_owned(),
        })?;
    Ok(archive.find(&[kernel_name], progress)?.remove(0))
}

/// A RAM disk that loads what a disk needs, mounts it, and leaves the rest to the system on it.
pub(crate) fn root_mounter(modules: &Modules) -> std::io::Result<Vec<u8>> {
    let mut archive = Cpio::default();
    for folder in ["dev", "proc", "sys", "run", "tmp", "root", "etc", "lib", "lib/modules"] {
        archive.folder(folder);
    }
    archive.device("dev/console", (5, 1));
    archive.device("dev/null", (1, 3));
    archive.file("init", 0o755, AGENT);
    let mut list = String::new();
    for name in ordered(modules) {
        let path = format!("lib/modules/{name}.ko");
        archive.file(&path, 0o644, &modules[&name]);
        list.push_str(&format!("/{path}\n"));
    }
    archive.file("etc/modules", 0o644, list.as_bytes());
    zstd::encode_all(archive.finish().as_slice(), 3)
}

/// The kernel of its package, and the modules that a guest of ours may need.
pub(crate) fn kernel_parts(package: &Package) -> Result<(Vec<u8>, Modules)> {
    let mut image = None;
    let mut modules = Modules::new();
    let is_module = |path: &str| path.ends_with(".ko") || path.ends_with(".ko.xz");
    let wanted = |path: &str| path.starts_with("boot/vmlinuz-") || is_useful_module(path);
    package.files(wanted, |path, bytes| {
        if !is_module(path) {
            image = Some(bytes);
            return Ok(());
        }
        let file = path.rsplit('/').next().unwrap_or(path);
        let name = file.split(".ko").next().unwrap_or(file).replace('-', "_");
        modules.insert(name, unpacked(path, bytes)?);
        Ok(())
    })?;
    let image = image.ok_or_else(|| GuestError::Format {
        what: "The kernel's package".to_owned(),
        reason: "it holds no kernel".to_owned(),
    })?;
    Ok((image, modules))
}

/// The name of the note that says what was made last.
fn note_name() -> String {
    let agent = sum(AGENT);
    format!("images/spark-{RECIPE}-{}.json", &agent[..16])
}

fn remembered(cache: &Cache) -> Option<Image> {
    let note: serde_json::Value = serde_json::from_slice(&cache.read(&note_name())?).ok()?;
    let path = |key: &str| {
        let path = cache.path(note[key].as_str()?);
        path.is_file().then_some(path)
    };
    Some(Image {
        kernel: path("kernel")?,
        initrd: path("initrd")?,
        command_line: COMMAND_LINE.to_owned(),
        version: note["version"].as_str()?.to_owned(),
    })
}

fn make(
    cache: &Cache,
    archive: &Archive,
    kernel: &Listed,
    busybox: &Listed,
    progress: &mut dyn Progress,
) -> Result<Image> {
    let kernel_package = archive.package(kernel, progress)?;
    let busybox_package = archive.package(busybox, progress)?;
    progress.step("Assembling the image");
    let (image, modules) = kernel_parts(&kernel_package)?;
    let missing = |what: &str| GuestError::Format {
        what: format!("The package {}", kernel.name),
        reason: format!("it holds no {what}"),
    };
    let mut shell = None;
    busybox_package.files(
        |path| path.ends_with("bin/busybox"),
        |_, bytes| {
            shell = Some(bytes);
            Ok(())
        },
    )?;
    let shell = shell.ok_or_else(|| missing("busybox"))?;
    let packed = zstd::encode_all(contents(&modules, &shell).as_slice(), 3)
        .map_err(|error| GuestError::Format { what: "spark".into(), reason: error.to_string() })?;
    let folder = format!("images/spark-{}-{}", kernel.version, &sum(&packed)[..12]);
    let (kernel_file, initrd_file) = (format!("{folder}/vmlinuz"), format!("{folder}/initrd"));
    cache.write(&kernel_file, &image)?;
    cache.write(&initrd_file, &packed)?;
    let note = serde_json::json!({"kernel": kernel_file, "initrd": initrd_file,
        "version": kernel.version});
    cache.write(&note_name(), note.to_string().as_bytes())?;
    remembered(cache).ok_or_else(|| missing("image"))
}

/// Folders of the kernel's tree in which something that we load, or what it depends on, may lie.
fn is_useful_module(path: &str) -> bool {
    let is_module = path.ends_with(".ko") || path.ends_with(".ko.xz");
    const FOLDERS: &[&str] = &[
        "/drivers/virtio/",
        "/drivers/net/",
        "/drivers/block/",
        "/drivers/char/",
        "/net/vmw_vsock/",
        "/net/core/",
        "/fs/fuse/",
        "/fs/overlayfs/",
        "/fs/isofs/",
        "/fs/nls/",
        "/drivers/cdrom/",
    ];
    is_module && FOLDERS.iter().any(|folder| path.contains(folder))
}

fn unpacked(path: &str, bytes: Vec<u8>) -> Result<Vec<u8>> {
    if !path.ends_with(".xz") {
        return Ok(bytes);
    }
    let mut plain = Vec::new();
    XzDecoder::new(bytes.as_slice())
        .take(64 << 20)
        .read_to_end(&mut plain)
        .map_err(|error| GuestError::Format { what: path.to_owned(), reason: error.to_string() })?;
    Ok(plain)
}

/// What a module needs first, by its own words.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let rest = &module[at + KEY.len()..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let names = String::from_utf8_lossy(&rest[..end]).replace('-', "_");
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Modules in the order in which they can be loaded. What is not there is built into the kernel.
fn ordered(modules: &Modules) -> Vec<String> {
    fn visit(name: &str, modules: &Modules, order: &mut Vec<String>, depth: u32) {
        let known = order.iter().any(|done| done == name);
        let Some(module) = modules.get(name).filter(|_| !known && depth < 20) else { return };
        for needed in dependencies(module) {
            visit(&needed, modules, order, depth + 1);
        }
        order.push(name.to_owned());
    }
    let mut order = Vec::new();
    for name in MODULES {
        visit(&name.replace('-', "_"), modules, &mut order, 0);
    }
    // A bus whose driver is loaded first finds nothing: the transport's helpers name nobody.
    order
}

/// The names under which busybox is a program: they stand in it one behind the other.
fn applets(busybox: &[u8]) -> Vec<String> {
    const FIRST: &[u8] = b"[\0[[\0";
    let at = busybox.windows(FIRST.len()).position(|window| window == FIRST);
    let list = at.map_or(&[][..], |at| &busybox[at..]);
    let name = |name: &[u8]| {
        let sound = |sign: &u8| sign.is_ascii_alphanumeric() || b"-_.[".contains(sign);
        let good = !name.is_empty() && name.len() < 32 && name.iter().all(sound);
        good.then(|| String::from_utf8_lossy(name).into_owned())
    };
    let mut names: Vec<String> = list.split(|byte| *byte == 0).map_while(name).collect();
    names.retain(|name| name != "busybox"); // which is the program itself
    // Without them nothing starts.
    for needed in ["sh", "setsid"] {
        if !names.iter().any(|known| known == needed) {
            names.push(needed.to_owned());
        }
    }
    names
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n";
const PROFILE: &str = "export PS1='\\u@\\h:\\w\\$ '\nexport PATH=/usr/local/sbin:/usr/local/bin:\
/usr/sbin:/usr/bin:/sbin:/bin\n";
/// What is left to be done when the agent listens.
const RC: &str = "\
hostname -F /etc/hostname 2>/dev/null
ip link set lo up
for card in /sys/class/net/e*; do
    [ -e \"$card\" ] || continue
    ip link set \"${card##*/}\" up
    udhcpc -i \"${card##*/}\" -s /etc/udhcpc -q -n -t 5 -T 1 -A 1 >/dev/null 2>&1 &
done
wait
";
/// Told by the DHCP client what it got.
const UDHCPC: &str = "\
#!/bin/sh
case \"$1\" in
deconfig) ip addr flush dev \"$interface\" ;;
bound|renew)
    ip addr add \"$ip/${mask:-24}\" dev \"$interface\" 2>/dev/null
    for gateway in $router; do ip route add default via \"$gateway\" 2>/dev/null; done
    : >/etc/resolv.conf
    [ -n \"$domain\" ] && echo \"search $domain\" >>/etc/resolv.conf
    for server in $dns; do echo \"nameserver $server\" >>/etc/resolv.conf; done
    ;;
esac
";

/// The file system.
fn contents(modules: &Modules, busybox: &[u8]) -> Vec<u8> {
    let mut archive = Cpio::default();
    for folder in [
        "bin",
        "sbin",
        "usr",
        "usr/bin",
        "usr/sbin",
        "dev",
        "proc",
        "sys",
        "etc",
        "root",
        "run",
        "tmp",
        "mnt",
        "lib",
        "lib/modules",
    ] {
        archive.folder(folder);
    }
    archive.device("dev/console", (5, 1));
    archive.device("dev/null", (1, 3));
    archive.file("init", 0o755, AGENT);
    archive.file("bin/busybox", 0o755, busybox);
    for name in applets(busybox) {
        archive.link(&format!("bin/{name}"), "busybox");
    }
    let mut list = String::new();
    for name in ordered(modules) {
        let path = format!("lib/modules/{name}.ko");
        archive.file(&path, 0o644, &modules[&name]);
        list.push_str(&format!("/{path}\n"));
    }
    archive.file("etc/modules", 0o644, list.as_bytes());
    archive.file("etc/passwd", 0o644, PASSWD.as_bytes());
    archive.file("etc/shadow", 0o600, b"root:*:19000:0:99999:7:::\n");
    archive.file("etc/group", 0o644, b"root:x:0:\n");
    archive.file("etc/profile", 0o644, PROFILE.as_bytes());
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n");
    archive.file("etc/os-release", 0o644, b"ID=spark\nPRETTY_NAME=\"Hostel Spark\"\n");
    archive.file("etc/rc", 0o755, RC.as_bytes());
    archive.file("etc/udhcpc", 0o755, UDHCPC.as_bytes());
    archive.file("etc/consoles", 0o644, b"/dev/ttyS0\n");
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applets_are_found_in_the_program() {
        let program = b"junk\0[\0[[\0busybox\0ls\0setsid\0sh\0\0more\0";
        assert_eq!(applets(program), ["[", "[[", "ls", "setsid", "sh"]);
        assert_eq!(applets(b"none"), ["sh", "setsid"]);
    }

    #[test]
    fn modules_come_after_what_they_need() {
        let module = |depends: &str| format!("\0license=GPL\0depends={depends}\0x").into_bytes();
        let modules: Modules = [
            ("virtio_net", "virtio,net-failover"),
            ("net_failover", "failover"),
            ("failover", ""),
            ("virtio", "virtio_ring"),
            ("virtio_ring", ""),
        ]
        .into_iter()
        .map(|(name, depends)| (name.to_owned(), module(depends)))
        .collect();
        let expected = ["virtio_ring", "virtio", "failover", "net_failover", "virtio_net"];
        assert_eq!(ordered(&modules), expected);
    }
}
