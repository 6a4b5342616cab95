//! What is soldered to the board: serial ports, tables, the machine's generation; and the options
//! around it.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::saved::line;
use super::{reference, rom_with};
use crate::monitor::Machine;

fn ours() -> Command {
    let mut command = tests::hostel();
    command.arg("qemu-system-x86_64");
    command
}

const MOUNT: &str =
    "/bin/busybox mount -t proc proc /proc\n/bin/busybox mount -t sysfs sysfs /sys\n";

/// What a Debian kernel's console says under these options and this script.
fn console(name: &str, options: &[&str], script: &str) -> Option<String> {
    let script = format!("{MOUNT}{script}\n/bin/busybox poweroff -f");
    let (kernel, initrd) = crate::monitor::kernel(name, &script)?;
    let output = ours()
        .args(["-display", "none", "-no-reboot", "-m", "256", "-serial", "stdio"])
        .args(["-kernel", &kernel, "-initrd", &initrd])
        .args(["-append", "console=ttyS0 quiet"])
        .args(options)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors, "");
    Some(String::from_utf8_lossy(&output.stdout).replace('\r', ""))
}

#[test]
fn several_serial_ports_lead_to_several_places() {
    let folder = tests::scratch("serials");
    let (second, third) = (folder.join("second"), folder.join("third"));
    let second_option = format!("file:{}", second.display());
    let chardev = format!("file,id=c,path={}", third.display());
    let options =
        ["-serial", &second_option, "-chardev", &chardev, "-device", "isa-serial,chardev=c"];
    let script = "/bin/busybox mknod /dev/ttyS1 c 4 65\n/bin/busybox mknod /dev/ttyS2 c 4 66\n\
        echo to the second > /dev/ttyS1\necho to the third > /dev/ttyS2\n\
        /bin/busybox grep uart:16550A /proc/tty/driver/serial";
    let Some(text) = console("serials-kernel", &options, script) else {
        tests::skip!("the Debian 12 kernel or busybox was not fetched");
    };
    assert!(text.contains("1: uart:16550A port:000002F8 irq:3"), "{text}");
    assert!(text.contains("2: uart:16550A port:000003E8 irq:4"), "{text}");
    assert_eq!(fs::read_to_string(second).unwrap().trim_end(), "to the second");
    assert_eq!(fs::read_to_string(third).unwrap().trim_end(), "to the third");
    fs::remove_dir_all(folder).unwrap();
}

const SMBIOS: [&str; 18] = [
    "-smbios",
    "type=0,vendor=V,version=1.2,date=01/02/2003,release=4.5",
    "-smbios",
    "type=1,manufacturer=M,product=P,serial=ds=nocloud,sku=S,family=F",
    "-smbios",
    "type=2,manufacturer=BM,asset=BA",
    "-smbios",
    "type=3,serial=CS",
    "-smbios",
    "type=4,version=PV,max-speed=3000",
    "-smbios",
    "type=8,internal_reference=inside,external_reference=outside,connector_type=1",
    "-smbios",
    "type=11,value=one,value=two,,three",
    "-smbios",
    "type=17,bank=Bank,speed=2400",
    "-smbios",
    "type=41,designation=Onboard,kind=ethernet,instance=3",
];

