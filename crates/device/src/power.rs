//! What power management asks of the machine.

/// The machine's power, as chips switch it. A leaf: it never calls back.
pub trait Power: Send + Sync {
    /// Everything as after power-on.
    fn reset(&self);
    /// The guest has switched itself off.
    fn off(&self);
    /// The guest asks to end the machine with this exit code, through a debug port.
    fn exit(&self, code: u8);
    /// The machine is to stand still: a device cannot go on.
    fn stop(&self);
    /// The guest has let go of a device that was to be taken out.
    fn unplugged(&self);
}

/// Nobody's switch, for tests.
#[derive(Debug, Default)]
pub struct NoPower;

impl Power for NoPower {
    fn reset(&self) {}

    fn off(&self) {}

    fn exit(&self, _code: u8) {}

    fn stop(&self) {}

    fn unplugged(&self) {}
}
