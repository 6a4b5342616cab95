//! Folders of the host in a guest.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use super::guest::{Guest, Running, appears, compiled, debian_program};
use crate::monitor::Machine;

const NINEP: &[&str] =
    &["fs/netfs/netfs", "fs/fscache/fscache", "net/9p/9pnet", "net/9p/9pnet_virtio", "fs/9p/9p"];
const MOUNT: &str = "mkdir -p /mnt; mount -t 9p -o trans=virtio,version=9p2000.L";
/// Random accesses to a file.
const ROUNDS: u32 = 300;

fn share(folder: &Path, tag: &str, model: &str) -> String {
    let path = folder.join(tag);
    fs::create_dir(&path).unwrap();
    format!("local,path={},mount_tag={tag},security_model={model}", path.display())
}

#[test]
fn files_in_9p_shares_behave_in_all_security_models() {
    let folder = tests::scratch("9p-guest");
    let Some(program) = compiled("files.c", &folder) else {
        tests::skip!("gcc makes no static programs here");
    };
    let models = ["passthrough", "none", "mapped-xattr", "mapped-file"];
    let each = models.map(|model| {
        let tag = model.replace('-', "");
        format!(
            "{MOUNT},msize=131072 {tag} /mnt && echo {tag}: $(/files /mnt {ROUNDS})\n\
             umask 0; echo from the guest > /mnt/left; chmod 4711 /mnt/left; chown 77 /mnt/left\n\
             ln -s left /mnt/link; umount /mnt\n"
        )
    });
    let script = each.concat() + "poweroff -f";
    let Some(guest) = Guest::new("9p-models", NINEP, &[program], &script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    let shares: Vec<String> =
        models.iter().map(|model| share(&folder, &model.replace('-', ""), model)).collect();
    let options: Vec<&str> = shares.iter().flat_map(|share| ["-virtfs", share]).collect();
    let console = guest.run(&options);
    let own = fs::metadata(&folder).unwrap().uid();
    let root = own == 0;
    for model in models.map(|model| model.replace('-', "")) {
        let mapped = model.starts_with("mapped");
        if mapped || root {
            assert!(console.contains(&format!("{model}: all is well")), "{console}");
        }
        let left = fs::metadata(folder.join(&model).join("left")).unwrap();
        assert_eq!(fs::read(folder.join(&model).join("left")).unwrap(), b"from the guest\n");
        let mode = left.mode() & 0o7777;
        match mapped {
            true => assert_eq!((mode, left.uid()), (0o600, own), "{model}"),
            // A new owner has no borrowed rights.
            false if root => assert_eq!((mode, left.uid()), (0o711, 77), "{model}"),
            false => {}
        }
        let link = fs::symlink_metadata(folder.join(&model).join("link")).unwrap();
        assert_eq!(link.is_symlink(), !mapped, "{model}");
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_9p_share_is_plugged_in_and_out_and_may_be_read_only() {
    let folder = tests::scratch("9p-plug");
    // Drivers of hot-plugged devices need slots that announce them: a root port's.
    let script = format!(
        "until [ -e /sys/bus/virtio/devices/virtio0/mount_tag ]; do sleep 0.1; done\n\
         {MOUNT} later /mnt; cat /mnt/file; echo no > /mnt/other || echo refused\n\
         umount /mnt; echo unmounted\n\
         while [ -e /sys/bus/virtio/devices/virtio0 ]; do sleep 0.1; done\necho gone\npoweroff -f"
    );
    let Some(guest) = Guest::new("9p-hotplug", NINEP, &[], &script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    fs::write(folder.join("file"), "words of the host\n").unwrap();
    let device = format!("local,id=f,path={},security_model=none,readonly=on", folder.display());
    let mut options = guest.options();
    options.extend(["-M", "q35", "-fsdev", &device].map(str::to_owned));
    options.extend(["-device", "pcie-root-port,id=p,chassis=1"].map(str::to_owned));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut machine = Machine::start("9p-plug", &options);
    let plug = |fsdev: &str| {
        json!({"driver": "virtio-9p-pci", "id": "d", "bus": "p", "fsdev": fsdev,
            "mount_tag": "later"})
    };
    let refused = machine.bad("device_add", plug("x"));
    assert_eq!(refused, "9pfs device couldn't find fsdev with the id = x");
    machine.good("device_add", plug("f"));
    let console = guest.says("unmounted");
    assert!(console.contains("words of the host") && console.contains("refused"), "{console}");
    machine.good("device_del", json!({"id": "d"}));
    assert_eq!(machine.event("DEVICE_DELETED")["data"]["device"], "d");
    guest.says("gone");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn wrong_shares_are_refused_in_the_words_of_the_reference() {
    let Some(reference) = tests::asset("bin/qemu-system-x86_64") else {
        tests::skip!("the reference QEMU 10 was not fetched");
    };
    let Some(firmware) = tests::asset("qemu-system-10/usr/share/seabios") else {
        tests::skip!("the firmware of the reference was not fetched");
    };
    let folder = tests::scratch("9p-refused");
    let path = folder.display();
    let lines = [
        "-virtfs local".to_owned(),
        format!("-virtfs local,path={path}"),
        format!("-virtfs local,path={path},mount_tag=x"),
        format!("-virtfs local,path={path},mount_tag=x,security_model=foo"),
        format!("-virtfs local,path={path}/none,mount_tag=x,security_model=none"),
        format!("-virtfs local,path={path},mount_tag=x,security_model=none,multidevs=foo"),
        format!("-virtfs local,path={path},mount_tag=x,security_model=none,readonly=foo"),
        format!("-virtfs local,path={path},mount_tag=x,security_model=none,foo=foo"),
        format!("-virtfs local,path={path},mount_tag=0x,security_model=none"),
        format!("-virtfs proxy,path={path},mount_tag=x"),
        "-fsdev local,path=/tmp,security_model=none".to_owned(),
        "-fsdev foo,id=x,path=/tmp".to_owned(),
        "-fsdev local,id=x,security_model=none".to_owned(),
        "-device virtio-9p-pci,mount_tag=a,fsdev=nix".to_owned(),
        "-device virtio-9p-pci,mount_tag=a".to_owned(),
        format!("-fsdev local,id=a,path={path},security_model=none -device virtio-9p-pci,fsdev=a"),
    ];
    for line in lines {
        let said = [tests::hostel(), std::process::Command::new(&reference)].map(|mut command| {
            if command.get_program() != reference.as_os_str() {
                command.args(["qemu-system-x86_64", "-L"]).arg(&firmware);
            }
            command.args(["-display", "none", "-nodefaults", "-accel", "tcg"]);
            let output = command.args(line.split(' ')).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{line}");
            String::from_utf8_lossy(&output.stderr).into_owned()
        });
        assert_eq!(said[0], said[1], "{line}");
    }
    fs::remove_dir_all(folder).unwrap();
}

/// Debian's virtiofsd for a folder.
fn virtiofsd(folder: &Path, socket: &Path) -> Option<Running> {
    let mut command = debian_program("sharing", "usr/libexec/virtiofsd")?;
    command.args(["--sandbox", "none", "--seccomp", "none", "--xattr", "--shared-dir"]);
    command.arg(folder).arg("--socket-path").arg(socket).stderr(Stdio::null());
    let daemon = Running(command.spawn().unwrap());
    appears(socket);
    Some(daemon)
}

const VIRTIOFS: &[&str] = &["fs/fuse/fuse", "fs/fuse/virtiofs"];

#[test]
fn files_of_virtiofsd_behave() {
    let folder = tests::scratch("virtiofs");
    let Some(program) = compiled("files.c", &folder) else {
        tests::skip!("gcc makes no static programs here");
    };
    // Programs of the folder run, so that translations follow what the other process writes.
    let script = format!(
        "mkdir -p /mnt; mount -t virtiofs tag /mnt && /files /mnt {ROUNDS}\n\
         cp /files /mnt/program && umount /mnt && mount -t virtiofs tag /mnt\n\
         for i in 1 2 3; do /mnt/program /mnt 20; done\numount /mnt; poweroff -f"
    );
    let Some(guest) = Guest::new("virtiofs-guest", VIRTIOFS, &[program], &script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    let (share, socket) = (folder.join("share"), folder.join("socket"));
    fs::create_dir(&share).unwrap();
    if fs::metadata(&share).unwrap().uid() != 0 {
        tests::skip!("virtiofsd gives files to the guest's users as root only");
    }
    let Some(_daemon) = virtiofsd(&share, &socket) else {
        tests::skip!("virtiofsd was not fetched");
    };
    let chardev = format!("socket,id=c,path={}", socket.display());
    let console = guest.run(&[
        "-object",
        "memory-backend-memfd,id=m,size=256M,share=on,x-use-canonical-path-for-ramblock-id=off",
        "-machine",
        "memory-backend=m",
        "-chardev",
        &chardev,
        "-device",
        "vhost-user-fs-pci,chardev=c,tag=tag,queue-size=64",
    ]);
    assert_eq!(console.matches("all is well").count(), 4, "{console}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn virtiofs_comes_and_goes_and_a_lost_daemon_does_not_stop_the_machine() {
    let folder = tests::scratch("virtiofs-plug");
    let script = "mkdir -p /mnt\n\
        until mount -t virtiofs tag /mnt 2>/dev/null; do sleep 0.1; done\n\
        cat /mnt/file; umount /mnt; echo unmounted\n\
        while [ -e /sys/bus/virtio/devices/virtio0 ]; do sleep 0.1; done\necho gone\n\
        until mount -t virtiofs again /mnt 2>/dev/null; do sleep 0.1; done\n\
        cat /mnt/file; echo mounted again; sleep 1000";
    let Some(guest) = Guest::new("virtiofs-hotplug", VIRTIOFS, &[], script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    let (share, first, second) =
        (folder.join("share"), folder.join("first"), folder.join("second"));
    fs::create_dir(&share).unwrap();
    fs::write(share.join("file"), "words of the host\n").unwrap();
    let Some(_daemon) = virtiofsd(&share, &first) else {
        tests::skip!("virtiofsd was not fetched");
    };
    let mut options = guest.options();
    options.extend(["-M", "q35", "-device", "pcie-root-port,id=p,chassis=1"].map(str::to_owned));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut machine = Machine::start("virtiofs-plug", &options);
    let chardev = |id: &str, path: &Path| {
        json!({"id": id, "backend": {"type": "socket", "data": {"server": false,
            "addr": {"type": "unix", "data": {"path": path}}}}})
    };
    let plug = |chardev: &str, tag: &str| {
        json!({"driver": "vhost-user-fs-pci", "id": "d", "bus": "p", "chardev": chardev,
            "tag": tag})
    };
    let refused = machine.bad("device_add", plug("none", "tag"));
    assert!(refused.contains("'none'"), "{refused}");
    machine.good("chardev-add", chardev("one", &first));
    machine.good("device_add", plug("one", "tag"));
    guest.says("unmounted");
    machine.good("device_del", json!({"id": "d"}));
    machine.event("DEVICE_DELETED");
    guest.says("gone");
    let lost = virtiofsd(&share, &second).unwrap();
    machine.good("chardev-add", chardev("two", &second));
    machine.good("device_add", plug("two", "again"));
    let console = guest.says("mounted again");
    assert_eq!(console.matches("words of the host").count(), 2, "{console}");
    drop(lost);
    assert_eq!(machine.good("query-status", json!({}))["status"], "running");
    fs::remove_dir_all(folder).unwrap();
}
