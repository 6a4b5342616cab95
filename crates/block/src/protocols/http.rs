//! `http` and `https`: an image on a web server, read in ranges.
//!
//! `-blockdev driver=https,read-only=on,url=https://example.org/disk.qcow2`

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;
use ureq::Agent;
use ureq::tls::TlsConfig;

use super::Protocol;
use crate::error::{Error, Result};
use crate::node::{Extent, Node, NodeRef};
use crate::open::OpenMode;
use crate::options::OpenOptions;
use crate::secrets;

pub(super) const HTTP: Protocol = Protocol {
    name: "http",
    prefixes: &["http"],
    parse,
    open: |options, mode| open("http", options, mode),
    create: None,
    create_options: &[],
};

pub(super) const HTTPS: Protocol = Protocol {
    name: "https",
    prefixes: &["https"],
    parse,
    open: |options, mode| open("https", options, mode),
    create: None,
    create_options: &[],
};

/// What is fetched at least: requests are slow, and readers go on.
const READ_AHEAD_BYTES: u64 = 256 << 10;
const READ_AHEAD_BYTES_MAX: u64 = 64 << 20;
const TIMEOUT_SECONDS: u64 = 5;

struct Http {
    driver: &'static str,
    url: String,
    agent: Agent,
    headers: Vec<(&'static str, String)>,
    size: u64,
    read_ahead: u64,
    /// The range that was fetched last.
    fetched: Mutex<(u64, Vec<u8>)>,
}

fn parse(filename: &str, options: &mut OpenOptions) -> Result<()> {
    options.set("url", filename);
    Ok(())
}

fn open(driver: &'static str, options: &mut OpenOptions, mode: &OpenMode) -> Result<NodeRef> {
    if mode.write && !mode.auto_read_only {
        return Err(Error::Os(Errno::ACCESS)
            .during_text("curl block device does not support writes".into()));
    }
    let url = options.take_text("url");
    let url = url.ok_or_else(|| Error::invalid("curl block driver requires an 'url' option"))?;
    if !url.starts_with(&format!("{driver}://")) {
        return Err(Error::invalid(format!(
            "{driver} curl driver cannot handle the URL '{url}' (does not start with '{driver}://')"
        )));
    }
    let read_ahead = options.take_size("readahead")?.unwrap_or(READ_AHEAD_BYTES);
    if !read_ahead.is_multiple_of(512) || read_ahead > READ_AHEAD_BYTES_MAX {
        return Err(Error::invalid(format!(
            "HTTP readahead must be a multiple of 512 and at most {READ_AHEAD_BYTES_MAX}"
        )));
    }
    let seconds = options.take_size("timeout")?.unwrap_or(TIMEOUT_SECONDS);
    let verify = options.take_bool("sslverify")?.unwrap_or(true);
    let headers = headers(options)?;
    let agent: Agent = Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(seconds)))
        .timeout_recv_response(Some(Duration::from_secs(seconds)))
        .tls_config(TlsConfig::builder().disable_verification(!verify).build())
        .build()
        .into();
    let mut node = Http {
        driver,
        url,
        agent,
        headers,
        size: 0,
        read_ahead,
        fetched: Mutex::new((0, Vec::new())),
    };
    node.size = node.ask_size()?;
    Ok(Arc::new(node))
}

/// What goes with every request: a cookie, a name with a password.
fn headers(options: &mut OpenOptions) -> Result<Vec<(&'static str, String)>> {
    let mut headers = Vec::new();
    let secret = |id: String| {
        let bytes = secrets::get(&id)?;
        String::from_utf8(bytes)
            .map_err(|_| Error::invalid(format!("The secret '{id}' is no text")))
    };
    let cookie = match (options.take_text("cookie"), options.take_text("cookie-secret")) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid("curl driver cannot handle both cookie and cookie secret"));
        }
        (None, Some(id)) => Some(secret(id)?),
        (cookie, None) => cookie,
    };
    headers.extend(cookie.map(|cookie| ("Cookie", cookie)));
    let password = options.take_text("password-secret").map(secret).transpose()?;
    if let Some(name) = options.take_text("username") {
        let pair = format!("{name}:{}", password.unwrap_or_default());
        headers.push(("Authorization", format!("Basic {}", secrets::to_base64(pair.as_bytes()))));
    }
    Ok(headers)
}

impl Http {
    fn failed(&self, error: &ureq::Error) -> Error {
        Error::Os(Errno::IO).during_text(format!("CURL: Error opening file: {}: {error}", self.url))
    }

