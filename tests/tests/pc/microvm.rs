//! The board without PCI: `-M microvm`, with virtio devices behind registers in memory.

use std::fs;
use std::process::{Output, Stdio};

use tests::initramfs;

fn run(options: &[&str]) -> Output {
    tests::hostel()
        .args(["qemu-system-x86_64", "-nodefaults", "-display", "none", "-m", "256"])
        .args(options)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}

const SCRIPT: &str = "/bin/busybox mount -t proc proc /proc\n\
    /bin/busybox mount -t sysfs sysfs /sys\n\
    for m in virtio virtio_ring virtio_mmio virtio_blk; do /bin/busybox insmod /$m.ko; done\n\
    /bin/busybox mknod /dev/vda b 254 0\n\
    echo DISK $(/bin/busybox head -c 5 /dev/vda) CPUS $(/bin/busybox nproc) \
    DEVICES $(/bin/busybox ls /sys/bus/virtio/devices) \
    PCI $(/bin/busybox ls /sys/bus/pci/devices | /bin/busybox wc -l)\n\
    /bin/busybox poweroff -f";

#[test]
fn debians_kernel_finds_disks_without_pci_and_powers_off() {
    let (Some(busybox), Some(kernel), Some(modules)) = (
        tests::asset("busybox-amd64/bin/busybox"),
        tests::asset_file("kernel-12/boot", "vmlinuz"),
        tests::asset_file("kernel-12/lib/modules", "6"),
    ) else {
        tests::skip!("the kernel or busybox was not fetched");
    };
    let folder = tests::scratch("microvm");
    let (initrd, disk) = (folder.join("initrd"), folder.join("disk"));
    let module = |name: &str| modules.join("kernel/drivers").join(name);
    let needed = [
        module("virtio/virtio.ko"),
        module("virtio/virtio_ring.ko"),
        module("virtio/virtio_mmio.ko"),
        module("block/virtio_blk.ko"),
    ];
    initramfs::write_with(&initrd, &busybox, SCRIPT, &needed).unwrap();
    let mut bytes = vec![0; 1 << 20];
    bytes[..5].copy_from_slice(b"hello");
    fs::write(&disk, bytes).unwrap();
    let drive = format!("file={},format=raw,if=none,id=d", disk.display());
    for board in [
        "microvm",
        "microvm,pit=off,pic=off,rtc=off,x-option-roms=off,auto-kernel-cmdline=on,isa-serial=on",
    ] {
        let output = run(&[
            "-M",
            board,
            "-smp",
            "2",
            "-serial",
            "stdio",
            "-no-reboot",
            "-kernel",
            kernel.to_str().unwrap(),
            "-initrd",
            initrd.to_str().unwrap(),
            "-append",
            "console=ttyS0 quiet panic=-1",
            "-drive",
            &drive,
            "-device",
            "virtio-blk-device,drive=d",
            "-device",
            "virtio-rng-device",
        ]);
        assert!(output.status.success(), "it powers off by itself");
        let text = said(&output);
        let wanted = "DISK hello CPUS 2 DEVICES virtio0 virtio1 PCI 0";
        assert!(text.contains(wanted), "{board}: {text}");
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn seabios_boots_from_a_disk_without_pci() {
    let Some(firmware) = tests::asset("qemu-system-10/usr/share/seabios") else {
        tests::skip!("SeaBIOS was not fetched");
    };
    let folder = tests::scratch("microvm-bios");
    let disk = folder.join("disk");
    // mov dx, 0xf4; mov al, 0x15; out dx, al: exit code 0x2b
    let mut bytes = vec![0; 1 << 20];
    bytes[..6].copy_from_slice(&[0xba, 0xf4, 0x00, 0xb0, 0x15, 0xee]);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(&disk, bytes).unwrap();
    let drive = format!("file={},format=raw,if=none,id=d", disk.display());
    let output = run(&[
        "-M",
        "microvm",
        "-L",
        firmware.to_str().unwrap(),
        "-drive",
        &drive,
        "-device",
        "virtio-blk-device,drive=d",
        "-device",
        "isa-debug-exit,iobase=0xf4",
    ]);
    assert_eq!(output.status.code(), Some(0x2b), "{output:?}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_the_board_has_not_is_refused() {
    let rom = tests::scratch("microvm-rom").join("rom");
    fs::write(&rom, super::rom_with(&[0xf4])).unwrap();
    for (options, error) in [
        (
            &["-M", "microvm", "-device", "virtio-rng-pci"][..],
            "-device virtio-rng-pci: No free bus found for device 'virtio-rng-pci'",
        ),
        (
            &["-M", "q35", "-device", "virtio-rng-device"],
            "-device virtio-rng-device: No free bus found for device 'virtio-rng-device'",
        ),
        (&["-M", "microvm,pcie=on"], "Property 'microvm-machine.pcie' not found"),
        (
            &["-M", "microvm,acpi=off"],
            "Property 'microvm-machine.acpi': 'off' is not built in Hostel",
        ),
    ] {
        let output = run(&[options, &["-bios", rom.to_str().unwrap()]].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(text, format!("qemu-system-x86_64: {error}\n"));
        assert_eq!(output.status.code(), Some(1));
    }
    fs::remove_dir_all(rom.parent().unwrap()).unwrap();
}
