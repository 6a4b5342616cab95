//! The server's side of the handshake (RFC 6143, 7.1 to 7.3), in its versions 3.3, 3.7 and 3.8.

use super::bytes::{Bytes, Put};
use super::{CHALLENGE_BYTES, ProtocolError, bad};

/// What the server opens with: the newest version that it speaks.
pub const VERSION: &[u8; 12] = b"RFB 003.008\n";

/// How clients prove themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// They do not.
    Open,
    /// With a password, by this challenge.
    Password([u8; CHALLENGE_BYTES]),
    /// As above, behind TLS (VeNCrypt with certificates).
    Secure(Option<[u8; CHALLENGE_BYTES]>),
}

impl Access {
    /// The challenge, if there is one.
    fn challenge(self) -> Option<[u8; CHALLENGE_BYTES]> {
        match self {
            Self::Open => None,
            Self::Password(challenge) => Some(challenge),
            Self::Secure(challenge) => challenge,
        }
    }
}

/// What follows from what a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this and go on.
    Reply(Vec<u8>),
    /// Send this and hang up.
    Refuse(Vec<u8>),
    /// Send the first, make the connection secure, send the second and go on.
    Secure(Vec<u8>, Vec<u8>),
    /// The client is in. It may share the screen with others, or wants it for itself.
    Enter {
        /// Others may stay.
        shared: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Version,
    Choice,
    /// VeNCrypt's version, then which kind of it.
    Secured,
    SecuredKind,
    Answer,
    Init,
}

/// A handshake under way.
#[derive(Debug)]
pub struct Greeting {
    access: Access,
    stage: Stage,
    minor: u8,
}

const OPEN: u8 = 1;
const PASSWORD: u8 = 2;
/// VeNCrypt, its version, and its kinds with certificates.
const SECURE: u8 = 19;
const SECURE_VERSION: [u8; 2] = [0, 2];
const SECURE_OPEN: u32 = 260;
const SECURE_PASSWORD: u32 = 261;
const TOO_OLD: &str = "This server speaks TLS only, and RFB 3.3 knows none";
const REASON: &str = "Authentication failed";

