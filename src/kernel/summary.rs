//! One pass over a tensor that leaves a handful of numbers.
//!
//! Norms are right for elements from 1e-38 to 1e38, though a sum of squares of f32 overflows above 1.8e19 and vanishes below
//! 1e-23. The stock form divides the elements by the largest one first; the fused forms have other means (`squares`, `cube`). A norm is
//! finished in f64 on the host.

use burn::tensor::{Int, Tensor, TensorData, s};

use super::Pieces;

/// Numbers that a device owes. On the CPU they are there at once; elsewhere they stay on the device, so that one
/// transfer can bring many. Those of several tensors come one after the other, of each as many.
#[derive(Clone, Debug)]
pub enum Reading {
    /// Already on the host.
    Host(Vec<f64>),
    /// Vectors on the device, one after the other.
    Device(Vec<Tensor<1>>),
    /// Sums over pieces of tensors on the device, `[tensors, seeds, pieces, numbers]`, which [`Pieces::merged`] makes summaries of.
    Pieces(Pieces, Tensor<4>),
}

impl Default for Reading {
    fn default() -> Self {
        Self::Host(Vec::new())
    }
}

impl From<Tensor<1>> for Reading {
    fn from(tensor: Tensor<1>) -> Self {
        Self::Device(vec![tensor])
    }
}

/// The Euclidean norm of a vector as its largest absolute element and the sum of squares relative to that. Where squares of f32 are summed
/// up in f64, which has room for them, and nobody asks for the largest element, 1 stands in its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// The largest absolute element, or 1.
    pub max_abs: f64,
    /// The sum of (x / `max_abs`)^2; 0 for a vector of zeros.
    pub scaled_square_sum: f64,
}

impl Norm {
    /// The norm, or `None` if an element is not finite.
    pub fn l2(self) -> Option<f64> {
        let norm = self.max_abs * self.scaled_square_sum.sqrt();
        norm.is_finite().then_some(norm)
    }

    /// The root mean square of `count` elements, or `None` if one is not finite.
    pub fn rms(self, count: usize) -> Option<f64> {
        self.l2().map(|norm| norm / (count as f64).sqrt())
    }

    /// From a sum of squares in f64, which neither overflows nor vanishes for f32 elements.
    #[cfg(feature = "flex")]
    pub(super) fn of_squares(square_sum: f64) -> [f64; 2] {
        [1.0, square_sum]
    }

    /// The same with the largest absolute element.
    #[cfg(feature = "flex")]
    pub(super) fn relative_to_largest(max_abs: f32, square_sum: f64) -> [f64; 2] {
        let max_abs = f64::from(max_abs);
        let relative = if max_abs > 0.0 { square_sum / (max_abs * max_abs) } else { square_sum };
        [max_abs, relative]
    }
}

/// What is read of a gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientSummary {
    /// Its norm, over the finite elements.
    pub norm: Norm,
    /// Elements that are exactly 0.
    pub zeros: u64,
    /// Elements that are infinite or not a number.
    pub nonfinite: u64,
}

/// What is read of a parameter and its update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateSummary {
    /// The norm of the parameter before the update.
    pub weight: Norm,
    /// The norm of the difference that the update made.
    pub update: Norm,
}

/// What is read of a delta `[batch, units]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeltaSummary {
    /// The norm over all examples and units.
    pub delta: Norm,
    /// The norm of the sum over the batch.
    pub batch_sum: Norm,
}

/// What is read of the activations `[batch, units]` of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivationSummary {
    /// Mean over examples and units.
    pub mean: f64,
    /// Standard deviation over examples and units.
    pub std: f64,
    /// Fraction of the activations in the flat parts.
    pub saturated_fraction: f64,
    /// Fraction of the units that are 0 for all examples.
    pub dead_fraction: f64,
}

/// Where an activation function counts as flat: at or below `low`, and at or above `high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlatParts {
    /// Activations up to this are saturated.
    pub low: f32,
    /// Activations from this on are saturated.
    pub high: f32,
}

