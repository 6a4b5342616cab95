//! `hostel doctor`: looks at the host, one thing after the other, and says what to do.

mod accelerators;
mod host;

use std::ffi::OsString;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::EXIT_USAGE;

const EXIT_PROBLEM: u8 = 2;
/// Counted up when members of the JSON change their meaning or go.
const SCHEMA: u32 = 1;

/// How a thing is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// As it should be.
    Ok,
    /// Works, or is not needed by everybody.
    Notice,
    /// Something that most need does not work.
    Problem,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Notice => "notice",
            Self::Problem => "problem",
        }
    }
}

/// What a check has found.
struct Finding {
    verdict: Verdict,
    text: String,
    /// What to do, unless all is well.
    advice: Option<String>,
    /// Figures, for programs.
    data: Value,
}

impl Finding {
    fn new(verdict: Verdict, text: impl Into<String>) -> Self {
        Self { verdict, text: text.into(), advice: None, data: Value::Null }
    }

    fn ok(text: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, text)
    }

    fn notice(text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..Self::new(Verdict::Notice, text) }
    }

    fn problem(text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..Self::new(Verdict::Problem, text) }
    }

    fn with(self, data: Value) -> Self {
        Self { data, ..self }
    }
}

/// A check: its name, whether it reaches out of the host, and itself.
struct Check {
    name: &'static str,
    network: bool,
    run: fn() -> Finding,
}

const fn check(name: &'static str, run: fn() -> Finding) -> Check {
    Check { name, network: false, run }
}

const CHECKS: &[Check] = &[
    check("kvm", accelerators::kvm),
    check("translator", accelerators::translator),
    check("memory", host::memory),
    check("disk", host::disk),
    check("user-namespaces", host::user_namespaces),
    check("tun", host::tun),
    check("nftables", host::nftables),
    check("vsock", host::vsock),
    check("sockets", host::sockets),
    check("images", host::images),
    Check { name: "mirrors", network: true, run: host::mirrors },
];

const USAGE: &str = "\
usage: hostel doctor [CHECK...] [--network] [--format table|json]

Looks at this host and says what to do. Without names, all checks are made;
those that reach out of the host only with --network.
Exit code: 0, or 2 when there is a problem.
";

/// What was asked for.
struct Request {
    names: Vec<String>,
    network: bool,
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let request = match parse(arguments) {
        Ok(Some(request)) => request,
        Ok(None) => {
            let names: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
            println!("{USAGE}Checks: {}", names.join(", "));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}\n  hint: 'hostel doctor --help' shows what there is");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let is_wanted = |check: &&Check| match request.names.as_slice() {
        [] => request.network || !check.network,
        names => names.iter().any(|name| name == check.name),
    };
    let mut rows = Vec::new();
    let mut has_problem = false;
    for check in CHECKS.iter().filter(is_wanted) {
        let finding = (check.run)();
        has_problem |= finding.verdict == Verdict::Problem;
        if request.json {
            rows.push(json!({"check": check.name, "verdict": finding.verdict.name(),
                "text": finding.text, "advice": finding.advice, "data": finding.data}));
        } else {
            println!("{:<8} {:<16} {}", finding.verdict.name(), check.name, finding.text);
            if let Some(advice) = &finding.advice {
                println!("{:<25} -> {advice}", "");
            }
        }
    }
    if request.json {
        let document = json!({"schema": SCHEMA, "checks": rows});
        println!("{}", serde_json::to_string_pretty(&document).unwrap_or_default());
    }
    if has_problem { ExitCode::from(EXIT_PROBLEM) } else { ExitCode::SUCCESS }
}

/// None: help is wanted.
fn parse(arguments: &[OsString]) -> Result<Option<Request>, String> {
    let mut request = Request { names: Vec::new(), network: false, json: false };
    let mut words = arguments.iter().map(|argument| argument.to_string_lossy());
    while let Some(word) = words.next() {
        let format = match &*word {
            "--help" | "-h" => return Ok(None),
            "--network" => {
                request.network = true;
                continue;
            }
            "--format" => words.next().ok_or("'--format' takes a value")?.into_owned(),
            other => match other.strip_prefix("--format=") {
                Some(format) => format.to_owned(),
                None if CHECKS.iter().any(|check| check.name == other) => {
                    request.names.push(other.to_owned());
                    continue;
                }
                None => return Err(format!("there is no check or option '{other}'")),
            },
        };
        request.json = match format.as_str() {
            "json" => true,
            "table" => false,
            _ => return Err(format!("'{format}' is no format: table or json")),
        };
    }
    Ok(Some(request))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Option<(Vec<String>, bool, bool)>, String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Ok(parse(&words)?.map(|request| (request.names, request.network, request.json)))
    }

    #[test]
    fn arguments() {
        let all = |network, json| Ok(Some((Vec::new(), network, json)));
        assert_eq!(parsed(&[]), all(false, false));
        assert_eq!(parsed(&["--network", "--format=json"]), all(true, true));
        assert_eq!(
            parsed(&["kvm", "--format", "json"]),
            Ok(Some((vec!["kvm".into()], false, true)))
        );
        assert_eq!(parsed(&["--help"]), Ok(None));
        for wrong in [&["nothing"][..], &["--format", "xml"], &["--format"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_finding_that_is_not_well_says_what_to_do() {
        for check in CHECKS.iter().filter(|check| !check.network) {
            let finding = (check.run)();
            let is_well = finding.verdict == Verdict::Ok;
            assert_eq!(is_well, finding.advice.is_none(), "{}: {}", check.name, finding.text);
        }
    }
}
