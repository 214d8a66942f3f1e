//! What may end a command on its way: Ctrl-C, and panics of devices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Context;

use super::INTERRUPTED;

/// The first Ctrl-C asks the command to stop after a step; a second one ends the program at once.
pub(super) fn stop_on_ctrl_c() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    })
    .context("Ctrl-C cannot be handled")?;
    Ok(stop)
}

/// Runs what may panic; a panic becomes its message, and prints nothing.
pub(super) fn quietly_catch_unwind<T>(work: impl FnOnce() -> T + std::panic::UnwindSafe) -> Result<T, String> {
    let place = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&place);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if let (Some(location), Ok(mut place)) = (panic.location(), seen.lock()) {
            *place = format!(" (at {location})");
        }
    }));
    let outcome = std::panic::catch_unwind(work);
    std::panic::set_hook(hook);
    let place = place.lock().map(|place| place.clone()).unwrap_or_default();
    outcome.map_err(|panic| format!("{}{place}", crate::panic_message(&*panic)))
}