impl FlatParts {
    /// No activation is flat.
    pub const NOWHERE: Self = Self { low: f32::NEG_INFINITY, high: f32::INFINITY };
}

impl GradientSummary {
    /// From a reading of [`gradient_summaries`].
    pub fn from_reading(values: &[f64]) -> Self {
        let count = |high: f64, low: f64| (high * COUNT_BASE + low) as u64;
        Self {
            norm: norm(values[0], values[1]),
            zeros: count(values[2], values[3]),
            nonfinite: count(values[4], values[5]),
        }
    }
}

impl UpdateSummary {
    /// From a reading of [`update_summaries`].
    pub fn from_reading(values: &[f64]) -> Self {
        Self { weight: norm(values[0], values[1]), update: norm(values[2], values[3]) }
    }
}

impl DeltaSummary {
    /// From a reading of [`delta_summaries`].
    pub fn from_reading(values: &[f64]) -> Self {
        Self { delta: norm(values[0], values[1]), batch_sum: norm(values[2], values[3]) }
    }
}

impl ActivationSummary {
    /// From a reading of [`activation_summaries`].
    pub fn from_reading(values: &[f64]) -> Self {
        Self { mean: values[0], std: values[1], saturated_fraction: values[2], dead_fraction: values[3] }
    }
}

fn norm(max_abs: f64, scaled_square_sum: f64) -> Norm {
    Norm { max_abs, scaled_square_sum }
}

/// Summarizes gradients, of each seed; each six numbers become a [`GradientSummary`].
pub fn gradient_summaries(gradients: Vec<Tensor<1>>, seeds: usize) -> Reading {
    #[cfg(feature = "flex")]
    if let Some(reading) = fused::<_, 6>(&gradients, seeds, elements(&gradients), super::flex::gradient_summary) {
        return reading;
    }
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if let Some(pieces) = super::cube::gradient_pieces(gradients.clone(), seeds) {
        return Reading::Pieces(Pieces::Gradient, pieces);
    }
    Reading::Device(of_each_seed(gradients, seeds, stock_gradient_summary))
}

/// Summarizes parameters before and after an update, of equal lengths, of each seed; each four numbers become an [`UpdateSummary`].
pub fn update_summaries(pairs: Vec<(Tensor<1>, Tensor<1>)>, seeds: usize) -> Reading {
    #[cfg(feature = "flex")]
    if let Some(reading) = fused::<_, 4>(&pairs, seeds, usize::MAX, super::flex::update_summary) {
        return reading;
    }
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if let Some(pieces) = super::cube::update_pieces(pairs.clone(), seeds) {
        return Reading::Pieces(Pieces::Update, pieces);
    }
    let parts = |(before, after)| parts(before, seeds).zip(parts(after, seeds)).collect::<Vec<_>>();
    Reading::Device(
        pairs.into_iter().flat_map(parts).map(|(before, after)| stock_update_summary(before, after)).collect(),
    )
}

/// Summarizes deltas `[seeds x batch, units]`, of each seed; each four numbers become a [`DeltaSummary`].
pub fn delta_summaries(deltas: Vec<Tensor<2>>, seeds: usize) -> Reading {
    #[cfg(feature = "flex")]
    if let Some(reading) = fused::<_, 4>(&deltas, seeds, elements(&deltas), super::flex::delta_summary) {
        super::flex::recycle(deltas);
        return reading;
    }
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if let Some(pieces) = super::cube::delta_pieces(deltas.clone(), seeds) {
        return Reading::Pieces(Pieces::Delta, pieces);
    }
    Reading::Device(of_each_seed(deltas, seeds, stock_delta_summary))
}

