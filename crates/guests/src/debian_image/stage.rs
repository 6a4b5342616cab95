//! The archive for the second stage, and its script.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use crate::debian::{Archive, Listed, Package};
use crate::{AGENT, GuestError, Progress, Result, spark};

/// Folders that are links to their namesakes below `usr`.
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib64", "lib32", "libx32"];

/// What the archive was made from.
pub struct Stage {
    /// The kernel.
    pub kernel: Vec<u8>,
    /// Its release, as it names the folder of its modules.
    pub kernel_release: String,
    /// The modules that mount a root.
    pub modules: spark::Modules,
}

fn failed(error: &std::io::Error) -> GuestError {
    GuestError::Format { what: "The archive".to_owned(), reason: error.to_string() }
}

/// Where a package's file goes.
fn merged(path: &Path) -> PathBuf {
    let path = path.strip_prefix("./").unwrap_or(path);
    let first = path.components().next().map(|part| part.as_os_str().to_string_lossy());
    match first {
        Some(first) if MERGED.contains(&&*first) => Path::new("usr").join(path),
        _ => path.to_owned(),
    }
}

/// Unpacks everything into one archive, with the records of dpkg.
pub fn write(
    archive: &Archive,
    packages: &[Listed],
    kernel: &Listed,
    target: &Path,
    progress: &mut dyn Progress,
) -> Result<Stage> {
    let file = File::create(target).map_err(|error| GuestError::io(target, error))?;
    let mut out = Builder::new(BufWriter::new(file));
    let mut status = String::new();
    for listed in packages {
        let package = archive.package(listed, progress)?;
        progress.step(&format!("Unpacking {}", listed.name));
        let list = copy(&package, &mut out, |_| true)?;
        record(&package, &list, &mut out, &mut status)?;
    }
    add(&mut out, "var/lib/dpkg/status", 0o644, status.as_bytes())?;
    add(&mut out, "var/lib/dpkg/available", 0o644, b"")?;
    add(&mut out, "var/lib/dpkg/info/format", 0o644, b"1\n")?;
    add(&mut out, "usr/local/sbin/hostel-agent", 0o755, AGENT)?;
    progress.step("Unpacking the kernel");
    let package = archive.package(kernel, progress)?;
    copy(&package, &mut out, |path| {
        path.starts_with("lib/modules/") || path.starts_with("usr/lib/modules/")
    })?;
    let (image, modules) = spark::kernel_parts(&package)?;
    let kernel_release = kernel.name.strip_prefix("linux-image-").unwrap_or_default().to_owned();
    let mut inner = out.into_inner().map_err(|error| failed(&error))?;
    // A disk ends with a whole sector.
    let written = inner.flush().and_then(|()| {
        let file = inner.get_ref();
        let bytes = file.metadata()?.len();
        file.set_len(bytes.next_multiple_of(4096))
    });
    written.map_err(|error| failed(&error))?;
    Ok(Stage { kernel: image, kernel_release, modules })
}

/// Copies a package's files; gives their names as dpkg lists them.
fn copy(
    package: &Package,
    out: &mut Builder<BufWriter<File>>,
    wanted: impl Fn(&str) -> bool,
) -> Result<String> {
    let mut list = String::new();
    package.entries("data.tar", |entry| {
        let path = entry.path().map_err(|error| failed(&error))?.into_owned();
        let plain =
            path.to_string_lossy().trim_start_matches("./").trim_end_matches('/').to_owned();
        list.push_str(if plain.is_empty() { "/.\n" } else { "" });
        if plain.is_empty() || !wanted(&plain) {
            return Ok(());
        }
        list.push_str(&format!("/{plain}\n"));
        let is_merged_folder = MERGED.contains(&plain.as_str());
        if is_merged_folder {
            return Ok(());
        }
        let target = merged(Path::new(&plain));
        let mut header: Header = entry.header().clone();
        let kind = header.entry_type();
        if matches!(kind, EntryType::Link | EntryType::Symlink) {
            let link = entry.link_name().map_err(|error| failed(&error))?.unwrap_or_default();
            let link = if kind == EntryType::Link { merged(&link) } else { link.into_owned() };
            return out.append_link(&mut header, target, link).map_err(|error| failed(&error));
        }
        out.append_data(&mut header, target, entry).map_err(|error| failed(&error))
    })?;
    Ok(list)
}

/// What dpkg would have written when it unpacked the package.
fn record(
    package: &Package,
    list: &str,
    out: &mut Builder<BufWriter<File>>,
    status: &mut String,
) -> Result<()> {
    let mut files = Vec::new();
    package.entries("control.tar", |entry| {
        let path = entry.path().map_err(|error| failed(&error))?.into_owned();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|error| failed(&error))?;
            files.push((name, bytes));
        }
        Ok(())
    })?;
    let control = files.iter().find(|(name, _)| name == "control");
    let control = String::from_utf8_lossy(control.map_or(&[][..], |(_, bytes)| bytes)).into_owned();
    let field = |name: &str| {
        control.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    };
    let name = field("Package").unwrap_or_default();
    let stem = match (field("Multi-Arch"), field("Architecture")) {
        (Some("same"), Some(architecture)) => format!("{name}:{architecture}"),
        _ => name.to_owned(),
    };
    for line in control.trim_end().lines() {
        status.push_str(line);
        status.push('\n');
        if line.starts_with("Package:") {
            status.push_str("Status: install ok unpacked\n");
        }
    }
    status.push('\n');
    add(out, &format!("var/lib/dpkg/info/{stem}.list"), 0o644, list.as_bytes())?;
    for (name, bytes) in files.iter().filter(|(name, _)| name != "control") {
        let is_script =
            ["preinst", "postinst", "prerm", "postrm", "config"].contains(&name.as_str());
        let mode = if is_script { 0o755 } else { 0o644 };
        add(out, &format!("var/lib/dpkg/info/{stem}.{name}"), mode, bytes)?;
    }
    Ok(())
}

