//! The only timer.

use std::time::Instant;

use burn::tensor::Device;

use crate::probe::ReadError;

/// Measures wall time between two moments at which the device has nothing left to do.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Waits for the device and starts.
    ///
    /// # Errors
    ///
    /// If the device has failed.
    pub fn start(device: &Device) -> Result<Self, ReadError> {
        wait(device)?;
        Ok(Self { start: Instant::now() })
    }

    /// Waits for the device and returns the milliseconds since the start.
    ///
    /// # Errors
    ///
    /// If the device has failed.
    pub fn stop_ms(self, device: &Device) -> Result<f64, ReadError> {
        wait(device)?;
        Ok(self.start.elapsed().as_secs_f64() * 1e3)
    }
}

fn wait(device: &Device) -> Result<(), ReadError> {
    device.sync().map_err(|error| ReadError(error.to_string()))
}
