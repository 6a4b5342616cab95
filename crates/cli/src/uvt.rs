//! `uvt-kvm` and `uvt-simplestreams-libvirt`: UVtool's command lines over our own verbs.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use guests::cache::Cache;
use guests::library::Library;
use guests::simplestreams::chosen;
use guests::{Silent, seed::UserData};

use crate::arguments::{Arguments, Image, Level, Sync, Verb, Wait};
use crate::daemon::Connection;
use crate::failure::{FAILED, Failure, USAGE};
use crate::guest;
use crate::perform;
use crate::verbs::image::filters;
use crate::verbs::launch;
use crate::verbs::launch::image::source;

#[derive(Parser)]
#[command(name = "uvt-kvm")]
struct Kvm {
    #[command(subcommand)]
    command: KvmCommand,
}

#[derive(Subcommand)]
enum KvmCommand {
    /// Make and start a machine
    Create(Create),
    /// Take machines away, with their disks
    Destroy { names: Vec<String> },
    /// List machines
    List,
    /// Print a machine's address
    Ip { name: String },
    /// Log in: [USER@]NAME [COMMAND...]
    Ssh {
        /// Take the machine's key as it is
        #[arg(long)]
        insecure: bool,
        #[arg(short, long)]
        login_name: Option<String>,
        name: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Wait until a machine is set up
    Wait {
        #[arg(long, default_value = "120")]
        timeout: f64,
        /// Events are waited for rather than asked for
        #[arg(long, default_value = "8")]
        interval: f64,
        #[arg(long)]
        insecure: bool,
        #[arg(long)]
        without_ssh: bool,
        name: String,
    },
}

#[derive(Args)]
struct Create {
    /// MiB
    #[arg(long, default_value = "512")]
    memory: u64,
    /// GiB
    #[arg(long, default_value = "8")]
    disk: u64,
    /// Processors
    #[arg(long, default_value = "1")]
    cpu: u32,
    #[arg(long)]
    user_data: Option<String>,
    /// The default user's password
    #[arg(long)]
    password: Option<String>,
    #[arg(long)]
    ssh_public_key_file: Option<String>,
    #[arg(long, value_delimiter = ',')]
    packages: Vec<String>,
    /// A script for the first boot
    #[arg(long)]
    run_script_once: Vec<String>,
    /// A disk instead of a synchronised image
    #[arg(long)]
    backing_image_file: Option<String>,
    /// The console is always kept
    #[arg(long)]
    log_console_output: bool,
    name: String,
    /// Such as release=noble arch=amd64
    filters: Vec<String>,
}

#[derive(Parser)]
#[command(name = "uvt-simplestreams-libvirt")]
struct Streams {
    #[command(subcommand)]
    command: StreamsCommand,
}

#[derive(Subcommand)]
enum StreamsCommand {
    /// Fetch what fits
    Sync(Sync),
    /// List what is here
    Query { filters: Vec<String> },
    /// Take away what is here
    Purge,
}

/// Runs either applet.
pub fn run(name: &str, arguments: &[OsString]) -> ExitCode {
    let words = std::iter::once(OsString::from(name)).chain(arguments.iter().cloned());
    let done = match name {
        "uvt-kvm" => Kvm::try_parse_from(words).map(|what| kvm(what.command)),
        _ => Streams::try_parse_from(words).map(|what| streams(what.command)),
    };
    match done {
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(failure)) => {
            eprintln!("{name}: error: {}", failure.what);
            failure.causes.iter().for_each(|cause| eprintln!("{name}: error: {cause}"));
            ExitCode::from(failure.code)
        }
        Err(error) => {
            _ = error.print();
            ExitCode::from(if error.use_stderr() { 2 } else { 0 })
        }
    }
}

fn ours(words: &[String]) -> Result<Verb, Failure> {
    let words = std::iter::once("hostel".to_owned()).chain(words.iter().cloned());
    let arguments = Arguments::try_parse_from(words);
    arguments.map(|arguments| arguments.verb).map_err(|error| {
        Failure::new(error.to_string().lines().next().unwrap_or_default().to_owned()).code(USAGE)
    })
}

