//! Where the sound comes from that clients may hear.

use std::any::Any;

/// What the machine plays.
pub trait Ears: Send + Sync {
    /// Hands what is played to `ear`, at this rate, until what is given back is dropped.
    fn listen(&self, rate_hz: u32, ear: Box<dyn Ear>) -> Box<dyn Any + Send>;
}

/// Somebody who listens. Must neither wait nor call back.
pub trait Ear: Send {
    /// Something begins to be played.
    fn begins(&mut self);
    /// The next frames, left and right.
    fn hears(&mut self, frames: &[[i16; 2]]);
    /// Nothing is played any longer.
    fn ends(&mut self);
}
