//! Gradient clipping, on the device and without waiting for it. `weight_clipping` bounds the parameters instead.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};

use super::loss::sums;
use super::norms::Norms;
use crate::config::Clipping;
use crate::kernel::{Norm, Reading};
use crate::probe::clip::Measurement;

/// What gradients are clipped to.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// How they are clipped.
    pub clipping: Clipping,
    /// The largest element or norm that passes; an infinite one clips nothing.
    pub threshold: f64,
    /// The seeds whose gradients these are, each of which is clipped by itself.
    pub seeds: usize,
}

impl Limit {
    /// Whether the parameters' gradients are not all multiplied by the same number.
    pub fn changes_elements(self) -> bool {
        matches!(self.clipping, Clipping::TensorNorm | Clipping::Value)
    }
}

/// Gradients that are clipped when they are multiplied by the factor of each seed.
#[derive(Debug)]
pub struct ClippedLater {
    /// The gradients.
    pub gradients: GradientsParams,
    /// The factor of each seed.
    pub factors: Vec<f64>,
    /// What clipping did, as in [`clip`].
    pub measurement: Option<Measurement>,
}

/// Like [`clip`], but for what the update can do on its way: gradients as one vector are not multiplied here.
pub fn clip_later<M: Module>(module: &M, gradients: GradientsParams, limit: Limit, is_measured: bool) -> ClippedLater {
    let ones = vec![1.0; limit.seeds];
    if limit.clipping != Clipping::GlobalNorm {
        let (gradients, measurement) = clip(module, gradients, limit, is_measured);
        return ClippedLater { gradients, factors: ones, measurement };
    }
    let (factor, measurement) = global_factor(module, &gradients, limit);
    let (gradients, factors) = match factor {
        Factor::Host(factors) => (gradients, factors.into_iter().map(effective).collect()),
        on_device => (map(module, gradients, |_| on_device.clone()), ones),
    };
    ClippedLater { gradients, factors, measurement: Some(measurement) }
}

/// A factor, or 1 where it would save nothing.
fn effective(factor: f64) -> f64 {
    if factor.is_finite() { factor } else { 1.0 }
}

/// Clips the gradients of a module. The measurement is there if clipping needs it itself or if `is_measured` asks for it.
pub fn clip<M: Module>(
    module: &M,
    gradients: GradientsParams,
    limit: Limit,
    is_measured: bool,
) -> (GradientsParams, Option<Measurement>) {
    match limit.clipping {
        Clipping::None => (gradients, None),
        Clipping::GlobalNorm => {
            let (gradients, measurement) = by_global_norm(module, gradients, limit);
            (gradients, Some(measurement))
        }
        Clipping::TensorNorm => by_tensor_norm(module, gradients, limit, is_measured),
        Clipping::Value => by_value(module, gradients, limit, is_measured),
    }
}

/// All gradients, as one vector, to a norm of at most the threshold, which keeps its direction (Pascanu et al. 2013,
/// algorithm 1).
fn by_global_norm<M: Module>(module: &M, gradients: GradientsParams, limit: Limit) -> (GradientsParams, Measurement) {
    let (factor, measurement) = global_factor(module, &gradients, limit);
    (map(module, gradients, |_| factor.clone()), measurement)
}

/// What all gradients are multiplied by, and what was measured for it.
fn global_factor<M: Module>(module: &M, gradients: &GradientsParams, limit: Limit) -> (Factor, Measurement) {
    let norms = Norms::of(&flattened(module, gradients), limit.seeds);
    let factor = factor_of(&norms, limit.threshold);
    let coefficient = factor.reading();
    (factor, Measurement::Global { norm: norms.into_reading(), coefficient })
}

