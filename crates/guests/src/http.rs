//! Fetching over HTTP and HTTPS, with the proxies of the environment.

use std::io::Read;
use std::sync::OnceLock;
use std::time::Duration;

use crate::{GuestError, Progress, Result};

/// Nothing that is held in memory is longer.
const BODY_BYTES_MAX: u64 = 1 << 30;
const PIECE_BYTES: usize = 64 << 10;
/// How long a range may take.
const RANGE_PATIENCE: Duration = Duration::from_secs(120);

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

/// An answer whose body is yet to be read.
pub struct Answer {
    response: ureq::http::Response<ureq::Body>,
    /// It is the range that was asked for, not all of the file.
    pub is_part: bool,
}

impl Answer {
    /// A header.
    pub fn header(&self, name: &str) -> Option<String> {
        self.response.headers().get(name)?.to_str().ok().map(str::to_owned)
    }

    /// What comes.
    pub fn body(self) -> impl Read {
        self.response.into_body().into_reader()
    }
}

/// Asks for a file, or for a range of it if it is still of this version.
pub fn request(
    url: &str,
    range: Option<(u64, Option<u64>)>,
    version: Option<&str>,
) -> Result<Answer> {
    let mut request = agent().get(url);
    if let Some((from, to)) = range {
        let to = to.map(|to| to.to_string()).unwrap_or_default();
        request = request.header("range", format!("bytes={from}-{to}"));
    }
    if let Some(version) = version {
        request = request.header("if-range", version);
    }
    // A range that is not there in this time is asked for again.
    let limited = range.map(|_| RANGE_PATIENCE);
    let sent = request.config().timeout_recv_body(limited).build().call();
    let response =
        sent.map_err(|error| GuestError::Fetch { url: url.to_owned(), reason: error.to_string() })?;
    let is_part = response.status().as_u16() == 206;
    Ok(Answer { response, is_part })
}
