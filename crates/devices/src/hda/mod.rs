//! Intel's High Definition Audio: a controller whose rings carry orders to codecs, and whose
//! streams play out of memory and record into it. Specification: High Definition Audio 1.0a.
//!
//! `-device ich9-intel-hda -device hda-duplex,audiodev=A`, `hda-output` for one that only plays,
//! `hda-micro` with a speaker and a microphone. What is recorded is silence.

mod card;
mod chip;
mod codec;
mod format;

pub use card::MODELS;
