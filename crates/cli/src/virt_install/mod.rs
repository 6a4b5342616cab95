//! `virt-install`: makes a domain from option groups, as its users type them.
//!
//! Each group is `key=value,...`; the first value of some needs no key. What is not known is refused
//! by name.

mod devices;
mod pairs;

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use guests::Silent;
use guests::cache::Cache;
use guests::seed::{Layout, Seed, UserData};
use libvirt_compat::xml::Element;

use crate::arguments::bytes;
use crate::daemon::Connection;
use crate::failure::Failure;
use crate::verbs::launch::provision::random_word;
use pairs::Pairs;

#[derive(Parser)]
#[command(
    name = "virt-install",
    version = "4.1.0",
    about = "Create a new virtual machine",
    after_help = "Examples:\n  virt-install --name web --memory 1024 --disk disk.qcow2 --import \
        --osinfo generic\n  virt-install --name new --memory 2048 --disk size=10 --cdrom a.iso\n  \
        virt-install --name web --import --disk d.qcow2 --cloud-init user-data=u.yaml --print-xml"
)]
struct Options {
    #[arg(long)]
    connect: Option<String>,
    #[arg(short, long)]
    name: Option<String>,
    /// MiB, or memory=MiB,maxmemory=MiB
    #[arg(short = 'r', long, visible_alias = "ram")]
    memory: Option<String>,
    #[arg(long)]
    vcpus: Option<String>,
    #[arg(long)]
    cpu: Option<String>,
    #[arg(long)]
    arch: Option<String>,
    #[arg(long)]
    machine: Option<String>,
    #[arg(long)]
    virt_type: Option<String>,
    /// title=,description=,uuid=
    #[arg(long)]
    metadata: Option<String>,
    #[arg(long, visible_alias = "os-variant")]
    osinfo: Option<String>,
    #[arg(long, value_name = "ISO")]
    cdrom: Option<String>,
    /// kernel=,initrd=
    #[arg(short, long)]
    location: Option<String>,
    #[arg(short = 'x', long)]
    extra_args: Option<String>,
    #[arg(long)]
    import: bool,
    #[arg(long)]
    boot: Option<String>,
    /// user-data=,meta-data=,network-config=,root-ssh-key=,clouduser-ssh-key=,disable=
    #[arg(long, num_args = 0..=1, default_missing_value = "")]
    cloud_init: Option<String>,
    #[arg(long)]
    disk: Vec<String>,
    #[arg(short = 'w', long)]
    network: Vec<String>,
    #[arg(long)]
    graphics: Vec<String>,
    #[arg(long)]
    video: Vec<String>,
    #[arg(long)]
    serial: Vec<String>,
    #[arg(long)]
    console: Vec<String>,
    #[arg(long)]
    channel: Vec<String>,
    #[arg(long)]
    controller: Vec<String>,
    #[arg(long)]
    input: Vec<String>,
    #[arg(long)]
    rng: Vec<String>,
    #[arg(long)]
    memballoon: Vec<String>,
    #[arg(long)]
    vsock: Vec<String>,
    #[arg(long)]
    watchdog: Vec<String>,
    #[arg(long)]
    panic: Vec<String>,
    #[arg(long)]
    sound: Vec<String>,
    #[arg(long)]
    tpm: Vec<String>,
    #[arg(long)]
    autostart: bool,
    #[arg(long)]
    transient: bool,
    #[arg(long)]
    noreboot: bool,
    /// Consoles are not opened here
    #[arg(long)]
    noautoconsole: bool,
    #[arg(long)]
    autoconsole: Option<String>,
    #[arg(long, num_args = 0..=1, default_missing_value = "-1", allow_hyphen_values = true)]
    wait: Option<i64>,
    #[arg(long, num_args = 0..=1, default_missing_value = "all")]
    print_xml: Option<String>,
    #[arg(long)]
    dry_run: bool,
    #[arg(long)]
    check: Vec<String>,
    #[arg(short, long)]
    quiet: bool,
}

/// What is wrong, as virt-install says it.
#[derive(Debug)]
struct Wrong(String);

impl From<Failure> for Wrong {
    fn from(failure: Failure) -> Self {
        let mut text = failure.what;
        failure.causes.iter().for_each(|cause| text.push_str(&format!(": {cause}")));
        Self(text)
    }
}

