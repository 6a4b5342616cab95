//! Completions for shells, and manual pages: both are views of the command line's definition.
//!
//! A shell's script asks this program for candidates, so that it knows machines by name. A daemon
//! that does not run is not started for that.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use clap::{Arg, Command, CommandFactory};
use guests::cache::Cache;
use guests::catalogue;
use guests::library::Library;

use crate::arguments::{Arguments, Completion, CompletionShell, Man};
use crate::daemon::{Connection, Places};
use crate::failure::Failure;

const BASH: &str = r#"_hostel() {
    local IFS=$'\n'
    COMPREPLY=($(hostel completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    if [ ${#COMPREPLY[@]} -eq 0 ]; then
        compopt -o default
    elif [[ ${COMPREPLY[0]} == *[:=] ]]; then
        compopt -o nospace
    fi
}
complete -F _hostel hostel
"#;
const ZSH: &str = r#"#compdef hostel
_hostel() {
    local -a candidates
    candidates=("${(@f)$(hostel completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${candidates[1]}" ]]; then
        compadd -a candidates
    else
        _files
    fi
}
compdef _hostel hostel
"#;
const FISH: &str = r#"function __hostel_candidates
    set -l words (commandline -opc) (commandline -ct)
    hostel completion words -- $words[2..-1] 2>/dev/null
end
complete -c hostel -a '(__hostel_candidates)'
"#;

/// `hostel completion`.
pub fn run(what: &Completion) -> Result<u8, Failure> {
    match what.shell {
        CompletionShell::Bash => print!("{BASH}"),
        CompletionShell::Zsh => print!("{ZSH}"),
        CompletionShell::Fish => print!("{FISH}"),
        CompletionShell::Words => {
            for candidate in candidates(&Arguments::command(), &what.words, &machines) {
                println!("{candidate}");
            }
        }
    }
    Ok(0)
}

/// The machines' names, from a daemon that runs or from the files of one that does not.
fn machines() -> Vec<String> {
    let places = Places::of_session();
    if UnixStream::connect(&places.socket).is_ok()
        && let Ok(mut connection) = Connection::open()
        && let Ok((domains, _)) = connection.client.connect_list_all_domains(1, 0)
    {
        return domains.into_iter().map(|domain| domain.name).collect();
    }
    let home = std::env::var_os("HOME").unwrap_or_default();
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .map_or_else(|| Path::new(&home).join(".config"), Into::into)
        .join("hostel/domains");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let name = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path()).ok()?;
        let document = libvirt_compat::xml::parse(&text, "(domain)").ok()?;
        document.text_at("name")
    };
    entries.filter_map(name).collect()
}

/// What can stand in the last place.
fn candidates(root: &Command, words: &[String], machines: &dyn Fn() -> Vec<String>) -> Vec<String> {
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", &[][..]),
    };
    let mut command = root;
    let mut previous = None;
    let mut positions = 0;
    for word in before {
        previous = None;
        if word == "--" {
            return Vec::new(); // a program of the machine's
        }
        if let Some(inner) = command.find_subcommand(word) {
            command = inner;
            positions = 0;
        } else if let Some(option) = option(command, word) {
            previous = option.get_action().takes_values().then_some(option);
        } else {
            positions += 1;
        }
    }
    let mut found: Vec<String> = Vec::new();
    if let Some(option) = previous {
        found = values(option, machines);
    } else if last.starts_with('-') {
        let options = command.get_arguments().filter(|argument| !argument.is_hide_set());
        found = options.filter_map(|option| Some(format!("--{}", option.get_long()?))).collect();
        found.push("--help".to_owned());
    } else if command.has_subcommands() {
        let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        found = verbs.map(|verb| verb.get_name().to_owned()).collect();
    } else {
        let all: Vec<&Arg> = command.get_positionals().collect();
        if let Some(argument) = all.get(positions).or_else(|| all.last()) {
            found = values(argument, machines);
        }
    }
    found.retain(|candidate| candidate.starts_with(last));
    found.sort();
    found.dedup();
    found
}

fn option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|argument| {
        let long = argument.get_long().is_some_and(|long| word == format!("--{long}"));
        long || argument.get_short().is_some_and(|short| word == format!("-{short}"))
    })
}

fn values(argument: &Arg, machines: &dyn Fn() -> Vec<String>) -> Vec<String> {
    let fixed = argument.get_possible_values();
    if !fixed.is_empty() && argument.get_action().takes_values() {
        let shown = fixed.iter().filter(|value| !value.is_hide_set());
        return shown.map(|value| value.get_name().to_owned()).collect();
    }
    match argument.get_id().as_str() {
        "name" | "names" if argument.get_long().is_none_or(|long| long != "name") => machines(),
        "targets" | "paths" | "definition" => {
            machines().into_iter().map(|name| format!("{name}:")).collect()
        }
        "image" => images(),
        _ => Vec::new(),
    }
}

/// What can be launched by its name: what is built here, what was fetched, what the catalogue has.
fn images() -> Vec<String> {
    let mut names: Vec<String> =
        ["spark", "debian", "debian-12", "debian-13"].map(str::to_owned).into();
    names.extend(Library::of_cache(&Cache::of_user()).images().into_iter().map(|i| i.name));
    let entries = catalogue::entries(&catalogue::own_file(), "amd64").unwrap_or_default();
    names.extend(entries.into_iter().map(|entry| entry.name));
    names
}

/// `hostel man`: a page for the program and one for each verb.
pub fn manual(what: &Man) -> Result<u8, Failure> {
    let folder = Path::new(&what.folder);
    let failed = |error: io::Error| {
        Failure::new(format!("The pages cannot be written to {}", folder.display())).because(&error)
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let root = Arguments::command();
    let mut pages = vec![("hostel".to_owned(), root.clone())];
    for verb in root.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = format!("hostel-{}", verb.get_name());
        pages.push((
            name.clone(),
            verb.clone().name(name).display_name(format!("hostel {}", verb.get_name())),
        ));
    }
    for (name, command) in pages {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).map_err(failed)?;
        fs::write(folder.join(format!("{name}.1")), page).map_err(failed)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str], expected: &[&str]) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let machines = || vec!["web".to_owned(), "work".to_owned(), "db".to_owned()];
        assert_eq!(candidates(&Arguments::command(), &words, &machines), expected, "{words:?}");
    }

    #[test]
    fn verbs_options_values_and_machines_are_completed() {
        check(&["sus"], &["suspend"]);
        check(&["prox"], &[]);
        check(&["stop", "w"], &["web", "work"]);
        check(&["stop", "--force", "web", ""], &["db", "web", "work"]);
        check(&["stop", "--fo"], &["--force"]);
        check(&["list", "--format", "j"], &["json"]);
        check(&["launch", "--name", "w"], &[]);
        check(&["mount", "/tmp", "d"], &["db:"]);
        check(&["exec", "web", "--", "w"], &[]);
        check(&["image", "pu"], &["pull"]);
        check(&["launch", "alp"], &["alpine-3.22", "alpine-3.23"]);
        check(&["wait", "web", "pr"], &["provisioned"]);
    }
}