/// Summarizes activations `[seeds x batch, units]`, of each seed; each four numbers become an [`ActivationSummary`].
pub fn activation_summaries(activations: Vec<Tensor<2>>, seeds: usize, flat: FlatParts) -> Reading {
    #[cfg(feature = "flex")]
    if let Some(reading) = fused::<_, 4>(&activations, seeds, elements(&activations), |activation, out| {
        super::flex::activation_summary(activation, flat, out)
    }) {
        super::flex::recycle(activations);
        return reading;
    }
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if let Some(pieces) = super::cube::activation_pieces(activations.clone(), seeds, flat) {
        return Reading::Pieces(Pieces::Activation, pieces);
    }
    Reading::Device(of_each_seed(activations, seeds, |activation| stock_activation_summary(activation, flat)))
}

/// The rows of each seed.
fn parts<const D: usize>(x: Tensor<D>, seeds: usize) -> impl Iterator<Item = Tensor<D>> {
    let rows = x.dims()[0] / seeds;
    (0..seeds).map(move |seed| if seeds == 1 { x.clone() } else { x.clone().slice(s![seed * rows..(seed + 1) * rows]) })
}

/// The summaries of the parts of each seed, tensor after tensor.
fn of_each_seed<const D: usize>(
    tensors: Vec<Tensor<D>>,
    seeds: usize,
    summarize: impl Fn(Tensor<D>) -> Tensor<1>,
) -> Vec<Tensor<1>> {
    tensors.into_iter().flat_map(|tensor| parts(tensor, seeds)).map(summarize).collect()
}

/// The norms of the blocks that a tensor `[blocks x rows, columns]` consists of; read as the two numbers of a [`Norm`] for
/// each. A norm is not finite if an element of its block is not.
pub fn block_norms(x: &Tensor<2>, blocks: usize) -> Reading {
    if let Some(norms) = host_block_norms(x, blocks) {
        return Reading::Host(norms);
    }
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if let Some(pieces) = super::cube::gradient_pieces(vec![x.clone().reshape([-1])], blocks) {
        return Reading::Pieces(Pieces::Norm, pieces);
    }
    stock_block_norms(x.clone(), blocks).into()
}

/// The same where the numbers are on the host.
pub fn host_block_norms(x: &Tensor<2>, blocks: usize) -> Option<Vec<f64>> {
    #[cfg(feature = "flex")]
    return super::flex::block_norms(x, blocks);
    #[cfg(not(feature = "flex"))]
    {
        let _ = (x, blocks);
        None
    }
}

/// The norms of a reading of [`block_norms`].
pub fn norms_from_reading(values: &[f64]) -> Vec<Norm> {
    values.chunks_exact(2).map(|pair| norm(pair[0], pair[1])).collect()
}

/// Below this a gate counts as closed, and above 1 minus this as open.
pub(super) const GATE_EDGE: f64 = 0.05;

/// How far gates `[steps x batch, columns]` are open at each time step, those whose columns begin at `places x units`.
/// Read as mean, closed fraction and open fraction of each gate at the first time step, then at the next.
pub fn gate_summary(gates: &Tensor<2>, steps: usize, units: usize, places: &[usize]) -> Reading {
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if let Some(pieces) = super::cube::gate_pieces(gates, steps, units, places) {
        return Reading::Pieces(Pieces::Gate, pieces);
    }
    stock_gate_summary(gates, steps, units, places).into()
}

/// [`gate_summary`] with the operations of any device.
pub(super) fn stock_gate_summary(gates: &Tensor<2>, steps: usize, units: usize, places: &[usize]) -> Tensor<1> {
    let [rows, columns] = gates.dims();
    let kept = columns / units;
    let by_step = gates.clone().reshape([steps, rows / steps, kept, units]);
    let mean = |x: Tensor<4>| x.mean_dim(3).mean_dim(1).reshape([steps, kept]);
    let closed = mean(by_step.clone().lower_elem(GATE_EDGE).float());
    let open = mean(by_step.clone().greater_elem(1.0 - GATE_EDGE).float());
    let all: Tensor<3> = Tensor::stack(vec![mean(by_step), closed, open], 2);
    let wanted = places.iter().map(|place| all.clone().slice([0..steps, *place..place + 1])).collect();
    Tensor::cat(wanted, 1).reshape([-1])
}

