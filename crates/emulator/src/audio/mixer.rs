//! Several voices become one, which goes into a file and to whoever listens.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use device::{Sound, Voice};
use display::sound::{Ear, Ears};
use parking_lot::Mutex;

use super::resampler::Resampler;
use super::wave::Wave;

/// What a voice may be ahead of the others, in seconds; then they are left behind.
const AHEAD_S_MAX: usize = 1;

/// One back end.
///
/// Lock order: `state`, then what an ear takes.
pub struct Mixer {
    /// It outlives no voice and no guard.
    own: Weak<Self>,
    rate_hz: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    voices: BTreeMap<u64, VecDeque<[i16; 2]>>,
    file: Option<Wave>,
    ears: BTreeMap<u64, (Resampler, Box<dyn Ear>)>,
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Sends out what all voices have, or what one has too much of.
    fn mix(&mut self, rate_hz: u32) {
        let lengths = || self.voices.values().map(VecDeque::len);
        let (least, most) = (lengths().min().unwrap_or(0), lengths().max().unwrap_or(0));
        let count = least.max(most.saturating_sub(rate_hz as usize * AHEAD_S_MAX));
        if count == 0 {
            return;
        }
        let mut sums = vec![[0_i32; 2]; count];
        for voice in self.voices.values_mut() {
            let ready = count.min(voice.len());
            for (sum, frame) in sums.iter_mut().zip(voice.drain(..ready)) {
                (0..2).for_each(|side| sum[side] += i32::from(frame[side]));
            }
        }
        let narrow = |sum: i32| sum.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        let frames: Vec<[i16; 2]> = sums.into_iter().map(|sum| sum.map(narrow)).collect();
        if let Some(file) = &mut self.file {
            file.write(&frames);
        }
        for (resampler, ear) in self.ears.values_mut() {
            let mut out = Vec::new();
            resampler.push(&frames, &mut out);
            ear.hears(&out);
        }
    }
}

impl Mixer {
    pub fn new(rate_hz: u32, file: Option<Wave>) -> Arc<Self> {
        let state = Mutex::new(State { file, ..State::default() });
        Arc::new_cyclic(|own| Self { own: Weak::clone(own), rate_hz, state })
    }
}

impl Sound for Mixer {
    fn voice(&self, rate_hz: u32) -> Box<dyn Voice> {
        let mut state = self.state.lock();
        let number = state.number();
        if state.voices.is_empty() {
            state.ears.values_mut().for_each(|(_, ear)| ear.begins());
        }
        state.voices.insert(number, VecDeque::new());
        let resampler = Resampler::new(rate_hz, self.rate_hz);
        Box::new(Playing { mixer: Weak::clone(&self.own), number, resampler })
    }
}

struct Playing {
    mixer: Weak<Mixer>,
    number: u64,
    resampler: Resampler,
}

impl Voice for Playing {
    fn play(&mut self, frames: &[[i16; 2]]) {
        let Some(mixer) = self.mixer.upgrade() else { return };
        let mut out = Vec::new();
        self.resampler.push(frames, &mut out);
        let mut state = mixer.state.lock();
        if let Some(voice) = state.voices.get_mut(&self.number) {
            voice.extend(out);
        }
        state.mix(mixer.rate_hz);
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        let Some(mixer) = self.mixer.upgrade() else { return };
        let mut state = mixer.state.lock();
        state.voices.remove(&self.number);
        state.mix(mixer.rate_hz);
        if state.voices.is_empty() {
            state.ears.values_mut().for_each(|(_, ear)| ear.ends());
        }
    }
}

/// Takes an ear away when it is dropped.
struct Listening(Weak<Mixer>, u64);

impl Drop for Listening {
    fn drop(&mut self) {
        let ear = self.0.upgrade().and_then(|mixer| mixer.state.lock().ears.remove(&self.1));
        drop(ear);
    }
}

impl Ears for Mixer {
    fn listen(&self, rate_hz: u32, mut ear: Box<dyn Ear>) -> Box<dyn Any + Send> {
        let mut state = self.state.lock();
        let number = state.number();
        if !state.voices.is_empty() {
            ear.begins();
        }
        state.ears.insert(number, (Resampler::new(self.rate_hz, rate_hz), ear));
        Box::new(Listening(Weak::clone(&self.own), number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Clone)]
    struct Recorded(Arc<Mutex<(String, Vec<[i16; 2]>)>>);

    impl Ear for Recorded {
        fn begins(&mut self) {
            self.0.lock().0 += "begin ";
        }

        fn hears(&mut self, frames: &[[i16; 2]]) {
            self.0.lock().1.extend(frames);
        }

        fn ends(&mut self) {
            self.0.lock().0 += "end ";
        }
    }

    #[test]
    fn voices_are_added_and_one_that_stops_holds_nobody() {
        let mixer = Mixer::new(44_100, None);
        let recorded = Recorded::default();
        let guard = mixer.listen(44_100, Box::new(recorded.clone()));
        let mut one = mixer.voice(44_100);
        let mut other = mixer.voice(44_100);
        one.play(&[[1, 2], [30_000, 4]]);
        assert!(recorded.0.lock().1.is_empty(), "the other has not come so far");
        other.play(&[[10, 20], [30_000, 0]]);
        assert_eq!(recorded.0.lock().1, [[11, 22], [32_767, 4]]);
        one.play(&[[5, 5]]);
        drop(other);
        assert_eq!(recorded.0.lock().1.last(), Some(&[5, 5]));
        one.play(&vec![[1, 1]; 100]);
        let _slow = mixer.voice(44_100);
        one.play(&vec![[2, 2]; 3 * 44_100]);
        assert_eq!(recorded.0.lock().1.len(), 103 + 2 * 44_100, "nobody waits for ever");
        drop((one, _slow));
        assert_eq!(recorded.0.lock().0, "begin end ");
        drop(guard);
        mixer.voice(44_100).play(&[[9, 9]]);
        assert_eq!(recorded.0.lock().0, "begin end ", "nobody listens any longer");
    }
}
