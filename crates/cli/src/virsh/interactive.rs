//! `virsh` without a command: it asks for one after the other.

use std::env;
use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use super::syntax::Given;
use super::{Command, Options, Outcome, Shell, Trouble, connect, run_line};

const WELCOME: &str = "Welcome to virsh, the virtualization interactive terminal.\n\n\
    Type:  'help' for help with commands\n       'quit' to quit\n\n";
const PROMPT: &str = "virsh # ";

/// What belongs to the shell itself.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "cd",
        syntax: "[<dir>]",
        summary: "change the current directory",
        run: change_folder,
    },
    Command {
        name: "connect",
        syntax: "[<name>]",
        summary: "(re)connect to hypervisor",
        run: reconnect,
    },
    Command {
        name: "echo",
        syntax: "[--shell] [--xml] [<string>...]",
        summary: "echo arguments",
        run: echo,
    },
    Command { name: "exit", syntax: "", summary: "quit this interactive terminal", run: quit },
    Command { name: "help", syntax: "[<command>]", summary: "print help", run: help },
    Command {
        name: "pwd",
        syntax: "",
        summary: "print the current directory",
        run: |_, _| {
            let folder = env::current_dir().map_err(|error| Trouble::new(error.to_string()))?;
            Ok(format!("{}\n", folder.display()))
        },
    },
    Command { name: "quit", syntax: "", summary: "quit this interactive terminal", run: quit },
];

/// Asks until it is told to quit, or has nobody to ask.
pub fn run(options: &Options) -> Result<ExitCode, String> {
    let mut shell = connect(options)?;
    if !options.is_quiet {
        print!("{WELCOME}");
    }
    let echoes = !io::stdin().is_terminal();
    let mut lines = io::stdin().lock().lines();
    while !shell.quits {
        print!("{PROMPT}");
        _ = io::stdout().flush();
        let Some(Ok(line)) = lines.next() else { break };
        if echoes {
            println!("{line}"); // as a terminal would show it
        }
        if let Err(message) = run_line(&mut shell, &line) {
            eprintln!("error: {message}");
        }
    }
    println!();
    Ok(ExitCode::SUCCESS)
}

fn quit(shell: &mut Shell, _given: &Given) -> Outcome {
    shell.quits = true;
    Ok(String::new())
}

fn change_folder(_shell: &mut Shell, given: &Given) -> Outcome {
    let home = env::var("HOME").unwrap_or_else(|_| "/".to_owned());
    let folder = given.text("dir").unwrap_or(&home);
    env::set_current_dir(folder).map_err(|error| {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        Trouble::new(format!("cd: {folder}: {text}"))
    })?;
    Ok(String::new())
}

fn reconnect(shell: &mut Shell, given: &Given) -> Outcome {
    let uri = given.text("name").map(str::to_owned);
    let options = Options { uri: uri.or_else(|| shell.asked.clone()), is_quiet: shell.is_quiet };
    let new = connect(&options).map_err(Trouble::new)?;
    *shell = new;
    Ok(String::new())
}

fn echo(_shell: &mut Shell, given: &Given) -> Outcome {
    let word = |word: &String| {
        let word = match given.has("xml") {
            true => libvirt_compat::xml::Element::with_text("a", word).to_xml(),
            false => word.clone(),
        };
        let word = word.trim_end().trim_start_matches("<a>").trim_end_matches("</a>").to_owned();
        let plain = |sign: char| sign.is_ascii_alphanumeric() || "+-./:=_".contains(sign);
        match given.has("shell") && (word.is_empty() || !word.chars().all(plain)) {
            true => format!("'{}'", word.replace('\'', "'\\''")),
            false => word,
        }
    };
    let words: Vec<String> = given.rest().iter().map(word).collect();
    Ok(format!("{}\n", words.join(" ")))
}

fn help(_shell: &mut Shell, given: &Given) -> Outcome {
    super::help_of(given.text("command")).map_err(Trouble::new)
}
