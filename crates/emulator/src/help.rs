//! Help texts, in the shapes that scripts expect.

use std::fmt::Write;

use crate::{boards, device_help};

const OPTIONS: &str = "\
'disk_image' is a raw hard disk image for IDE hard disk 0

Options that are built; QEMU's others are refused by name:
-h or -help     display this help and exit
-version        display version information and exit
-machine [type=]name[,prop[=value][,...]]
                selects emulated machine ('-machine help' for list)
-accel [accel=]accelerator[,prop[=value][,...]]
                select accelerator (kvm or tcg; jit is another name of tcg)
                tb-size=n (translator's code cache, in MiB)
                thread=multi|single
-cpu cpu        select CPU ('-cpu help' for list)
-smp [[cpus=]n][,maxcpus=maxcpus][,sockets=sockets][,dies=dies][,modules=modules][,cores=cores]
     [,threads=threads]
                set the number of initial CPUs and their topology
-m [size=]megs  configure guest RAM (default: 128 MiB)
-name string1[,process=string2][,debug-threads=on|off]
                set the name of the guest
-uuid %08x-%04x-%04x-%04x-%012x
                specify machine UUID
-device driver[,prop[=value][,...]]
                add device (based on driver)
                use '-device help' to print all possible drivers
                use '-device driver,help' to print all possible properties
-global driver.property=value
                set a global default for a driver property
-drive [file=file][,if=type][,index=i][,format=f][,id=name][,...]
                use 'file' as a drive image
-blockdev [driver=]driver[,node-name=N][,...]
                configure a block backend
-hda/-hdb/-hdc/-hdd/-cdrom file
                use 'file' as hard disk or CD-ROM image
-netdev user|tap|bridge|socket|stream|dgram|vhost-user|hubport,id=str[,...]
                configure a network backend
-nic, -net      short forms of network card and backend
-fsdev local,id=id,path=path,security_model=mapped-xattr|mapped-file|passthrough|none
       [,writeout=immediate][,readonly=on][,fmode=fmode][,dmode=dmode][,multidevs=remap|forbid]
                share a folder of this machine
-virtfs local,path=path,mount_tag=tag,security_model=...[,id=id][,...]
                the same with its device, virtio-9p-pci
-chardev null|socket|file|pipe|pty|stdio|ringbuf,id=id[,...]
                configure a character device
-serial dev     redirect the serial port to char device 'dev'
-monitor dev    redirect the monitor to char device 'dev'
-qmp dev        like -monitor but opens in 'control' mode
-mon [chardev=]name[,mode=readline|control][,pretty[=on|off]]
-object TYPENAME[,PROP1=VALUE1,...]
                create a new object of type TYPENAME
-kernel bzImage use 'bzImage' as kernel image
-append cmdline use 'cmdline' as kernel command line
-initrd file    use 'file' as initial ram disk
-bios file      set the filename for the BIOS
-boot [order=drives][,menu=on|off][,strict=on|off]
-L path         set the directory for the BIOS
-display none, -nographic
                no screen on this machine
-display vnc=<display>[,<optargs>], -vnc <display>[,<optargs>]
                show the screen by VNC: host:d or unix:path, with to=, password=,
                tls-creds=, websocket=, share=, lossy=, display=
-vga [std|virtio|none]
                select video card type
-k en-us        use keyboard layout
-nodefaults     don't create default devices
-no-user-config
                no configuration file is read in any case
-S              freeze CPU at startup (use 'c' to start execution)
-no-reboot      exit instead of rebooting
-no-shutdown    stop before shutdown
-action reboot=reset|shutdown, -action shutdown=poweroff|pause
-action panic=pause|shutdown|exit-failure|none
-rtc [base=utc|localtime|<datetime>][,clock=host][,driftfix=none|slew]
-gdb dev        accept gdb connection on 'dev' (gdb defaults to starting the guest without -S)
-s              shorthand for -gdb tcp::1234
-pidfile file   write PID to 'file'
-daemonize      daemonize after initializing
-msg timestamp[=on|off]
";

/// `-help`.
pub fn usage() -> String {
    format!("usage: qemu-system-x86_64 [options] [disk_image]\n\n{OPTIONS}")
}

/// The help that an option's argument asks for, if it does.
pub fn of_option(option: &str, value: &str) -> Option<Result<String, String>> {
    let asks = matches!(value, "help" | "?");
    // `MODEL,help` asks for what a model takes.
    let about = value.strip_suffix(",help").or_else(|| value.strip_suffix(",?"));
    match (option, about) {
        ("device", Some(model)) => return Some(device_help::properties(model)),
        ("machine" | "M", Some(board)) => return Some(device_help::board(board)),
        _ => {}
    }
    let text = match option {
        "device" if asks => Some(device_help::devices()),
        "object" if asks => Some(device_help::objects()),
        "machine" | "M" if asks => Some(machines()),
        "accel" if asks => Some("Accelerators supported in QEMU binary:\ntcg\nkvm\n".to_owned()),
        "cpu" if asks => Some(qemu_compat::system::processors::help()),
        "chardev" if asks => {
            let kinds = ["file", "null", "pipe", "pty", "ringbuf", "socket", "stdio"];
            let lines: String = kinds.iter().map(|kind| format!("  {kind}\n")).collect();
            Some(format!("Available chardev backend types: \n{lines}"))
        }
        "netdev" if asks => {
            let kinds =
                ["bridge", "dgram", "hubport", "socket", "stream", "tap", "user", "vhost-user"];
            let lines: String = kinds.iter().map(|kind| format!("{kind}\n")).collect();
            Some(format!("Available netdev backend types:\n{lines}"))
        }
        "display" if asks => Some("Available display backend types:\nnone\nvnc\n".to_owned()),
        _ => None,
    };
    text.map(Ok)
}

fn machines() -> String {
    let mut text = "Supported machines are:\n".to_owned();
    for (name, description, alias) in boards::all() {
        if let Some(alias) = alias {
            _ = writeln!(text, "{alias:<20} {description} (alias of {name})");
        }
        let default = if name == boards::DEFAULT { " (default)" } else { "" };
        _ = writeln!(text, "{name:<20} {description}{default}");
    }
    text
}
