//! Mini-batches that are cut on the device.

use burn::tensor::{Device, Int, Tensor, TensorData, s};
use rand::seq::SliceRandom;

use super::{Batch, DeviceSplit, Targets, Task};
use crate::seed;

/// An endless sequence of mini-batches, shuffled or drawn anew in every epoch.
///
/// An epoch gathers the whole split on the device in a new order; only the order, four bytes an example, is
/// copied from the host, once an epoch. A task's examples are drawn on the host, and copied once an epoch. Every batch has
/// the same size: fewer examples than a batch that are left over at the end of an epoch are not used in it, and the next
/// order is drawn anew.
///
/// Several seeds share the examples, and each has them in the order that it has alone: a batch is that of the first seed, then
/// that of the second. Their epochs would take as many times the memory of the split; what is copied at once are their orders.
#[derive(Clone, Debug)]
pub struct Batches {
    source: Source,
    /// An epoch and its examples.
    current: Option<(usize, Epoch)>,
    /// Where a batch is the whole split: that, as often as there are seeds.
    whole: Option<DeviceSplit>,
    batch_size: usize,
    seeds: Vec<u64>,
    next: usize,
}

#[derive(Clone, Debug)]
enum Epoch {
    /// The examples in the order of the epoch.
    Examples(DeviceSplit),
    /// The examples, and their places in the order in which the batches have them.
    Places(DeviceSplit, Tensor<1, Int>),
}

#[derive(Clone, Debug)]
enum Source {
    Split(DeviceSplit),
    Task { task: Task, targets: Targets, device: Device },
}

impl Batches {
    /// Batches of `batch_size` examples, which must be from 1 to the number of examples.
    pub fn new(split: DeviceSplit, batch_size: usize, seed: u64) -> Self {
        Self::of_seeds(split, batch_size, vec![seed])
    }

    /// Batches of `batch_size` examples for each of several seeds.
    pub fn of_seeds(split: DeviceSplit, batch_size: usize, seeds: Vec<u64>) -> Self {
        debug_assert!((1..=split.len()).contains(&batch_size) && !seeds.is_empty());
        Self { source: Source::Split(split), current: None, whole: None, batch_size, seeds, next: 0 }
    }

    /// Batches of `batch_size` examples, from 1 to an epoch's, of a task. The first epoch is drawn now, so that the time of
    /// the first step does not contain it.
    pub fn drawn(task: Task, targets: Targets, batch_size: usize, seed: u64, device: &Device) -> Self {
        debug_assert!((1..=task.examples()).contains(&batch_size));
        let source = Source::Task { task, targets, device: device.clone() };
        let mut batches = Self { source, current: None, whole: None, batch_size, seeds: vec![seed], next: 0 };
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
            Source::Split(split) if self.batch_size == split.len() => {
                return self.whole.get_or_insert_with(|| repeated(split, self.seeds.len())).batch();
            }
            _ => {}
        }
        let current = match self.current.take() {
            Some((of, current)) if of == epoch => current,
            _ => self.epoch(epoch),
        };
        let count = self.seeds.len() * self.batch_size;
        let range = place * count..(place + 1) * count;
        let batch = match &current {
            Epoch::Examples(examples) => examples.slice(range),
            Epoch::Places(split, places) => split.reorder(places.clone().slice(s![range])).batch(),
        };
        self.current = Some((epoch, current));
        batch
    }

    /// What the batches of an epoch are cut from.
    fn epoch(&self, epoch: usize) -> Epoch {
        match &self.source {
            Source::Split(split) if self.seeds.len() > 1 => {
                Epoch::Places(split.clone(), on_device(self.places(epoch, split.len()), split))
            }
            Source::Split(split) => {
                Epoch::Examples(split.reorder(on_device(order(self.seeds[0], epoch, split.len()), split)))
            }
            Source::Task { task, targets, device } => {
                let examples = task.epoch(self.seeds[0], epoch);
                Epoch::Examples(DeviceSplit::new(&examples, task.features(), targets, device))
            }
        }
    }

    /// The examples of each step of an epoch: a batch of the first seed, one of the second and so on.
    fn places(&self, epoch: usize, examples: usize) -> Vec<i32> {
        let orders: Vec<Vec<i32>> = self.seeds.iter().map(|seed| order(*seed, epoch, examples)).collect();
        let step = |step: usize| step * self.batch_size..(step + 1) * self.batch_size;
        let steps = (0..examples / self.batch_size).map(step);
        steps.flat_map(|step| orders.iter().flat_map(move |order| &order[step.clone()])).copied().collect()
    }
}

