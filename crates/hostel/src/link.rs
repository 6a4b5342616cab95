//! `hostel link DIR`: one symbolic link for every applet.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use crate::EXIT_USAGE;
use crate::applets::APPLETS;

const EXIT_FAILED: u8 = 2;

/// What stood at a link's place, and what became of it.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Made,
    AlreadyOurs,
}

/// Runs the command. Never replaces a file that is not a link to a `hostel` executable.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let [directory] = arguments else {
        eprintln!("error: 'hostel link' takes one argument, the directory for the links");
        return ExitCode::from(EXIT_USAGE);
    };
    let directory = PathBuf::from(directory);
    let executable = match env::current_exe() {
        Ok(path) => path,
        Err(error) => {
            eprintln!("error: Cannot tell where this executable is: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    if let Err(error) = fs::create_dir_all(&directory) {
        eprintln!("error: Cannot create the directory {}: {error}", directory.display());
        return ExitCode::from(EXIT_FAILED);
    }
    let mut failed = false;
    for applet in APPLETS {
        let place = directory.join(applet.name);
        match make_link(&executable, &place) {
            Ok(Outcome::Made) => println!("{} -> {}", place.display(), executable.display()),
            Ok(Outcome::AlreadyOurs) => println!("{} (already there)", place.display()),
            Err(error) => {
                eprintln!("error: Cannot make the link {}: {error}", place.display());
                failed = true;
            }
        }
    }
    if failed { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS }
}

fn make_link(executable: &Path, place: &Path) -> io::Result<Outcome> {
    match fs::read_link(place) {
        Ok(target) if target == executable => return Ok(Outcome::AlreadyOurs),
        // A link to an older copy of ours is renewed.
        Ok(target) if target.file_name() == executable.file_name() => fs::remove_file(place)?,
        _ => {}
    }
    symlink(executable, place)?;
    Ok(Outcome::Made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_file_is_left_alone() {
        let directory = env::temp_dir().join(format!("hostel-link-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let place = directory.join("qemu-img");
        fs::write(&place, "mine").unwrap();
        let executable = Path::new("/somewhere/hostel");

        let outcome = make_link(executable, &place);

        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&place).unwrap(), "mine");
        fs::remove_file(&place).unwrap();
        assert_eq!(make_link(executable, &place).unwrap(), Outcome::Made);
        assert_eq!(make_link(executable, &place).unwrap(), Outcome::AlreadyOurs);
        assert_eq!(make_link(Path::new("/new/hostel"), &place).unwrap(), Outcome::Made);
        assert_eq!(fs::read_link(&place).unwrap(), Path::new("/new/hostel"));
        fs::remove_dir_all(&directory).unwrap();
    }
}
