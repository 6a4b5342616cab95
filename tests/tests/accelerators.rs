//! KVM and its absence, as users and monitors see them.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

fn doctor(arguments: &[&str]) -> (Value, Option<i32>) {
    let output = tests::hostel().arg("doctor").args(arguments).output().expect("hostel runs");
    (serde_json::from_slice(&output.stdout).unwrap_or_default(), output.status.code())
}

/// Whether a guest can run on KVM here.
fn kvm_runs() -> bool {
    doctor(&["kvm", "--format", "json"]).0["checks"][0]["data"]["fast"].is_boolean()
}

/// What the emulator says when its monitor is asked whether it is on KVM: both streams, and the
/// exit code.
fn info_kvm(mut command: Command, options: &str) -> (String, String, Option<i32>) {
    let mut child = command
        .args(["-machine", "none", "-display", "none", "-nodefaults", "-S", "-monitor", "stdio"])
        .args(options.split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the emulator starts");
    // An emulator that ends at once reads nothing.
    _ = child.stdin.take().expect("it is piped").write_all(b"info kvm\nquit\n");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

fn emulator() -> Command {
    let mut command = tests::hostel();
    command.arg("qemu-system-x86_64");
    command
}

/// The emulator where there is no /dev/kvm, if this machine lets us hide it.
fn emulator_without_kvm() -> Option<Command> {
    let hide = "mount -t tmpfs none /dev && exec \"$0\" \"$@\"";
    let in_namespace = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", hide]);
        command
    };
    let works = in_namespace().arg("true").output().is_ok_and(|output| output.status.success());
    works.then(|| {
        let mut command = in_namespace();
        command.arg(tests::hostel_path()).arg("qemu-system-x86_64");
        command
    })
}

#[test]
fn the_doctor_says_of_each_thing_how_it_is() {
    let (document, code) = doctor(&["--format", "json"]);
    let checks = document["checks"].as_array().expect("a list");
    for check in checks {
        let verdict = check["verdict"].as_str().expect("a verdict");
        assert!(["ok", "notice", "problem"].contains(&verdict), "{check}");
        assert_eq!(verdict == "ok", check["advice"].is_null(), "{check}");
    }
    let has_problem = checks.iter().any(|check| check["verdict"] == "problem");
    assert_eq!(code, Some(if has_problem { 2 } else { 0 }));
    let translator = checks.iter().find(|check| check["check"] == "translator").unwrap();
    let speed = translator["data"]["instructions_per_second"].as_u64().unwrap();
    assert!(speed > 1_000_000, "{translator}");
    assert!(
        !checks.iter().any(|check| check["check"] == "mirrors"),
        "nobody asked for the network"
    );
    assert_eq!(doctor(&["nothing"]).1, Some(1));
}

#[test]
fn monitors_tell_what_runs_the_guest() {
    let (told, ..) = info_kvm(emulator(), "-accel tcg");
    assert!(told.contains("kvm support: disabled"), "{told}");
    if !kvm_runs() {
        tests::skip!("no KVM that can be used here");
    }
    for options in ["-accel kvm", "-enable-kvm", "-accel kvm -accel tcg", "-machine accel=kvm:tcg"]
    {
        let (told, errors, code) = info_kvm(emulator(), options);
        assert!(told.contains("kvm support: enabled"), "{options}: {told}");
        assert_eq!((errors.as_str(), code), ("", Some(0)), "{options}");
    }
}

/// The texts are QEMU 10's.
#[test]
fn without_kvm_the_next_one_is_taken_with_a_notice_or_none() {
    if emulator_without_kvm().is_none() {
        tests::skip!("/dev cannot be hidden here");
    }
    const MISSING: &str = "No such file or directory";
    let refusal = |before: &str| {
        format!(
            "qemu-system-x86_64: {before}Could not access KVM kernel module: {MISSING}\n\
             qemu-system-x86_64: {before}failed to initialize kvm: {MISSING}\n"
        )
    };
    for (options, before, falls_back) in [
        ("-accel kvm", "-accel kvm: ", false),
        ("-enable-kvm", "", false),
        ("-accel kvm -accel tcg", "-accel kvm: ", true),
        ("-machine accel=kvm:tcg", "", true),
    ] {
        let command = emulator_without_kvm().expect("it could be hidden a moment ago");
        let (told, errors, code) = info_kvm(command, options);
        let notice = if falls_back { "qemu-system-x86_64: falling back to tcg\n" } else { "" };
        assert_eq!(errors, refusal(before) + notice, "{options}");
        assert_eq!(code, Some(if falls_back { 0 } else { 1 }), "{options}");
        assert_eq!(told.contains("kvm support: disabled"), falls_back, "{options}: {told}");
    }
}

#[test]
fn the_hosts_processor_is_for_kvm() {
    let (_, errors, code) = info_kvm(emulator(), "-accel tcg -cpu host");
    assert_eq!(errors, "qemu-system-x86_64: CPU model 'host' requires KVM or HVF\n");
    assert_eq!(code, Some(1));
}