    /// The image's length. The server must be able to send parts of it.
    fn ask_size(&self) -> Result<u64> {
        let mut request = self.agent.head(&self.url);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let response = request.call().map_err(|error| self.failed(&error))?;
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        if !header("accept-ranges").eq_ignore_ascii_case("bytes") {
            return Err(Error::unsupported("Server does not support 'range' (byte ranges)."));
        }
        let size = header("content-length").parse();
        size.map_err(|_| Error::unsupported("Server didn't report file size."))
    }

    fn fetch(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let range = format!("bytes={offset}-{}", offset + length - 1);
        let mut request = self.agent.get(&self.url).header("Range", range);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let response = request.call().map_err(|error| self.failed(&error))?;
        if response.status().as_u16() != 206 {
            return Err(Error::unsupported("Server does not support 'range' (byte ranges)."));
        }
        let mut bytes = Vec::with_capacity(length as usize);
        response.into_body().into_reader().take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(Errno::IO.into()) }
    }
}

impl Node for Http {
    fn driver(&self) -> &'static str {
        self.driver
    }

    fn filename(&self) -> String {
        self.url.clone()
    }

    fn size(&self) -> u64 {
        self.size.next_multiple_of(512)
    }

    fn writable(&self) -> bool {
        false
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let there = self.size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (wanted, beyond) = buffer.split_at_mut(there);
        beyond.fill(0);
        if wanted.is_empty() {
            return Ok(());
        }
        let mut fetched = self.fetched.lock();
        let end = offset + wanted.len() as u64;
        let (start, bytes) = &*fetched;
        if offset < *start || end > start + bytes.len() as u64 {
            let length = (wanted.len() as u64).max(self.read_ahead).min(self.size - offset);
            *fetched = (offset, self.fetch(offset, length)?);
        }
        let skip = (offset - fetched.0) as usize;
        wanted.copy_from_slice(&fetched.1[skip..skip + wanted.len()]);
        // Large requests are not worth keeping.
        if fetched.1.len() as u64 > READ_AHEAD_BYTES_MAX {
            *fetched = (0, Vec::new());
        }
        Ok(())
    }

    fn write_at(&self, _data: &[u8], _offset: u64) -> Result<()> {
        Err(Errno::BADF.into())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn status(&self, offset: u64, length: u64) -> Result<Extent> {
        Ok(Extent { length, data: true, allocated: true, host: Some(offset), ..Extent::default() })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Answers requests on one connection, with or without ranges.
    fn serve(stream: &TcpStream, contents: &[u8], ranges: bool) -> Option<()> {
        let mut lines = BufReader::new(stream).lines();
        loop {
            let first = lines.next()?.ok()?;
            let mut range = None;
            loop {
                let line = lines.next()?.ok()?;
                if line.is_empty() {
                    break;
                }
                if let Some((_, value)) = line.split_once("bytes=") {
                    let (from, to) = value.trim().split_once('-')?;
                    range = Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()?));
                }
            }
            let mut out = stream;
            let accept = if ranges { "Accept-Ranges: bytes\r\n" } else { "" };
            let (status, body) = match range {
                Some((from, to)) => ("206 Partial Content", &contents[from..=to]),
                None => ("200 OK", contents),
            };
            write!(out, "HTTP/1.1 {status}\r\n{accept}Content-Length: {}\r\n\r\n", body.len())
                .ok()?;
            if first.starts_with("GET") {
                out.write_all(body).ok()?;
            }
        }
    }

    fn server(contents: Vec<u8>, ranges: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/disk", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let contents = contents.clone();
                std::thread::spawn(move || serve(&stream, &contents, ranges));
            }
        });
        url
    }

    #[test]
    fn ranges_are_read_and_the_end_is_padded() {
        let contents: Vec<u8> = (0..700_001u32).map(|number| (number % 251) as u8).collect();
        let url = server(contents.clone(), true);
        let node = crate::open::open(Some(&url), OpenOptions::new(), &OpenMode::default()).unwrap();
        assert_eq!(node.size(), 700_416);
        for (offset, length) in [(0, 512), (100, 300_000), (699_000, 1416), (5, 1)] {
            let mut bytes = vec![1; length];
            node.read_at(&mut bytes, offset).unwrap();
            let there = length.min(contents.len() - offset as usize);
            assert!(bytes[..there] == contents[offset as usize..][..there], "{offset} {length}");
            assert!(bytes[there..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_server_without_ranges_is_refused() {
        let url = server(vec![0; 512], false);
        let opened = crate::open::open(Some(&url), OpenOptions::new(), &OpenMode::default());
        let error = opened.err().unwrap().to_string();
        assert!(error.contains("does not support 'range'"), "{error}");
    }
}
