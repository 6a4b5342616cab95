//! What qemu-io prints about a request.

use std::time::Duration;

use super::numbers::sized;

/// Prints what was done and how fast.
pub fn print(verb: &str, took: Duration, offset: i64, wanted: i64, done: i64, compact: bool) {
    let seconds = took.as_secs_f64();
    let rate = |amount: f64| if seconds > 0.0 { amount / seconds } else { f64::INFINITY };
    if compact {
        println!("{done},1,{},{:.3},{:.3}", time(seconds, true), rate(done as f64), rate(1.0));
        return;
    }
    // One call, so that the lines of requests that run beside each other do not mix.
    println!(
        "{verb} {done}/{wanted} bytes at offset {offset}\n{}, 1 ops; {} ({}/sec and {:.4} ops/sec)",
        sized(done as f64),
        time(seconds, false),
        sized(rate(done as f64)),
        rate(1.0)
    );
}

fn time(seconds: f64, verbose: bool) -> String {
    let (hours, minutes) = ((seconds / 3600.0) as u64, (seconds / 60.0) as u64 % 60);
    if hours > 0 || verbose {
        return format!("{hours}:{minutes:02}:{:05.2}", seconds % 60.0);
    }
    if minutes > 0 {
        return format!("{minutes}:{:05.2}", seconds % 60.0);
    }
    format!("{seconds:05.2} sec")
}

/// Prints bytes in hexadecimal and as text.
pub fn dump(bytes: &[u8], offset: i64) {
    for (number, row) in bytes.chunks(16).enumerate() {
        let hex: String = row.iter().map(|byte| format!("{byte:02x} ")).collect();
        let text: String = row
            .iter()
            .map(|byte| if byte.is_ascii_alphanumeric() { char::from(*byte) } else { '.' })
            .collect();
        println!("{:08x}:  {hex} {text}", offset as u64 + number as u64 * 16);
    }
}
