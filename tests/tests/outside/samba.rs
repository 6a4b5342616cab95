//! `smb=`: a folder of the host by Debian's samba, mounted by the kernel's own client.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use super::guest::{Guest, Running, is_root, rooted_shell};

const CIFS: &[&str] = &[
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "crypto/cmac",
    "crypto/sha512_generic",
    "crypto/ccm",
    "crypto/ctr",
    "crypto/gf128mul",
    "crypto/ghash-generic",
    "crypto/gcm",
    "fs/netfs/netfs",
    "fs/fscache/fscache",
    "net/dns_resolver/dns_resolver",
    "fs/smb/common/cifs_md4",
    "fs/smb/common/cifs_arc4",
    "fs/smb/client/cifs",
];

#[test]
fn a_guest_mounts_the_folder_that_samba_gives() {
    let script = "ip link set lo up; ip link set eth0 up\n\
        ip addr add 10.0.2.15/24 dev eth0; mkdir -p /mnt\n\
        mount -t cifs -o guest,vers=3.0,sec=none //10.0.2.4/qemu /mnt || dmesg | tail\n\
        cat /mnt/words; echo of the guest > /mnt/answer; ls /mnt\n\
        dd if=/dev/zero bs=64k count=32 2>/dev/null | tr '\\0' x > /mnt/long; sha1sum /mnt/long\n\
        umount /mnt && echo unmounted; poweroff -f";
    let Some(guest) = Guest::new("samba", CIFS, &[], script) else {
        tests::skip!("the kernel with modules or busybox was not fetched");
    };
    let Some(root) = tests::asset("samba") else { tests::skip!("samba was not fetched") };
    if !is_root() {
        tests::skip!("samba in a root of its own wants to be root");
    }
    // What an installation would have made.
    fs::create_dir_all(root.join("etc")).unwrap();
    let users = "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
    fs::write(root.join("etc/passwd"), users).unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n").unwrap();
    let share = guest.folder.join("share");
    fs::create_dir(&share).unwrap();
    fs::write(share.join("words"), "words of the host\n").unwrap();
    // The server is where it belongs in that root only, so that the emulator runs there, too.
    for (from, to) in [(&guest.kernel, "kernel"), (&tests::hostel_path(), "hostel")] {
        fs::copy(from, guest.folder.join(to)).unwrap();
    }
    let log = fs::File::create(guest.folder.join("log")).unwrap();
    let mut shell = rooted_shell("samba", &guest.folder).unwrap();
    shell.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut shell = Running(shell.spawn().unwrap());
    let line = "exec /tmp/hostel qemu-system-x86_64 -nodefaults -display none -no-reboot -m 256 \
        -kernel /tmp/kernel -initrd /tmp/initrd -append 'console=ttyS0 quiet panic=-1' \
        -serial file:/tmp/console -netdev user,id=n,smb=/tmp/share \
        -device virtio-net-pci,netdev=n\n";
    let written = shell.0.stdin.take().unwrap().write_all(line.as_bytes());
    shell.wait(|| guest.console());
    let log = fs::read_to_string(guest.folder.join("log")).unwrap();
    if written.is_err() || log.contains("unshare") || log.contains("mount:") {
        tests::skip!("there are no namespaces here");
    }
    let console = guest.console();
    assert!(console.contains("words of the host"), "{console}{log}");
    assert!(console.contains("unmounted"), "{console}{log}");
    assert_eq!(fs::read(share.join("answer")).unwrap(), b"of the guest\n");
    assert_eq!(fs::read(share.join("long")).unwrap(), vec![b'x'; 2 << 20]);
    assert!(console.contains("2e4eab0e0f676a4af4ee73bf9c45c9a88d8e356f"), "{console}");
}
