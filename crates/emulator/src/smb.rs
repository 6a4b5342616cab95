//! `smb=`: a folder of this machine for guests that speak SMB, by Debian's samba.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use net::user::{Config, ForwardTarget, GuestForward};

/// Where distributions put the server.
const SERVER: &str = "/usr/sbin/smbd";
/// The ports of SMB, over NetBIOS and directly.
const PORTS: [u16; 2] = [139, 445];

/// The server's folder; it goes when the machine goes.
pub struct SmbFolder(PathBuf);

impl Drop for SmbFolder {
    fn drop(&mut self) {
        // What cannot be removed is left for the system's own cleaning.
        _ = fs::remove_dir_all(&self.0);
    }
}

/// Has guests reach a server for `folder` at the network's address 4, or at `address`: one that is
/// started for each connection.
pub fn share(
    config: &mut Config,
    folder: &str,
    address: Option<std::net::Ipv4Addr>,
) -> Result<SmbFolder, String> {
    if !Path::new(SERVER).exists() {
        return Err(format!("Could not find '{SERVER}', please install it"));
    }
    let metadata = fs::metadata(folder);
    if !metadata.is_ok_and(|metadata| metadata.is_dir()) {
        return Err(format!("Error accessing shared directory '{folder}': it is no folder"));
    }
    let network = config.ipv4.as_ref().ok_or("'smb' needs IPv4")?.network;
    let address = address.unwrap_or_else(|| (network.to_bits() + 4).into());
    let own = make_folder().map_err(|error| {
        format!("could not create samba server dir: {}", crate::character::reason(&error))
    })?;
    let path = own.0.display();
    // A newline would end the setting, and what follows would be another one.
    if folder.contains(['\n', '\r']) {
        return Err("a folder for 'smb' cannot have a line end in its name".to_owned());
    }
    let text = format!(
        "[global]\nprivate dir={path}\ninterfaces=127.0.0.1\nbind interfaces only=yes\n\
         pid directory={path}\nlock directory={path}\nstate directory={path}\n\
         cache directory={path}\nncalrpc dir={path}/ncalrpc\nlog file={path}/log.smbd\n\
         smb passwd file={path}/smbpasswd\nsecurity = user\nmap to guest = Bad User\n\
         load printers = no\nprinting = bsd\ndisable spoolss = yes\nusershare max shares = 0\n\
         [qemu]\npath={folder}\nread only=no\nguest ok=yes\nforce user={}\n",
        user_name()
    );
    let file = own.0.join("smb.conf");
    fs::write(&file, text).map_err(|error| {
        format!("could not create samba configuration: {}", crate::character::reason(&error))
    })?;
    let command = format!("exec {SERVER} -l {path} -s {}", file.display());
    for port in PORTS {
        let at = SocketAddr::new(address.into(), port);
        let to = ForwardTarget::Command(command.clone().into());
        config.guest_forwards.push(GuestForward { at, to });
    }
    Ok(own)
}

/// A folder that nobody else can have made.
fn make_folder() -> io::Result<SmbFolder> {
    let base = std::env::temp_dir();
    for attempt in 0..100 {
        let path = base.join(format!("hostel-smb.{}.{attempt}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| SmbFolder(path)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The name of who runs this: files belong to that user.
fn user_name() -> String {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or(uid)
}