fn kvm(command: KvmCommand) -> Result<u8, Failure> {
    match command {
        KvmCommand::Create(what) => create(&what),
        KvmCommand::Destroy { names } => {
            let words = ["delete", "--purge"].map(str::to_owned);
            perform(&ours(&[&words[..], &names].concat())?)
        }
        KvmCommand::List => {
            for machine in Connection::open()?.machines()? {
                println!("{}", machine.name());
            }
            Ok(0)
        }
        KvmCommand::Ip { name } => {
            let mut connection = Connection::open()?;
            let machine = connection.machine(&name)?;
            let address = address(&machine.socket(&connection)).ok_or_else(|| {
                Failure::new(format!("no IP address found for libvirt machine '{name}'."))
            })?;
            println!("{address}");
            Ok(0)
        }
        KvmCommand::Ssh { insecure: _, login_name, name, words } => ssh(&name, login_name, &words),
        KvmCommand::Wait { timeout, name, .. } => {
            let timeout = Duration::try_from_secs_f64(timeout)
                .map_err(|error| Failure::new(error.to_string()).code(USAGE))?;
            perform(&Verb::Wait(Wait { name, level: Level::Provisioned, timeout }))
        }
    }
}

/// The first address that the machine's agent tells of, asked until it tells one: a machine
/// that was started a moment ago, or on a host that is busy, may have none yet.
fn address(socket: &Path) -> Option<String> {
    const PATIENCE: Duration = Duration::from_secs(10);
    const PAUSE: Duration = Duration::from_millis(200);
    let end = Instant::now() + PATIENCE;
    loop {
        let left = end.saturating_duration_since(Instant::now()).max(PAUSE);
        let info = guest::quick_info(socket, left);
        let address = info.and_then(|info| info.addresses.into_iter().next());
        if address.is_some() || Instant::now() >= end {
            return address;
        }
        thread::sleep(PAUSE);
    }
}

/// The machine's key is known and its way needs no network: nothing has to be taken on trust.
fn ssh(name: &str, login_name: Option<String>, words: &[String]) -> Result<u8, Failure> {
    let (user, name) = match name.split_once('@') {
        Some((user, name)) => (Some(user.to_owned()), name),
        None => (login_name, name),
    };
    let connection = Connection::open()?;
    let mut command = Command::new("ssh");
    command.arg("-F").arg(connection.places.state.join("ssh/config"));
    if let Some(user) = user {
        command.arg("-l").arg(user);
    }
    let status = command.arg(format!("{name}.hostel")).args(words).status();
    let status = status.map_err(|error| Failure::new("ssh cannot be started").because(&error))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}

fn create(what: &Create) -> Result<u8, Failure> {
    let image = match &what.backing_image_file {
        Some(file) => {
            let path = std::path::absolute(file);
            path.map(|path| path.display().to_string()).unwrap_or_else(|_| file.clone())
        }
        None => image(&what.filters)?,
    };
    let mut line =
        ["launch", &image, "--name", &what.name, "--no-wait"].map(str::to_owned).to_vec();
    let mut option = |name: &str, value: String| line.extend([name.to_owned(), value]);
    option("--memory", format!("{}M", what.memory));
    option("--disk", format!("{}G", what.disk));
    option("--cpus", what.cpu.to_string());
    if let Some(file) = &what.ssh_public_key_file {
        option("--ssh-key", file.clone());
    }
    for package in &what.packages {
        option("--package", package.clone());
    }
    let Verb::Launch(mut what_to_launch) = ours(&line)? else {
        unreachable!("the words say launch");
    };
    let data = user_data(what, image != "spark")?;
    let file = data.as_deref().map(temporary).transpose()?;
    what_to_launch.cloud_init = file.as_ref().map(|file| file.display().to_string());
    let launched = launch::run(&what_to_launch);
    if let Some(file) = file {
        _ = std::fs::remove_file(file);
    }
    launched
}

/// A text in a file of ours, for as long as it is read.
fn temporary(text: &str) -> Result<std::path::PathBuf, Failure> {
    let state = crate::daemon::Places::of_session().state;
    let path = state.join(format!("user-data-{}", std::process::id()));
    let written = std::fs::create_dir_all(&state)
        .and_then(|()| crate::ssh::write_private(&path, text.as_bytes()));
    written.map_err(|error| Failure::new("The user data cannot be kept").because(&error))?;
    Ok(path)
}