impl From<libvirt_compat::Error> for Wrong {
    fn from(error: libvirt_compat::Error) -> Self {
        Self(error.to_string())
    }
}

type Result<T> = std::result::Result<T, Wrong>;

/// Runs the applet.
pub fn run(name: &str, arguments: &[OsString]) -> ExitCode {
    let words = std::iter::once(OsString::from(name)).chain(arguments.iter().cloned());
    let options = match Options::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => {
            _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match install(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Wrong(text)) => {
            eprintln!("ERROR    {text}");
            ExitCode::FAILURE
        }
    }
}

fn install(options: &Options) -> Result<()> {
    let has_source = options.import
        || options.cdrom.is_some()
        || options.location.is_some()
        || options.boot.is_some()
        || options.cloud_init.is_some();
    if !has_source {
        let text = "An install method must be specified\n(--location URL, --cdrom CD/ISO, --pxe, \
            --import, --boot hd|cdrom|...)";
        return Err(Wrong(text.to_owned()));
    }
    if options.autoconsole.as_deref().is_some_and(|console| console != "none") {
        let text = "--autoconsole: no console is opened here; 'virt-viewer' and 'virsh' do it";
        return Err(Wrong(text.to_owned()));
    }
    if options.memory.is_none() {
        return Err(Wrong("--memory is required".to_owned()));
    }
    if options.disk.is_empty() && options.import {
        return Err(Wrong("A disk device must be specified with --import.".to_owned()));
    }
    // Nothing is made for a document that is only looked at.
    let is_real = options.print_xml.is_none() && !options.dry_run;
    let maker = Maker { is_real, made: RefCell::default() };
    let done = create(options, &maker);
    if done.is_err() {
        for path in maker.made.borrow().iter() {
            _ = fs::remove_file(path);
        }
    }
    done
}

/// Whether files are made, and which were.
struct Maker {
    is_real: bool,
    made: RefCell<Vec<PathBuf>>,
}

fn create(options: &Options, maker: &Maker) -> Result<()> {
    let mut connection = Connection::of_uri(options.connect.as_deref())?;
    let name = match &options.name {
        Some(name) => name.clone(),
        None => format!("vm-{}", random_word()),
    };
    let is_taken = connection.client.domain_lookup_by_name(name.clone()).is_ok();
    if is_taken {
        return Err(Wrong(format!("Guest name '{name}' is already in use.")));
    }
    let definition = definition(options, &connection, &name, maker)?;
    if options.print_xml.is_some() {
        print!("{}", definition.to_xml());
        return Ok(());
    }
    let say = |text: &str| {
        if !options.quiet {
            println!("{text}");
        }
    };
    if options.dry_run {
        say("Dry run completed successfully");
        return Ok(());
    }
    if definition.at("os/kernel").is_none() {
        // Without a network it may still be installed where the emulator looks.
        _ = guests::firmware::ensure(&Cache::of_user(), false, &mut Silent);
    }
    say("\nStarting install...\nCreating domain...");
    let text = definition.to_xml();
    if options.transient {
        connection.client.domain_create_xml(text, 0)?;
    } else {
        let domain = connection.client.domain_define_xml(text)?;
        if let Err(error) = connection.client.domain_create_with_flags(domain.clone(), 0) {
            // What cannot start is not left behind.
            _ = connection.client.domain_undefine_flags(domain, 0);
            return Err(error.into());
        }
        if options.autostart {
            connection.client.domain_set_autostart(domain, 1)?;
        }
    }
    wait(options, &mut connection, &name)?;
    say("Domain creation completed.");
    Ok(())
}

/// Waits until the domain goes off: so many minutes, or without end.
fn wait(options: &Options, connection: &mut Connection, name: &str) -> Result<()> {
    use std::thread::sleep;
    use std::time::{Duration, Instant};
    let Some(minutes) = options.wait.filter(|minutes| *minutes != 0) else { return Ok(()) };
    let began = Instant::now();
    let limit = u64::try_from(minutes).ok().map(|minutes| Duration::from_secs(minutes * 60));
    loop {
        let domain = connection.client.domain_lookup_by_name(name.to_owned());
        let Ok(domain) = domain else { return Ok(()) }; // a transient one that has gone
        let (state, _) = connection.client.domain_get_state(domain, 0)?;
        if state == 5 {
            return Ok(());
        }
        if limit.is_some_and(|limit| began.elapsed() > limit) {
            let text = "Installation has exceeded specified time limit. Exiting application.";
            return Err(Wrong(text.to_owned()));
        }
        sleep(Duration::from_millis(200));
    }
}

