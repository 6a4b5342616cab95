//! Sound for clients that want to hear it.

use std::any::Any;
use std::sync::{Arc, Weak};

use super::client::Client;
use crate::codec::{SoundFormat, SoundNews, SoundOrder};
use crate::sound::{Ear, Ears};

/// What waits for a client at most; one that does not keep up misses something.
const WAITING_BYTES_MAX: usize = 256 << 10;

/// What a client has asked for so far.
#[derive(Default)]
pub struct Hearing {
    format: SoundFormat,
    listening: Option<Box<dyn Any + Send>>,
}

impl Hearing {
    /// Follows an order. Nothing of the client's may be locked.
    pub fn order(&mut self, order: SoundOrder, client: &Arc<Client>, ears: &dyn Ears) {
        let listens = self.listening.take().is_some();
        let listens = match order {
            SoundOrder::Enable => true,
            SoundOrder::Disable => false,
            SoundOrder::Format(format) => {
                self.format = format;
                listens
            }
        };
        if listens {
            let ear = ClientEar { client: Arc::downgrade(client), format: self.format };
            self.listening = Some(ears.listen(self.format.rate_hz, Box::new(ear)));
        }
    }
}

struct ClientEar {
    client: Weak<Client>,
    format: SoundFormat,
}

impl ClientEar {
    fn tell(&self, news: &SoundNews) {
        let Some(client) = self.client.upgrade() else { return };
        let mut state = client.state.lock();
        let is_sound = matches!(news, SoundNews::Samples(_));
        if state.closes || is_sound && state.outbox.len() > WAITING_BYTES_MAX {
            return;
        }
        news.write(&mut state.outbox);
        drop(state);
        client.changed.notify_all();
    }
}

impl Ear for ClientEar {
    fn begins(&mut self) {
        self.tell(&SoundNews::Begins);
    }

    fn hears(&mut self, frames: &[[i16; 2]]) {
        // Eight bytes a frame at most.
        for frames in frames.chunks(SoundNews::BYTES_MAX as usize / 8) {
            self.tell(&SoundNews::Samples(self.format.encode(frames)));
        }
    }

    fn ends(&mut self) {
        self.tell(&SoundNews::Ends);
    }
}
