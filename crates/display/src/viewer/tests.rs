//! Servers that are none.

use super::*;
use crate::decode::tests::Numbers;

fn handshake() -> Vec<u8> {
    let mut bytes = b"RFB 003.008\n\x01\x01\0\0\0\0".to_vec();
    bytes.extend([0, 64, 0, 48]);
    crate::codec::PixelFormat::NATIVE.write(&mut bytes);
    bytes.extend([0, 0, 0, 2, b'h', b'i']);
    bytes
}

#[test]
fn the_handshake_comes_in_any_pieces() {
    for size in 1..40 {
        let mut conversation = Conversation::new(None, true);
        let events: Vec<Event> = handshake()
            .chunks(size)
            .flat_map(|piece| conversation.receive(piece).unwrap())
            .collect();
        assert_eq!(events, [Event::Ready { name: "hi".to_owned() }]);
        assert_eq!((conversation.frame().width, conversation.frame().height), (64, 48));
        assert!(conversation.take_output().starts_with(b"RFB 003.008\n\x01\x01\0"));
    }
}

#[test]
fn a_refusal_has_its_reason() {
    let mut conversation = Conversation::new(None, true);
    let refused = conversation.receive(b"RFB 003.008\n\0\0\0\0\x04busy").unwrap_err();
    assert_eq!(refused.to_string(), "The server refuses: busy");
    let refused = Conversation::new(None, true).receive(b"RFB 003.008\n\x01\x02").unwrap_err();
    assert_eq!(refused.to_string(), "The server refuses: it wants a password");
}

#[test]
fn what_lies_outside_of_the_screen_is_refused() {
    let update = |head: [u8; 8], encoding: i32, data: &[u8]| {
        let mut conversation = Conversation::new(None, true);
        conversation.receive(&handshake()).unwrap();
        let mut bytes = vec![0, 0, 0, 1];
        bytes.extend(head);
        bytes.extend(encoding.to_be_bytes());
        bytes.extend(data);
        conversation.receive(&bytes)
    };
    assert!(update([0, 60, 0, 0, 0, 5, 0, 1], encoding::RAW, &[0; 64]).is_err());
    assert!(update([0, 0, 0, 0, 0, 5, 0, 1], encoding::COPY_RECT, &[0, 60, 0, 0]).is_err());
    assert!(update([0, 0, 0, 0, 255, 255, 255, 255], encoding::CURSOR, &[]).is_err());
    assert!(update([0, 0, 0, 0, 255, 255, 255, 255], encoding::DESKTOP_SIZE, &[]).is_err());
    let good = update([0, 0, 0, 0, 0, 1, 0, 1], encoding::RAW, &[1, 2, 3, 0]);
    assert_eq!(good, Ok(vec![Event::Updated]));
}

#[test]
fn noise_does_no_harm() {
    let mut numbers = Numbers(0xfeed_beef);
    for round in 0..2000 {
        let mut conversation = Conversation::new(Some("x"), true);
        let mut bytes = if round % 4 == 0 { Vec::new() } else { handshake() };
        for _ in 0..numbers.next(200) {
            // Small numbers make more sense to a reader than large ones.
            let most = if numbers.next(3) == 0 { 256 } else { 4 };
            bytes.push(numbers.next(most) as u8);
        }
        for piece in bytes.chunks(1 + numbers.next(50) as usize) {
            if conversation.receive(piece).is_err() {
                break;
            }
        }
    }
}
