//! What theory predicts of a run, from the network and the examples of its first step.

use burn::tensor::Tensor;

use super::Workload;
use crate::config::{Loss, Norm};
use crate::kernel::Reading;
use crate::probe::{ReadError, Schedule, fetch};
use crate::schema::ActivationRow;
use crate::theory::prediction::{self, Examples, Prediction};

/// Predicts the deltas of step 0. Waits for the device, once, for the norms of the inputs.
pub(super) fn predict(workload: &Workload) -> Result<Prediction, ReadError> {
    let config = workload.config();
    let schedule = Schedule::new(&config.probe, workload.step_count());
    if !(config.probe.activations && schedule.measures(0)) {
        let reason = Some("the layers are not measured at step 0".to_owned());
        return Ok(Prediction { deltas: Vec::new(), reason });
    }
    // Where nothing is predicted nothing needs to be read.
    if let Some(reason) = prediction::obstacle(config) {
        return Ok(Prediction { deltas: Vec::new(), reason: Some(reason) });
    }
    Ok(prediction::predict(config, &examples(workload)?))
}

/// What a prediction must know of the first batch.
fn examples(workload: &Workload) -> Result<Examples, ReadError> {
    let config = workload.config();
    let batch = workload.batches().next_batch();
    let inputs = batch.inputs.inner();
    let ([_, features], [_, columns]) = (inputs.dims(), batch.targets.dims());
    let has_batch_norm = config.network.norm == Norm::Batch;
    let mut readings = vec![Reading::from(row_sums(inputs.clone().square()))];
    if has_batch_norm {
        let (square, anisotropy) = about_their_mean(inputs);
        readings.extend([Reading::from(square), Reading::from(anisotropy)]);
    }
    let mut read = fetch(readings)?.into_iter();
    let squares = read.next().unwrap_or_default();
    let mut next = |is_read: bool| if is_read { read.next().unwrap_or_default() } else { Vec::new() };
    let (centered_square, product_square) = (next(has_batch_norm), next(has_batch_norm));
    let count = squares.len() as f64;
    let centered_square = centered_square.first().copied().unwrap_or(0.0);
    let product_square = product_square.first().copied().unwrap_or(0.0);
    let anisotropy = (count - 1.0) * product_square / (centered_square * centered_square) - 1.0;
    Ok(Examples {
        features,
        squares,
        centered_square,
        anisotropy: if anisotropy.is_finite() { anisotropy.max(0.0) } else { 0.0 },
        outputs: match config.training.loss {
            Loss::LinearProbe => None,
            // Targets are the side of a point and the share of its pair.
            Loss::Wasserstein => Some(1),
            _ => Some(columns),
        },
    })
}

/// The sum of each row, `[rows]`. Products with ones, because Burn's fused reductions can fail to compile on wgpu.
fn row_sums(x: Tensor<2>) -> Tensor<1> {
    let [rows, columns] = x.dims();
    let ones: Tensor<2> = Tensor::ones([columns, 1], &x.device());
    x.matmul(ones).reshape([rows])
}

/// The sum over the inputs of |x - mean x|^2, and the sum of the squares of all scalar products of these differences, `[1]` each.
fn about_their_mean(inputs: Tensor<2>) -> (Tensor<1>, Tensor<1>) {
    let [examples, features] = inputs.dims();
    let sum = |x: Tensor<2>| row_sums(row_sums(x).reshape([1, -1]));
    let ones: Tensor<2> = Tensor::ones([1, examples], &inputs.device());
    let mean = ones.matmul(inputs.clone()) / examples as f64;
    let centered = inputs - mean;
    let transposed = centered.clone().transpose();
    // The products of the columns have the same squares in all, and may be fewer.
    let products =
        if examples <= features { centered.clone().matmul(transposed) } else { transposed.matmul(centered.clone()) };
    (sum(centered.square()), sum(products.square()))
}

/// Writes what was predicted into the rows of step 0.
pub(super) fn fill(prediction: &Prediction, rows: &mut [ActivationRow]) {
    for row in rows.iter_mut().filter(|row| row.step == 0 && row.time_step.is_none()) {
        let predicted = prediction.deltas.iter().find(|(layer, _)| *layer == row.layer);
        row.delta_l2_predicted = predicted.map(|(_, delta)| *delta);
    }
}