/// Each gradient to a norm of at most the threshold. Burn's own `GradientClipping::Norm` does the same, but for norms above
/// 1.8e19, whose squares overflow: there it returns zeros.
fn by_tensor_norm<M: Module>(
    module: &M,
    gradients: GradientsParams,
    Limit { threshold, seeds, .. }: Limit,
    is_measured: bool,
) -> (GradientsParams, Option<Measurement>) {
    let flat = flattened(module, &gradients);
    let element_counts: Vec<usize> = flat.iter().map(|gradient| gradient.dims()[0] / seeds).collect();
    let norms: Vec<Norms> = flat.into_iter().map(|gradient| Norms::of(&[gradient], seeds)).collect();
    let factors: Vec<Factor> = norms.iter().map(|norms| factor_of(norms, threshold)).collect();
    let gradients = map(module, gradients, |place| factors[place].clone());
    let measurement = is_measured.then(|| Measurement::Tensors {
        norms: norms.into_iter().map(Norms::into_reading).collect(),
        element_counts,
        threshold,
    });
    (gradients, measurement)
}

/// Each element to at most the threshold. What is not a number stays so.
fn by_value<M: Module>(
    module: &M,
    gradients: GradientsParams,
    Limit { threshold, seeds, .. }: Limit,
    is_measured: bool,
) -> (GradientsParams, Option<Measurement>) {
    let before = is_measured.then(|| flattened(module, &gradients));
    let gradients = map(module, gradients, |_| Factor::Bound(threshold));
    let measurement = before.map(|before| {
        let is_above = |gradient: &Tensor<1>| gradient.clone().abs().greater_elem(threshold).float();
        let counts = before.iter().map(|gradient| sums(is_above(gradient), seeds));
        let clipped_count = counts.reduce(|sum, count| sum + count);
        Measurement::Elements {
            element_count: before.iter().map(|gradient| gradient.dims()[0] / seeds).sum(),
            before: Norms::of(&before, seeds).into_reading(),
            after: Norms::of(&flattened(module, &gradients), seeds).into_reading(),
            clipped_count: clipped_count.map_or_else(|| Reading::Host(vec![0.0; seeds]), Reading::from),
        }
    });
    (gradients, measurement)
}

/// What is done to a gradient.
#[derive(Clone)]
enum Factor {
    /// The part of each seed is multiplied by a number that is known.
    Host(Vec<f64>),
    /// The part of each seed is multiplied by a number on the device, `[seeds]`.
    Device(Tensor<1>),
    /// Each element is bounded by this.
    Bound(f64),
}

impl Factor {
    fn reading(&self) -> Reading {
        match self {
            Self::Host(factors) => Reading::Host(factors.clone()),
            Self::Bound(bound) => Reading::Host(vec![*bound]),
            Self::Device(factors) => factors.clone().into(),
        }
    }

    fn apply<const D: usize>(self, gradient: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Host(factors) if factors.iter().all(|factor| effective(*factor) == 1.0) => gradient,
            Self::Host(factors) if factors.len() == 1 => gradient * factors[0],
            Self::Host(factors) => {
                let (count, factors) = (factors.len(), factors.into_iter().map(|x| effective(x) as f32).collect());
                let factors = Tensor::from_data(TensorData::new::<f32, _>(factors, [count]), &gradient.device());
                scaled(gradient, factors)
            }
            Self::Device(factors) => scaled(gradient, factors),
            Self::Bound(threshold) => bounded(gradient, threshold),
        }
    }
}

/// The part of each seed times its factor.
fn scaled<const D: usize>(gradient: Tensor<D>, factors: Tensor<1>) -> Tensor<D> {
    let (seeds, dims) = (factors.dims()[0], gradient.dims());
    if seeds == 1 {
        return gradient * factors.unsqueeze();
    }
    let by_seed: Tensor<2> = gradient.reshape([seeds as i64, -1]);
    (by_seed * factors.reshape([seeds, 1])).reshape(dims)
}

/// Each element between `-threshold` and `threshold`. What is not a number stays so.
pub(super) fn bounded<const D: usize>(x: Tensor<D>, threshold: f64) -> Tensor<D> {
    let (above, below) = (x.clone().greater_elem(threshold), x.clone().lower_elem(-threshold));
    x.mask_fill(above, threshold).mask_fill(below, -threshold)
}

