//! Our own `virsh`, `virt-install`, `multipass` and `uvt-kvm`, beside the programs they stand for.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::user::{User, has_mirror};

const DOMAIN: &str = "<domain type='qemu'><name>d</name><uuid>2b6a4a0e-5f0c-4f0a-9a3c-0d6f5c1f7e11</uuid><memory>131072</memory><vcpu>1</vcpu>\
    <os><type arch='x86_64' machine='q35'>hvm</type></os></domain>";

/// The real one and ours say the same, on both streams, with the same exit code.
#[test]
fn virsh_says_what_the_real_one_says() {
    let Some(virsh) = tests::program("virsh") else { tests::skip!("there is no virsh") };
    let user = User::new("virsh");
    user.good(&["list"]);
    let xml = user.home.join("d.xml");
    fs::write(&xml, DOMAIN).unwrap();
    let file = xml.to_str().unwrap();
    let socket = user.home.join(".cache/libvirt/libvirt-sock");
    let uri = format!("qemu+unix:///session?socket={}", socket.display());
    let both = |words: &[&str]| {
        let run = |mut command: Command| {
            command.args(["-c", &uri]).args(words).env("LC_ALL", "C").stdin(Stdio::null());
            command.output().unwrap()
        };
        let theirs = run(Command::new(&virsh));
        let mut own = tests::hostel();
        own.arg("virsh");
        (theirs, run(own))
    };
    let text = |output: &Output| {
        let (out, errors) = (&output.stdout, &output.stderr);
        format!(
            "{}\n{}{}",
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(out),
            String::from_utf8_lossy(errors)
        )
    };
    let define = both(&["define", file]);
    assert_eq!(text(&define.0), text(&define.1), "defining twice is changing");
    for line in [
        "list",
        "list --all",
        "list --all --name",
        "list --all --uuid",
        "list --all --title",
        "-q list --all",
        "domstate d",
        "-q domstate d",
        "domstate d --reason",
        "domstate nobody",
        "domstate",
        "dominfo d",
        "domuuid d",
        "domid d",
        "domname nobody",
        "domid 99",
        "domblklist d",
        "domblklist d --details",
        "domiflist d",
        "vcpucount d",
        "dumpxml d",
        "dumpxml d --inactive",
        "autostart d",
        "autostart d --disable",
        "destroy d",
        "reboot d",
        "suspend d",
        "resume d",
        "shutdown d",
        "shutdown d --mode frob",
        "setvcpus d x",
        "setvcpus d 0",
        "setmem d 100000",
        "start d --frob",
        "start d --paused=x",
        "start nobody",
        "undefine nobody",
        "managedsave d",
        "save d /tmp/nothing",
        "restore /nonexistent",
        "define /nonexistent",
        "create /nonexistent",
        "snapshot-list d",
        "snapshot-current d",
        "snapshot-delete d nothing",
        "snapshot-revert d nothing",
        "nodeinfo",
        "hostname",
        "version",
        "uri",
        "capabilities",
        "domcapabilities",
        "net-list --all",
        "net-info default",
        "net-dumpxml default",
        "net-start default",
        "net-start nothing",
        "net-autostart default",
        "net-dhcp-leases default",
        "pool-list --all",
        "pool-dumpxml default",
        "pool-start nothing",
        "vol-list default",
        "vol-path nothing",
        "frobnicate",
        "-v",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let (theirs, ours) = both(&words);
        assert_eq!(text(&theirs), text(&ours), "virsh {line}");
    }
    // One word is a line; without any, lines are asked for.
    for line in [
        "list --all; uri",
        "domstate nobody ; echo 'a  b' \"c\"",
        "uri; frob",
        "echo 'a",
        "echo \"a",
    ] {
        let (theirs, ours) = both(&[line]);
        assert_eq!(text(&theirs), text(&ours), "virsh '{line}'");
    }
    let typed =
        "list --all; domstate nobody; uri\nfrob\necho \"a b\" c\n\n# x\npwd\ndomstate d\nquit\n";
    let typing = |mut command: Command| {
        let command = command.args(["-c", &uri]).env("LC_ALL", "C").stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut own = tests::hostel();
    own.arg("virsh");
    assert_eq!(typing(Command::new(&virsh)), typing(own));
    let undefined = both(&["undefine", "d"]);
    assert_eq!(text(&undefined.0), "0\nDomain 'd' has been undefined\n\n");
    assert_eq!(text(&undefined.1), "1\n\nerror: failed to get domain 'd'\n");
}

#[test]
fn virt_install_makes_what_its_options_say() {
    let user = User::new("vi");
    user.good(&["list"]);
    fn with<'a>(words: &[&'a str]) -> Vec<&'a str> {
        [&["virt-install", "--connect", "qemu:///session"], words].concat()
    }
    let data = user.home.join("user-data");
    fs::write(&data, "#cloud-config\nhostname: x\n").unwrap();
    let cloud_init = format!("user-data={}", data.display());
    let xml = user.good(&with(&[
        "--name",
        "v",
        "--memory",
        "512",
        "--vcpus",
        "2",
        "--disk",
        "size=1,bus=virtio,cache=none",
        "--disk",
        "size=2,path=/tmp/second.qcow2,bus=sata",
        "--network",
        "user,model=e1000",
        "--graphics",
        "vnc,listen=127.0.0.1",
        "--boot",
        "hd,cdrom",
        "--osinfo",
        "debian12",
        "--cloud-init",
        &cloud_init,
        "--print-xml",
    ]));
    for part in [
        "<name>v</name>",
        "<memory unit='KiB'>524288</memory>",
        "<vcpu>2</vcpu>",
        "<driver name='qemu' type='qcow2' cache='none'/>",
        "<target dev='vda' bus='virtio'/>",
        "<target dev='sda' bus='sata'/>",
        "<model type='e1000'/>",
        "device='cdrom'",
        "<graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>",
        "<boot dev='cdrom'/>",
    ] {
        assert!(xml.contains(part), "{part} is not in {xml}");
    }
    assert!(!user.state().join("disks/v.qcow2").exists(), "nothing is made for a look");
    for (words, said) in [
        (&["--name", "v", "--import"][..], "--memory is required"),
        (&["--name", "v", "--memory", "64"], "An install method must be specified"),
        (&["--memory", "64", "--import"], "A disk device must be specified"),
        (
            &["--memory", "64", "--import", "--disk", "size=1,frob=2"],
            "Unknown --disk options: ['frob']",
        ),
        (
            &["--memory", "64", "--import", "--disk", "/nonexistent.img"],
            "Size must be specified for non existent volume",
        ),
        (
            &["--memory", "64", "--import", "--disk", "size=1", "--graphics", "spice"],
            "'spice' is not there",
        ),
    ] {
        let (code, errors) = user.bad(&with(words));
        assert!(code == 1 && errors.contains(said), "{words:?}: {errors}");
    }
    if has_mirror() {
        let said = user.good(&with(&[
            "--name",
            "v",
            "--memory",
            "64",
            "--disk",
            "size=1",
            "--import",
            "--noautoconsole",
        ]));
        assert!(said.ends_with("Domain creation completed.\n"), "{said}");
        assert!(user.good(&["list"]).contains("Running"));
        let (_, errors) =
            user.bad(&with(&["--name", "v", "--memory", "64", "--disk", "size=1", "--import"]));
        assert!(errors.contains("Guest name 'v' is already in use."), "{errors}");
        user.good(&["virsh", "-c", "qemu:///session", "destroy", "v"]);
    }
}

