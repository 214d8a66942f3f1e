//! Several layers at once.
//!
//! Of small layers a node each of Burn's graph costs more than what they compute, and whoever computes them in pieces waits for the
//! others after every piece. Between two batch norms no example depends on another one: the fused form for flex (`flex_stages`)
//! takes some rows through all of these layers on one thread, forward and backward, and is one node of the graph (`flex_node`).
//!
//! The stock form is one operation a stage.

use std::sync::{Arc, OnceLock};

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;

use super::dense::{DenseForm, DenseParameters, Elementwise, dense, stock_elementwise};
#[cfg(feature = "flex")]
use super::flex_node;
use super::layer::{Activated, NormAxis, NormForm, Normalized, normalize};
use super::summary::FlatParts;
use crate::config::Kernels;

/// The most parameters that the stages of one node have: Burn's graph keeps the parents of a node in an array.
pub const MOST_PARAMETERS: usize = 254;

/// Layers of more units are better off by themselves, where each thread computes some columns for all examples.
pub const MOST_UNITS: usize = 128;

/// What happens to the output of the stage before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// `phi(x W + b)`. The parameters are the weights, and the bias and the slope if there are any.
    Dense {
        /// phi
        function: Elementwise,
        /// Whether there is a bias.
        has_bias: bool,
        /// Whether there is a learned slope.
        has_slope: bool,
    },
    /// `phi(gamma (x - mean) / sqrt(variance + epsilon) + beta)`. The parameters are gamma and beta.
    Norm {
        /// What the moments are taken over.
        axis: NormAxis,
        /// What is added to the variance.
        epsilon: f64,
        /// phi
        function: Option<Activated>,
    },
    /// `phi(shortcut + scale x)`, without parameters.
    Sum {
        /// What is added.
        shortcut: Shortcut,
        /// The factor.
        scale: f64,
        /// phi, which has no learned slope.
        function: Elementwise,
    },
}

/// Where a shortcut begins. Shortcuts do not overlap: it is not before the sum of the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortcut {
    /// There is none.
    None,
    /// At the input of the first stage.
    Input,
    /// At the output of a stage, by its number.
    Output(usize),
}

/// What is measured of stages on the way, where that costs least.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// The stages whose outputs are activations.
    pub activations: Vec<usize>,
    /// Where activations are flat.
    pub flat: FlatParts,
}

/// What was found of the deltas of dense stages, the gradients with respect to their `x W + b`, once the backward pass has been there.
#[derive(Clone, Debug, Default)]
pub struct FoundDeltas(pub(super) Arc<OnceLock<Vec<f64>>>);

impl FoundDeltas {
    /// Of a dense stage, by its number among the dense ones, and each of so many seeds: the four numbers of a
    /// [`DeltaSummary`](super::DeltaSummary).
    pub fn of(&self, dense: usize, seeds: usize) -> Option<&[f64]> {
        self.0.get()?.chunks_exact(4 * seeds).nth(dense)
    }
}

/// What stages leave, of which there is at least one.
#[derive(Clone, Debug)]
pub struct StagesLeft {
    /// Each of them.
    pub stages: Vec<StageLeft>,
    /// What the backward pass finds of deltas, if that is watched.
    pub deltas: FoundDeltas,
}

/// What a stage leaves.
#[derive(Clone, Debug)]
pub struct StageLeft {
    /// Its output, `[seeds x batch, units]`. In the graph is that of the last stage, and none of the others in the fused form.
    pub output: Tensor<2>,
    /// Of batch norm, the mean and the variance of the batch, `[seeds, units]`, outside the graph.
    pub moments: Option<[Tensor<2>; 2]>,
    /// If it is watched: the four numbers of an [`ActivationSummary`](super::ActivationSummary) for each seed.
    pub activation: Option<Vec<f64>>,
}

/// Stages and their parameters, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Stages {
    stages: Vec<Stage>,
    parameters: Vec<FloatTensor<Dispatch>>,
}