fn add(out: &mut Builder<BufWriter<File>>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    out.append_data(&mut header, path, bytes).map_err(|error| failed(&error))
}

/// What the machine does: `/dev/vdb` becomes the system in `/dev/vdc`.
pub fn script(suite: &str, url: &str, stage: &Stage) -> String {
    let release = &stage.kernel_release;
    format!("{HEAD}{TREE}\nsuite={suite}\nurl={url}\nrelease={release}\n{CONFIGURE}{FINISH}")
}

const HEAD: &str = "set -e\nroot=/mnt/system\nexport PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:\
/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true\n";

const TREE: &str = r#"
echo 'Unpacking the system'
mkdir -p $root
mount -t ext4 /dev/vdb $root
cd $root
mkdir -p usr/bin usr/sbin usr/lib usr/lib64 proc sys dev run tmp root
chmod 1777 tmp; chmod 700 root
for name in bin sbin lib lib64; do ln -s usr/$name $name; done
tar x -f /dev/vdc
mkdir -p var/lib/dpkg/updates var/lib/dpkg/triggers var/lib/dpkg/alternatives
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs devtmpfs dev
mount -t devpts devpts dev/pts
mount -t tmpfs tmpfs run
"#;

/// The order of the first ones is that of Debian's own installer: others' scripts need them. Programs
/// have whole paths, for busybox would take its own namesakes.
const CONFIGURE: &str = r#"
echo 'Configuring packages'
cp usr/share/base-passwd/passwd.master etc/passwd
cp usr/share/base-passwd/group.master etc/group
printf '#!/bin/sh\nexit 101\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
# Python compiles what it runs when it first runs it.
for name in py3compile py3clean; do
    [ -e usr/bin/$name ] || continue
    mv usr/bin/$name usr/bin/$name.real
    ln -s true usr/bin/$name
done
ln -sf mawk usr/bin/awk
# Each machine gets keys of its own; none is drawn here.
mkdir -p etc/ssh
for kind in rsa ecdsa ed25519; do : >etc/ssh/ssh_host_${kind}_key; done
printf 'force-unsafe-io\n' >etc/dpkg/dpkg.cfg.d/hostel-build
chroot . /usr/bin/dpkg --force-depends --configure base-passwd base-files libc6 perl-base mawk debconf dpkg
chroot . /usr/bin/dpkg --configure -a
for name in py3compile py3clean; do
    [ -e usr/bin/$name.real ] || continue
    mv -f usr/bin/$name.real usr/bin/$name
done
rm -f usr/sbin/policy-rc.d etc/dpkg/dpkg.cfg.d/hostel-build
chroot . /usr/sbin/depmod $release
"#;

const FINISH: &str = r#"
echo 'Finishing'
printf '/dev/vda / ext4 defaults,noatime 0 1\n' >etc/fstab
printf 'deb %s %s main\n' "$url" "$suite" >etc/apt/sources.list
printf 'debian\n' >etc/hostname
: >etc/machine-id
rm -f etc/ssh/ssh_host_*
cat >etc/cloud/cloud.cfg.d/50-hostel.cfg <<EOF
datasource_list: [NoCloud, ConfigDrive, None]
apt_preserve_sources_list: true
locale: false
EOF
cat >etc/systemd/system/hostel-agent.service <<EOF
[Unit]
Description=Hostel's agent
DefaultDependencies=no
After=local-fs.target systemd-udevd.service
[Service]
ExecStartPre=-/sbin/modprobe vmw_vsock_virtio_transport
ExecStart=/usr/local/sbin/hostel-agent
Restart=always
RestartSec=1
[Install]
WantedBy=sysinit.target
EOF
mkdir -p etc/systemd/network
cat >etc/systemd/network/99-hostel.network <<EOF
[Match]
Name=en* eth*
[Network]
DHCP=yes
EOF
for unit in hostel-agent systemd-networkd systemd-resolved ssh; do
    chroot . /usr/bin/systemctl enable $unit
done
chroot . /usr/bin/systemctl disable systemd-networkd-wait-online 2>/dev/null || true
ln -sf ../run/systemd/resolve/stub-resolv.conf etc/resolv.conf
rm -rf var/cache/apt/archives/*.deb var/lib/dpkg/*-old
cd /
for place in run dev/pts dev sys proc ''; do umount $root/$place; done
sync
echo 'The system is complete'
"#;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn files_go_below_usr_and_the_script_is_sound() {
        for (path, target) in
            [("./bin/sh", "usr/bin/sh"), ("lib/x/y", "usr/lib/x/y"), ("etc/a", "etc/a")]
        {
            assert_eq!(merged(Path::new(path)), Path::new(target));
        }
        let (kernel, kernel_release) = (Vec::new(), "6.1-cloud".to_owned());
        let stage = Stage { kernel, kernel_release, modules: spark::Modules::new() };
        let script = script("bookworm", "http://mirror/debian", &stage);
        let run = Command::new("sh").args(["-n", "-c", &script]).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        assert!(script.contains("url=http://mirror/debian\nrelease=6.1-cloud\n"));
    }
}
