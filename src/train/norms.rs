//! The norm of all gradients as one vector, of each seed.

use burn::tensor::{Tensor, s};

use crate::kernel::{self, GlobalNorm, Norm, Reading, norms_from_reading};

/// The norm of each of several seeds; not a number where an element is not finite.
#[derive(Clone, Debug)]
pub(super) enum Norms {
    /// Known on the host.
    Host(Vec<Norm>),
    /// On the device, as the two numbers of a [`Norm`].
    Device {
        /// `[seeds]`
        max_abs: Tensor<1>,
        /// `[seeds]`
        scaled_square_sum: Tensor<1>,
    },
}

impl From<GlobalNorm> for Norms {
    fn from(norm: GlobalNorm) -> Self {
        match norm {
            GlobalNorm::Host(norm) => Self::Host(vec![norm]),
            GlobalNorm::Device(norm) => Self::on_device(&norm.reshape([1, 2])),
        }
    }
}

impl Norms {
    /// The norms of gradients that hold the elements of the first seed, then as many of the second. Nothing waits for the device.
    pub(super) fn of(gradients: &[Tensor<1>], seeds: usize) -> Self {
        if seeds == 1 {
            return kernel::global_norm(gradients).into();
        }
        let blocks: Vec<Tensor<2>> =
            gradients.iter().map(|gradient| gradient.clone().reshape([seeds as i64, -1])).collect();
        let on_host: Option<Vec<Vec<Norm>>> = blocks
            .iter()
            .map(|blocks| kernel::host_block_norms(blocks, seeds).map(|values| norms_from_reading(&values)))
            .collect();
        if let Some(norms) = on_host {
            let of_seed = |seed: usize| norms.iter().map(move |norms| norms[seed]);
            return Self::Host((0..seeds).map(|seed| of_all(of_seed(seed))).collect());
        }
        if let Some(norms) = kernel::gpu_norms(gradients, seeds) {
            return Self::on_device(&norms);
        }
        let norms = |blocks| kernel::stock_block_norms(blocks, seeds).reshape([seeds, 2]);
        of_all_on_device(&blocks.into_iter().map(norms).collect::<Vec<_>>(), seeds)
    }

    /// From `[seeds, 2]`.
    fn on_device(norms: &Tensor<2>) -> Self {
        let seeds = norms.dims()[0];
        let column = |place: usize| norms.clone().slice(s![.., place..place + 1]).reshape([seeds]);
        Self::Device { max_abs: column(0), scaled_square_sum: column(1) }
    }

    /// To be read as the two numbers of a [`Norm`] for each seed.
    pub(super) fn into_reading(self) -> Reading {
        match self {
            Self::Host(norms) => {
                Reading::Host(norms.iter().flat_map(|norm| [norm.max_abs, norm.scaled_square_sum]).collect())
            }
            Self::Device { max_abs, scaled_square_sum } => {
                let pairs: Tensor<2> = Tensor::stack(vec![max_abs, scaled_square_sum], 1);
                pairs.reshape([-1]).into()
            }
        }
    }
}

/// The norm of vectors as one, from that of each.
fn of_all(norms: impl Iterator<Item = Norm> + Clone) -> Norm {
    let max_abs = norms.clone().map(|norm| norm.max_abs).fold(0.0, f64::max);
    let divisor = if max_abs > 0.0 { max_abs } else { 1.0 };
    let relative = |norm: Norm| norm.scaled_square_sum * (norm.max_abs / divisor).powi(2);
    Norm { max_abs, scaled_square_sum: norms.map(relative).sum() }
}

/// The same for each seed, from `[seeds, 2]` for each vector.
fn of_all_on_device(norms: &[Tensor<2>], seeds: usize) -> Norms {
    let column = |place: usize| {
        let columns = norms.iter().map(|norms| norms.clone().slice([0..seeds, place..place + 1]));
        Tensor::<2>::cat(columns.collect(), 1)
    };
    let (largest, sums) = (column(0), column(1));
    let max_abs = largest.clone().max_dim(1);
    let divisor = max_abs.clone().mask_fill(max_abs.clone().equal_elem(0.0), 1.0);
    let relative = (sums * (largest / divisor).square()).sum_dim(1);
    Norms::Device { max_abs: max_abs.reshape([seeds]), scaled_square_sum: relative.reshape([seeds]) }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn vector(values: &[f32]) -> Tensor<1> {
        Tensor::from_floats(values, &Device::flex())
    }

    fn read(norms: Norms) -> Vec<Option<f64>> {
        let values = match norms.into_reading() {
            Reading::Host(values) => values,
            Reading::Device(tensors) => {
                tensors.into_iter().flat_map(|tensor| tensor.into_data().iter::<f64>().collect::<Vec<f64>>()).collect()
            }
            Reading::Pieces(..) => panic!("read as the two numbers of a norm"),
        };
        norms_from_reading(&values).into_iter().map(Norm::l2).collect()
    }

    #[test]
    fn the_norm_of_a_seed_is_that_of_its_part_of_every_vector() {
        for size in [1e-30_f32, 1.0, 1e30] {
            // Of the first seed 3, 0 and 4, of the second zeros, of the third 5, 12 and 0.
            let vectors = [[3.0, 0.0, 0.0, 0.0, 5.0, 12.0].map(|x| x * size).to_vec(), vec![4.0 * size, 0.0, 0.0]];
            let vectors = vectors.map(|values| vector(&values));
            let on_device = vectors.iter().map(|vector| {
                let x: Tensor<2> = vector.clone().reshape([3, -1]);
                let max_abs = x.clone().abs().max_dim(1);
                let divisor = max_abs.clone().mask_fill(max_abs.clone().equal_elem(0.0), 1.0);
                Tensor::cat(vec![max_abs, (x / divisor).square().sum_dim(1)], 1)
            });
            for norms in [Norms::of(&vectors, 3), of_all_on_device(&on_device.collect::<Vec<_>>(), 3)] {
                for (found, expected) in read(norms).into_iter().zip([5.0, 0.0, 13.0]) {
                    let (found, expected) = (found.expect("finite"), expected * f64::from(size));
                    assert!((found - expected).abs() <= 1e-6 * expected, "{found:e}, expected {expected:e}");
                }
            }
        }
    }

    #[test]
    fn an_element_that_is_not_finite_spoils_the_norm_of_its_seed_alone() {
        let vectors = [vector(&[f32::INFINITY, 3.0]), vector(&[1.0, 4.0])];
        assert_eq!(read(Norms::of(&vectors, 2)), [None, Some(5.0)]);
    }
}
