//! What an image without cloud-init does of a cloud-config: users, keys, files, commands. The host
//! has read the YAML and puts the values beside it on the seed as `hostel.json`.
//!
//! As in cloud-init all is done once for an instance, and `bootcmd` on every boot.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Map, Value};

use crate::info::problem;
use crate::init::{self, Started};

const DONE: &str = "/var/lib/hostel/instance-id";
const LOG: &str = "/var/log/cloud-init-output.log";
const SEED_BYTES_MAX: u64 = 64 << 20;

/// What the instance is told.
pub struct Seed {
    config: Map<String, Value>,
    script: Option<String>,
    user: Option<String>,
    keys: Vec<String>,
    instance: String,
    /// It was obeyed on an earlier boot.
    is_done: bool,
}

/// Reads the seed from its disk.
pub fn read(device: &str) -> Option<Seed> {
    let text = match text(device) {
        Ok(text) => text,
        Err(error) => {
            problem(format!("The seed {device} cannot be read: {error}"));
            return None;
        }
    };
    let plan: Value = serde_json::from_slice(&text).unwrap_or_default();
    let word = |key: &str| plan[key].as_str().map(str::to_owned);
    let instance = word("instance-id").unwrap_or_default();
    Some(Seed {
        config: plan["config"].as_object().cloned().unwrap_or_default(),
        script: word("script"),
        user: word("user"),
        keys: texts(&plan["authorized-keys"]),
        is_done: fs::read_to_string(DONE).is_ok_and(|known| known.trim() == instance),
        instance,
    })
}

fn text(device: &str) -> io::Result<Vec<u8>> {
    const PLACE: &str = "/run/hostel-seed";
    init::await_device(device)?;
    fs::create_dir_all(PLACE)?;
    mount(device, PLACE, "iso9660", MountFlags::RDONLY, None)?;
    let path = Path::new(PLACE).join("hostel.json");
    let read = fs::metadata(&path).and_then(|metadata| match metadata.len() {
        0..=SEED_BYTES_MAX => fs::read(&path),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    });
    _ = unmount(PLACE, UnmountFlags::DETACH);
    read
}

/// A list of texts, or one text.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().flat_map(texts).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

impl Seed {
    /// What must be there before anybody comes in.
    pub fn set_up(&self) {
        for words in self.commands("bootcmd") {
            run(&words);
        }
        if self.is_done {
            return;
        }
        self.name_host();
        for group in self.groups() {
            tried(&group, add_group(&group, None));
        }
        if let Some(user) = &self.user {
            let mut fields = Map::new();
            fields.insert("name".to_owned(), user.as_str().into());
            tried(user, add_user(&fields));
        }
        let users = self.config.get("users").and_then(Value::as_array).into_iter().flatten();
        for user in users {
            if let Some(fields) = user.as_object() {
                let name = fields.get("name").and_then(Value::as_str).unwrap_or("user");
                tried(name, add_user(fields));
            }
        }
        let mut keys = self.keys.clone();
        keys.extend(self.config.get("ssh_authorized_keys").map(texts).unwrap_or_default());
        let user = self.user.as_deref().unwrap_or("root");
        tried(user, authorize(user, &keys));
        self.set_passwords();
        self.write_files(false);
    }

    /// What may take its time, with the network.
    pub fn run(&self) {
        if self.is_done {
            return;
        }
        for words in self.commands("runcmd") {
            run(&words);
        }
        if let Some(script) = &self.script {
            const PLACE: &str = "/var/lib/hostel/script";
            let written = store(PLACE, script.as_bytes(), 0o700, false);
            match written {
                Ok(()) => run(&[PLACE.to_owned()]),
                Err(error) => problem(format!("{PLACE}: {error}")),
            }
        }
        self.write_files(true);
        if let Some(message) = self.config.get("final_message").and_then(Value::as_str) {
            println!("{message}");
        }
        tried(DONE, store(DONE, self.instance.as_bytes(), 0o644, false));
    }

