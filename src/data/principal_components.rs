//! Principal components: what a linear autoencoder can do at best (Baldi and Hornik 1989).

use nalgebra::{DMatrix, DVector, SymmetricEigen};
use rayon::prelude::*;

use super::Split;

/// The examples that one product adds to the covariance: their f64 copies stay in the cache.
const PIECE: usize = 512;

/// The mean over the test split of the squared distance |x - r|^2 between an input and its projection r on the plane through
/// the mean of the training split that its first `components` principal components span.
///
/// # Panics
///
/// If the splits do not have `features` numbers in an input.
pub fn reconstruction_error(train: &Split, test: &Split, features: usize, components: usize) -> f64 {
    let mean = mean(&train.inputs, features);
    let covariance = scatter(&train.inputs, features, &mean);
    let components = components.min(features);
    let directions = leading_directions(covariance, components);
    let examples = test.inputs.len() / features;
    let errors = test.inputs.par_chunks(features * PIECE).map(|inputs| {
        let centered = centered(inputs, features, &mean);
        // What the projection keeps and what it loses are at right angles.
        centered.norm_squared() - (directions.transpose() * centered).norm_squared()
    });
    errors.collect::<Vec<f64>>().iter().sum::<f64>().max(0.0) / examples as f64
}

fn mean(inputs: &[f32], features: usize) -> DVector<f64> {
    let mut sum = DVector::zeros(features);
    for input in inputs.chunks_exact(features) {
        for (sum, x) in sum.iter_mut().zip(input) {
            *sum += f64::from(*x);
        }
    }
    sum / (inputs.len() / features) as f64
}

/// One input a column.
fn centered(inputs: &[f32], features: usize, mean: &DVector<f64>) -> DMatrix<f64> {
    let columns = inputs.len() / features;
    let values = inputs.chunks_exact(features).flat_map(|input| input.iter().zip(mean.iter()));
    DMatrix::from_iterator(features, columns, values.map(|(x, mean)| f64::from(*x) - mean))
}

/// The sum of the outer products of all centered inputs. The pieces are added in their order: the sum does not depend on the
/// number of threads.
fn scatter(inputs: &[f32], features: usize, mean: &DVector<f64>) -> DMatrix<f64> {
    let product = |inputs: &[f32]| {
        let centered = centered(inputs, features, mean);
        &centered * centered.transpose()
    };
    let mut sum = DMatrix::zeros(features, features);
    let at_a_time = rayon::current_num_threads() * features * PIECE;
    for pieces in inputs.chunks(at_a_time) {
        let products: Vec<DMatrix<f64>> = pieces.par_chunks(features * PIECE).map(product).collect();
        for product in products {
            sum += product;
        }
    }
    sum
}

/// The eigenvectors of the largest eigenvalues, one a column.
fn leading_directions(scatter: DMatrix<f64>, components: usize) -> DMatrix<f64> {
    let eigen = SymmetricEigen::new(scatter);
    let mut order: Vec<usize> = (0..eigen.eigenvalues.len()).collect();
    order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]));
    eigen.eigenvectors.select_columns(&order[..components])
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::data::Answers;
    use crate::seed;

    /// Points near a plane: two large directions and a small third one, around a mean.
    fn points(examples: usize, purpose: &str) -> Split {
        let mut stream = seed::stream(1, purpose);
        let mut inputs = Vec::new();
        for _ in 0..examples {
            let [a, b, c] = [0; 3].map(|_| stream.random::<f32>() - 0.5);
            inputs.extend([5.0 + 3.0 * a, 2.0 + 2.0 * (b + a), 1.0 + 0.1 * c]);
        }
        Split { inputs, answers: Answers::None(examples) }
    }

    #[test]
    fn the_error_is_the_variance_of_the_directions_that_are_left_out() {
        let (train, test) = (points(20_000, "train"), points(20_000, "test"));
        let error = |components| reconstruction_error(&train, &test, 3, components);
        // Uniform numbers of width 1 have variance 1/12. The first two have the covariance 9 6, 6 8 (times 1/12).
        let small = (17.0 - 145.0_f64.sqrt()) / 24.0;
        let third = 0.01 / 12.0;
        for (components, expected) in [(0, 17.0 / 12.0 + third), (1, small + third), (2, third)] {
            let found = error(components);
            assert!((found / expected - 1.0).abs() < 0.03, "{components}: {found}, expected {expected}");
        }
        assert!(error(3) < 1e-9 && error(4) < 1e-9);
    }

    #[test]
    fn a_direction_that_only_the_test_split_has_is_lost() {
        let split = |inputs: Vec<f32>| Split { answers: Answers::None(inputs.len() / 2), inputs };
        let train = split(vec![-1.0, 0.0, 1.0, 0.0]);
        let test = split(vec![3.0, 2.0]);
        assert!((reconstruction_error(&train, &test, 2, 1) - 4.0).abs() < 1e-12);
    }
}