/// The norm of several vectors as one.
#[derive(Clone, Debug)]
pub enum GlobalNorm {
    /// Known on the host.
    Host(Norm),
    /// `[max, sum (x / max)^2]` on the device.
    Device(Tensor<1>),
}

impl GlobalNorm {
    /// To be read as the two numbers of a [`Norm`].
    pub fn into_reading(self) -> Reading {
        match self {
            Self::Host(norm) => Reading::Host(vec![norm.max_abs, norm.scaled_square_sum]),
            Self::Device(norm) => norm.into(),
        }
    }
}

/// The norm of all gradients as one vector, of each seed, as the two numbers of a [`Norm`], `[seeds, 2]`, on a GPU; `None` elsewhere.
/// Not a number if an element is not finite. Nothing waits for the device.
pub fn gpu_norms(gradients: &[Tensor<1>], seeds: usize) -> Option<Tensor<2>> {
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    return super::cube::gradient_pieces(gradients.to_vec(), seeds)
        .map(|pieces| super::pieces::norms_together(&pieces));
    #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
    {
        let _ = (gradients, seeds);
        None
    }
}

/// The norm of all gradients as one vector; not a number if an element is not finite. Nothing waits for the device.
pub fn global_norm(gradients: &[Tensor<1>]) -> GlobalNorm {
    #[cfg(feature = "flex")]
    if let Some(Reading::Host(summaries)) =
        fused::<_, 6>(gradients, 1, elements(gradients), super::flex::gradient_summary)
    {
        return GlobalNorm::Host(host_global_norm(&summaries));
    }
    if let Some(norm) = gpu_norms(gradients, 1) {
        return GlobalNorm::Device(norm.reshape([2]));
    }
    stock_global_norm(gradients)
}

#[cfg(feature = "flex")]
fn host_global_norm(summaries: &[f64]) -> Norm {
    let summaries: Vec<GradientSummary> = summaries.chunks_exact(6).map(GradientSummary::from_reading).collect();
    if summaries.iter().any(|summary| summary.nonfinite > 0) {
        return norm(f64::NAN, f64::NAN);
    }
    let max_abs = summaries.iter().map(|summary| summary.norm.max_abs).fold(0.0, f64::max);
    let relative = |part: &GradientSummary| part.norm.scaled_square_sum * (part.norm.max_abs / max_abs).powi(2);
    let sum = if max_abs > 0.0 { summaries.iter().map(relative).sum() } else { 0.0 };
    norm(max_abs, sum)
}

/// [`global_norm`] with the operations of any device.
pub fn stock_global_norm(gradients: &[Tensor<1>]) -> GlobalNorm {
    if let [gradient] = gradients {
        return GlobalNorm::Device(stock_norm(gradient.clone()));
    }
    let count = gradients.len();
    let parts = gradients.iter().map(|gradient| stock_norm(gradient.clone())).collect();
    let parts = Tensor::cat(parts, 0).reshape([count, 2]);
    let largest: Tensor<1> = parts.clone().slice([0..count, 0..1]).reshape([-1]);
    let sums: Tensor<1> = parts.slice([0..count, 1..2]).reshape([-1]);
    let max_abs = largest.clone().max();
    let relative = (sums * (largest / divisor(&max_abs)).square()).sum();
    GlobalNorm::Device(Tensor::cat(vec![max_abs, relative], 0))
}

/// Elements that are not worth a second thread, which may be asleep.
#[cfg(feature = "flex")]
const FEW: usize = 1 << 16;

/// The elements of all tensors.
#[cfg(feature = "flex")]
fn elements<const D: usize>(tensors: &[Tensor<D>]) -> usize {
    tensors.iter().map(|tensor| tensor.dims().iter().product::<usize>()).sum()
}

