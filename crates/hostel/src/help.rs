//! `hostel --help`: the applets by layer.

use std::ffi::OsString;
use std::fmt::Write;
use std::process::ExitCode;

use crate::applets::{APPLETS, Layer, OWN_COMMANDS};
use crate::{EXIT_USAGE, applets};

/// `hostel help [APPLET]`.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let Some(word) = arguments.first() else {
        print!("{}", page());
        return ExitCode::SUCCESS;
    };
    let word = word.to_string_lossy();
    match applets::find(&word) {
        Some(applet) => (applet.run)(applet.name, &[OsString::from("--help")]),
        None if cli::is_verb(&word) => cli::run(&word, &[OsString::from("--help")]),
        None => {
            eprintln!("error: There is no help page for '{word}'");
            eprintln!("  hint: 'hostel --help' lists the applets");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// What someone sees who types `hostel` and nothing else.
pub fn newcomer() -> String {
    format!(
        "{HEAD}  hostel shell       a shell in a virtual machine, made in seconds if there is none\n  \
         hostel launch      one more machine\n  hostel list        what there is\n  \
         hostel --help      everything else\n"
    )
}

const HEAD: &str = "Hostel: the Linux virtualization stack in one program.\n\n";

/// The whole page.
fn page() -> String {
    let mut page = String::from(HEAD);
    page.push_str("Usage: hostel VERB [ARGUMENT...]\n");
    page.push_str("       hostel APPLET [ARGUMENT...]\n");
    page.push_str(
        "       APPLET [ARGUMENT...]          through a link made by 'hostel link DIR'\n",
    );
    page.push_str("\nVirtual machines, the friendly way:\n");
    for (verb, summary) in cli::VERBS.iter().filter(|(verb, _)| !cli::HIDDEN.contains(verb)) {
        _ = writeln!(page, "  {verb:<22} {summary}");
    }
    for layer in Layer::ALL {
        let rows: Vec<_> = APPLETS.iter().filter(|applet| applet.layer == layer).collect();
        if rows.is_empty() {
            continue;
        }
        _ = write!(page, "\n{}:\n", layer.heading());
        for applet in rows {
            _ = writeln!(page, "  {:<22} {}", applet.name, applet.summary);
        }
    }
    page.push_str("\nThis executable:\n");
    for (usage, summary) in OWN_COMMANDS {
        _ = writeln!(page, "  {usage:<22} {summary}");
    }
    page.push_str("\n'hostel VERB --help' and 'hostel APPLET --help' show their own options.\n");
    page.push_str("Exit codes are those of the applet; an unknown applet ends with 1.\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_applet_and_command() {
        let page = page();
        for word in applets::words() {
            assert!(page.contains(&format!("  {word}")), "{word} is missing");
        }
    }
}
