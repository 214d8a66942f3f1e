//! The numbers of each of several runs that train together.

use std::slice;

/// The numbers of one of several runs, reading by reading. A reading holds those of several tensors one after the other, and of each tensor
/// as many of each run, the first run's first.
#[derive(Clone, Debug)]
pub struct Numbers<'a> {
    readings: slice::Iter<'a, Vec<f64>>,
    run: usize,
    runs: usize,
}

impl<'a> Numbers<'a> {
    /// Those of a run in what was read of several.
    pub fn of_run(readings: &'a [Vec<f64>], run: usize, runs: usize) -> Self {
        Self { readings: readings.iter(), run, runs }
    }

    /// The next reading, which is of so many tensors: the numbers of each.
    pub fn next_of(&mut self, tensors: usize) -> impl Iterator<Item = &'a [f64]> + use<'a> {
        let all = self.readings.next().map_or(&[][..], Vec::as_slice);
        let count = all.len() / (tensors * self.runs).max(1);
        all.chunks_exact(count.max(1)).skip(self.run).step_by(self.runs)
    }

    /// The next reading, which is of one tensor.
    pub fn next(&mut self) -> &'a [f64] {
        self.next_of(1).next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_its_part_of_every_tensor_of_a_reading() {
        let readings = [vec![1.0, 2.0, 3.0, 4.0], vec![5.0, 6.0], (10..22).map(f64::from).collect()];
        let mut of_second = Numbers::of_run(&readings, 1, 2);
        assert_eq!(of_second.next(), [3.0, 4.0]);
        assert_eq!(of_second.next(), [6.0]);
        let of_tensors: Vec<&[f64]> = of_second.next_of(3).collect();
        assert_eq!(of_tensors, [[12.0, 13.0], [16.0, 17.0], [20.0, 21.0]]);
        assert!(of_second.next().is_empty());
    }
}