/// User data as it was given, or ours for passwords and scripts.
fn user_data(what: &Create, has_ssh: bool) -> Result<Option<String>, Failure> {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map_err(|error| Failure::new(format!("'{path}' cannot be read")).because(&error))
    };
    let scripts = what.run_script_once.iter().map(|path| read(path));
    let scripts: Vec<String> = scripts.collect::<Result<_, _>>()?;
    if let Some(path) = &what.user_data {
        if what.password.is_some() || !scripts.is_empty() {
            let text = "--user-data has the password and the scripts in it, or nothing has";
            return Err(Failure::new(text).code(FAILED));
        }
        let text = read(path)?;
        UserData::parse(&text).map_err(|error| {
            Failure::new(format!("'{path}' is wrong")).because(&error).code(FAILED)
        })?;
        return Ok(Some(text));
    }
    if what.password.is_none() && scripts.is_empty() {
        return Ok(None);
    }
    let mut config = serde_json::json!({});
    if let Some(password) = &what.password {
        config["password"] = password.as_str().into();
        config["chpasswd"] = serde_json::json!({"expire": false});
        if has_ssh {
            config["ssh_pwauth"] = true.into();
        }
    }
    let mut commands = Vec::new();
    let mut files = Vec::new();
    for (number, script) in scripts.into_iter().enumerate() {
        let path = format!("/var/lib/hostel/once-{number}");
        files.push(serde_json::json!({"path": path, "content": script, "permissions": "0700"}));
        commands.push(serde_json::json!([path]));
    }
    if !files.is_empty() {
        config["write_files"] = files.into();
        config["runcmd"] = commands.into();
    }
    Ok(Some(format!("#cloud-config\n{config:#}\n")))
}

/// The synchronised image that fits, the newest of several.
fn image(texts: &[String]) -> Result<String, Failure> {
    let library = Library::of_cache(&Cache::of_user());
    if texts.is_empty() {
        // The present long-term release if it was synchronised; else what needs nothing.
        return Ok(library.find("lts").map_or_else(|| "spark".to_owned(), |image| image.name));
    }
    let products = source().products(&Cache::of_user(), true, &mut Silent)?;
    let fitting = chosen(&products, &filters(texts)?);
    let here = fitting
        .iter()
        .find_map(|product| library.find(&format!("{}-{}", product.release, product.arch)));
    here.map(|image| image.name).ok_or_else(|| {
        let text = format!("no images found that match filters {texts:?}.");
        Failure::new(text).hint("uvt-simplestreams-libvirt sync").code(FAILED)
    })
}

fn streams(command: StreamsCommand) -> Result<u8, Failure> {
    match command {
        StreamsCommand::Sync(what) => perform(&Verb::Image(Image::Sync(what))),
        StreamsCommand::Query { filters: texts } => {
            let cache = Cache::of_user();
            let library = Library::of_cache(&cache);
            let products = source().products(&cache, true, &mut Silent).unwrap_or_default();
            for product in chosen(&products, &filters(&texts)?) {
                let image = library.find(&format!("{}-{}", product.release, product.arch));
                if let Some(image) = image {
                    println!(
                        "release={} arch={} label={} ({})",
                        product.release, product.arch, product.label, image.release
                    );
                }
            }
            Ok(0)
        }
        StreamsCommand::Purge => {
            let library = Library::of_cache(&Cache::of_user());
            for image in library.images() {
                if image.origin.starts_with("http") {
                    library.remove(&image.name)?;
                }
            }
            Ok(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::bytes;

    #[test]
    fn uvtools_lines_are_understood() {
        let line = "uvt-kvm create --memory 1024 --disk 10 --cpu 2 --packages a,b \
            --run-script-once x web release=noble arch=amd64";
        let Kvm { command: KvmCommand::Create(what) } =
            Kvm::try_parse_from(line.split_whitespace()).ok().unwrap()
        else {
            panic!("create");
        };
        assert_eq!((what.name.as_str(), what.packages.len()), ("web", 2));
        assert_eq!(what.filters, ["release=noble", "arch=amd64"]);
        assert_eq!(bytes(&format!("{}M", what.memory)), Ok(1 << 30));
    }
}
