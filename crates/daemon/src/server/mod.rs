//! The socket edge: the only place that knows tokio's sockets.

mod listen;
mod tls;
mod connection;
mod descriptors;
mod dispatch;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libvirt_compat::Error;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::options::Serve;
use crate::world::Worlds;

/// Handlers that may block at the same time, over all clients.
const BLOCKING_THREADS_MAX: usize = 64;
/// Threads that move frames and answer what never blocks.
const WORKER_THREADS: usize = 2;

/// What all connections share.
pub struct Shared {
    pub worlds: Arc<Worlds>,
    pub clients: AtomicUsize,
}

/// Serves until a signal or the time-out ends it.
pub fn serve(options: Serve) -> Result<(), Error> {
    let built = runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_stack_size(1 << 20)
        .enable_all()
        .build();
    let runtime = built.map_err(|error| crate::files::system("Cannot start threads", &error))?;
    let result = runtime.block_on(serve_inside(options));
    // Virtual machines go on; a handler that still blocks must not hold the daemon up.
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

async fn serve_inside(options: Serve) -> Result<(), Error> {
    let worlds = Worlds::new(&options)?;
    let listeners = listen::Listeners::open(&options, worlds.paths()).await?;
    if let Some(path) = &options.pid_file {
        crate::files::write_atomically(path, format!("{}\n", std::process::id()).as_bytes())?;
    }
    let shared = Arc::new(Shared { worlds, clients: AtomicUsize::new(0) });
    // Re-adoption and autostart go on while the first clients already connect.
    let starting = Arc::clone(&shared);
    tokio::task::spawn_blocking(move || starting.worlds.autostart());

    let failed = |error: io::Error| crate::files::system("Cannot watch for signals", &error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        () = listeners.accept_forever(&shared) => {}
        () = idle(&shared, options.timeout) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    listeners.close();
    if let Some(path) = &options.pid_file {
        crate::files::remove(path)?;
    }
    Ok(())
}

/// Ends when there was nothing to do for so long.
async fn idle(shared: &Shared, timeout: Option<Duration>) {
    let Some(timeout) = timeout else { return std::future::pending().await };
    let mut busy = Instant::now();
    while busy.elapsed() < timeout {
        tokio::time::sleep(Duration::from_millis(500).min(timeout)).await;
        if shared.clients.load(Ordering::Relaxed) > 0 || shared.worlds.any_active() {
            busy = Instant::now();
        }
    }
}