impl Stages {
    /// Adds [`Stage::Dense`].
    ///
    /// # Shapes
    ///
    /// - weight: `[seeds x inputs, units]`, bias: `[seeds x units]`, slope: `[seeds]`
    pub fn dense(&mut self, parameters: DenseParameters, function: Elementwise) {
        let DenseParameters { weight, bias, slope } = parameters;
        self.stages.push(Stage::Dense { function, has_bias: bias.is_some(), has_slope: slope.is_some() });
        self.parameters.push(weight.into_dispatch());
        self.parameters.extend([bias, slope].into_iter().flatten().map(Tensor::into_dispatch));
    }

    /// Adds [`Stage::Norm`].
    ///
    /// # Shapes
    ///
    /// - gamma, beta: `[seeds x units]`
    pub fn norm(
        &mut self,
        axis: NormAxis,
        (gamma, beta): (Tensor<1>, Tensor<1>),
        epsilon: f64,
        function: Option<Activated>,
    ) {
        self.stages.push(Stage::Norm { axis, epsilon, function });
        self.parameters.extend([gamma.into_dispatch(), beta.into_dispatch()]);
    }

    /// Adds [`Stage::Sum`].
    pub fn sum(&mut self, shortcut: Shortcut, scale: f64, function: Elementwise) {
        self.stages.push(Stage::Sum { shortcut, scale, function });
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// The stage that was added last, by its number.
    pub fn last(&self) -> Option<usize> {
        self.stages.len().checked_sub(1)
    }

    /// A shortcut that begins behind the stage that was added last.
    pub fn here(&self) -> Shortcut {
        self.last().map_or(Shortcut::Input, Shortcut::Output)
    }

    /// The number of parameters, at most [`MOST_PARAMETERS`].
    pub fn parameters(&self) -> usize {
        self.parameters.len()
    }

    /// What the stages leave. In the fused form activations and deltas are watched, if they are to be.
    ///
    /// # Shapes
    ///
    /// - x: `[seeds x batch, inputs]`
    ///
    /// # Panics
    ///
    /// If there are more than [`MOST_PARAMETERS`] parameters.
    pub fn run(self, x: &Tensor<2>, watch: Option<&Watch>, seeds: usize, kernels: Kernels) -> StagesLeft {
        #[cfg(feature = "flex")]
        if kernels == Kernels::Fused {
            let form = super::flex_stages::StagesForm { stages: self.stages.clone(), seeds };
            if let Some(left) = flex_node::run(x.clone(), &self.parameters, watch, form) {
                return left;
            }
        }
        let _ = (watch, kernels);
        StagesLeft { stages: self.stock(x, seeds), deltas: FoundDeltas::default() }
    }

    fn stock(self, x: &Tensor<2>, seeds: usize) -> Vec<StageLeft> {
        let kernels = Kernels::Stock;
        let mut parameters = self.parameters.into_iter();
        let mut outputs: Vec<Tensor<2>> = Vec::with_capacity(self.stages.len());
        let mut left = Vec::with_capacity(self.stages.len());
        for stage in self.stages {
            let input = outputs.last().unwrap_or(x).clone();
            let mut vector =
                |is_there: bool| if is_there { parameters.next().map(Tensor::<1>::from_dispatch) } else { None };
            let mut moments = None;
            let output = match stage {
                Stage::Dense { function, has_bias, has_slope } => {
                    let weight = vector(true).map(|weight| Tensor::<2>::from_dispatch(weight.into_dispatch()));
                    let (bias, slope) = (vector(has_bias), vector(has_slope));
                    let Some(weight) = weight else {
                        break;
                    };
                    let form = DenseForm { function, seeds, kernels };
                    dense(input, DenseParameters { weight, bias, slope }, None, form)
                }
                Stage::Norm { axis, epsilon, function } => {
                    let Some((gamma, beta)) = vector(true).zip(vector(true)) else {
                        break;
                    };
                    let form = NormForm { epsilon, function, seeds, kernels };
                    let Normalized { output, mean, variance } = normalize(input, gamma, beta, vec![axis.place()], form);
                    moments = (axis == NormAxis::Batch).then_some([mean, variance]);
                    output
                }
                Stage::Sum { shortcut, scale, function } => {
                    let scaled = if scale == 1.0 { input } else { input * scale };
                    let z = match shortcut {
                        Shortcut::None => scaled,
                        Shortcut::Input => x.clone() + scaled,
                        Shortcut::Output(from) => outputs[from].clone() + scaled,
                    };
                    let form = DenseForm { function, seeds, kernels };
                    Tensor::from_dispatch(stock_elementwise::<Dispatch>(z.into_dispatch(), None, form))
                }
            };
            left.push(StageLeft { output: output.clone(), moments, activation: None });
            outputs.push(output);
        }
        left
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{DType, Device, Gradients, TensorData};

    use super::*;
    use crate::kernel::dense::tests::FUNCTIONS;
    use crate::kernel::{Reading, activation_summaries, delta_summaries};

    /// A stage with its sizes.
    #[derive(Clone, Copy, Debug)]
    enum Part {
        Dense(usize, Elementwise),
        NoBias(usize, Elementwise),
        Norm(NormAxis, Option<Activated>),
        Sum(Shortcut, f64, Elementwise),
    }

    use Part::{Dense, NoBias, Norm, Sum};

    const RELU: Elementwise = Elementwise::Relu;
    const BATCH: NormAxis = NormAxis::Batch;
    const UNITS: NormAxis = NormAxis::Units;

    /// Every kind of stage behind every other one.
    fn networks() -> Vec<Vec<Part>> {
        let identity = Elementwise::Identity;
        let after = |function: Elementwise| {
            let of_sum = if function == Elementwise::Prelu { identity } else { function };
            vec![Dense(17, function), Sum(Shortcut::None, 1.0, of_sum), NoBias(9, function)]
        };
        let mut networks: Vec<Vec<Part>> = FUNCTIONS.map(after).to_vec();
        networks.extend([
            vec![Norm(BATCH, None)],
            vec![Sum(Shortcut::Input, 0.7, RELU)],
            vec![
                Dense(33, identity),
                Norm(BATCH, Some(Activated::Tanh)),
                Dense(65, identity),
                Norm(BATCH, None),
                Sum(Shortcut::None, 1.0, Elementwise::Gelu),
            ],
            // Blocks before whose sum there is a normalization, whose sum is activated, and one of two layers.
            vec![
                Dense(20, identity),
                Norm(BATCH, Some(Activated::Relu)),
                Dense(20, identity),
                Sum(Shortcut::Output(0), 0.3, identity),
                Norm(BATCH, Some(Activated::Sigmoid)),
                Dense(20, identity),
                Sum(Shortcut::Output(3), 1.0, identity),
                Norm(BATCH, Some(Activated::Relu)),
                Dense(3, identity),
            ],
            // Layer norm by itself, on both sides of batch norm and behind an activation function; within a block and at its end.
            vec![Norm(UNITS, Some(Activated::Tanh))],
            vec![
                Dense(33, identity),
                Norm(UNITS, Some(Activated::Relu)),
                Dense(65, identity),
                Norm(BATCH, None),
                Norm(UNITS, None),
                Dense(5, RELU),
                Norm(UNITS, Some(Activated::Sigmoid)),
            ],
            vec![
                Norm(UNITS, None),
                Dense(16, RELU),
                Dense(37, identity),
                Norm(UNITS, None),
                Sum(Shortcut::Input, 0.5, RELU),
                Norm(UNITS, Some(Activated::Relu)),
                Dense(37, identity),
                Sum(Shortcut::Output(4), 1.0, identity),
            ],
            vec![
                Norm(BATCH, None),
                Dense(13, RELU),
                Dense(37, Elementwise::Tanh),
                Sum(Shortcut::Input, 2.0, RELU),
                Dense(37, identity),
                Norm(BATCH, None),
                Sum(Shortcut::Output(3), 1.0, RELU),
            ],
        ]);
        networks
    }

    /// Numbers without a pattern, none of which is 0, where a function has a kink.
    fn tensor<const D: usize>(seed: usize, shape: [usize; D], scale: f64, device: &Device, dtype: DType) -> Tensor<D> {
        let number = |i: usize| scale * ((((i + seed) * 7919 + seed * seed) % 1013) as f64 / 500.3 - 1.0);
        let numbers: Vec<f64> = (0..shape.iter().product()).map(number).collect();
        Tensor::from_data(TensorData::new(numbers, shape), (device, dtype))
    }

    /// Stages with their leaves, of so many seeds.
    struct Case {
        /// The input, and the parameters in their order, vectors as one row.
        leaves: Vec<Tensor<2>>,
        gradient: Tensor<2>,
        parts: Vec<Part>,
        seeds: usize,
    }

    impl Case {
        fn new(parts: Vec<Part>, seeds: usize, [batch, inputs]: [usize; 2], dtype: DType) -> Self {
            let device = Device::flex().autodiff();
            let draw = |place: usize, dims: [usize; 2], scale: f64| tensor(place, dims, scale, &device, dtype);
            let mut leaves = vec![draw(1, [seeds * batch, inputs], 1.0)];
            let mut units = inputs;
            for part in &parts {
                match *part {
                    Dense(wide, function) | NoBias(wide, function) => {
                        let scale = 2.0 / (units as f64).sqrt();
                        leaves.push(draw(leaves.len() + 1, [seeds * units, wide], scale));
                        units = wide;
                        if matches!(part, Dense(..)) {
                            leaves.push(draw(leaves.len() + 1, [1, seeds * units], 0.5));
                        }
                        if function == Elementwise::Prelu {
                            leaves.push(draw(leaves.len() + 1, [1, seeds], 0.3));
                        }
                    }
                    Norm(..) => {
                        leaves.push(draw(leaves.len() + 1, [1, seeds * units], 0.2) + 1.0);
                        leaves.push(draw(leaves.len() + 1, [1, seeds * units], 0.5));
                    }
                    Sum(..) => {}
                }
            }
            let gradient = draw(leaves.len() + 1, [seeds * batch, units], 1.0);
            let leaves = leaves.into_iter().map(|leaf| leaf.detach().require_grad()).collect();
            Self { leaves, gradient, parts, seeds }
        }

        fn run(&self, kernels: Kernels) -> Vec<StageLeft> {
            self.watched(None, kernels).stages
        }

        fn watched(&self, watch: Option<&Watch>, kernels: Kernels) -> StagesLeft {
            let mut parameters = self.leaves.iter().skip(1).cloned();
            let mut stages = Stages::default();
            for part in &self.parts {
                let mut matrix = || parameters.next().expect("a parameter");
                match *part {
                    Dense(_, function) | NoBias(_, function) => {
                        let weight = matrix();
                        let mut vector = |is_there: bool| is_there.then(|| matrix().reshape([-1]));
                        let bias = vector(matches!(part, Dense(..)));
                        let slope = vector(function == Elementwise::Prelu);
                        stages.dense(DenseParameters { weight, bias, slope }, function);
                    }
                    Norm(axis, function) => {
                        let vectors = (matrix().reshape([-1]), matrix().reshape([-1]));
                        stages.norm(axis, vectors, 1e-3, function);
                    }
                    Sum(shortcut, scale, function) => stages.sum(shortcut, scale, function),
                }
            }
            stages.run(&self.leaves[0], watch, self.seeds, kernels)
        }

        /// The sum of the products of the output and a gradient.
        fn cost(&self, left: &[StageLeft]) -> Tensor<1> {
            (left.last().expect("a stage").output.clone() * self.gradient.clone()).sum()
        }

        fn gradients(&self, gradients: &Gradients) -> Vec<TensorData> {
            self.leaves.iter().map(|leaf| leaf.grad(gradients).expect("a gradient").into_data()).collect()
        }
    }

    #[track_caller]
    fn assert_close(fused: &TensorData, stock: &TensorData, (tolerance, least): (f64, f64), what: &str) {
        assert_eq!(fused.shape(), stock.shape(), "{what}");
        let scale = stock.iter::<f64>().fold(least, |largest, x| largest.max(x.abs()));
        for (a, b) in fused.iter::<f64>().zip(stock.iter::<f64>()) {
            assert!((a - b).abs() <= tolerance * scale, "{what}: {a} and {b} of {scale}");
        }
    }

    fn compare(dtype: DType, tolerance: f64) {
        for (parts, seeds) in networks().into_iter().flat_map(|parts| [(parts.clone(), 1), (parts, 3)]) {
            for dims in [[5, 37], [64, 20], [130, 37]] {
                // An identity shortcut needs as many units as there are inputs.
                let starts_at_input = parts.iter().any(|part| matches!(part, Sum(Shortcut::Input, ..)));
                let dims = if starts_at_input { [dims[0], 37] } else { dims };
                let case = Case::new(parts.clone(), seeds, dims, dtype);
                let what = format!("{seeds} x {dims:?}, {:?}, {dtype:?}", case.parts);
                let fused = case.run(Kernels::Fused);
                let stock = case.run(Kernels::Stock);
                assert_eq!((fused.len(), stock.len()), (case.parts.len(), case.parts.len()));
                // In the fused form the graph has the last output alone.
                let in_graph: Vec<bool> = fused.iter().map(|left| left.output.is_autodiff()).collect();
                assert!(in_graph.iter().rev().skip(1).all(|is_in| !is_in), "{what}");
                for (number, (fused, stock)) in fused.iter().zip(&stock).enumerate() {
                    let what = format!("stage {number}, {what}");
                    assert_close(&fused.output.to_data(), &stock.output.to_data(), (tolerance, 0.0), &what);
                    assert_eq!(fused.moments.is_some(), stock.moments.is_some(), "{what}");
                    for (fused, stock) in fused.moments.iter().flatten().zip(stock.moments.iter().flatten()) {
                        assert_close(&fused.to_data(), &stock.to_data(), (tolerance, 1.0), &what);
                    }
                }
                let found = case.gradients(&case.cost(&fused).backward());
                let expected = case.gradients(&case.cost(&stock).backward());
                for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    // The gradient of a bias before batch norm is 0 but for rounding.
                    assert_close(found, expected, (tolerance, 10.0), &format!("gradient {number}, {what}"));
                }
            }
        }
    }

    #[test]
    fn fused_and_stock_stages_agree_in_both_precisions() {
        compare(DType::F32, 1e-5);
        compare(DType::F64, 1e-12);
    }

    #[test]
    fn every_backward_pass_is_that_of_finite_differences() {
        const STEP: f64 = 1e-6;
        for (parts, seeds) in networks().into_iter().flat_map(|parts| [(parts.clone(), 1), (parts, 2)]) {
            let mut case = Case::new(parts, seeds, [5, 37], DType::F64);
            let what = format!("{seeds}, {:?}", case.parts);
            let found = case.gradients(&case.cost(&case.run(Kernels::Fused)).backward());
            let value = |case: &Case| case.cost(&case.run(Kernels::Fused)).into_scalar::<f64>();
            // Along one direction in the space of each leaf, which no element escapes.
            for (number, found) in found.iter().enumerate() {
                let leaf = case.leaves[number].clone().detach();
                let direction = tensor(number + 50, leaf.dims(), 1.0, &leaf.device(), DType::F64);
                let mut at = |by: f64| {
                    case.leaves[number] = leaf.clone() + direction.clone() * by;
                    value(&case)
                };
                let expected = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                case.leaves[number] = leaf;
                let direction = direction.into_data();
                let slope: f64 = found.iter::<f64>().zip(direction.iter::<f64>()).map(|(a, b)| a * b).sum();
                let error = (slope - expected).abs();
                assert!(error <= 1e-5 * expected.abs().max(1.0), "leaf {number}: {slope}, {expected}; {what}");
            }
        }
    }

    /// Against single operations, whose activations and deltas are measured as tensors.
    #[test]
    fn activations_and_deltas_that_are_watched_are_those_of_single_layers() {
        const SEEDS: usize = 2;
        let parts = vec![Dense(20, Elementwise::Tanh), Dense(12, RELU), NoBias(7, Elementwise::Gelu)];
        let case = Case::new(parts, SEEDS, [70, 30], DType::F32);
        let flat = FlatParts { low: -0.5, high: 0.9 };
        let watch = Watch { activations: vec![0, 1, 2], flat };
        let StagesLeft { stages, deltas } = case.watched(Some(&watch), Kernels::Fused);
        assert!(deltas.of(0, SEEDS).is_none(), "before the backward pass");
        case.cost(&stages).backward();

        let (mut x, mut outputs, mut leaves) = (case.leaves[0].clone(), Vec::new(), Vec::new());
        let mut parameters = case.leaves.iter().skip(1).cloned();
        for (function, has_bias) in [(Elementwise::Tanh, true), (RELU, true), (Elementwise::Gelu, false)] {
            let leaf = Tensor::<2>::zeros([1, 1], &x.device()).require_grad();
            let weight = parameters.next().expect("weights");
            let bias = if has_bias { parameters.next().map(|bias| bias.reshape([-1])) } else { None };
            let parameters = DenseParameters { weight, bias, slope: None };
            x = dense(x, parameters, Some(leaf.clone()), DenseForm { function, seeds: SEEDS, kernels: Kernels::Fused });
            outputs.push(x.clone().inner());
            leaves.push(leaf);
        }
        let gradients = (x * case.gradient.clone()).sum().backward();
        let found: Vec<Tensor<2>> = leaves.iter().map(|leaf| leaf.grad(&gradients).expect("a delta")).collect();
        let expected = |reading: Reading| match reading {
            Reading::Host(numbers) => numbers,
            _ => panic!("measured on the host"),
        };
        let of_activations = expected(activation_summaries(outputs, SEEDS, flat));
        let of_deltas = expected(delta_summaries(found, SEEDS));
        let expected = of_activations.chunks_exact(4 * SEEDS).zip(of_deltas.chunks_exact(4 * SEEDS));
        for (layer, (stage, (of_activation, of_delta))) in stages.iter().zip(expected).enumerate() {
            let activation = stage.activation.as_ref().expect("is watched");
            let delta = deltas.of(layer, SEEDS).expect("the backward pass has been there");
            let pairs = activation.iter().zip(of_activation);
            for (found, expected) in pairs.chain(delta.iter().zip(of_delta)) {
                assert!((found - expected).abs() <= 1e-6 * expected.abs(), "layer {layer}: {found} and {expected}");
            }
        }
    }

    #[test]
    fn what_the_fused_form_does_not_have_is_done_by_the_stock_form() {
        let identity = Elementwise::Identity;
        // Shortcuts that overlap, and a factor without a shortcut.
        let overlapping = vec![
            Dense(8, RELU),
            Dense(8, RELU),
            Sum(Shortcut::Output(0), 1.0, identity),
            Sum(Shortcut::Output(0), 1.0, identity),
        ];
        for parts in [overlapping, vec![Dense(8, RELU), Sum(Shortcut::None, 0.5, RELU), Dense(4, RELU)]] {
            let case = Case::new(parts, 1, [40, 8], DType::F64);
            let of = |kernels| {
                let left = case.run(kernels);
                let gradients = case.gradients(&case.cost(&left).backward());
                (left.last().expect("a stage").output.to_data(), gradients)
            };
            assert_eq!(of(Kernels::Fused), of(Kernels::Stock));
        }
    }

    #[test]
    fn gradients_at_the_end_of_the_range_keep_their_digits() {
        let parts = vec![Dense(48, Elementwise::Sigmoid), Dense(32, Elementwise::Sigmoid)];
        let mut case = Case::new(parts, 1, [100, 20], DType::F32);
        let found = |case: &Case| case.gradients(&case.cost(&case.run(Kernels::Fused)).backward());
        let ordinary = found(&case);
        // The smallest number is 2^-149.
        case.gradient = case.gradient * 2.0_f32.powi(-110);
        for (ordinary, tiny) in ordinary.iter().zip(&found(&case)) {
            for (a, b) in ordinary.iter::<f64>().zip(tiny.iter::<f64>()) {
                let error = (b * 2.0_f64.powi(110) - a).abs();
                assert!(error <= 1e-6 * a.abs() + 1024.0 * 2.0_f64.powi(-39), "{a} and {b:e}");
            }
        }
    }

    #[test]
    fn a_long_row_of_stages_is_one_node_and_a_longer_one_is_refused() {
        let deep = |layers: usize| {
            let parts = vec![Dense(4, Elementwise::Tanh); layers];
            let case = Case::new(parts, 1, [8, 4], DType::F32);
            case.gradients(&case.cost(&case.run(Kernels::Fused)).backward()).len()
        };
        assert_eq!(deep(MOST_PARAMETERS / 2), MOST_PARAMETERS + 1);
        let refused = std::panic::catch_unwind(|| deep(MOST_PARAMETERS / 2 + 1));
        assert!(refused.is_err());
    }
}
