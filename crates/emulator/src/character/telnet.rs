//! Telnet's commands among the bytes of a connection. RFC 854, 856 to 858.

/// What begins a command.
const COMMAND: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WILL: u8 = 251;
const BEGIN: u8 = 250;
const BREAK: u8 = 243;
const END: u8 = 240;

const BINARY: u8 = 0;
const ECHO: u8 = 1;
const SUPPRESS_GO_AHEAD: u8 = 3;

/// What the end that the guest is behind says first: it echoes, says nothing about turns, and all
/// bytes go through both ways.
pub const OPENING: [u8; 12] = [
    COMMAND,
    WILL,
    ECHO,
    COMMAND,
    WILL,
    SUPPRESS_GO_AHEAD,
    COMMAND,
    WILL,
    BINARY,
    COMMAND,
    DO,
    BINARY,
];

/// Where in a command the connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Data,
    /// Behind what begins a command.
    Command,
    /// Before the option of a command that has one.
    Option,
    /// In an option's parameters.
    Parameters,
    /// There, behind what begins a command.
    ParametersCommand,
}

/// Takes commands out of what comes in.
#[derive(Debug, Default)]
pub struct Telnet(Place);

impl Telnet {
    /// Keeps the data at the start of `bytes`: how much there is, and whether a break came.
    pub fn filter(&mut self, bytes: &mut [u8]) -> (usize, bool) {
        let (mut kept, mut breaks) = (0, false);
        for at in 0..bytes.len() {
            let byte = bytes[at];
            self.0 = match (self.0, byte) {
                (Place::Data, COMMAND) => Place::Command,
                (Place::Data, _) | (Place::Command, COMMAND) => {
                    bytes[kept] = byte;
                    kept += 1;
                    Place::Data
                }
                (Place::Command, WILL..=DONT) => Place::Option,
                (Place::Command, BEGIN) | (Place::ParametersCommand, COMMAND) => Place::Parameters,
                (Place::Command, _) => {
                    breaks |= byte == BREAK;
                    Place::Data
                }
                (Place::Option, _) | (Place::ParametersCommand, END) => Place::Data,
                (Place::Parameters, COMMAND) => Place::ParametersCommand,
                (Place::Parameters | Place::ParametersCommand, _) => Place::Parameters,
            };
        }
        (kept, breaks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_out_wherever_they_are_cut() {
        let wire = [
            &b"a"[..],
            &[COMMAND, WILL, ECHO],
            b"b",
            &[COMMAND, COMMAND],
            &[COMMAND, BEGIN, 24, 1, COMMAND, COMMAND, b'x', COMMAND, END],
            b"c",
            &[COMMAND, BREAK],
            &[COMMAND, DONT, 31],
            b"d",
        ]
        .concat();
        for cut in 0..=wire.len() {
            let (mut telnet, mut data, mut breaks) = (Telnet::default(), Vec::new(), 0);
            for part in [&wire[..cut], &wire[cut..]] {
                let mut part = part.to_vec();
                let (kept, has_break) = telnet.filter(&mut part);
                data.extend(&part[..kept]);
                breaks += usize::from(has_break);
            }
            assert_eq!((&data[..], breaks), (&b"ab\xffcd"[..], 1), "cut at {cut}");
        }
    }
}
