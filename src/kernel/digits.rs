//! Products of gradients that are so small that they would lose digits.

use super::elementwise::Vectorized;
use super::pool;

/// Whether products of gradients, the largest of which this is, would lose digits.
pub fn are_tiny<T: Vectorized>(largest: T) -> bool {
    largest > T::default() && largest < T::TINY.0
}

/// Gradients as products take them: where they are tiny, multiplied by a power of two, which the products are divided by.
#[derive(Debug)]
pub struct WithDigits<'a, T: Vectorized> {
    gradients: &'a [T],
    /// Empty unless they are tiny.
    multiplied: Vec<T>,
}

impl<'a, T: Vectorized> WithDigits<'a, T> {
    /// Gradients, the largest absolute one of which is known.
    pub fn new(largest: T, gradients: &'a [T]) -> Self {
        if !are_tiny(largest) {
            return Self { gradients, multiplied: Vec::new() };
        }
        let mut multiplied = pool::take::<T>(gradients.len());
        multiplied.copy_from_slice(gradients);
        T::scale(T::TINY.1, &mut multiplied);
        Self { gradients, multiplied }
    }

    /// What products take.
    pub fn numbers(&self) -> &[T] {
        if self.multiplied.is_empty() { self.gradients } else { &self.multiplied }
    }

    /// What products become.
    pub fn settle(&self, product: &mut [T]) {
        if !self.multiplied.is_empty() {
            T::scale(T::from_f64(1.0) / T::TINY.1, product);
        }
    }
}

impl<T: Vectorized> Drop for WithDigits<'_, T> {
    fn drop(&mut self) {
        pool::give(std::mem::take(&mut self.multiplied));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tiny_is_multiplied_and_its_products_are_divided_again() {
        for (largest, is_multiplied) in [(1.0_f32, false), (1e-26, false), (1e-28, true), (1e-40, true), (0.0, false)] {
            let gradients = [largest, -largest / 2.0, 0.0];
            let digits = WithDigits::new(largest, &gradients);
            assert_eq!(digits.numbers() != gradients, is_multiplied, "{largest:e}");
            let mut product: Vec<f32> = digits.numbers().iter().map(|x| x * 1e-3).collect();
            digits.settle(&mut product);
            let expected = gradients.map(|x| (f64::from(x) * 1e-3) as f32);
            for (found, expected) in product.into_iter().zip(expected) {
                assert!(
                    (found - expected).abs() <= 1e-6 * expected.abs() + f32::from_bits(1),
                    "{found:e}, {expected:e}"
                );
            }
        }
    }
}
