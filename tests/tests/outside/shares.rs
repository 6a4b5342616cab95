//! Folders of the host in a guest.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::json;

use super::guest::{Guest, compiled};
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
