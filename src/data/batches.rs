//! Mini-batches that are cut on the device.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::seq::SliceRandom;

use super::Split;
use crate::seed;

/// A split whose examples lie on the device.
#[derive(Clone, Debug)]
pub struct DeviceSplit {
    /// `[examples, features]`
    pub inputs: Tensor<2>,
    /// One-hot classes, `[examples, classes]`, or what a linear probe looks at, `[examples, units]`.
    pub targets: Tensor<2>,
}

/// What belongs to the inputs of a split.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// One of so many classes.
    Classes(usize),
    /// The same vector for every example: the direction in which a linear probe looks.
    Direction(&'a [f32]),
}

impl DeviceSplit {
    /// Copies a split to the device, once.
    pub fn new(split: &Split, features: usize, targets: Targets<'_>, device: &Device) -> Self {
        let examples = split.len();
        let (targets, columns) = match targets {
            Targets::Classes(classes) => {
                let mut one_hot = vec![0.0_f32; examples * classes];
                for (row, label) in one_hot.chunks_exact_mut(classes.max(1)).zip(&split.labels) {
                    row[usize::from(*label)] = 1.0;
                }
                (one_hot, classes)
            }
            Targets::Direction(direction) => (direction.repeat(examples), direction.len()),
        };
        Self {
            inputs: Tensor::from_data(TensorData::new(split.inputs.clone(), [examples, features]), device),
            targets: Tensor::from_data(TensorData::new(targets, [examples, columns]), device),
        }
    }

    /// The number of examples.
    pub fn len(&self) -> usize {
        self.inputs.dims()[0]
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The examples of one step.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[batch, features]`
    pub inputs: Tensor<2>,
    /// As in [`DeviceSplit`].
    pub targets: Tensor<2>,
}

/// An endless sequence of mini-batches, shuffled anew in every epoch.
///
/// An epoch gathers the whole split on the device in a new order; only the order, four bytes an example, is
/// copied from the host, once an epoch. Every batch has the same size: fewer examples than a batch that are left over at
/// the end of an epoch are not used in it, and the next order is drawn anew.
#[derive(Clone, Debug)]
pub struct Batches {
    split: DeviceSplit,
    shuffled: Option<DeviceSplit>,
    batch_size: usize,
    seed: u64,
    next: usize,
}

impl Batches {
    /// Batches of `batch_size` examples, which must be from 1 to the number of examples.
    pub fn new(split: DeviceSplit, batch_size: usize, seed: u64) -> Self {
        debug_assert!((1..=split.len()).contains(&batch_size));
        Self { split, shuffled: None, batch_size, seed, next: 0 }
    }

    /// Steps in an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.split.len() / self.batch_size
    }

    /// The batch of the next step.
    pub fn next_batch(&mut self) -> Batch {
        let place = self.next % self.steps_per_epoch();
        let epoch = self.next / self.steps_per_epoch();
        self.next += 1;
        if self.batch_size == self.split.len() {
            // Full-batch gradient descent: the order of the examples does not matter.
            return Batch { inputs: self.split.inputs.clone(), targets: self.split.targets.clone() };
        }
        let shuffled = match self.shuffled.take() {
            Some(shuffled) if place > 0 => shuffled,
            _ => self.shuffle(epoch),
        };
        let rows = place * self.batch_size..(place + 1) * self.batch_size;
        let batch = Batch {
            inputs: shuffled.inputs.clone().slice([rows.clone()]),
            targets: shuffled.targets.clone().slice([rows]),
        };
        self.shuffled = Some(shuffled);
        batch
    }

    fn shuffle(&self, epoch: usize) -> DeviceSplit {
        let mut order: Vec<i32> = (0..self.split.len() as i32).collect();
        order.shuffle(&mut seed::stream(self.seed, &format!("batches.{epoch}")));
        let length = order.len();
        let order = Tensor::<1, Int>::from_data(TensorData::new(order, [length]), &self.split.inputs.device());
        DeviceSplit {
            inputs: self.split.inputs.clone().select(0, order.clone()),
            targets: self.split.targets.clone().select(0, order),
        }
    }
}
