//! Summaries of each seed's part of networks that lie one below the other.

use burn::tensor::Tensor;

use crate::kernel::Reading;
use crate::network::Stacked;

/// Summarizes the part of each seed by itself. A tensor's reading holds the numbers of the first seed, then those of the second:
/// as many of each.
pub fn summarize<T: Stacked>(
    tensors: Vec<T>,
    seeds: usize,
    summarize: impl FnOnce(Vec<T>) -> Vec<Reading>,
) -> Vec<Reading> {
    if seeds == 1 {
        return summarize(tensors);
    }
    let parts = tensors.iter().flat_map(|tensor| (0..seeds).map(|place| tensor.part(seeds, place)));
    summarize(parts.collect()).chunks(seeds).map(joined).collect()
}

/// The numbers of one of the seeds.
pub fn part(numbers: &[f64], seeds: usize, place: usize) -> Vec<f64> {
    let count = numbers.len() / seeds;
    numbers[place * count..(place + 1) * count].to_vec()
}

/// The readings of all seeds as one.
fn joined(readings: &[Reading]) -> Reading {
    let mut numbers = Vec::new();
    let mut tensors = Vec::new();
    for reading in readings {
        match reading {
            Reading::Host(values) => numbers.extend_from_slice(values),
            Reading::Device(tensor) => tensors.push(tensor.clone()),
        }
    }
    // A backend has the fused form of a summary or has it not: readings of both kinds do not meet.
    if tensors.is_empty() { Reading::Host(numbers) } else { Reading::Device(Tensor::cat(tensors, 0)) }
}
