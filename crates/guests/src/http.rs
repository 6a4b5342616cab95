//! Fetching over HTTP and HTTPS, with the proxies of the environment.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use crate::{GuestError, Progress, Result};

/// Nothing that is held in memory is longer.
const BODY_BYTES_MAX: u64 = 1 << 30;
const PIECE_BYTES: usize = 64 << 10;

fn agent() -> &'static ureq::Agent {
    static AGENT: OnceLock<ureq::Agent> = OnceLock::new();
    AGENT.get_or_init(|| {
        ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .build()
            .into()
    })
}

/// Fetches all of it into memory.
pub fn get(url: &str, progress: &mut dyn Progress) -> Result<Vec<u8>> {
    let failed = |reason: String| GuestError::Fetch { url: url.to_owned(), reason };
    let response = agent().get(url).call().map_err(|error| failed(error.to_string()))?;
    let total = response
        .headers()
        .get("content-length")
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let mut body = response.into_body().into_reader().take(BODY_BYTES_MAX + 1);
    let mut bytes = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = body.read(&mut piece).map_err(|error| failed(error.to_string()))?;
        if count == 0 {
            break;
        }
        bytes.extend(&piece[..count]);
        progress.bytes(bytes.len() as u64, total);
    }
    if bytes.len() as u64 > BODY_BYTES_MAX {
        return Err(failed("it is longer than 1 GiB".to_owned()));
    }
    if total.is_some_and(|total| total != bytes.len() as u64) {
        return Err(failed("the connection broke".to_owned()));
    }
    Ok(bytes)
}

/// Fetches into a file. What an earlier attempt has brought is not fetched again; the caller checks
/// the sum of the whole, and takes the file away when it is wrong.
pub fn get_file(url: &str, path: &Path, progress: &mut dyn Progress) -> Result<()> {
    let failed = |reason: String| GuestError::Fetch { url: url.to_owned(), reason };
    let in_file = |error| GuestError::io(path, error);
    let have = fs::metadata(path).map_or(0, |metadata| metadata.len());
    let mut request = agent().get(url);
    if have > 0 {
        request = request.header("range", format!("bytes={have}-"));
    }
    let response = match request.call() {
        Ok(response) => response,
        // All of it is there.
        Err(ureq::Error::StatusCode(416)) if have > 0 => return Ok(()),
        Err(error) => return Err(failed(error.to_string())),
    };
    let is_rest = response.status().as_u16() == 206;
    let length = response
        .headers()
        .get("content-length")
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let mut options = OpenOptions::new();
    options.create(true).write(true).append(is_rest).truncate(!is_rest);
    let mut file: File = options.open(path).map_err(in_file)?;
    let mut done = if is_rest { have } else { 0 };
    let total = length.map(|length| length + done);
    let mut body = response.into_body().into_reader();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let broke =
            |error: std::io::Error| failed(format!("{error}; the next attempt goes on from here"));
        let count = body.read(&mut piece).map_err(broke)?;
        if count == 0 {
            break;
        }
        file.write_all(&piece[..count]).map_err(in_file)?;
        done += count as u64;
        progress.bytes(done, total);
    }
    match total.is_some_and(|total| total != done) {
        true => Err(failed("the connection broke; the next attempt goes on from here".to_owned())),
        false => Ok(()),
    }
}