/// `min(1, threshold / norm)` of each seed.
fn factor_of(norms: &Norms, threshold: f64) -> Factor {
    match norms {
        Norms::Host(norms) => {
            let factor = |norm: &Norm| {
                let l2 = norm.max_abs * norm.scaled_square_sum.sqrt();
                if l2 > threshold {
                    threshold / l2
                } else if l2.is_nan() {
                    f64::NAN
                } else {
                    1.0
                }
            };
            Factor::Host(norms.iter().map(factor).collect())
        }
        Norms::Device { max_abs, scaled_square_sum } => {
            let relative = scaled_square_sum.clone().sqrt();
            // The norm itself may be too large for f32, the quotient is not.
            let quotient = max_abs.ones_like() * threshold / max_abs.clone() / relative;
            Factor::Device(quotient.clamp_max(1.0))
        }
    }
}

/// The gradients as vectors, in the order of the module.
fn flattened<M: Module>(module: &M, gradients: &GradientsParams) -> Vec<Tensor<1>> {
    struct Flatten<'a> {
        gradients: &'a GradientsParams,
        found: Vec<Tensor<1>>,
    }
    impl ModuleVisitor for Flatten<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.extend(self.gradients.get::<D>(param.id).map(|gradient| gradient.reshape([-1])));
        }
    }
    let mut visitor = Flatten { gradients, found: Vec::new() };
    module.visit(&mut visitor);
    visitor.found
}

