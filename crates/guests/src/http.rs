//! Fetching over HTTP and HTTPS, with the proxies of the environment.

use std::io::Read;
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
