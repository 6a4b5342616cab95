//! `qemu-img bench`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use block::open::OpenMode;
use block::options::parse_bytes;
use parking_lot::RwLock;
use qemu_compat::image_tool::arguments::Typed;

use super::failure::{Failure, Outcome};
use super::{fail, opening};

const COUNT: u64 = 75_000;
const DEPTH: u64 = 64;
const BUFFER_BYTES: u64 = 4096;

struct Plan {
    count: u64,
    depth: u64,
    offset: u64,
    bytes: u64,
    step: u64,
    write: bool,
    pattern: u8,
    flush_every: u64,
    /// A flush waits for the requests before it and holds back those behind it.
    drain: bool,
    /// Every write is flushed.
    write_through: bool,
}

pub fn run(typed: &Typed) -> Outcome {
    let name = opening::one_operand(typed)?;
    opening::refuse(typed, &["native"])?;
    opening::check_aio(typed, |mode| format!("Invalid aio option: {mode}")).map_err(fail)?;
    let mut plan = plan(typed)?;
    let mut mode = OpenMode { write: plan.write, unmap: true, ..OpenMode::default() };
    plan.write_through = opening::cache(typed, "cache", &mut mode, "Invalid cache mode")?;
    let node = opening::open(typed, name, typed.value("format"), &mode)?;
    let size = node.size();
    if size < plan.bytes {
        return Err(fail("The image is smaller than one request"));
    }
    if !typed.has("quiet") {
        announce(&plan);
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let next = AtomicU64::new(0);
    let gate = RwLock::new(());
    let started = Instant::now();
    let outcomes: Vec<Result<(), Failure>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.depth.min(cores))
            .map(|_| scope.spawn(|| work(&node, &plan, size, &next, &gate)))
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    outcomes.into_iter().collect::<Result<(), _>>()?;
    let seconds = started.elapsed().as_secs_f64();
    if !typed.has("quiet") {
        println!("Run completed in {seconds:.3} seconds.");
    }
    Ok(0)
}

fn announce(plan: &Plan) {
    println!(
        "Sending {} {} requests, {} bytes each, {} in parallel (starting at offset {}, step size {})",
        plan.count,
        if plan.write { "write" } else { "read" },
        plan.bytes,
        plan.depth,
        plan.offset,
        plan.step
    );
    if plan.flush_every > 0 {
        println!(
            "Sending flush every {} {}requests",
            plan.flush_every,
            if plan.drain { "" } else { "in-flight " }
        );
    }
}

fn work(
    node: &block::NodeRef,
    plan: &Plan,
    size: u64,
    next: &AtomicU64,
    gate: &RwLock<()>,
) -> Result<(), Failure> {
    let flush =
        || node.flush().map_err(|error| fail(format!("Failed flush request: {}", error.reason())));
    let mut buffer = vec![plan.pattern; plan.bytes as usize];
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= plan.count {
            return Ok(());
        }
        // Requests wrap around so that each lies within the image.
        let room = size - plan.bytes + 1;
        let offset = (plan.offset + number * plan.step) % room;
        let passing = gate.read();
        let done = if plan.write {
            node.write_at(&buffer, offset)
        } else {
            node.read_at(&mut buffer, offset)
        };
        done.map_err(|error| fail(format!("Failed request: {}", error.reason())))?;
        if plan.write && plan.write_through {
            flush()?;
        }
        drop(passing);
        if plan.flush_every > 0 && (number + 1).is_multiple_of(plan.flush_every) {
            let _alone = plan.drain.then(|| gate.write());
            flush()?;
        }
    }
}

fn number(typed: &Typed, option: &str, default: u64, problem: &str) -> Result<u64, Failure> {
    match typed.value(option) {
        None => Ok(default),
        Some(text) => parse_bytes(text, b'B')
            .ok()
            .filter(|value| *value <= i32::MAX as u64 || option == "offset")
            .ok_or_else(|| fail(problem)),
    }
}

fn plan(typed: &Typed) -> Result<Plan, Failure> {
    let bytes = number(typed, "buffer-size", BUFFER_BYTES, "Invalid buffer size specified")?;
    if bytes == 0 {
        return Err(fail("Invalid buffer size specified"));
    }
    let step = number(typed, "step-size", 0, "Invalid step size specified")?;
    let plan = Plan {
        count: number(typed, "count", COUNT, "Invalid request count specified")?,
        depth: number(typed, "depth", DEPTH, "Invalid queue depth specified")?.max(1),
        offset: number(typed, "offset", 0, "Invalid offset specified")?,
        bytes,
        step: if step == 0 { bytes } else { step },
        write: typed.has("write"),
        pattern: number(typed, "pattern", 0, "Invalid pattern byte specified")?
            .try_into()
            .map_err(|_| fail("Invalid pattern byte specified"))?,
        flush_every: number(typed, "flush-interval", 0, "Invalid flush interval specified")?,
        drain: !typed.has("no-drain"),
        write_through: false,
    };
    if plan.flush_every > 0 && !plan.write {
        return Err(fail("--flush-interval is only available in write tests"));
    }
    if plan.flush_every > 0 && plan.flush_every < plan.depth {
        return Err(fail("Flush interval can't be smaller than depth"));
    }
    Ok(plan)
}