/// `None` if the tensors are of a backend without a fused form. A summary has `N` numbers for each seed. Threads take one tensor after
/// the other.
#[cfg(feature = "flex")]
fn fused<T: Sync, const N: usize>(
    inputs: &[T],
    seeds: usize,
    elements: usize,
    summarize: impl Fn(&T, &mut [f64]) -> Option<()> + Sync,
) -> Option<Reading> {
    let mut numbers = vec![0.0; inputs.len() * seeds * N];
    let mut found = vec![None; inputs.len()];
    let outputs = numbers.chunks_exact_mut(seeds * N).zip(&mut found);
    let items = inputs.iter().zip(outputs).collect();
    super::team::each_unless(elements < FEW, items, |(input, (out, found)): (&T, (&mut [f64], &mut _))| {
        *found = summarize(input, out);
    });
    found.into_iter().collect::<Option<()>>().map(|()| Reading::Host(numbers))
}

/// Counts travel as two numbers of this base, because an f32 holds whole numbers only up to 2^24.
pub(super) const COUNT_BASE: f64 = 65536.0;

fn stock_gradient_summary(gradient: Tensor<1>) -> Tensor<1> {
    let finite = gradient.clone().is_finite();
    let zeros = count(gradient.clone().equal_elem(0.0).int());
    let nonfinite = count(finite.clone().bool_not().int());
    Tensor::cat(vec![stock_norm(gradient.mask_fill(finite.bool_not(), 0.0)), zeros, nonfinite], 0)
}

fn stock_update_summary(before: Tensor<1>, after: Tensor<1>) -> Tensor<1> {
    let update = after - before.clone();
    Tensor::cat(vec![stock_norm(before), stock_norm(update)], 0)
}

fn stock_delta_summary(delta: Tensor<2>) -> Tensor<1> {
    let batch_sum = delta.clone().sum_dim(0);
    Tensor::cat(vec![stock_norm(delta), stock_norm(batch_sum)], 0)
}

fn stock_activation_summary(activation: Tensor<2>, flat: FlatParts) -> Tensor<1> {
    let mean = activation.clone().mean();
    let deviation = activation.clone() - mean.clone().unsqueeze();
    let std = deviation.square().mean().sqrt();
    let below = activation.clone().lower_equal_elem(flat.low).float().mean();
    let above = activation.clone().greater_equal_elem(flat.high).float().mean();
    let largest = activation.abs().max_dim(0);
    let dead = largest.equal_elem(0.0).float().mean();
    Tensor::cat(vec![mean, std, below + above, dead], 0)
}

/// [`block_norms`] with the operations of any device.
pub fn stock_block_norms(x: Tensor<2>, blocks: usize) -> Tensor<1> {
    let count = x.shape().num_elements() / blocks;
    let x = x.reshape([blocks, count]);
    let max_abs = x.clone().abs().max_dim(1);
    let divisor = max_abs.clone().mask_fill(max_abs.clone().equal_elem(0.0), 1.0);
    let square_sum = (x / divisor).square().sum_dim(1);
    Tensor::cat(vec![max_abs, square_sum], 1).reshape([-1])
}

/// `[max |x|, sum (x / max |x|)^2]`
fn stock_norm<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let max_abs = x.clone().abs().max();
    let square_sum = (x / divisor(&max_abs).unsqueeze()).square().sum();
    Tensor::cat(vec![max_abs, square_sum], 0)
}

/// The largest element, or 1 where all are 0.
fn divisor(max_abs: &Tensor<1>) -> Tensor<1> {
    max_abs.clone().mask_fill(max_abs.clone().equal_elem(0.0), 1.0)
}

/// The sum of zeros and ones as `[high, low]`.
fn count<const D: usize>(ones: Tensor<D, Int>) -> Tensor<1> {
    let total = ones.sum();
    let high = total.clone().div_scalar(COUNT_BASE as i32);
    let low = total - high.clone().mul_scalar(COUNT_BASE as i32);
    Tensor::cat(vec![high.float(), low.float()], 0)
}