/// Applies to each gradient the factor of its place in the order of the module.
fn map<M: Module>(module: &M, gradients: GradientsParams, factor: impl Fn(usize) -> Factor) -> GradientsParams {
    struct Map<F> {
        gradients: GradientsParams,
        factor: F,
        place: usize,
    }
    impl<F: Fn(usize) -> Factor> ModuleVisitor for Map<F> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.gradients.remove::<D>(param.id) {
                let factor = (self.factor)(self.place);
                self.gradients.register::<D>(param.id, factor.apply(gradient));
                self.place += 1;
            }
        }
    }
    let mut visitor = Map { gradients, factor, place: 0 };
    module.visit(&mut visitor);
    visitor.gradients
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::grad_clipping::GradientClippingConfig;
    use burn::tensor::Device;

    use super::*;
    use crate::kernel;

    /// Two parameters with given gradients.
    #[derive(Module, Debug)]
    struct Pair {
        first: Param<Tensor<1>>,
        second: Param<Tensor<1>>,
    }

    fn vector(values: &[f32]) -> Tensor<1> {
        Tensor::from_floats(values, &Device::flex())
    }

    fn pair(first: &[f32], second: &[f32]) -> (Pair, GradientsParams) {
        let tracked = Device::flex().autodiff();
        let param = |values: &[f32]| Param::from_data(vector(values).into_data(), &tracked);
        let pair = Pair { first: param(first), second: param(second) };
        let mut gradients = GradientsParams::new();
        gradients.register::<1>(pair.first.id, vector(first));
        gradients.register::<1>(pair.second.id, vector(second));
        (pair, gradients)
    }

    fn clipped(clipping: Clipping, threshold: f64, first: &[f32], second: &[f32]) -> (Vec<f64>, Measurement) {
        let (pair, gradients) = pair(first, second);
        let limit = Limit { clipping, threshold, seeds: 1 };
        let (gradients, measurement) = clip(&pair, gradients, limit, true);
        let both = flattened(&pair, &gradients);
        (Tensor::cat(both, 0).into_data().iter::<f64>().collect(), measurement.expect("measured"))
    }

    fn l2(values: &[f64]) -> f64 {
        values.iter().fold(0.0, |norm, x| norm.hypot(*x))
    }

    #[test]
    fn global_norm_clips_to_the_threshold_and_keeps_the_ratio_of_layers() {
        for (size, threshold) in [(1.0_f32, 2.5), (1.0, 0.01), (1e25, 3.0), (1e-25, 1e-30)] {
            let (first, second) = ([3.0 * size, 0.0], [0.0, -4.0 * size, 0.0]);
            let (after, _) = clipped(Clipping::GlobalNorm, threshold, &first, &second);
            assert!((l2(&after) / threshold - 1.0).abs() < 1e-6, "{size:e}: {after:?}");
            assert!((after[0] / after[3] + 0.75).abs() < 1e-6, "{after:?}");
        }
    }

    #[test]
    fn the_factor_on_the_device_is_that_of_the_host() {
        for (values, threshold) in
            [([3.0_f32, -4.0], 2.5), ([3.0, 4.0], 7.0), ([1e25, 0.0], 3.0), ([0.0, 0.0], 1.0), ([1e37, 1e37], 1.0)]
        {
            let host = kernel::global_norm(&[vector(&values)]).into();
            let device = kernel::stock_global_norm(&[vector(&values)]).into();
            let (Factor::Host(host), Factor::Device(device)) =
                (factor_of(&host, threshold), factor_of(&device, threshold))
            else {
                panic!("one of each kind");
            };
            let device = f64::from(device.into_scalar::<f32>());
            assert!((host[0] - device).abs() <= 1e-6 * host[0], "{values:?}: {host:?}, on the device {device}");
        }
    }

    #[test]
    fn gradients_below_the_threshold_are_left_alone() {
        for clipping in [Clipping::GlobalNorm, Clipping::TensorNorm, Clipping::Value] {
            let (after, _) = clipped(clipping, 5.1, &[3.0], &[-4.0]);
            assert_eq!(after, [3.0, -4.0], "{clipping:?}");
        }
    }

    #[test]
    fn tensor_norm_clips_each_parameter_by_itself_as_burn_does() {
        let (first, second) = ([3.0_f32, 4.0], [0.3_f32, 0.4]);
        let (after, _) = clipped(Clipping::TensorNorm, 1.0, &first, &second);
        let burn = GradientClippingConfig::Norm(1.0).init();
        let expected = [&first, &second].map(|values| burn.clip_gradient(vector(values)).into_data());
        let expected = expected.iter().flat_map(|data| data.iter::<f64>());
        for (after, expected) in after.iter().zip(expected) {
            assert!((after - expected).abs() < 1e-6, "{after}, by Burn {expected}");
        }
        // Where Burn's sum of squares overflows, the direction is kept.
        let (after, _) = clipped(Clipping::TensorNorm, 1.0, &[3e25, 4e25], &[1.0]);
        assert!((after[0] - 0.6).abs() < 1e-6 && (after[1] - 0.8).abs() < 1e-6, "{after:?}");
    }

    #[test]
    fn value_bounds_every_element_and_hides_nothing() {
        let (after, _) = clipped(Clipping::Value, 0.5, &[3.0, 0.2], &[-4.0, f32::NEG_INFINITY]);
        let expected = [0.5_f32, 0.2, -0.5, -0.5].map(f64::from);
        assert_eq!(after, expected);
        let (after, _) = clipped(Clipping::Value, 0.5, &[f32::NAN], &[1.0]);
        assert!(after[0].is_nan());
    }

    #[test]
    fn a_gradient_that_is_not_finite_is_not_made_so() {
        for clipping in [Clipping::GlobalNorm, Clipping::TensorNorm] {
            let (after, _) = clipped(clipping, 1.0, &[f32::INFINITY], &[1.0]);
            assert!(!after[0].is_finite(), "{clipping:?}: {after:?}");
        }
    }

    /// Of two seeds with three gradients each, of which the second's are small.
    #[test]
    fn each_seed_is_clipped_as_if_it_were_alone() {
        let (first, second) = ([3.0_f32, 1.0, 0.1, 0.2], [4.0_f32, 0.3]);
        for clipping in [Clipping::GlobalNorm, Clipping::TensorNorm, Clipping::Value] {
            let (pair, gradients) = pair(&first, &second);
            let limit = Limit { clipping, threshold: 2.0, seeds: 2 };
            let (gradients, _) = clip(&pair, gradients, limit, true);
            let together: Vec<Vec<f64>> =
                flattened(&pair, &gradients).into_iter().map(|x| x.into_data().iter::<f64>().collect()).collect();
            for seed in 0..2 {
                let (alone, _) = clipped(clipping, 2.0, &first[2 * seed..][..2], &second[seed..][..1]);
                let part = [&together[0][2 * seed..][..2], &together[1][seed..][..1]].concat();
                for (found, expected) in part.iter().zip(&alone) {
                    assert!((found - expected).abs() <= 1e-6, "{clipping:?}: {part:?}, alone {alone:?}");
                }
            }
        }
    }
}