/// The document.
fn definition(
    options: &Options,
    connection: &Connection,
    name: &str,
    maker: &Maker,
) -> Result<Element> {
    let memory = options.memory.as_deref().unwrap_or_default();
    let mut memory = Pairs::parse("memory", memory, Some("memory"))?;
    let mebibytes = |text: String| match text.parse::<u64>() {
        Ok(number) => Ok(number << 10),
        Err(_) => bytes(&text).map(|bytes| bytes >> 10).map_err(Wrong),
    };
    let now = memory.take("memory").or_else(|| memory.take("currentMemory"));
    let now = mebibytes(now.ok_or_else(|| Wrong("--memory needs a size in MiB".to_owned()))?)?;
    let most = memory.take("maxmemory").map_or(Ok(now), mebibytes)?;
    memory.finish()?;
    let mut domain = Element::new("domain")
        .with("type", options.virt_type.as_deref().unwrap_or("qemu"))
        .with_child(Element::with_text("name", name));
    if options.virt_type.is_none() && fs::metadata("/dev/kvm").is_ok() && has_fast_kvm(connection) {
        domain.set("type", "kvm");
    }
    if let Some(text) = &options.metadata {
        let mut metadata = Pairs::parse("metadata", text, None)?;
        for key in ["uuid", "title", "description"] {
            if let Some(value) = metadata.take(key) {
                domain.push(Element::with_text(key, value));
            }
        }
        metadata.finish()?;
    }
    if let Some(osinfo) = &options.osinfo {
        domain.push(devices::operating_system_note(osinfo)?);
    }
    domain.push(Element::with_text("memory", most).with("unit", "KiB"));
    domain.push(Element::with_text("currentMemory", now).with("unit", "KiB"));
    domain.push(cpus(options.vcpus.as_deref().unwrap_or("1"))?);
    domain.push(system(options)?);
    let mut features = Element::new("features");
    features.push(Element::new("acpi"));
    features.push(Element::new("apic"));
    domain.push(features);
    if let Some(text) = &options.cpu {
        domain.push(cpu(text)?);
    }
    domain.push(Element::with_text("on_poweroff", "destroy"));
    domain.push(Element::with_text(
        "on_reboot",
        if options.noreboot { "destroy" } else { "restart" },
    ));
    domain.push(Element::with_text("on_crash", "destroy"));
    let seed = match &options.cloud_init {
        Some(text) => seed(text, connection, name, maker)?,
        None => None,
    };
    domain.push(devices::all(options, connection, name, seed, maker)?);
    Ok(domain)
}

fn has_fast_kvm(_connection: &Connection) -> bool {
    // The daemon says so in its capabilities, which need a connection of its own.
    let mut own = match Connection::open() {
        Ok(own) => own,
        Err(_) => return false,
    };
    own.client.connect_get_capabilities().is_ok_and(|text| text.contains("<domain type='kvm'"))
}

fn cpus(text: &str) -> Result<Element> {
    let mut pairs = Pairs::parse("vcpus", text, Some("vcpus"))?;
    let most = pairs.take("maxvcpus").or_else(|| pairs.take("vcpus")).unwrap_or_else(|| "1".into());
    if most.parse::<u32>().is_err() {
        return Err(Wrong(format!("--vcpus {text}: '{most}' is no number")));
    }
    pairs.finish()?;
    Ok(Element::with_text("vcpu", most))
}

fn cpu(text: &str) -> Result<Element> {
    let mut pairs = Pairs::parse("cpu", text, Some("model"))?;
    let model = pairs.take("model").unwrap_or_else(|| "host-model".to_owned());
    let element = match model.as_str() {
        "host-passthrough" | "host-model" | "maximum" => Element::new("cpu").with("mode", &model),
        "host" => Element::new("cpu").with("mode", "host-passthrough"),
        model => Element::new("cpu")
            .with("mode", "custom")
            .with("match", "exact")
            .with_child(Element::with_text("model", model)),
    };
    pairs.finish()?;
    Ok(element)
}

