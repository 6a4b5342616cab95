//! Where sound goes.

/// A place where sound is played. Called from any thread.
pub trait Sound: Send + Sync {
    /// Begins to play at this rate. What was begun ends when the voice is dropped.
    fn voice(&self, rate_hz: u32) -> Box<dyn Voice>;
}

/// Something that is being played.
pub trait Voice: Send {
    /// The next frames, left and right. They come as fast as they are to be heard.
    fn play(&mut self, frames: &[[i16; 2]]);
}

/// Nobody listens.
#[derive(Debug, Default)]
pub struct Silence;

impl Sound for Silence {
    fn voice(&self, _rate_hz: u32) -> Box<dyn Voice> {
        Box::new(Self)
    }
}

impl Voice for Silence {
    fn play(&mut self, _frames: &[[i16; 2]]) {}
}
