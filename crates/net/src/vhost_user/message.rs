//! The messages: a header of three words, numbers, and descriptors beside them.

/// Requests by their numbers, with the names that the specification gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request(pub u32, pub &'static str);

pub const GET_FEATURES: Request = Request(1, "GET_FEATURES");
pub const SET_FEATURES: Request = Request(2, "SET_FEATURES");
pub const SET_OWNER: Request = Request(3, "SET_OWNER");
pub const SET_MEM_TABLE: Request = Request(5, "SET_MEM_TABLE");
pub const SET_VRING_NUM: Request = Request(8, "SET_VRING_NUM");
pub const SET_VRING_ADDR: Request = Request(9, "SET_VRING_ADDR");
pub const SET_VRING_BASE: Request = Request(10, "SET_VRING_BASE");
pub const GET_VRING_BASE: Request = Request(11, "GET_VRING_BASE");
pub const SET_VRING_KICK: Request = Request(12, "SET_VRING_KICK");
pub const SET_VRING_CALL: Request = Request(13, "SET_VRING_CALL");
pub const GET_PROTOCOL_FEATURES: Request = Request(15, "GET_PROTOCOL_FEATURES");
pub const SET_PROTOCOL_FEATURES: Request = Request(16, "SET_PROTOCOL_FEATURES");
pub const GET_QUEUE_NUM: Request = Request(17, "GET_QUEUE_NUM");
pub const SET_VRING_ENABLE: Request = Request(18, "SET_VRING_ENABLE");

/// The bit among the features of a device that says that the protocol has features too.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;
/// Several queues: `GET_QUEUE_NUM` is answered.
pub const PROTOCOL_MQ: u64 = 1;
/// Requests can ask for an answer.
pub const PROTOCOL_REPLY_ACK: u64 = 1 << 3;

/// Request, flags, bytes that follow.
pub const HEADER_BYTES: usize = 12;
/// No answer is longer.
pub const BODY_BYTES_MAX: usize = 4096;
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const IS_REPLY: u32 = 4;
const NEEDS_REPLY: u32 = 8;

/// A request, ready to be sent.
pub fn encode(request: Request, body: &[u8], needs_reply: bool) -> Vec<u8> {
    let flags = VERSION | if needs_reply { NEEDS_REPLY } else { 0 };
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    for word in [request.0, flags, body.len() as u32] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(body);
    bytes
}

/// How many bytes follow the header of an answer to this request; none if it is no such header.
pub fn decode(request: Request, header: [u8; HEADER_BYTES]) -> Option<usize> {
    let word = |at: usize| {
        let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u32::from_ne_bytes(bytes)
    };
    let (number, flags, bytes) = (word(0), word(4), word(8) as usize);
    let good = number == request.0
        && flags & VERSION_MASK == VERSION
        && flags & IS_REPLY != 0
        && bytes <= BODY_BYTES_MAX;
    good.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_to_the_request_are_understood() {
        let header = |words: [u32; 3]| {
            let mut bytes = [0; HEADER_BYTES];
            for (place, word) in bytes.chunks_mut(4).zip(words) {
                place.copy_from_slice(&word.to_ne_bytes());
            }
            bytes
        };
        assert_eq!(decode(GET_FEATURES, header([1, 5, 8])), Some(8));
        for wrong in [[2, 5, 8], [1, 1, 8], [1, 4, 8], [1, 5, 4097], [1, 5, u32::MAX]] {
            assert_eq!(decode(GET_FEATURES, header(wrong)), None, "{wrong:?}");
        }
        assert_eq!(encode(SET_OWNER, &[7], true), [&header([3, 9, 1])[..], &[7]].concat());
    }
}