/// The numbers of a vector that has been read, as f64.
pub fn values_of(data: &TensorData) -> Vec<f64> {
    data.iter::<f64>().collect()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn tensor(values: &[f32], columns: usize) -> Tensor<2> {
        let shape = [values.len() / columns, columns];
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    fn vector(values: &[f32]) -> Tensor<1> {
        tensor(values, values.len()).reshape([-1])
    }

    fn read(reading: Reading) -> Vec<f64> {
        match reading {
            Reading::Host(values) => values,
            Reading::Device(tensors) => tensors.into_iter().flat_map(stock).collect(),
            Reading::Pieces(kind, tensor) => kind.merged(&tensor.into_data()),
        }
    }

    fn stock(summary: Tensor<1>) -> Vec<f64> {
        values_of(&summary.into_data())
    }

    fn samples() -> Vec<f32> {
        // 67 columns and 41 rows: no multiple of any vector length.
        (0..41 * 67).map(|i| ((i * 7919) % 1013) as f32 / 100.0 - 5.0).collect()
    }

    fn assert_close(fused: &[f64], stock: &[f64]) {
        assert_eq!(fused.len(), stock.len());
        for (a, b) in fused.iter().zip(stock) {
            assert!((a - b).abs() <= 2e-6 * a.abs().max(1e-30), "{fused:?} against {stock:?}");
        }
    }

    fn norms(values: &[f64]) -> Vec<f64> {
        norms_from_reading(values).into_iter().map(|norm| norm.l2().expect("finite")).collect()
    }

    #[test]
    fn the_summaries_of_seeds_are_those_of_their_rows() {
        // Three seeds of 13 rows.
        let x = tensor(&samples()[..39 * 67], 67);
        let of_seed = |seed: usize| x.clone().slice(s![13 * seed..13 * (seed + 1)]);
        let flat = FlatParts { low: -1.0, high: 2.0 };
        let deltas = read(delta_summaries(vec![x.clone(), x.clone() * 2.0], 3));
        let activations = read(activation_summaries(vec![x.clone()], 3, flat));
        let flattened: Tensor<1> = x.clone().reshape([-1]);
        let gradients = read(gradient_summaries(vec![flattened.clone()], 3));
        let updates = read(update_summaries(vec![(flattened.clone(), flattened + 1.0)], 3));
        for seed in 0..3 {
            let x = of_seed(seed);
            let flattened: Tensor<1> = x.clone().reshape([-1]);
            assert_eq!(deltas[4 * seed..][..4], read(delta_summaries(vec![x.clone()], 1)));
            assert_eq!(deltas[12 + 4 * seed..][..4], read(delta_summaries(vec![x.clone() * 2.0], 1)));
            assert_eq!(activations[4 * seed..][..4], read(activation_summaries(vec![x], 1, flat)));
            assert_eq!(gradients[6 * seed..][..6], read(gradient_summaries(vec![flattened.clone()], 1)));
            let update = read(update_summaries(vec![(flattened.clone(), flattened + 1.0)], 1));
            assert_eq!(updates[4 * seed..][..4], update);
        }
    }

    #[test]
    fn fused_and_stock_summaries_agree() {
        let x = tensor(&samples(), 67);
        let flattened = vector(&samples());
        let moved = flattened.clone() * 0.5 + 0.25;
        let rectified = burn::tensor::activation::relu(x.clone() - 4.9);
        let flat = FlatParts { low: 0.0, high: f32::INFINITY };
        assert_close(
            &read(gradient_summaries(vec![flattened.clone()], 1)),
            &stock(stock_gradient_summary(flattened.clone())),
        );
        assert_close(
            &norms(&read(update_summaries(vec![(flattened.clone(), moved.clone())], 1))),
            &norms(&stock(stock_update_summary(flattened, moved))),
        );
        assert_close(&norms(&read(delta_summaries(vec![x.clone()], 1))), &norms(&stock(stock_delta_summary(x))));
        assert_close(
            &read(activation_summaries(vec![rectified.clone()], 1, flat)),
            &stock(stock_activation_summary(rectified, flat)),
        );
    }

    #[test]
    fn the_norm_of_several_vectors_is_that_of_all_their_elements() {
        for size in [1e-30_f32, 1.0, 1e30] {
            let vectors = || vec![vector(&[3.0 * size, 0.0]), vector(&[0.0; 3]), vector(&[-4.0 * size])];
            for norm in [global_norm(&vectors()), stock_global_norm(&vectors())] {
                let read = read(norm.into_reading());
                let l2 = Norm { max_abs: read[0], scaled_square_sum: read[1] }.l2().expect("finite");
                assert!((l2 / (5.0 * f64::from(size)) - 1.0).abs() < 1e-6, "{size:e}: {l2:e}");
            }
        }
        let vectors = || vec![vector(&[1.0, f32::INFINITY]), vector(&[1.0])];
        for norm in [global_norm(&vectors()), stock_global_norm(&vectors())] {
            let read = read(norm.into_reading());
            assert_eq!(Norm { max_abs: read[0], scaled_square_sum: read[1] }.l2(), None);
        }
    }

    #[test]
    fn a_tensor_longer_than_a_task_is_summed_whole() {
        let values: Vec<f32> = (0..100_003).map(|i| (i % 7) as f32).collect();
        let expected = values.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        let summary = GradientSummary::from_reading(&read(gradient_summaries(vec![vector(&values)], 1)));
        assert!((summary.norm.l2().expect("finite") / expected - 1.0).abs() < 1e-12);
        assert_eq!(summary.zeros, 100_003_u64.div_ceil(7));
        let after = vector(&values) + 1.0;
        let update = UpdateSummary::from_reading(&read(update_summaries(vec![(vector(&values), after)], 1)));
        assert!((update.update.l2().expect("finite") / 100_003_f64.sqrt() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn summaries_of_a_view_read_the_view_and_not_the_storage_under_it() {
        let x = tensor(&samples(), 67);
        let view = x.slice([3..9, 10..40]);
        let copy = Tensor::<2>::from_data(view.to_data(), &Device::flex());
        assert_eq!(read(delta_summaries(vec![view], 1)), read(delta_summaries(vec![copy.clone()], 1)));
        let transposed = Tensor::<2>::from_data(copy.clone().transpose().to_data(), &Device::flex());
        assert_eq!(read(delta_summaries(vec![copy.transpose()], 1)), read(delta_summaries(vec![transposed], 1)));
    }

    #[test]
    fn norms_are_right_from_1e_minus_38_to_1e38() {
        for magnitude in [1e-38_f32, 1e-30, 1e-20, 1.0, 1e20, 1e38] {
            let x = vector(&[magnitude; 12]);
            let expected = f64::from(magnitude) * 12f64.sqrt();
            for values in [read(gradient_summaries(vec![x.clone()], 1)), stock(stock_gradient_summary(x))] {
                let summary = GradientSummary::from_reading(&values);
                let norm = summary.norm.l2().expect("finite");
                assert!((norm / expected - 1.0).abs() < 1e-6, "{magnitude:e}: {norm:e}, expected {expected:e}");
                assert_eq!((summary.zeros, summary.nonfinite), (0, 0));
            }
        }
    }

    #[test]
    fn zeros_and_values_that_are_not_finite_are_counted() {
        let x = vector(&[0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3.0, 4.0, 0.0, 0.0]);
        for values in [read(gradient_summaries(vec![x.clone()], 1)), stock(stock_gradient_summary(x.clone()))] {
            let summary = GradientSummary::from_reading(&values);
            assert_eq!((summary.zeros, summary.nonfinite), (4, 3));
            assert_eq!(summary.norm.l2(), Some(5.0));
        }
        let values =
            [read(update_summaries(vec![(x.clone(), x.clone())], 1)), stock(stock_update_summary(x.clone(), x))];
        for update in values.map(|values| UpdateSummary::from_reading(&values)) {
            assert_eq!((update.weight.l2(), update.update.l2()), (None, None));
        }
    }

    /// Of networks whose layers answer nearly the same to all examples, or nearly nothing.
    #[test]
    fn the_deviation_of_activations_is_right_where_they_are_alike_and_from_1e_minus_38_to_1e38() {
        let flat = FlatParts::NOWHERE;
        for (origin, size) in [
            (0.5, 1e-5),
            (0.0, 1e-38),
            (0.0, 1e-30),
            (0.0, 1e-19),
            (1e-20, 1e-24),
            (2e-17, 1e-22),
            (1e-16, 1e-21),
            (0.0, 1e30),
            (0.0, 1e37),
        ] {
            let values: Vec<f32> = samples().into_iter().map(|x| origin + x * size).collect();
            let exact: Vec<f64> = values.iter().copied().map(f64::from).collect();
            let mean = exact.iter().sum::<f64>() / exact.len() as f64;
            let variance = exact.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / exact.len() as f64;
            let found =
                ActivationSummary::from_reading(&read(activation_summaries(vec![tensor(&values, 67)], 1, flat)));
            let close = |found: f64, expected: f64, size: f64| (found - expected).abs() < 1e-6 * size;
            assert!(close(found.mean, mean, variance.sqrt()), "{origin}, {size:e}: {} and {mean}", found.mean);
            assert!(close(found.std, variance.sqrt(), variance.sqrt()), "{origin}, {size:e}: {}", found.std);
        }
    }

    /// The first and the last example are where distances are taken from.
    #[test]
    fn activations_that_are_far_from_the_first_and_the_last_keep_their_mean_and_deviation() {
        const UNITS: usize = 16;
        let value = |i: usize| ((i * 7919) % 1013) as f32 / 1e6;
        let values: Vec<f32> =
            (0..64 * UNITS).map(|i| if (UNITS..63 * UNITS).contains(&i) { value(i) } else { 1.0 + value(i) }).collect();
        let exact: Vec<f64> = values.iter().copied().map(f64::from).collect();
        let mean = exact.iter().sum::<f64>() / exact.len() as f64;
        let std = (exact.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / exact.len() as f64).sqrt();
        let found = ActivationSummary::from_reading(&read(activation_summaries(
            vec![tensor(&values, UNITS)],
            1,
            FlatParts::NOWHERE,
        )));
        assert!((found.mean / mean - 1.0).abs() < 1e-6, "{} and {mean}", found.mean);
        assert!((found.std / std - 1.0).abs() < 1e-6, "{} and {std}", found.std);
    }

    #[test]
    fn deltas_of_few_units_and_of_a_single_long_row_are_right_to_six_digits() {
        for (rows, units) in [(4096, 1), (2000, 8), (500, 17), (1, 200_000)] {
            for size in [0.1_f32, 0.3, 2e37] {
                let found = read(delta_summaries(vec![tensor(&vec![size; rows * units], units)], 1));
                let expected = [((rows * units) as f64).sqrt(), rows as f64 * (units as f64).sqrt()];
                for (norm, expected) in norms(&found).into_iter().zip(expected.map(|x| x * f64::from(size))) {
                    assert!((norm / expected - 1.0).abs() < 1e-6, "{rows} x {units}, {size:e}: {norm:e}, {expected:e}");
                }
            }
        }
    }

    #[test]
    fn a_unit_that_is_zero_for_all_examples_is_dead() {
        let activation = tensor(&[0.0, 1.0, 0.0, 2.0, 0.0, 0.0], 2);
        let flat = FlatParts { low: 0.0, high: f32::INFINITY };
        let summary = ActivationSummary::from_reading(&read(activation_summaries(vec![activation], 1, flat)));
        assert_eq!(summary.dead_fraction, 0.5);
        assert!((summary.saturated_fraction - 4.0 / 6.0).abs() < 1e-7);
        assert!((summary.mean - 0.5).abs() < 1e-7);
    }
}
