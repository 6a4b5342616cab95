//! A server of files for tests: it counts, breaks connections, and can be without ranges.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    requests: Vec<(String, u64)>,
    sent: BTreeMap<String, u64>,
    breaks: Vec<(String, usize)>,
    refuses_after: BTreeMap<String, usize>,
    without_ranges: bool,
    now: usize,
    most: usize,
}

/// The server.
pub struct Mirror {
    base: String,
    state: Arc<Mutex<State>>,
}

impl Mirror {
    pub fn new(files: Vec<(String, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/files", listener.local_addr().unwrap());
        let files = files.into_iter().collect();
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { base, state }
    }

    /// The address of all files.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The address of a file.
    pub fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }

    /// Where the requests for a file began.
    pub fn requests(&self, name: &str) -> Vec<u64> {
        let state = self.state.lock();
        state.requests.iter().filter(|(file, _)| file == name).map(|(_, from)| *from).collect()
    }

    /// How many bytes of a file were sent.
    pub fn sent(&self, name: &str) -> u64 {
        self.state.lock().sent.get(name).copied().unwrap_or(0)
    }

    /// How many requests there were at a time.
    pub fn most_at_once(&self) -> usize {
        self.state.lock().most
    }

    /// A request for more than so much of a file ends after that.
    pub fn breaks(&self, name: &str, bytes: usize) {
        self.state.lock().breaks.push((name.to_owned(), bytes));
    }

    /// After so many requests for a file there is none of it any more.
    pub fn refuses_after(&self, name: &str, count: usize) {
        let mut state = self.state.lock();
        let now = state.requests.iter().filter(|(file, _)| file == name).count();
        state.refuses_after.insert(name.to_owned(), now.saturating_add(count));
    }

    /// It sends all or nothing.
    pub fn has_no_ranges(&self) {
        self.state.lock().without_ranges = true;
    }

    /// The same server with another file.
    pub fn with(self, name: &str, data: Vec<u8>) -> Self {
        let mut state = self.state.lock();
        state.refuses_after.clear();
        state.files.insert(name.to_owned(), data);
        drop(state);
        self
    }
}

fn serve(mut stream: TcpStream, shared: &Mutex<State>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(line)) = lines.next() else { return };
    let name = line.split(' ').nth(1).unwrap().replace("/files/", "");
    let mut range = None;
    for line in lines.map_while(|line| line.ok().filter(|line| !line.is_empty())) {
        if let Some(text) = line.to_lowercase().strip_prefix("range: bytes=") {
            let (from, to) = text.split_once('-').unwrap();
            range = Some((from.parse::<usize>().unwrap(), to.parse::<usize>().ok()));
        }
    }
    let mut state = shared.lock();
    let from = range.map_or(0, |(from, _)| from);
    state.requests.push((name.clone(), from as u64));
    let count = state.requests.iter().filter(|(file, _)| *file == name).count();
    let refused = state.refuses_after.get(&name).is_some_and(|most| count > *most);
    let Some(data) = state.files.get(&name).filter(|_| !refused) else {
        _ = stream.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let tag = format!("ETag: \"{}\"", data.len());
    let all = data.len();
    let (head, data) = match range.filter(|_| !state.without_ranges) {
        Some((from, to)) => {
            let end = to.map_or(all, |to| (to + 1).min(all));
            let range = format!("Content-Range: bytes {from}-{}/{all}", end - 1);
            (format!("206 Part\r\n{range}\r\n{tag}"), data[from..end].to_vec())
        }
        None => (format!("200 Good\r\n{tag}"), data.clone()),
    };
    let cut = state.breaks.iter().position(|(file, most)| *file == name && *most < data.len());
    let cut = cut.map(|place| state.breaks.remove(place).1);
    let sent = &data[..cut.unwrap_or(data.len())];
    *state.sent.entry(name).or_default() += sent.len() as u64;
    state.now += 1;
    state.most = state.most.max(state.now);
    drop(state);
    let head =
        format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", data.len());
    _ = stream.write_all(head.as_bytes());
    _ = stream.write_all(sent);
    // Long enough for another one to come meanwhile.
    thread::sleep(Duration::from_millis(20));
    shared.lock().now -= 1;
}
