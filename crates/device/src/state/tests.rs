use super::*;

#[derive(Clone, Debug, Default, PartialEq)]
struct Inner {
    level: bool,
    words: [u16; 3],
}

crate::saved!(Inner { level, words });

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Phase {
    #[default]
    Idle,
    Busy,
}

crate::saved_enum!(Phase { Idle = 0, Busy = 7 });

#[derive(Clone, Debug, Default, PartialEq)]
struct Outer {
    index: u8,
    parts: Vec<Inner>,
    phase: Phase,
    when: Option<u64>,
    text: String,
    cache: u64,
}

crate::saved!(Outer { index, parts, phase, when, text } check |outer: &Outer| outer.index < 16);

fn sample() -> Outer {
    Outer {
        index: 9,
        parts: vec![Inner { level: true, words: [1, 2, 0xffff] }, Inner::default()],
        phase: Phase::Busy,
        when: Some(1 << 40),
        text: "grüß".to_owned(),
        cache: 5,
    }
}

fn load(bytes: &[u8]) -> Result<Outer, StateError> {
    let (mut loaded, mut from) = (Outer::default(), Reader::new(bytes));
    loaded.load(&mut from).and_then(|()| from.finish())?;
    Ok(loaded)
}

#[test]
fn what_was_saved_is_loaded() {
    let mut bytes = Vec::new();
    sample().save(&mut bytes);
    assert_eq!(load(&bytes).unwrap(), Outer { cache: 0, ..sample() });
}

#[test]
fn every_cut_and_every_other_byte_is_refused_or_gives_a_sound_value() {
    let mut bytes = Vec::new();
    sample().save(&mut bytes);
    for length in 0..bytes.len() {
        assert!(load(&bytes[..length]).is_err(), "cut at {length}");
    }
    for at in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            if let Ok(loaded) = load(&changed) {
                assert!(loaded.index < 16, "byte {at} ^ {flip:#x}");
            }
        }
    }
}

#[test]
fn errors_name_the_field() {
    #[derive(Default)]
    struct Older {
        index: u8,
    }
    crate::saved!(Older { index });
    let mut bytes = Vec::new();
    Older { index: 3 }.save(&mut bytes);
    assert_eq!(load(&bytes).unwrap_err().to_string(), "The state has no 'parts'");
    bytes.clear();
    sample().save(&mut bytes);
    let newer = Older::default().load(&mut Reader::new(&bytes)).unwrap_err();
    assert_eq!(newer.to_string(), "The state has 'parts', which is not known here");
    let huge = [0xff, 0xff, 0xff, 0xff, 1];
    assert!(load(&huge).is_err(), "a length is believed only as far as bytes follow");
    assert_eq!(
        StateError::unsupported().within("net0").to_string(),
        "The state of 'net0' cannot be saved"
    );
}

#[test]
fn a_device_changes_whole_or_not_at_all() {
    let (mut fields, part) = (Fields::saving(), parking_lot::Mutex::new(sample()));
    let mut count = 7_u32;
    fields.locked("part", &part).unwrap();
    fields.item("count", &mut count).unwrap();
    let (mut bytes, _) = fields.finish().unwrap();

    let (other, mut got, mut late) = (parking_lot::Mutex::new(Outer::default()), 0_u32, 1_u8);
    let mut fields = Fields::loading(&bytes).unwrap();
    fields.locked("part", &other).unwrap();
    fields.item("count", &mut got).unwrap();
    fields.newer("late", &mut late).unwrap();
    fields.finish().unwrap();
    assert_eq!((other.lock().clone(), got, late), (Outer { cache: 0, ..sample() }, 7, 1));

    let at = bytes.windows(5).position(|five| five == b"index").unwrap() + 9;
    assert_eq!(bytes[at], 9);
    bytes[at] = 16;
    *other.lock() = Outer::default();
    let mut fields = Fields::loading(&bytes).unwrap();
    assert!(fields.locked("part", &other).is_err());
    assert_eq!(*other.lock(), Outer::default());
}