    fn name_host(&self) {
        let text = |key: &str| self.config.get(key).and_then(Value::as_str);
        let fqdn = text("fqdn");
        let name = text("hostname").or(fqdn).unwrap_or_default();
        let name = name.split('.').next().unwrap_or_default();
        if name.is_empty() || self.config.get("preserve_hostname") == Some(&Value::Bool(true)) {
            return;
        }
        tried("hostname", rustix::system::sethostname(name.as_bytes()).map_err(Into::into));
        tried(
            "/etc/hostname",
            store("/etc/hostname", format!("{name}\n").as_bytes(), 0o644, false),
        );
        let line = format!("127.0.1.1 {} {name}\n", fqdn.unwrap_or(name));
        tried("/etc/hosts", store("/etc/hosts", line.as_bytes(), 0o644, true));
    }

    fn groups(&self) -> Vec<String> {
        match self.config.get("groups") {
            Some(Value::Array(list)) => list
                .iter()
                .flat_map(|group| match group {
                    Value::Object(map) => map.keys().cloned().collect(),
                    other => texts(other),
                })
                .collect(),
            Some(other) => {
                let names = texts(other).join(",");
                names.split(',').map(|name| name.trim().to_owned()).collect()
            }
            None => Vec::new(),
        }
    }

    fn set_passwords(&self) {
        let mut lines = Vec::new();
        if let Some(password) = self.config.get("password").and_then(Value::as_str) {
            lines.push(format!("{}:{password}", self.user.as_deref().unwrap_or("root")));
        }
        if let Some(chpasswd) = self.config.get("chpasswd") {
            let list = texts(&chpasswd["list"]).join("\n");
            lines.extend(list.lines().filter(|line| line.contains(':')).map(str::to_owned));
            for user in chpasswd["users"].as_array().into_iter().flatten() {
                if let (Some(name), Some(password)) =
                    (user["name"].as_str(), user["password"].as_str())
                {
                    lines.push(format!("{name}:{password}"));
                }
            }
        }
        for line in lines {
            let hashed = line.split_once(':').is_some_and(|(_, word)| word.starts_with('$'));
            tried("chpasswd", set_password(&line, hashed));
        }
    }

    fn write_files(&self, deferred: bool) {
        let files = self.config.get("write_files").and_then(Value::as_array);
        for file in files.into_iter().flatten() {
            if (file["defer"] == Value::Bool(true)) == deferred {
                let path = file["path"].as_str().unwrap_or_default();
                tried(path, write_file(path, file));
            }
        }
    }

    /// A command is a line for the shell, or words.
    fn commands(&self, key: &str) -> Vec<Vec<String>> {
        let list = self.config.get(key).and_then(Value::as_array);
        let command = |value: &Value| match value {
            Value::Array(words) => words.iter().flat_map(texts).collect(),
            other => vec!["sh".to_owned(), "-c".to_owned(), texts(other).concat()],
        };
        list.into_iter().flatten().map(command).filter(|words: &Vec<_>| !words.is_empty()).collect()
    }
}

fn tried(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        problem(format!("{what}: {error}"));
    }
}

fn wrong(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason.into())
}

fn run(words: &[String]) {
    _ = fs::create_dir_all("/var/log");
    let log = OpenOptions::new().create(true).append(true).open(LOG);
    let output = || match &log {
        Ok(log) => log.try_clone().map_or_else(|_| Stdio::null(), Stdio::from),
        Err(_) => Stdio::null(),
    };
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(output()).stderr(output());
    command.current_dir("/").env("HOME", "/root").env("PATH", crate::exec::PATH);
    match Started::new(&mut command).and_then(|mut started| started.wait()) {
        Ok(status) if status.success() => {}
        Ok(status) => problem(format!("{}: {status}; its output is in {LOG}", words.join(" "))),
        Err(error) => problem(format!("{}: {error}", words.join(" "))),
    }
}

