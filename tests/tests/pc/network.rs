//! Network cards, driven by those who drive them: iPXE for the old Intel card.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn ipxe_gets_an_address_over_the_old_intel_card() {
    let Some(share) = tests::asset("qemu-system-10/usr/share") else {
        tests::skip!("the reference QEMU 10 was not fetched");
    };
    let folder = tests::scratch("e1000");
    let (console, port) = (folder.join("console"), folder.join("port"));
    // SeaBIOS then talks on the serial port.
    fs::write(&port, 0x3f8_u64.to_le_bytes()).unwrap();
    let child = tests::hostel()
        .args(["qemu-system-x86_64", "-M", "pc", "-m", "128", "-display", "none", "-nodefaults"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-L")
        .arg(share.join("seabios"))
        .arg("-L")
        .arg(share.join("qemu"))
        .args(["-netdev", "user,id=n", "-device"])
        .args(["e1000,netdev=n,mac=52:54:00:12:34:99,bootindex=0", "-fw_cfg"])
        .arg(format!("name=etc/sercon-port,file={}", port.display()))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let _emulator = Emulator(child);
    let until = Instant::now() + PATIENCE;
    let text = loop {
        let text = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
        if text.contains("net0: 10.0.2.15/255.255.255.0 gw 10.0.2.2") {
            break text;
        }
        assert!(Instant::now() < until, "{text}");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(text.contains("net0: 52:54:00:12:34:99 using 82540em"), "{text}");
    fs::remove_dir_all(folder).unwrap();
}
