//! Mini-batches that are cut on the device.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::seq::SliceRandom;

use super::{Batch, DeviceSplit, Targets, Task};
use crate::seed;

/// An endless sequence of mini-batches, shuffled or drawn anew in every epoch.
///
/// An epoch gathers the whole split on the device in a new order; only the order, four bytes an example, is
/// copied from the host, once an epoch. A task's examples are drawn on the host, and copied once an epoch. Every batch has
/// the same size: fewer examples than a batch that are left over at the end of an epoch are not used in it, and the next
/// order is drawn anew.
#[derive(Clone, Debug)]
pub struct Batches {
    source: Source,
    /// An epoch and its examples.
    current: Option<(usize, DeviceSplit)>,
    batch_size: usize,
    seed: u64,
    next: usize,
}

#[derive(Clone, Debug)]
enum Source {
    Split(DeviceSplit),
    Task { task: Task, targets: Targets, device: Device },
}

impl Batches {
    /// Batches of `batch_size` examples, which must be from 1 to the number of examples.
    pub fn new(split: DeviceSplit, batch_size: usize, seed: u64) -> Self {
        debug_assert!((1..=split.len()).contains(&batch_size));
        Self { source: Source::Split(split), current: None, batch_size, seed, next: 0 }
    }

    /// Batches of `batch_size` examples, from 1 to an epoch's, of a task. The first epoch is drawn now, so that the time of
    /// the first step does not contain it.
    pub fn drawn(task: Task, targets: Targets, batch_size: usize, seed: u64, device: &Device) -> Self {
        debug_assert!((1..=task.examples()).contains(&batch_size));
        let source = Source::Task { task, targets, device: device.clone() };
        let mut batches = Self { source, current: None, batch_size, seed, next: 0 };
        batches.current = Some((0, batches.epoch(0)));
        batches
    }

    /// Steps in an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        let examples = match &self.source {
            Source::Split(split) => split.len(),
            Source::Task { task, .. } => task.examples(),
        };
        examples / self.batch_size
    }

    /// The batch of the next step.
    pub fn next_batch(&mut self) -> Batch {
        let place = self.next % self.steps_per_epoch();
        let epoch = self.next / self.steps_per_epoch();
        self.next += 1;
        match &self.source {
            // Full-batch gradient descent: the order of the examples does not matter.
            Source::Split(split) if self.batch_size == split.len() => return split.batch(),
            _ => {}
        }
        let examples = match self.current.take() {
            Some((of, examples)) if of == epoch => examples,
            _ => self.epoch(epoch),
        };
        let batch = examples.slice(place * self.batch_size..(place + 1) * self.batch_size);
        self.current = Some((epoch, examples));
        batch
    }

    /// The examples of an epoch, in its order.
    fn epoch(&self, epoch: usize) -> DeviceSplit {
        match &self.source {
            Source::Split(split) => split.reorder(self.order(epoch, split)),
            Source::Task { task, targets, device } => {
                DeviceSplit::new(&task.epoch(self.seed, epoch), task.features(), targets, device)
            }
        }
    }

    fn order(&self, epoch: usize, split: &DeviceSplit) -> Tensor<1, Int> {
        let mut order: Vec<i32> = (0..split.len() as i32).collect();
        order.shuffle(&mut seed::stream(self.seed, &format!("batches.{epoch}")));
        let length = order.len();
        Tensor::from_data(TensorData::new(order, [length]), &split.inputs.device())
    }
}