#[test]
fn multipass_and_uvtool_are_understood() {
    if !has_mirror() {
        tests::skip!("there is no Debian package source");
    }
    let user = User::new("mp");
    assert_eq!(user.good(&["multipass", "list"]), "No instances found.\n");
    assert_eq!(
        user.good(&["multipass", "launch", "-vv", "-n", "a", "--mem", "200M"]),
        "Launched: a\n"
    );
    let list = user.good(&["multipass", "list"]);
    assert!(
        list.starts_with("Name                    State             IPv4             Image\na  ")
    );
    let info: String = user.good(&["multipass", "info", "a"]);
    assert!(info.contains("State:          Running\nSnapshots:      0\n"), "{info}");
    assert!(user.good(&["multipass", "info", "a", "--format", "json"]).contains("\"errors\": []"));
    assert_eq!(user.good(&["multipass", "exec", "a", "--", "echo", "-v"]), "-v\n");
    assert_eq!(user.bad(&["multipass", "exec", "a", "--", "sh", "-c", "exit 9"]).0, 9);
    let (code, said) = user.bad(&["multipass", "stop", "nobody"]);
    assert_eq!((code, said.as_str()), (2, "stop failed: instance \"nobody\" does not exist\n"));
    assert_eq!(user.bad(&["multipass", "frob"]).0, 1);
    assert!(
        user.bad(&["multipass", "launch", "--bridged"]).1.contains("which network 'bridged' is")
    );
    user.good(&["multipass", "stop", "a"]);
    user.good(&["multipass", "snapshot", "a", "-n", "s", "-m", "text"]);
    assert!(user.good(&["multipass", "list", "--snapshots"]).contains("text"));
    user.good(&["multipass", "delete", "-p", "a"]);
    // UVtool: sizes are in MiB and GiB, and a script runs once.
    let script = user.home.join("once");
    fs::write(&script, "#!/bin/sh\necho once > /root/once\n").unwrap();
    user.good(&[
        "uvt-kvm",
        "create",
        "--memory",
        "200",
        "--disk",
        "1",
        "--run-script-once",
        script.to_str().unwrap(),
        "u",
    ]);
    user.good(&["uvt-kvm", "wait", "u"]);
    assert_eq!(user.good(&["uvt-kvm", "list"]), "u\n");
    assert_eq!(user.good(&["exec", "u", "cat", "/root/once"]), "once\n");
    assert_eq!(user.good(&["uvt-kvm", "ip", "u"]), "10.0.2.15\n");
    user.good(&["uvt-kvm", "destroy", "u"]);
    assert_eq!(user.good(&["uvt-simplestreams-libvirt", "query"]), "");
    user.assert_clean();
}