fn system(options: &Options) -> Result<Element> {
    let kind = Element::with_text("type", "hvm")
        .with("arch", options.arch.as_deref().unwrap_or("x86_64"))
        .with("machine", options.machine.as_deref().unwrap_or("q35"));
    let mut system = Element::new("os");
    let mut kernel = (None, None, options.extra_args.clone());
    if let Some(text) = &options.location {
        let mut pairs = Pairs::parse("location", text, None)?;
        kernel.0 = pairs.take("kernel");
        kernel.1 = pairs.take("initrd");
        pairs.finish()?;
        if kernel.0.is_none() {
            let text = "--location takes kernel=PATH,initrd=PATH here, not an installer's tree";
            return Err(Wrong(text.to_owned()));
        }
    }
    let mut order: Vec<String> = Vec::new();
    if options.cdrom.is_some() {
        order.push("cdrom".to_owned());
    }
    if let Some(text) = &options.boot {
        let mut pairs = Pairs::parse("boot", text, None)?;
        for device in ["hd", "cdrom", "network", "fd"] {
            if pairs.take_bare(device) {
                order.push(device.to_owned());
            }
        }
        if pairs.take_bare("uefi") {
            system.set("firmware", "efi");
        }
        kernel.0 = pairs.take("kernel").or(kernel.0);
        kernel.1 = pairs.take("initrd").or(kernel.1);
        kernel.2 = pairs.take("kernel_args").or_else(|| pairs.take("cmdline")).or(kernel.2);
        pairs.finish()?;
    }
    system.push(kind);
    for (name, text) in [("kernel", kernel.0), ("initrd", kernel.1), ("cmdline", kernel.2)] {
        if let Some(text) = text {
            system.push(Element::with_text(name, text));
        }
    }
    if system.child("kernel").is_none() {
        order.push("hd".to_owned());
        order.dedup();
        order.iter().for_each(|device| system.push(Element::new("boot").with("dev", device)));
    }
    Ok(system)
}

/// The seed's file.
fn seed(text: &str, connection: &Connection, name: &str, maker: &Maker) -> Result<Option<PathBuf>> {
    let mut pairs = Pairs::parse("cloud-init", text, None)?;
    let read = |path: String| {
        fs::read_to_string(&path).map_err(|error| Wrong(format!("--cloud-init {path}: {error}")))
    };
    let user_data = pairs.take("user-data").map(read).transpose()?;
    let mut user_data = user_data
        .map(|text| {
            UserData::parse(&text)
                .map_err(|error| Wrong(format!("--cloud-init user-data: {error}")))
        })
        .transpose()?;
    let network = pairs.take("network-config").map(read).transpose()?;
    let network = network
        .map(|text| {
            guests::yaml::parse(&text)
                .map_err(|error| Wrong(format!("--cloud-init network-config: {error}")))
        })
        .transpose()?;
    let mut keys = Vec::new();
    for key in ["root-ssh-key", "clouduser-ssh-key"] {
        keys.extend(pairs.take(key).map(read).transpose()?.map(|key| key.trim().to_owned()));
    }
    if let Some(path) = pairs.take("root-password-file") {
        let password = read(path)?;
        let config = serde_json::json!({"chpasswd": {"expire": false,
            "list": format!("root:{}", password.trim())}});
        let text = format!("#cloud-config\n{config:#}\n");
        let made = UserData::parse(&text).map_err(|error| Wrong(error.to_string()))?;
        if user_data.replace(made).is_some() {
            let text = "--cloud-init: user-data and root-password-file exclude each other";
            return Err(Wrong(text.to_owned()));
        }
    }
    _ = pairs.take("disable"); // it is off by itself when its seed is gone
    pairs.finish()?;
    let seed = Seed {
        instance_id: format!("hostel-{}", random_word()),
        hostname: name.to_owned(),
        user_data,
        network,
        authorized_keys: keys,
        ..Seed::default()
    };
    let path = connection.places.state.join("seeds").join(format!("{name}.seed.iso"));
    if maker.is_real {
        let image = seed.image(Layout::NoCloud).map_err(|error| Wrong(error.to_string()))?;
        let folder = path.parent().map(PathBuf::from).unwrap_or_default();
        fs::create_dir_all(folder)
            .and_then(|()| crate::ssh::write_private(&path, &image))
            .map_err(|error| Wrong(format!("{}: {error}", path.display())))?;
        maker.made.borrow_mut().push(path.clone());
    }
    Ok(Some(path))
}
