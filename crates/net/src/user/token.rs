//! What an event of epoll is about, in its 64 bits.

use super::engine::arena::Id;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// Another thread has something for us.
    Wake,
    /// The socket of a connection.
    Tcp(Id),
    /// The socket of a port that the guest sends from.
    Udp(Id),
    /// The socket of a pinging program.
    Ping(Id),
    /// A forwarding, by its number: connections to accept or datagrams.
    Forward(u32),
}

const GENERATION_BITS: u32 = 24;

impl Token {
    /// The 64 bits.
    pub fn bits(self) -> u64 {
        let id =
            |kind: u64, id: Id| kind << 56 | u64::from(id.generation) << 32 | u64::from(id.index);
        match self {
            Self::Wake => 0,
            Self::Tcp(flow) => id(1, flow),
            Self::Udp(flow) => id(2, flow),
            Self::Ping(flow) => id(3, flow),
            Self::Forward(number) => 4 << 56 | u64::from(number),
        }
    }

    /// What the bits say.
    pub fn of(bits: u64) -> Option<Self> {
        let index = u32::try_from(bits & u64::from(u32::MAX)).ok()?;
        let generation = u32::try_from((bits >> 32) & ((1 << GENERATION_BITS) - 1)).ok()?;
        let id = Id { index, generation };
        Some(match bits >> 56 {
            0 => Self::Wake,
            1 => Self::Tcp(id),
            2 => Self::Udp(id),
            3 => Self::Ping(id),
            4 => Self::Forward(index),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_tell_what_they_were_made_of() {
        let id = Id { index: u32::MAX, generation: (1 << GENERATION_BITS) - 1 };
        for token in
            [Token::Wake, Token::Tcp(id), Token::Udp(id), Token::Ping(id), Token::Forward(7)]
        {
            assert_eq!(Token::of(token.bits()), Some(token));
        }
        assert_eq!(Token::of(u64::MAX), None);
    }
}