/// Writes a file, in the folders that it needs.
fn store(path: &str, data: &[u8], mode: u32, append: bool) -> io::Result<()> {
    if let Some(parent) = Path::new(path).parent() {
        fs::create_dir_all(parent)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).mode(mode).append(append).write(true).truncate(!append);
    let mut file: File = options.open(path)?;
    file.write_all(data)?;
    if !append {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn write_file(path: &str, file: &Value) -> io::Result<()> {
    if !path.starts_with('/') {
        return Err(wrong("a file of write_files needs a path from the root"));
    }
    let content = match &file["content"] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let data = match file["encoding"].as_str().unwrap_or("text/plain") {
        "text/plain" => content.into_bytes(),
        "b64" | "base64" => base64(&content).ok_or_else(|| wrong("it is no base64"))?,
        other => return Err(wrong(format!("the encoding '{other}' is not known here"))),
    };
    let mode = match &file["permissions"] {
        Value::String(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8)
            .map_err(|_| wrong("permissions"))?,
        Value::Number(number) => number.as_u64().unwrap_or(0o644) as u32 & 0o7777,
        _ => 0o644,
    };
    store(path, &data, mode, file["append"] == Value::Bool(true))?;
    if let Some(owner) = file["owner"].as_str() {
        let (user, group) = owner.split_once(':').unwrap_or((owner, owner));
        let user = number_in("/etc/passwd", user).ok_or_else(|| wrong(format!("user {user}")))?;
        let group =
            number_in("/etc/group", group).ok_or_else(|| wrong(format!("group {group}")))?;
        chown(path, Some(user), Some(group))?;
    }
    Ok(())
}

/// Base64 with or without its padding; line ends are passed over.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut word, mut bits) = (0_u32, 0);
    for sign in text.bytes().filter(|sign| !sign.is_ascii_whitespace() && *sign != b'=') {
        let value = match sign {
            b'A'..=b'Z' => sign - b'A',
            b'a'..=b'z' => sign - b'a' + 26,
            b'0'..=b'9' => sign - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        word = word << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
        }
    }
    Some(bytes)
}

/// The number of a user or group by its name, or the number itself.
fn number_in(table: &str, name: &str) -> Option<u32> {
    let text = fs::read_to_string(table).unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    found.or_else(|| name.parse().ok())
}

/// A number that nobody has, from 1000 on.
fn free_number(table: &str) -> u32 {
    let text = fs::read_to_string(table).unwrap_or_default();
    let taken: Vec<u32> =
        text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect();
    (1000..).find(|number| !taken.contains(number)).unwrap_or(1000)
}

fn checked(name: &str) -> io::Result<&str> {
    let sound = !name.is_empty()
        && name.len() <= 32
        && name.chars().all(|sign| sign.is_ascii_alphanumeric() || "-_.".contains(sign));
    if sound { Ok(name) } else { Err(wrong(format!("'{name}' is no name for a user or group"))) }
}

fn add_group(name: &str, number: Option<u32>) -> io::Result<()> {
    let name = checked(name)?;
    if number_in("/etc/group", name).is_some() {
        return Ok(());
    }
    let number = number.unwrap_or_else(|| free_number("/etc/group"));
    store("/etc/group", format!("{name}:x:{number}:\n").as_bytes(), 0o644, true)
}

fn join_group(user: &str, group: &str) -> io::Result<()> {
    add_group(group, None)?;
    let text = fs::read_to_string("/etc/group")?;
    let line = |line: &str| match line.split(':').next() == Some(group) {
        true if line.ends_with(':') => format!("{line}{user}\n"),
        true => format!("{line},{user}\n"),
        false => format!("{line}\n"),
    };
    store("/etc/group", text.lines().map(line).collect::<String>().as_bytes(), 0o644, false)
}

/// One entry of `users`.
fn add_user(fields: &Map<String, Value>) -> io::Result<()> {
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    let is = |key: &str| fields.get(key) == Some(&Value::Bool(true));
    let name = checked(text("name").ok_or_else(|| wrong("a user needs a name"))?)?;
    if number_in("/etc/passwd", name).is_none() {
        let wanted = fields.get("uid").and_then(|uid| texts(uid).concat().parse().ok());
        let number: u32 = wanted.unwrap_or_else(|| free_number("/etc/passwd"));
        let own = text("primary_group").unwrap_or(name);
        add_group(own, Some(number).filter(|_| own == name))?;
        let group = number_in("/etc/group", own).unwrap_or(number);
        let home = text("homedir").map_or_else(|| format!("/home/{name}"), str::to_owned);
        let shell = text("shell").filter(|shell| Path::new(shell).exists()).unwrap_or("/bin/sh");
        let title = text("gecos").unwrap_or_default().replace([':', '\n'], " ");
        let line = format!("{name}:x:{number}:{group}:{title}:{home}:{shell}\n");
        store("/etc/passwd", line.as_bytes(), 0o644, true)?;
        if !is("no_create_home") && !is("system") {
            fs::create_dir_all(&home)?;
            chown(&home, Some(number), Some(group))?;
        }
        // Nobody knows the password until one is set.
        store("/etc/shadow", format!("{name}:!:19000:0:99999:7:::\n").as_bytes(), 0o600, true)?;
    }
    let groups = fields.get("groups").map(texts).unwrap_or_default().join(",");
    for group in groups.split(',').map(str::trim).filter(|group| !group.is_empty()) {
        join_group(name, group)?;
    }
    for key in ["passwd", "hashed_passwd"] {
        if let Some(hash) = text(key) {
            set_password(&format!("{name}:{hash}"), true)?;
        }
    }
    if let Some(password) = text("plain_text_passwd") {
        set_password(&format!("{name}:{password}"), false)?;
    }
    let mut keys = fields.get("ssh_authorized_keys").map(texts).unwrap_or_default();
    keys.extend(fields.get("ssh-authorized-keys").map(texts).unwrap_or_default());
    authorize(name, &keys)
}

/// Sets a password, given as `NAME:PASSWORD` or with its hash.
fn set_password(line: &str, is_hashed: bool) -> io::Result<()> {
    let (name, word) = line.split_once(':').ok_or_else(|| wrong("NAME:PASSWORD is expected"))?;
    let hash = if is_hashed { word.to_owned() } else { hashed(word)? };
    if hash.contains([':', '\n']) {
        return Err(wrong("the hash of a password has no colon"));
    }
    let table = fs::read_to_string("/etc/shadow").unwrap_or_default();
    let mut text = String::new();
    for line in table.lines() {
        let mut fields: Vec<&str> = line.split(':').collect();
        if fields.first() == Some(&name) && fields.len() > 1 {
            fields[1] = &hash;
        }
        text.push_str(&fields.join(":"));
        text.push('\n');
    }
    store("/etc/shadow", text.as_bytes(), 0o600, false)
}

fn hashed(password: &str) -> io::Result<String> {
    let mut command = Command::new("mkpasswd");
    command.args(["-m", "sha512", "-P", "0"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env("PATH", crate::exec::PATH);
    let mut started = Started::new(&mut command)?;
    if let Some(mut input) = started.0.stdin.take() {
        input.write_all(format!("{password}\n").as_bytes())?;
    }
    let mut hash = String::new();
    if let Some(mut output) = started.0.stdout.take() {
        output.read_to_string(&mut hash)?;
    }
    match started.wait()?.success() && hash.starts_with('$') {
        true => Ok(hash.trim().to_owned()),
        false => Err(io::Error::other("the password cannot be hashed here")),
    }
}

/// Keys that let a user in.
fn authorize(user: &str, keys: &[String]) -> io::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let table = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let fields = table.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.into_iter().find(|fields| fields.first() == Some(&user));
    let home = found.as_ref().and_then(|fields| fields.get(5)).copied().unwrap_or("/root");
    let number = |at: usize| found.as_ref().and_then(|fields| fields.get(at)?.parse().ok());
    let (user, group) = (number(2).unwrap_or(0), number(3).unwrap_or(0));
    let folder = format!("{home}/.ssh");
    let file = format!("{folder}/authorized_keys");
    let known = fs::read_to_string(&file).unwrap_or_default();
    let new: String = keys
        .iter()
        .filter(|key| !known.lines().any(|line| line == key.as_str()))
        .map(|key| format!("{}\n", key.trim()))
        .collect();
    store(&file, (known + &new).as_bytes(), 0o600, false)?;
    fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
    for path in [&folder, &file] {
        chown(path, Some(user), Some(group))?;
    }
    Ok(())
}
