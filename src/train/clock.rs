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

impl Clock {
    /// Waits for the device, and then until so many times the time so far has gone: a step that takes longer, on purpose.
    ///
    /// # Errors
    ///
    /// If the device has failed.
    pub(super) fn stretch(&self, factor: f64, device: &Device) -> Result<(), ReadError> {
        if factor > 1.0 {
            wait(device)?;
            let end = self.start.elapsed().mul_f64(factor);
            while self.start.elapsed() < end {
                std::hint::spin_loop();
            }
        }
        Ok(())
    }
}

/// Adds up the wall time of spans at whose ends the device has nothing left to do.
#[derive(Debug)]
pub struct Stopwatch {
    device: Device,
    running: Option<Clock>,
    total_ms: f64,
}

impl Stopwatch {
    /// A stopwatch that stands still at 0.
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone(), running: None, total_ms: 0.0 }
    }

    /// Waits for the device and begins a span.
    ///
    /// # Errors
    ///
    /// If the device has failed.
    pub fn start(&mut self) -> Result<(), ReadError> {
        self.running = Some(Clock::start(&self.device)?);
        Ok(())
    }

    /// Waits for the device, ends the span and returns its milliseconds; 0 if none has begun.
    ///
    /// # Errors
    ///
    /// If the device has failed.
    pub fn stop_ms(&mut self) -> Result<f64, ReadError> {
        let Some(clock) = self.running.take() else {
            return Ok(0.0);
        };
        let elapsed_ms = clock.stop_ms(&self.device)?;
        self.total_ms += elapsed_ms;
        Ok(elapsed_ms)
    }

    /// The milliseconds of all spans that have ended.
    pub fn total_ms(&self) -> f64 {
        self.total_ms
    }
}

fn wait(device: &Device) -> Result<(), ReadError> {
    device.sync().map_err(|error| ReadError(error.to_string()))
}