/// The lines of dmidecode's that say something, without handles.
fn decoded(table: &[u8], name: &str) -> Option<String> {
    let program = tests::program("dmidecode").or_else(|| {
        Some("/usr/sbin/dmidecode".into()).filter(|path: &std::path::PathBuf| path.is_file())
    })?;
    // dmidecode reads its own format: an anchor at 0, the table at 32.
    let mut dump = b"_SM3_\0\x18\x03\0\0\x01\0".to_vec();
    dump.extend((table.len() as u32).to_le_bytes());
    dump.extend(32_u64.to_le_bytes());
    let sum = dump.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    dump[5] = sum.wrapping_neg();
    dump.resize(32, 0);
    dump.extend(table);
    let path = tests::scratch(name).join("dump");
    fs::write(&path, dump).unwrap();
    let output = Command::new(program).arg("--from-dump").arg(&path).output().unwrap();
    assert!(output.status.success());
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn the_guest_reads_what_smbios_was_told() {
    let uuid = "f79cd7d0-592c-4d6f-9f3a-2b81ea2009a8";
    let options: Vec<&str> = SMBIOS.into_iter().chain(["-uuid", uuid]).collect();
    let script = "for f in bios_vendor bios_version sys_vendor product_name product_serial \
        product_uuid board_vendor chassis_serial; do \
        echo \"$f=$(/bin/busybox cat /sys/class/dmi/id/$f)\"; done\n\
        /bin/busybox hexdump -v -e '1/1 \"%02x\"' /sys/firmware/dmi/tables/DMI; echo; echo end";
    let Some(text) = console("smbios", &options, script) else {
        tests::skip!("the Debian 12 kernel or busybox was not fetched");
    };
    for line in [
        "bios_vendor=V",
        "bios_version=1.2",
        "sys_vendor=M",
        "product_name=P",
        "product_serial=ds=nocloud",
        "board_vendor=BM",
        "chassis_serial=CS",
    ] {
        assert!(text.lines().any(|seen| seen == line), "{line}: {text}");
    }
    assert!(text.contains(&format!("product_uuid={uuid}")), "{text}");
    let hex = text.lines().find(|line| line.len() > 200).expect("the table is dumped");
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let table: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    let Some(decoded) = decoded(&table, "dmidecode") else { tests::skip!("there is no dmidecode") };
    for text in [
        "BIOS Revision: 4.5",
        "SKU Number: S",
        "Asset Tag: BA",
        "Version: PV",
        "Max Speed: 3000 MHz",
        "Internal Reference Designator: inside",
        "String 2: two,three",
        "Bank Locator: Bank",
        "Speed: 2400 MT/s",
        "Reference Designation: Onboard",
        "Type: Ethernet",
        "Manufacturer: QEMU",
        "Size: 256 MB",
    ] {
        assert!(decoded.contains(text), "{text}: {decoded}");
    }
}

#[test]
fn the_machines_generation_is_told_to_guest_and_monitor() {
    let guid = "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87";
    let device = format!("vmgenid,guid={guid}");
    let script = "/bin/busybox ls /sys/bus/acpi/devices\n/bin/busybox dmesg | /bin/busybox grep -i \
        'crng reseeded\\|vmgenid\\|ACPI.*[Ee]rror'\n/bin/busybox ls -d /sys/bus/acpi/drivers/vmgenid/*";
    let Some(text) = console("vmgenid", &["-device", &device], script) else {
        tests::skip!("the Debian 12 kernel or busybox was not fetched");
    };
    assert!(text.contains("VMGENCTR:00"), "{text}");
    assert!(!text.contains("rror"), "{text}");
    let rom = tests::scratch("vmgenid-rom").join("rom");
    fs::write(&rom, rom_with(&[0xf4])).unwrap();
    let options = ["-bios", rom.to_str().unwrap(), "-device", &device];
    let mut machine = Machine::start("vmgenid", &options);
    assert_eq!(machine.good("query-vm-generation-id", json!({}))["guid"], guid);
    let output =
        ours().args(options).args(["-device", "vmgenid,guid=auto", "-display", "none"]).output();
    let errors = String::from_utf8_lossy(&output.unwrap().stderr).into_owned();
    assert!(errors.contains("at most one vmgenid device is permitted"), "{errors}");
}

#[test]
fn options_come_from_files_and_descriptors() {
    let folder = tests::scratch("readconfig");
    let (rom, config, disk) = (folder.join("rom"), folder.join("config"), folder.join("disk"));
    fs::write(&rom, rom_with(&[0xf4])).unwrap();
    fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let text = format!(
        "[machine]\n  type = \"q35\"\n[smp-opts]\n  cpus = \"3\"\n[drive \"d\"]\n  file = \"{}\"\n  \
         format = \"raw\"\n  if = \"none\"\n[device \"disk0\"]\n  driver = \"virtio-blk-pci\"\n  \
         drive = \"d\"\n[name]\n  guest = \"from a file\"\n",
        disk.display()
    );
    fs::write(&config, text).unwrap();
    let options = [
        "-readconfig",
        config.to_str().unwrap(),
        "-bios",
        rom.to_str().unwrap(),
        "-S",
        "-object",
        "secret,id=s0,data=cGFzcw==,format=base64",
    ];
    let mut machine = Machine::start("readconfig", &options);
    assert_eq!(machine.good("query-name", json!({}))["name"], "from a file");
    assert_eq!(machine.good("query-cpus-fast", json!({})).as_array().unwrap().len(), 3);
    let kind = json!({"path": "/machine", "property": "type"});
    assert_eq!(machine.good("qom-get", kind), "pc-q35-10.0-machine");
    let kind = json!({"path": "/machine/peripheral/disk0", "property": "type"});
    assert_eq!(machine.good("qom-get", kind), "virtio-blk-pci");
    machine.good("object-del", json!({"id": "s0"}));
    assert!(machine.bad("object-del", json!({"id": "s0"})).contains("not found"));
    drop(machine);
    // A descriptor of the shell's is a disk of the machine's.
    let script = format!(
        "exec 9<{} && exec \"$@\" -add-fd 'fd=9,set=4,opaque=a disk' -S -display none -nodefaults \
         -blockdev driver=file,filename=/dev/fdset/4,node-name=n,read-only=on -qmp stdio",
        disk.display()
    );
    let questions = "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-fdsets\"}\
        {\"execute\":\"query-named-block-nodes\"}{\"execute\":\"quit\"}";
    let mut child = Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(tests::hostel_path())
        .args(["qemu-system-x86_64", "-bios", rom.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(questions.as_bytes()).unwrap();
    let answers = child.wait_with_output().unwrap();
    let answers = String::from_utf8_lossy(&answers.stdout).into_owned();
    assert!(answers.contains("\"fdset-id\": 4") && answers.contains("a disk"), "{answers}");
    assert!(answers.contains("\"node-name\": \"n\""), "{answers}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_old_debug_console_says_what_the_reference_says() {
    // mov si, text; next: lodsb; test al, al; jz end; out 0xe9, al; jmp next; end: out 0xf4, al
    let code = [
        0xbe, 0x0f, 0x7c, 0xac, 0x84, 0xc0, 0x74, 0x04, 0xe6, 0xe9, 0xeb, 0xf7, 0xe6, 0xf4, 0xf4,
        b'h', b'e', b'l', b'l', b'o', 0,
    ];
    let folder = tests::scratch("debugcon");
    let rom = folder.join("rom");
    fs::write(&rom, rom_with(&code)).unwrap();
    let run = |mut command: Command, name: &str| {
        let out = folder.join(name);
        let console = format!("file:{}", out.display());
        let status = command
            .args(["-display", "none", "-nodefaults", "-debugcon", &console, "-bios"])
            .arg(&rom)
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .status()
            .unwrap();
        (status.code(), fs::read_to_string(out).unwrap())
    };
    assert_eq!(run(ours(), "ours"), (Some(1), "hello".to_owned()));
    if let Some(reference) = reference() {
        assert_eq!(run(Command::new(reference), "theirs"), (Some(1), "hello".to_owned()));
    }
    fs::remove_dir_all(folder).unwrap();
}

/// The ELF file in a Debian 13 kernel.
fn vmlinux(folder: &std::path::Path) -> Option<std::path::PathBuf> {
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let image = fs::read(tests::asset_file("kernel-13/boot", "vmlinuz")?).unwrap();
    let program = tests::program("zstd")?;
    let path = folder.join("vmlinux");
    let at = image.windows(4).position(|bytes| bytes == ZSTD)?;
    let packed = folder.join("packed");
    fs::write(&packed, &image[at..]).unwrap();
    // What is behind the packed kernel is no error of ours.
    let output = Command::new(program).args(["-dcf", packed.to_str().unwrap()]).output().unwrap();
    let elf = output.stdout;
    assert!(elf.starts_with(b"\x7fELF"));
    fs::write(&path, elf).unwrap();
    Some(path)
}

#[test]
fn an_elf_kernel_starts_at_its_pvh_entry() {
    let folder = tests::scratch("pvh");
    let (Some(kernel), Some(busybox)) =
        (vmlinux(&folder), tests::asset("busybox-amd64/bin/busybox"))
    else {
        tests::skip!("the Debian 13 kernel, busybox or zstd is not there");
    };
    let initrd = folder.join("initrd");
    let script = format!(
        "{MOUNT}/bin/busybox grep -c ^processor /proc/cpuinfo\n/bin/busybox cat \
        /proc/cmdline\n/bin/busybox dmesg | /bin/busybox grep -c PVH\n/bin/busybox poweroff -f"
    );
    tests::initramfs::write(&initrd, &busybox, &script).unwrap();
    let output = ours()
        .args(["-display", "none", "-no-reboot", "-m", "512", "-smp", "2", "-serial", "stdio"])
        .args(["-append", "console=ttyS0 quiet by-pvh", "-kernel"])
        .arg(&kernel)
        .arg("-initrd")
        .arg(&initrd)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert!(text.lines().any(|line| line == "2") && text.contains("by-pvh"), "{text}");
    assert_eq!(output.status.code(), Some(0));
    // An ELF file without the note.
    let output = ours().args(["-display", "none", "-kernel"]).arg(tests::hostel_path()).output();
    let output = output.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("it has no PVH entry"), "{errors}");
    assert_eq!(output.status.code(), Some(1));
    fs::remove_dir_all(folder).unwrap();
}

/// What the gate of address line 20 does to accesses above 1 MiB, by both of its switches.
#[rustfmt::skip]
const GATE: &[u8] = &[
    0xb8, 0xff, 0xff, 0x8e, 0xe0,       // mov ax, 0xffff; mov fs, ax
    0xe4, 0x92, 0x24, 0xfd, 0xe6, 0x92, // in al, 0x92; and al, ~2; out 0x92, al
    0xe8, 0x29, 0x00,                   // call try
    0xe4, 0x92, 0x0c, 0x02, 0xe6, 0x92, // or al, 2: open
    0xe8, 0x20, 0x00,                   // call try
    0xb0, 0xd1, 0xe6, 0x64, 0xb0, 0xdd, 0xe6, 0x60, // shut by the keyboard controller
    0xe8, 0x15, 0x00,                   // call try
    0xb0, 0xd1, 0xe6, 0x64, 0xb0, 0xdf, 0xe6, 0x60, // open
    0xe8, 0x0a, 0x00,                   // call try
    0xb0, 0xdd, 0xe6, 0x64,             // shut by a command
    0xe8, 0x03, 0x00,                   // call try
    0xe6, 0xf4, 0xf4,                   // out 0xf4, al; hlt
    // try: mov byte [0x500], 0x2d; mov byte fs:[0x510], 0x2b; mov al, [0x500]; out 0xe9, al; ret
    0xc6, 0x06, 0x00, 0x05, 0x2d, 0x64, 0xc6, 0x06, 0x10, 0x05, 0x2b,
    0xa0, 0x00, 0x05, 0xe6, 0xe9, 0xc3,
];

#[test]
fn the_gate_of_address_line_20_works_by_both_switches() {
    let folder = tests::scratch("a20");
    let rom = folder.join("rom");
    fs::write(&rom, rom_with(GATE)).unwrap();
    let run = |mut command: Command, name: &str| {
        let out = folder.join(name);
        let console = format!("file:{}", out.display());
        command
            .args(["-display", "none", "-nodefaults", "-debugcon", &console, "-bios"])
            .arg(&rom)
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .status()
            .unwrap();
        fs::read_to_string(out).unwrap()
    };
    assert_eq!(run(ours(), "ours"), "+-+-+");
    if let Some(reference) = reference() {
        assert_eq!(run(Command::new(reference), "theirs"), "+-+-+");
    }
    fs::remove_dir_all(folder).unwrap();
}

/// What a board has of its own is what scripts name: `ide1-cd0`, a card with a network.
#[test]
fn a_board_has_a_card_and_a_drive_whose_disc_is_changed() {
    let folder = tests::scratch("defaults");
    let (rom, disc) = (folder.join("rom"), folder.join("disc.iso"));
    fs::write(&rom, super::rom_with(&[0xf4])).unwrap();
    fs::write(&disc, vec![0; 1 << 20]).unwrap();
    let (rom, disc) = (rom.to_str().unwrap(), disc.to_str().unwrap());
    for (board, drive) in [("pc", "ide1-cd0"), ("q35", "ide2-cd0")] {
        let mut machine =
            Machine::start_whole("defaults", &["-M", board, "-vga", "none", "-bios", rom]);
        let pci = line(&mut machine, "info pci");
        assert!(pci.contains("Ethernet controller: PCI device 8086:100e"), "{pci}");
        assert!(line(&mut machine, "info network").contains("type=user,net=10.0.2.0"));
        let empty = format!("{drive}: [not inserted]");
        assert!(line(&mut machine, "info block").contains(&empty));
        for round in 0..2 {
            assert_eq!(line(&mut machine, &format!("change {drive} {disc}")), "");
            let list = line(&mut machine, "info block");
            assert!(list.contains(&format!("{disc} (raw, read-only)")), "{round}: {list}");
        }
        assert_eq!(line(&mut machine, &format!("eject {drive}")), "");
        assert!(line(&mut machine, "info block").contains(&empty));
        let gone = line(&mut machine, &format!("change {drive} /nonexistent"));
        assert!(gone.contains("Could not open '/nonexistent'"), "{gone}");
        machine.good("quit", json!({}));
    }
    fs::remove_dir_all(folder).unwrap();
}

/// The core is what gdb and `readelf` read: memory as `pmemsave` sees it, registers by processor.
#[test]
fn memory_is_dumped_as_a_core() {
    let folder = tests::scratch("core");
    let rom = folder.join("rom");
    fs::write(&rom, super::rom_with(&[0xf4])).unwrap();
    let mut machine = Machine::start("core", &["-smp", "2", "-bios", rom.to_str().unwrap()]);
    let core = folder.join("core");
    let arguments = |more: Value| {
        let mut all = json!({"paging": false, "protocol": format!("file:{}", core.display())});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    machine.good("dump-guest-memory", arguments(json!({})));
    let told = machine.good("query-dump", json!({}));
    assert_eq!((&told["status"], &told["completed"]), (&json!("completed"), &told["total"]));
    assert_eq!(machine.good("query-status", json!({}))["status"], "running");
    let bytes = fs::read(&core).unwrap();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let count = usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
    let segments = (1..count).map(|number| 64 + 56 * number);
    let mut total = 0;
    for header in segments {
        let (offset, address, length) = (word(header + 8), word(header + 24), word(header + 32));
        total += length;
        let piece = folder.join("piece");
        let saved = json!({"val": address, "size": 0x1000, "filename": piece});
        machine.good("pmemsave", saved);
        let at = offset as usize;
        assert!(fs::read(&piece).unwrap() == bytes[at..at + 0x1000], "{address:#x}");
    }
    assert_eq!(json!(total), told["total"]);
    let notes = Command::new("readelf").arg("-n").arg(&core).output();
    if let Ok(notes) = notes {
        let notes = String::from_utf8_lossy(&notes.stdout).into_owned();
        assert_eq!(notes.matches("NT_PRSTATUS").count(), 2, "{notes}");
    }
    machine.good("dump-guest-memory", arguments(json!({"begin": 0x1000, "length": 0x2000})));
    assert_eq!(machine.good("query-dump", json!({}))["total"], 0x2000);
    machine.good("quit", json!({}));
    fs::remove_dir_all(folder).unwrap();
}
