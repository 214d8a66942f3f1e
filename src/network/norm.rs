//! Batch and layer normalization.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::pass::{BatchStatistics, Pass};
use crate::config::{self, NetworkConfig};

/// `gamma (x - mean) / sqrt(variance + epsilon) + beta`
#[derive(Module, Debug)]
pub struct Norm {
    /// `[units]`, ones at first.
    pub gamma: Param<Tensor<1>>,
    /// `[units]`, zeros at first.
    pub beta: Param<Tensor<1>>,
    #[module(skip)]
    kind: config::Norm,
    #[module(skip)]
    epsilon: f64,
    #[module(skip)]
    momentum: f64,
    /// Outside the graph, and no parameters: they are not trained, measured or decayed.
    #[module(skip)]
    running: BatchStatistics,
}

impl Norm {
    /// The normalization of a layer, if the config has one. `units` counts the channels of an image.
    pub(super) fn init(config: &NetworkConfig, units: usize, device: &Device) -> Option<Self> {
        let filled = |value: f32| TensorData::new(vec![value; units], [units]);
        let plain = device.clone().inner();
        (config.norm != config::Norm::None).then(|| Self {
            gamma: Param::from_data(filled(1.0), device),
            beta: Param::from_data(filled(0.0), device),
            kind: config.norm,
            epsilon: config.norm_epsilon(),
            momentum: config.norm_momentum(),
            running: BatchStatistics { mean: Tensor::zeros([units], &plain), variance: Tensor::ones([units], &plain) },
        })
    }

    /// # Shapes
    ///
    /// - x: `[batch, units, ..]`
    /// - returns: the same
    pub(super) fn forward<const D: usize>(&self, x: Tensor<D>, pass: &mut Pass) -> Tensor<D> {
        let dims = x.dims();
        let by_unit = |values: Tensor<1>| -> Tensor<D> {
            let mut shape = [1; D];
            shape[1] = dims[1];
            values.reshape(shape)
        };
        let normalized = match self.kind {
            config::Norm::None => x,
            config::Norm::Layer => {
                let axes: Vec<usize> = (1..D).collect();
                self.divide_by_deviation(x, &axes).0
            }
            config::Norm::Batch if pass.trains() => {
                let axes: Vec<usize> = (0..D).filter(|axis| *axis != 1).collect();
                let (normalized, mean, variance) = self.divide_by_deviation(x, &axes);
                let count = (dims.iter().product::<usize>() / dims[1]) as f64;
                let to_vector = |values: Tensor<D>| values.inner().reshape([dims[1]]);
                pass.keep_statistics(BatchStatistics {
                    mean: to_vector(mean),
                    variance: to_vector(variance) * (count / (count - 1.0)),
                });
                normalized
            }
            config::Norm::Batch => {
                let deviation = (self.running.variance.clone() + self.epsilon).sqrt();
                (x - by_unit(self.running.mean.clone())) / by_unit(deviation)
            }
        };
        normalized * by_unit(self.gamma.val()) + by_unit(self.beta.val())
    }

    /// Normalizes over the given axes; returns the mean and the variance too, with 1 for the length of these axes.
    fn divide_by_deviation<const D: usize>(&self, x: Tensor<D>, axes: &[usize]) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
        let average = |x: Tensor<D>| axes.iter().fold(x, |x, axis| x.mean_dim(*axis));
        let mean = average(x.clone());
        let centered = x - mean.clone();
        let variance = average(centered.clone().square());
        let deviation = (variance.clone() + self.epsilon).sqrt();
        (centered / deviation, mean, variance)
    }

    /// Takes the statistics of a batch into the running ones.
    pub(super) fn absorb(&mut self, batch: BatchStatistics) {
        let share = self.momentum;
        let mix = |running: Tensor<1>, new: Tensor<1>| running * (1.0 - share) + new * share;
        self.running = BatchStatistics {
            mean: mix(self.running.mean.clone(), batch.mean),
            variance: mix(self.running.variance.clone(), batch.variance),
        };
    }

    /// Whether it has running statistics.
    pub(super) fn is_batch_norm(&self) -> bool {
        self.kind == config::Norm::Batch
    }
}
