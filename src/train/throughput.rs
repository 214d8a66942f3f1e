//! The speed of a step, measured before training on copies of the network: cold and steady, with the probe and
//! without it.

use std::sync::atomic::AtomicBool;

use super::{TrainError, Workload};
use crate::config::ProbeConfig;
use crate::schema::{ProbeLoad, ThroughputPhase, ThroughputRow};

/// Measures the cold phase and then steady samples, the probe's loads in turn, so that a disturbance of the machine
/// meets all of them. Every sample starts from the network at initialization.
pub fn measure(run_id: &str, workload: &Workload, stop: &AtomicBool) -> Result<Vec<ThroughputRow>, TrainError> {
    let config = &workload.config().throughput;
    let mut rows = Vec::new();
    if config.samples == 0 {
        return Ok(rows);
    }
    let mut batches = workload.batches();
    let mut sample_ms = |load: ProbeLoad, steps: usize| {
        let quantities = quantities(load, &workload.config().probe);
        workload.time_steps(&mut batches, 0..steps, |_| load != ProbeLoad::Off, &quantities, stop)
    };
    let row = |phase, sample, steps: usize, elapsed_ms: f64, probe| {
        let steps_per_second = steps as f64 / elapsed_ms * 1e3;
        ThroughputRow {
            run_id: run_id.to_owned(),
            phase,
            sample,
            steps,
            elapsed_ms,
            steps_per_second,
            examples_per_second: steps_per_second * workload.batch_size() as f64,
            flops_per_second: steps_per_second * workload.flops_per_step(),
            probe,
        }
    };
    for sample in 0..config.cold_steps {
        let elapsed_ms = sample_ms(ProbeLoad::Off, 1)?;
        rows.push(row(ThroughputPhase::Cold, sample, 1, elapsed_ms, ProbeLoad::Off));
    }
    let loads = loads(&workload.config().probe);
    let mut steps = 1;
    for load in &loads {
        // Once more untimed, each load: its kernels are compiled and tuned now.
        sample_ms(*load, 1)?;
        let step_ms = sample_ms(*load, 2)? / 2.0;
        if *load == ProbeLoad::Off {
            steps = (config.sample_ms / step_ms).ceil().clamp(1.0, 1e6) as usize;
        }
    }
    for sample in 0..config.samples {
        for turn in 0..loads.len() {
            // The first place in the turn goes round: none of the loads always follows the same one.
            let load = loads[(turn + sample) % loads.len()];
            let elapsed_ms = sample_ms(load, steps)?;
            rows.push(row(ThroughputPhase::Steady, sample, steps, elapsed_ms, load));
        }
    }
    Ok(rows)
}

/// The probe off, with each quantity that the config asks for.
fn loads(config: &ProbeConfig) -> Vec<ProbeLoad> {
    let mut loads = vec![ProbeLoad::Off];
    if config.parameters {
        loads.push(ProbeLoad::Parameters);
    }
    if config.activations {
        loads.push(if config.parameters { ProbeLoad::ParametersAndActivations } else { ProbeLoad::Activations });
    }
    loads
}

fn quantities(load: ProbeLoad, config: &ProbeConfig) -> ProbeConfig {
    let activations = matches!(load, ProbeLoad::Activations | ProbeLoad::ParametersAndActivations);
    ProbeConfig {
        parameters: matches!(load, ProbeLoad::Parameters | ProbeLoad::ParametersAndActivations),
        activations,
        inputs: activations && config.inputs,
        units: activations && config.units,
        time_steps: activations && config.time_steps,
        ..ProbeConfig::default()
    }
}
