//! Passing questions on to other servers, without sockets.
//!
//! Each question goes to the first server; a server that is silent or fails hands on to the
//! next. Answers are believed only from a server that was asked, with the number and the
//! question that it was asked.

use core::net::SocketAddr;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use super::message::{self, Message, Question};

/// How long one server has time; the C library's resolver gives up after 5 seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions under way at once.
const PENDING_MAX: usize = 1024;
/// The longest question that is passed on.
const QUESTION_BYTES_MAX: usize = 4096;
/// How often each server is asked.
const ROUNDS: usize = 2;

/// Questions under way. `Client` says who is to have the answer and where it is sent from.
#[derive(Debug)]
pub struct Forwarder<Client> {
    servers: Vec<SocketAddr>,
    pending: HashMap<(Client, u16), Pending>,
}

#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    question: Question,
    servers: Vec<SocketAddr>,
    tries: usize,
    deadline: Instant,
    /// A failure that is handed over when no other server knows better.
    failure: Option<Vec<u8>>,
}

/// What is to be done with a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<Client> {
    /// Send these bytes to a server, on behalf of a client.
    Ask(Client, SocketAddr, Vec<u8>),
    /// Hand these bytes to the client.
    Answer(Client, Vec<u8>),
}

impl<Client: Copy + Eq + core::hash::Hash> Forwarder<Client> {
    /// A forwarder to these servers.
    #[must_use]
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, pending: HashMap::new() }
    }

    /// Questions from now on go to these servers.
    pub fn set_servers(&mut self, servers: Vec<SocketAddr>) {
        self.servers = servers;
    }

    /// The servers that are asked.
    #[must_use]
    pub fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// A client asks. What is no query is dropped.
    pub fn question(&mut self, client: Client, bytes: &[u8], now: Instant) -> Option<Step<Client>> {
        let query = Message::read(bytes)?;
        let question = query.question.clone()?;
        if query.is_response || bytes.len() > QUESTION_BYTES_MAX {
            return None;
        }
        let failure = |query: &Message| {
            Some(Step::Answer(client, query.answer(message::SERVER_FAILURE, &[], 512)))
        };
        let Some(first) = self.servers.first().copied() else { return failure(&query) };
        if self.pending.len() >= PENDING_MAX {
            return failure(&query);
        }
        match self.pending.entry((client, query.identification)) {
            // The client asks again: so do we, the server whose turn it is.
            Entry::Occupied(entry) if entry.get().question == question => {
                let pending = entry.get();
                let server = pending.servers[pending.tries % pending.servers.len()];
                Some(Step::Ask(client, server, pending.bytes.clone()))
            }
            entry => {
                entry.insert_entry(Pending {
                    bytes: bytes.to_vec(),
                    question,
                    servers: self.servers.clone(),
                    tries: 0,
                    deadline: now + PATIENCE,
                    failure: None,
                });
                Some(Step::Ask(client, first, bytes.to_vec()))
            }
        }
    }

    /// Something came back for a client.
    pub fn reply(
        &mut self,
        client: Client,
        from: SocketAddr,
        bytes: &[u8],
        now: Instant,
    ) -> Option<Step<Client>> {
        let reply = Message::read(bytes)?;
        let key = (client, reply.identification);
        let pending = self.pending.get_mut(&key)?;
        let asked = pending.servers.iter().take(pending.tries + 1).any(|server| *server == from);
        // A failure may come without its question.
        let fits = reply.question.as_ref().is_none_or(|question| *question == pending.question);
        if !reply.is_response || !asked || !fits {
            return None;
        }
        let failed = matches!(reply.code, message::SERVER_FAILURE | message::REFUSED);
        if failed && pending.tries + 1 < pending.servers.len() {
            pending.failure = Some(bytes.to_vec());
            return self.advance(key, now);
        }
        self.pending.remove(&key);
        Some(Step::Answer(client, bytes.to_vec()))
    }

    /// When [`tick`](Self::tick) has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.deadline).min()
    }

    /// Asks the next servers where one has been silent for too long.
    pub fn tick(&mut self, now: Instant) -> Vec<Step<Client>> {
        let late = self.pending.iter().filter(|(_, pending)| pending.deadline <= now);
        let late: Vec<_> = late.map(|(key, _)| *key).collect();
        late.into_iter().filter_map(|key| self.advance(key, now)).collect()
    }

    /// Forgets a client that is gone.
    pub fn forget(&mut self, client: Client) {
        self.pending.retain(|(other, _), _| *other != client);
    }

    fn advance(&mut self, key: (Client, u16), now: Instant) -> Option<Step<Client>> {
        let pending = self.pending.get_mut(&key)?;
        pending.tries += 1;
        pending.deadline = now + PATIENCE;
        if pending.tries >= pending.servers.len() * ROUNDS {
            let pending = self.pending.remove(&key)?;
            let query = Message::read(&pending.bytes)?;
            let failure =
                pending.failure.unwrap_or_else(|| query.answer(message::SERVER_FAILURE, &[], 512));
            return Some(Step::Answer(key.0, failure));
        }
        let server = pending.servers[pending.tries % pending.servers.len()];
        Some(Step::Ask(key.0, server, pending.bytes.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> Vec<SocketAddr> {
        vec!["192.0.2.1:53".parse().unwrap(), "192.0.2.2:53".parse().unwrap()]
    }

    fn question() -> Vec<u8> {
        message::query(5, "a.example", message::A).unwrap()
    }

    fn answer(code: u8) -> Vec<u8> {
        Message::read(&question()).unwrap().answer(code, &[], 512)
    }

    #[test]
    fn silent_server_hands_on_and_the_last_word_is_a_failure() {
        let start = Instant::now();
        let mut forwarder = Forwarder::new(servers());
        let step = forwarder.question(1, &question(), start);
        assert_eq!(step, Some(Step::Ask(1, servers()[0], question())));
        for (round, server) in [(1, 1), (2, 0), (3, 1)] {
            assert!(forwarder.tick(start + PATIENCE * round - PATIENCE / 2).is_empty());
            let steps = forwarder.tick(start + PATIENCE * round);
            assert_eq!(steps, [Step::Ask(1, servers()[server], question())]);
        }
        let steps = forwarder.tick(start + PATIENCE * 4);
        assert_eq!(steps, [Step::Answer(1, answer(message::SERVER_FAILURE))]);
        assert_eq!(forwarder.deadline(), None);
    }

    #[test]
    fn failing_server_hands_on_at_once() {
        let now = Instant::now();
        let mut forwarder = Forwarder::new(servers());
        forwarder.question(1, &question(), now);
        let step = forwarder.reply(1, servers()[0], &answer(message::REFUSED), now);
        assert_eq!(step, Some(Step::Ask(1, servers()[1], question())));
        let step = forwarder.reply(1, servers()[1], &answer(message::NO_SUCH_NAME), now);
        assert_eq!(step, Some(Step::Answer(1, answer(message::NO_SUCH_NAME))));
    }

    #[test]
    fn forged_answers_are_dropped() {
        let now = Instant::now();
        let mut forwarder = Forwarder::new(servers());
        forwarder.question(1, &question(), now);
        let other = message::query(5, "b.example", message::A).unwrap();
        let other = Message::read(&other).unwrap().answer(0, &[], 512);
        let (first, second) = (servers()[0], servers()[1]);
        for (name, client, from, bytes) in [
            ("a server not asked yet", 1, second, answer(0)),
            ("a stranger", 1, "192.0.2.9:53".parse().unwrap(), answer(0)),
            ("another question", 1, first, other),
            ("a question", 1, first, question()),
            ("another client", 2, first, answer(0)),
        ] {
            assert_eq!(forwarder.reply(client, from, &bytes, now), None, "{name}");
        }
        assert!(forwarder.reply(1, first, &answer(0), now).is_some());
    }

    #[test]
    fn questions_under_way_are_bounded() {
        let now = Instant::now();
        let mut forwarder = Forwarder::new(servers());
        for client in 0..PENDING_MAX {
            assert!(matches!(forwarder.question(client, &question(), now), Some(Step::Ask(..))));
        }
        let refused = forwarder.question(PENDING_MAX, &question(), now);
        assert!(matches!(refused, Some(Step::Answer(..))));
        forwarder.forget(0);
        assert_eq!(forwarder.pending.len(), PENDING_MAX - 1);
    }
}
