//! The steps that are measured.

use crate::config::ProbeConfig;

/// Which of the steps 0 to `steps - 1` are measured; without steps, the one pass at initialization is.
#[derive(Clone, Debug)]
pub struct Schedule {
    config: ProbeConfig,
    steps: usize,
}

impl Schedule {
    /// The schedule of a training of so many steps.
    pub fn new(config: &ProbeConfig, steps: usize) -> Self {
        Self { config: config.clone(), steps }
    }

    /// Whether a step is measured.
    pub fn measures(&self, step: usize) -> bool {
        (self.config.parameters || self.config.activations)
            && (self.steps == 0
                || (self.config.initialization && step == 0)
                || (self.config.last && step + 1 == self.steps)
                || (self.config.every > 0 && step.is_multiple_of(self.config.every))
                || is_log_spaced(step, self.config.per_decade))
    }
}

/// Whether `step` is the nearest whole number to a power of 10^(1 / `per_decade`).
fn is_log_spaced(step: usize, per_decade: usize) -> bool {
    if step == 0 || per_decade == 0 {
        return false;
    }
    let exponent = (step as f64).log10() * per_decade as f64;
    // The nearest grid points on both sides; rounding a grid point to a whole step can move it either way.
    [exponent.floor(), exponent.ceil()]
        .into_iter()
        .any(|grid| 10f64.powf(grid / per_decade as f64).round() as usize == step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(config: &ProbeConfig, steps: usize) -> Vec<usize> {
        let schedule = Schedule::new(config, steps);
        (0..steps).filter(|step| schedule.measures(*step)).collect()
    }

    fn none() -> ProbeConfig {
        ProbeConfig { initialization: false, last: false, per_decade: 0, ..ProbeConfig::default() }
    }

    #[test]
    fn each_schedule_names_its_steps_and_a_step_is_measured_once() {
        assert_eq!(measured(&none(), 100), [0; 0]);
        assert_eq!(measured(&ProbeConfig { initialization: true, ..none() }, 100), [0]);
        assert_eq!(measured(&ProbeConfig { last: true, ..none() }, 100), [99]);
        assert_eq!(measured(&ProbeConfig { every: 40, ..none() }, 100), [0, 40, 80]);
        assert_eq!(measured(&ProbeConfig { per_decade: 1, ..none() }, 1001), [1, 10, 100, 1000]);
        assert_eq!(measured(&ProbeConfig { per_decade: 4, ..none() }, 101), [1, 2, 3, 6, 10, 18, 32, 56, 100]);
        assert_eq!(measured(&ProbeConfig { every: 1, last: true, ..none() }, 3), [0, 1, 2]);
    }

    #[test]
    fn a_probe_of_no_quantity_measures_no_step() {
        let config = ProbeConfig { every: 1, parameters: false, activations: false, ..none() };
        assert_eq!(measured(&config, 10), [0; 0]);
        assert!(!Schedule::new(&config, 0).measures(0));
    }

    #[test]
    fn the_pass_of_a_training_without_steps_is_measured_whatever_the_schedules_say() {
        assert!(Schedule::new(&none(), 0).measures(0));
    }
}
