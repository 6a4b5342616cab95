//! Sound cards with the kernel's driver, what they play into files, and to whom they are heard.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use display::codec::{ClientMessage, SoundFormat, SoundNews, SoundOrder};
use display::viewer::{Event, Viewer};

use super::guest::{Guest, Running, compiled};
use crate::monitor::Machine;

const PATIENCE: Duration = Duration::from_secs(90);
const SOUND: &[&str] = &[
    "sound/soundcore",
    "sound/core/snd",
    "sound/core/snd-timer",
    "sound/core/snd-pcm",
    "sound/core/snd-hwdep",
    "sound/core/oss/snd-mixer-oss",
    "sound/core/oss/snd-pcm-oss",
    "sound/hda/snd-intel-sdw-acpi",
    "sound/hda/snd-intel-dspcfg",
    "sound/hda/snd-hda-core",
    "sound/pci/hda/snd-hda-codec",
    "drivers/leds/trigger/ledtrig-audio",
    "sound/pci/hda/snd-hda-codec-generic",
    "sound/pci/hda/snd-hda-intel",
];
/// What the program plays.
const FRAMES: i16 = 24_000;

/// A guest that tells what codec it has and plays a tone.
fn guest(name: &str) -> Option<Guest> {
    let folder = tests::scratch(&format!("{name}-program"));
    let program = compiled("tone.c", &folder)?;
    let script = "n=0; until [ -e /dev/dsp ] || [ $n = 100 ]; do sleep 0.1; n=$((n+1)); done\n\
        for f in /proc/asound/card0/codec*; do echo codec; cat $f; echo end of codec; done\n\
        /tone 2>&1; echo done; poweroff -f";
    let guest = Guest::new(name, SOUND, &[program], script);
    _ = fs::remove_dir_all(folder);
    guest
}

/// The frames that a file has, which says itself how many.
fn frames(path: &Path) -> Vec<[i16; 2]> {
    let bytes = fs::read(path).unwrap();
    assert_eq!((&bytes[..4], &bytes[8..16]), (&b"RIFF"[..], &b"WAVEfmt "[..]));
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((word(24), bytes[22]), (48_000, 2));
    assert_eq!((word(4), word(40)), (bytes.len() - 8, bytes.len() - 44));
    stereo(&bytes[44..])
}

fn stereo(bytes: &[u8]) -> Vec<[i16; 2]> {
    let sample = |two: &[u8]| i16::from_le_bytes([two[0], two[1]]);
    bytes.chunks_exact(4).map(|four| [sample(four), sample(&four[2..])]).collect()
}

/// How many of the tone's frames follow each other from its first one on.
fn tone(frames: &[[i16; 2]]) -> usize {
    let expected = |number: i16| {
        let saw = (i32::from(number) - 1) * 37 % 20_001 - 10_000;
        [i16::try_from(saw).unwrap(), number]
    };
    let from = |start: usize| {
        let tone = (1..=FRAMES).map(expected);
        frames[start..].iter().zip(tone).take_while(|(frame, other)| **frame == *other).count()
    };
    (0..frames.len()).map(from).max().unwrap_or(0)
}

/// What a guest says of its codec.
fn codec(console: &str) -> &str {
    let start = console.find("codec\r\n").unwrap_or(0);
    &console[start..console.find("end of codec").unwrap_or(console.len())]
}

#[test]
fn what_the_kernel_plays_is_in_the_file_and_codecs_look_as_in_qemu() {
    let Some(guest) = guest("sound") else {
        tests::skip!("the kernel with modules or busybox was not fetched, or there is no compiler");
    };
    let reference = tests::asset_file("bin", "qemu-system-x86_64");
    for (model, codec_model) in [("ich9-intel-hda", "hda-duplex"), ("intel-hda", "hda-output")] {
        let file = guest.folder.join(format!("{codec_model}.wav"));
        let audio = |file: &Path| format!("wav,id=a,path={},out.frequency=48000", file.display());
        let codec_option = format!("{codec_model},audiodev=a");
        let devices = ["-device", model, "-device", &codec_option];
        let console = guest.run(&[&["-audiodev", &audio(&file)], &devices[..]].concat());
        assert!(console.contains("played"), "{console}");
        assert_eq!(console.contains("recorded"), codec_model == "hda-duplex", "{console}");
        let played = frames(&file);
        let whole = usize::try_from(FRAMES).unwrap();
        assert_eq!(tone(&played), whole, "of {} frames; {console}", played.len());
        assert!(played.len() < 10 * whole, "no more than about as long as it took");
        // The reference's own codec, as the same kernel sees it.
        let Some(reference) = &reference else { continue };
        let ours = codec(&console).to_owned();
        assert!(ours.contains("Vendor Id: 0x1af4"), "{console}");
        fs::remove_file(guest.folder.join("console")).unwrap();
        let mut command = Command::new(reference);
        command.args(["-nodefaults", "-display", "none"]).args(guest.options());
        command.args(["-audiodev", &audio(&guest.folder.join("reference.wav"))]).args(devices);
        let mut child = Running(command.stdin(Stdio::null()).spawn().unwrap());
        child.wait(|| guest.console());
        assert_eq!(ours, codec(&guest.console()));
        fs::remove_file(guest.folder.join("console")).unwrap();
    }
}

#[test]
fn viewers_hear_what_is_played() {
    let Some(guest) = guest("sound-vnc") else {
        tests::skip!("the kernel with modules or busybox was not fetched, or there is no compiler");
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = port.clamp(5900, 60_000);
    let vnc = format!("127.0.0.1:{},audiodev=a", port - 5900);
    let options = guest.options();
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    // Nobody writes a file here; the rate is that of the back end.
    options.extend(["-audiodev", "none,id=a", "-vnc", &vnc, "-device", "ich9-intel-hda"]);
    options.extend(["-device", "hda-duplex,audiodev=a"]);
    let _machine = Machine::start("sound-vnc", &options);
    let mut viewer = Viewer::connect(&format!("127.0.0.1:{port}"), None).unwrap();
    viewer.request(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let (mut heard, mut words) = (Vec::new(), Vec::new());
    while words.last() != Some(&"ends") {
        for event in viewer.wait(deadline).unwrap() {
            match event {
                Event::CanHear => {
                    let format = SoundFormat { rate_hz: 44_100, ..SoundFormat::default() };
                    viewer.send(&ClientMessage::Sound(SoundOrder::Format(format))).unwrap();
                    viewer.send(&ClientMessage::Sound(SoundOrder::Enable)).unwrap();
                }
                Event::Sound(SoundNews::Begins) => words.push("begins"),
                Event::Sound(SoundNews::Ends) => words.push("ends"),
                Event::Sound(SoundNews::Samples(bytes)) => heard.extend(stereo(&bytes)),
                _ => {}
            }
        }
    }
    assert_eq!(words, ["begins", "ends"]);
    // At another rate than it was played: the right side still rises all the time.
    let rising = heard.windows(2).filter(|pair| pair[1][1] > pair[0][1]).count();
    let expected = usize::try_from(FRAMES).unwrap() * 441 / 480;
    assert!(rising.abs_diff(expected) < 500, "{rising} of {} frames rise", heard.len());
}