/// The order that a seed has the examples in.
fn order(seed: u64, epoch: usize, examples: usize) -> Vec<i32> {
    let mut order: Vec<i32> = (0..examples as i32).collect();
    order.shuffle(&mut seed::stream(seed, &format!("batches.{epoch}")));
    order
}

/// The examples as often as there are seeds.
fn repeated(split: &DeviceSplit, times: usize) -> DeviceSplit {
    if times == 1 {
        return split.clone();
    }
    let places = (0..split.len() as i32).cycle().take(times * split.len());
    split.reorder(on_device(places.collect(), split))
}

fn on_device(places: Vec<i32>, split: &DeviceSplit) -> Tensor<1, Int> {
    let length = places.len();
    Tensor::from_data(TensorData::new(places, [length]), &split.inputs.device())
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::config::{DataConfig, DataSet};
    use crate::data::tests::{config, load, sequences};

    fn numbers(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().convert::<f32>().try_to_vec().expect("numbers")
    }

    fn drawn(seed: u64) -> (Task, Batches) {
        let mut config = sequences(DataSet::Adding, 5, None);
        config.data.examples = Some(10);
        let task = Task::of(&config).expect("a task");
        let targets = Targets::Answers { classes: 0, judged: 1 };
        (task, Batches::drawn(task, targets, 4, seed, &Device::flex()))
    }

    #[test]
    fn batches_of_a_split_are_its_examples_in_the_order_of_the_epoch() {
        let data = load(&config(DataConfig::default()), 1);
        let targets = Targets::Answers { classes: 10, judged: 1 };
        let split = DeviceSplit::new(&data.train, 64, &targets, &Device::flex());
        let mut batches = Batches::new(split, 500, 3);
        assert_eq!(batches.steps_per_epoch(), 2);
        for epoch in 0..3 {
            let mut order: Vec<usize> = (0..1437).collect();
            order.shuffle(&mut seed::stream(3, &format!("batches.{epoch}")));
            for batch in order.chunks_exact(500) {
                let expected: Vec<f32> =
                    batch.iter().flat_map(|example| data.train.inputs[64 * example..][..64].to_vec()).collect();
                assert_eq!(numbers(batches.next_batch().inputs), expected, "epoch {epoch}");
            }
        }
    }

    #[test]
    fn batches_of_a_task_are_the_examples_of_each_epoch_in_their_order() {
        let (task, mut batches) = drawn(3);
        assert_eq!(batches.steps_per_epoch(), 2);
        for epoch in 0..3 {
            let examples = task.epoch(3, epoch);
            // Two are left over.
            for inputs in examples.inputs.chunks_exact(4 * 10).take(2) {
                assert_eq!(numbers(batches.next_batch().inputs), inputs, "epoch {epoch}");
            }
        }
    }

    #[test]
    fn a_copy_goes_on_with_the_same_batches_and_another_seed_has_others() {
        let (_, mut batches) = drawn(3);
        for _ in 0..3 {
            batches.next_batch();
        }
        let mut copy = batches.clone();
        for _ in 0..4 {
            assert_eq!(numbers(batches.next_batch().inputs), numbers(copy.next_batch().inputs));
        }
        assert_ne!(numbers(drawn(3).1.next_batch().inputs), numbers(drawn(4).1.next_batch().inputs));
    }

    #[test]
    fn a_batch_of_a_whole_epoch_of_a_task_is_drawn_anew_in_every_step() {
        let (task, _) = drawn(3);
        let targets = Targets::Answers { classes: 0, judged: 1 };
        let mut batches = Batches::drawn(task, targets, 10, 3, &Device::flex());
        let (first, second) = (batches.next_batch(), batches.next_batch());
        assert_eq!(numbers(first.inputs), task.epoch(3, 0).inputs);
        assert_eq!(numbers(second.inputs), task.epoch(3, 1).inputs);
    }
}