impl Greeting {
    /// At its start; [`Greeting::OPENING`] goes out first.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self { access, stage: Stage::Version, minor: 8 }
    }

    /// The server's first words.
    pub const OPENING: &'static [u8] = VERSION;

    /// Takes what the client says; `None` when that is not whole yet. `verdict` judges an answer
    /// to the challenge.
    pub fn step(
        &mut self,
        bytes: &mut Bytes<'_>,
        verdict: impl FnOnce(&[u8; CHALLENGE_BYTES], &[u8]) -> bool,
    ) -> Option<Result<Step, ProtocolError>> {
        Some(match (self.stage, self.access) {
            (Stage::Version, _) => {
                let version = bytes.take(VERSION.len())?;
                self.version(version)
            }
            (Stage::Choice, access) => match (bytes.u8()?, access) {
                (OPEN, Access::Open) => {
                    self.stage = Stage::Init;
                    // Only 3.8 says that nothing was wrong with nothing.
                    Ok(Step::Reply(if self.minor == 8 { vec![0; 4] } else { Vec::new() }))
                }
                (PASSWORD, Access::Password(challenge)) => {
                    self.stage = Stage::Answer;
                    Ok(Step::Reply(challenge.to_vec()))
                }
                (SECURE, Access::Secure(_)) => {
                    self.stage = Stage::Secured;
                    Ok(Step::Reply(SECURE_VERSION.to_vec()))
                }
                _ => Err(bad("security type")),
            },
            (Stage::Secured, _) => Ok(self.secured(bytes.take(2)?)),
            (Stage::SecuredKind, _) => match bytes.u32()? {
                kind if kind == self.secured_kind() => Ok(self.secure()),
                _ => Ok(Step::Refuse(vec![0])),
            },
            (Stage::Answer, Access::Password(challenge) | Access::Secure(Some(challenge))) => {
                match verdict(&challenge, bytes.take(CHALLENGE_BYTES)?) {
                    true => {
                        self.stage = Stage::Init;
                        Ok(Step::Reply(vec![0; 4]))
                    }
                    false => Ok(Step::Refuse(self.refusal())),
                }
            }
            (Stage::Answer, Access::Open | Access::Secure(None)) => Err(bad("state")),
            (Stage::Init, _) => Ok(Step::Enter { shared: bytes.u8()? != 0 }),
        })
    }

    fn version(&mut self, version: &[u8]) -> Result<Step, ProtocolError> {
        let number = |digits: &[u8]| str::from_utf8(digits).ok()?.parse::<u16>().ok();
        let minor = match version {
            [b'R', b'F', b'B', b' ', major @ .., b'\n'] if major[3] == b'.' => {
                (number(&major[..3]) == Some(3)).then(|| number(&major[4..])).flatten()
            }
            _ => None,
        };
        // Between the three that exist there are clients that mean the one below.
        self.minor = match minor.ok_or_else(|| bad("version"))? {
            ..3 => return Err(bad("version")),
            3..=6 => 3,
            7 => 7,
            _ => 8,
        };
        let kind = match self.access {
            Access::Open => OPEN,
            Access::Password(_) => PASSWORD,
            Access::Secure(_) => SECURE,
        };
        if self.minor > 3 {
            self.stage = Stage::Choice;
            return Ok(Step::Reply(vec![1, kind]));
        }
        let mut reply = vec![0, 0, 0, kind];
        self.stage = match self.access {
            Access::Open => Stage::Init,
            Access::Password(challenge) => {
                reply.extend(challenge);
                Stage::Answer
            }
            Access::Secure(_) => {
                let mut refusal = vec![0; 4];
                refusal.put32(TOO_OLD.len() as u32);
                refusal.extend(TOO_OLD.as_bytes());
                return Ok(Step::Refuse(refusal));
            }
        };
        Ok(Step::Reply(reply))
    }

    fn secured_kind(&self) -> u32 {
        if self.access.challenge().is_some() { SECURE_PASSWORD } else { SECURE_OPEN }
    }

    fn secured(&mut self, version: &[u8]) -> Step {
        if version != SECURE_VERSION {
            return Step::Refuse(vec![1]);
        }
        self.stage = Stage::SecuredKind;
        let mut reply = vec![0, 1]; // the version is right, and there is one kind
        reply.put32(self.secured_kind());
        Step::Reply(reply)
    }

    fn secure(&mut self) -> Step {
        let (stage, words) = match self.access.challenge() {
            Some(challenge) => (Stage::Answer, challenge.to_vec()),
            None => (Stage::Init, vec![0; 4]),
        };
        self.stage = stage;
        Step::Secure(vec![1], words)
    }

    fn refusal(&self) -> Vec<u8> {
        let mut out = vec![0, 0, 0, 1];
        if self.minor == 8 {
            out.put32(REASON.len() as u32);
            out.extend(REASON.as_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::response;

    /// What the server says to each of the client's words.
    fn talk(access: Access, words: &[&[u8]]) -> Vec<Result<Step, ProtocolError>> {
        let mut greeting = Greeting::new(access);
        let verdict = |challenge: &[u8; 16], answer: &[u8]| response(b"pass", challenge) == *answer;
        words.iter().map(|word| greeting.step(&mut Bytes::new(word), verdict).unwrap()).collect()
    }

    #[test]
    fn each_version_has_its_order() {
        let reply = |bytes: &[u8]| Ok(Step::Reply(bytes.to_vec()));
        let enter = Ok(Step::Enter { shared: true });
        let open = Access::Open;
        let words: [&[u8]; 3] = [b"RFB 003.008\n", &[1], &[1]];
        assert_eq!(talk(open, &words), [reply(&[1, 1]), reply(&[0; 4]), enter.clone()]);
        let words: [&[u8]; 3] = [b"RFB 003.007\n", &[1], &[1]];
        assert_eq!(talk(open, &words), [reply(&[1, 1]), reply(&[]), enter.clone()]);
        let words: [&[u8]; 2] = [b"RFB 003.003\n", &[1]];
        assert_eq!(talk(open, &words), [reply(&[0, 0, 0, 1]), enter.clone()]);
        let challenge = *b"abcdefghijklmnop";
        let (locked, answer) = (Access::Password(challenge), response(b"pass", &challenge));
        let words: [&[u8]; 3] = [b"RFB 003.003\n", &answer, &[1]];
        let both = [&[0, 0, 0, 2], &challenge[..]].concat();
        assert_eq!(talk(locked, &words), [reply(&both), reply(&[0; 4]), enter.clone()]);
        let words: [&[u8]; 4] = [b"RFB 003.889\n", &[2], &answer, &[1]];
        let said = talk(locked, &words);
        assert_eq!(said, [reply(&[1, 2]), reply(&challenge), reply(&[0; 4]), enter]);
    }

    #[test]
    fn behind_tls_the_order_is_vencrypts() {
        let reply = |bytes: &[u8]| Ok(Step::Reply(bytes.to_vec()));
        let enter = Ok(Step::Enter { shared: true });
        let words: [&[u8]; 5] = [b"RFB 003.008\n", &[19], &[0, 2], &[0, 0, 1, 4], &[1]];
        let said = talk(Access::Secure(None), &words);
        let kinds = reply(&[0, 1, 0, 0, 1, 4]);
        let secure = Ok(Step::Secure(vec![1], vec![0; 4]));
        assert_eq!(said, [reply(&[1, 19]), reply(&[0, 2]), kinds, secure, enter.clone()]);
        let challenge = *b"abcdefghijklmnop";
        let answer = response(b"pass", &challenge);
        let start: [&[u8]; 3] = [b"RFB 003.008\n", &[19], &[0, 2]];
        let words = [&start[..], &[&[0, 0, 1, 5], &answer, &[1]]].concat();
        let said = talk(Access::Secure(Some(challenge)), &words);
        assert_eq!(said[3], Ok(Step::Secure(vec![1], challenge.to_vec())));
        assert_eq!(said[4..], [reply(&[0; 4]), enter]);
        // No way around it: neither another kind, nor another type, nor an old version.
        let words = [&start[..], &[&[0, 0, 1, 4]]].concat();
        let said = talk(Access::Secure(Some(challenge)), &words);
        assert_eq!(said[3], Ok(Step::Refuse(vec![0])));
        assert!(talk(Access::Secure(None), &[b"RFB 003.008\n", &[1]])[1].is_err());
        let old = talk(Access::Secure(None), &[b"RFB 003.003\n"]);
        assert!(matches!(&old[0], Ok(Step::Refuse(_))));
    }

    #[test]
    fn who_does_not_know_the_password_stays_out() {
        let locked = Access::Password([7; 16]);
        let wrong = response(b"word", &[7; 16]);
        let said = talk(locked, &[b"RFB 003.008\n", &[2], &wrong]);
        assert!(matches!(&said[2], Ok(Step::Refuse(bytes)) if bytes[3] == 1 && bytes.len() > 8));
        let said = talk(locked, &[b"RFB 003.007\n", &[2], &wrong]);
        assert_eq!(said[2], Ok(Step::Refuse(vec![0, 0, 0, 1])));
        let said = talk(locked, &[b"RFB 003.008\n", &[1]]);
        assert!(said[1].is_err(), "asking for none is no way in");
        assert!(talk(locked, &[b"GET / HTTP/1"])[0].is_err());
        assert!(talk(locked, &[b"RFB 002.008\n"])[0].is_err());
    }
}
