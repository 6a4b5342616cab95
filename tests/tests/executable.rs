//! The executable itself: dispatch, help, version, links.

use std::process::Output;

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        tests::hostel().args(arguments).output().expect("hostel starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    (status.code().expect("hostel exits by itself"), text(stdout), text(stderr))
}

#[test]
fn the_version_is_one_line() {
    let (code, stdout, stderr) = run(&["--version"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, format!("hostel {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_unknown_applet_is_refused_with_the_nearest_name() {
    let (code, stdout, stderr) = run(&["lnik"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("error: Hostel has no applet or command 'lnik'\n"), "{stderr}");
    assert!(stderr.contains("did you mean 'hostel link'?"), "{stderr}");
}

#[test]
fn a_bare_call_tells_a_newcomer_what_to_type() {
    let (code, stdout, _) = run(&[]);
    assert_eq!(code, 0);
    assert!(stdout.contains("hostel --help"), "{stdout}");
}
