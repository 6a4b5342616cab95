//! Small guests of Debian's kernel with all its modules.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A hang is what it is for.
const PATIENCE: Duration = Duration::from_secs(240);

/// What every virtio device on PCI needs.
const VIRTIO: &[&str] = &[
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
];

/// A kernel and a RAM disk with busybox, modules, files and a script.
pub struct Guest {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub folder: PathBuf,
}

impl Guest {
    /// None without the assets. Modules are named as below `kernel/`, in the order of loading.
    pub fn new(name: &str, modules: &[&str], files: &[PathBuf], script: &str) -> Option<Self> {
        let busybox = tests::asset("busybox-amd64/bin/busybox")?;
        let kernel = tests::asset_file("kernel-12-full/boot", "vmlinuz")?;
        let tree = tests::asset_file("kernel-12-full/lib/modules", "6")?.join("kernel");
        let folder = tests::scratch(name);
        let modules = VIRTIO.iter().chain(modules);
        let modules: Vec<PathBuf> = modules.map(|name| tree.join(format!("{name}.ko"))).collect();
        let load = modules.iter().map(|module| {
            format!("/bin/busybox insmod /{}\n", module.file_name().unwrap().to_string_lossy())
        });
        let script = format!(
            "/bin/busybox mount -t proc proc /proc\n/bin/busybox mount -t sysfs sysfs /sys\n\
             /bin/busybox mount -t devtmpfs devtmpfs /dev\n/bin/busybox --install -s /bin\n{}{script}",
            load.collect::<String>()
        );
        let files = [modules, files.to_vec()].concat();
        let initrd = folder.join("initrd");
        tests::initramfs::write_with(&initrd, &busybox, &script, &files).unwrap();
        Some(Self { kernel, initrd, folder })
    }

    /// Options that boot it, its console in a file.
    pub fn options(&self) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let console = format!("file:{}", path(&self.console_path()));
        ["-no-reboot", "-m", "256", "-kernel", &path(&self.kernel), "-initrd", &path(&self.initrd)]
            .into_iter()
            .chain(["-append", "console=ttyS0 quiet panic=-1", "-serial", &console])
            .map(str::to_owned)
            .collect()
    }

    fn console_path(&self) -> PathBuf {
        self.folder.join("console")
    }

    /// What it has said so far.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.console_path()).unwrap_or_default()).into_owned()
    }

    /// Runs it by our emulator until it powers off; what it said.
    pub fn run(&self, options: &[&str]) -> String {
        let mut command = tests::hostel();
        command.args(["qemu-system-x86_64", "-nodefaults", "-display", "none"]);
        command.args(self.options()).args(options).stdin(Stdio::null());
        let mut child = Running(command.spawn().unwrap());
        child.wait(|| self.console());
        self.console()
    }

    /// Waits until it has said something.
    pub fn says(&self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let console = self.console();
            if console.contains(text) {
                return console;
            }
            assert!(start.elapsed() < PATIENCE, "no '{text}': {console}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.folder);
    }
}

/// A process that does not outlive its test.
pub struct Running(pub Child);

impl Running {
    /// Until it ends by itself.
    pub fn wait(&mut self, about: impl Fn() -> String) {
        let start = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "it does not end: {}", about());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A static program made of a C file of these tests.
pub fn compiled(source: &str, folder: &Path) -> Option<PathBuf> {
    let source = tests::workspace().join("tests/tests/outside").join(source);
    let program = folder.join(source.file_stem().unwrap());
    let mut compiler = Command::new("gcc");
    compiler.args(["-static", "-O1", "-Wall", "-o"]).arg(&program).arg(source);
    let status = compiler.status();
    status.is_ok_and(|status| status.success()).then_some(program)
}

/// A program of an asset with everything it depends on, run by the asset's own loader, so that the
/// machine's libraries do not matter.
pub fn debian_program(asset: &str, path: &str) -> Option<Command> {
    let root = tests::asset(asset)?;
    let program = root.join(path);
    if !program.exists() {
        return None;
    }
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(libraries).arg(program);
    Some(command)
}

/// Waits until somebody listens on a unix socket.
pub fn appears(path: &Path) {
    let start = Instant::now();
    let end = format!(" {}", path.display());
    let listens = |line: &str| line.ends_with(&end) && line.contains(" 00010000 ");
    while !fs::read_to_string("/proc/net/unix").unwrap().lines().any(listens) {
        assert!(start.elapsed() < PATIENCE, "nobody listens on {}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A program of an asset and all it is linked to, for a guest's root folder, where
/// `/ld-linux-x86-64.so.2 --library-path / /PROGRAM` runs it.
pub fn program_files(asset: &str, path: &str) -> Option<Vec<PathBuf>> {
    let root = tests::asset(asset)?;
    let command = debian_program(asset, path)?;
    let mut list = Command::new(command.get_program());
    let output = list.arg("--list").args(command.get_args()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let library = |line: &str| {
        let path = line.split("=> ").nth(1)?.split(' ').next()?;
        Some(PathBuf::from(path))
    };
    let mut files: Vec<_> = text.lines().filter_map(library).collect();
    // Threads that are ended ask for this one by its name.
    let unwinder = root.join("usr/lib/x86_64-linux-gnu/libgcc_s.so.1");
    if unwinder.exists() && !files.contains(&unwinder) {
        files.push(unwinder);
    }
    files.push(root.join(path));
    files.push(root.join("usr/lib64/ld-linux-x86-64.so.2"));
    Some(files)
}

/// Whether these tests run as root.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A shell that has an asset's folder as its root, with this machine's devices, for programs that
/// find their files or themselves by path. `folder` is its /tmp.
pub fn rooted_shell(asset: &str, folder: &Path) -> Option<Command> {
    let root = tests::asset(asset)?;
    for name in ["dev", "tmp", "proc"] {
        fs::create_dir_all(root.join(name)).ok()?;
    }
    let (root, own) = (root.display().to_string(), folder.display().to_string());
    let script = format!(
        "mount --rbind /dev {root}/dev && mount --bind {own} {root}/tmp && \
         mount -t proc proc {root}/proc && exec chroot {root} /bin/dash"
    );
    let mut shell = Command::new("unshare");
    // Who is root already keeps all of root's rights.
    if !is_root() {
        shell.arg("--map-root-user");
    }
    shell
        .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c"])
        .arg(script)
        .env_clear()
        .envs([("PATH", "/usr/bin:/usr/sbin:/bin:/sbin"), ("HOME", "/tmp")]);
    Some(shell)
}
