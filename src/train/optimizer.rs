//! The optimizers: on the CPU in one pass over each parameter (`kernel/update.rs`), elsewhere Burn's.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer, RmsPropConfig, SgdConfig};
use burn::tensor::Tensor;

use super::parameter::changed;
use crate::config::{self, Kernels, TrainingConfig};
use crate::kernel::{self, Measured, Moments, Reading, Rule, Update};
use crate::probe::gradient;

/// An optimizer, with what it remembers of each parameter. Weight decay is not its affair: `regularize` decays weights
/// alone, and Burn's `AdamW` would decay biases too.
#[derive(Clone)]
pub struct Optimizer {
    burns: ModuleOptimizer,
    /// What one pass does; nothing if the operations are to be Burn's.
    rule: Option<Rule>,
    /// Whether the parameters lie where it is one pass: known from the first update on.
    lies_on_the_cpu: Option<bool>,
    /// Of the parameters that are updated in one pass.
    moments: HashMap<ParamId, Moments>,
}

/// What was measured of the updates.
#[derive(Debug, Default)]
pub struct MeasuredUpdates {
    /// The gradients.
    pub gradients: gradient::Measurement,
    /// Of the same parameters, parameters and updates, each read as [`kernel::UpdateSummary`].
    pub updates: Reading,
}

impl Optimizer {
    /// A new optimizer.
    pub fn new(training: &TrainingConfig, kernels: Kernels) -> Self {
        let rule = (kernels == Kernels::Fused).then(|| rule(training));
        Self { burns: burns(training), rule, lies_on_the_cpu: None, moments: HashMap::new() }
    }

    /// Whether it updates the parameters of a module in one pass.
    pub fn has_one_pass<M: Module>(&mut self, module: &M) -> bool {
        self.rule.is_some() && *self.lies_on_the_cpu.get_or_insert_with(|| lies_on_the_cpu(module))
    }

    /// The module after an update.
    pub fn step<M: Module>(&mut self, rate: f64, module: M, gradients: GradientsParams) -> M {
        if self.has_one_pass(&module) {
            return self.pass(rate, module, gradients, &[1.0], false).0;
        }
        self.burns.step(rate, module, gradients)
    }

    /// The module after an update whose gradients are multiplied by a factor each seed first, and what was measured, of a module for
    /// which [`Optimizer::has_one_pass`] is true.
    pub fn pass<M: Module>(
        &mut self,
        rate: f64,
        module: M,
        gradients: GradientsParams,
        factors: &[f64],
        is_measured: bool,
    ) -> (M, MeasuredUpdates) {
        let Some(rule) = self.rule else {
            return (module, MeasuredUpdates::default());
        };
        let update = Update { rule, rate, factors, is_measured };
        let (ids, measured) = (Vec::new(), Measured::default());
        let mut pass = OnePass { gradients, moments: &mut self.moments, update, ids, measured };
        let module = module.map(&mut pass);
        let OnePass { ids, measured: Measured { gradients, updates }, .. } = pass;
        let gradients = gradient::Measurement { ids, reading: Reading::Host(gradients) };
        (module, MeasuredUpdates { gradients, updates: Reading::Host(updates) })
    }
}

/// Goes through the parameters and updates them.
struct OnePass<'a> {
    gradients: GradientsParams,
    moments: &'a mut HashMap<ParamId, Moments>,
    update: Update<'a>,
    /// The parameters that were updated.
    ids: Vec<ParamId>,
    measured: Measured,
}

impl ModuleMapper for OnePass<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let id = param.id;
        let Some(gradient) = self.gradients.remove::<D>(id) else {
            return param;
        };
        self.ids.push(id);
        let moments = self.moments.entry(id).or_default();
        let (update, measured) = (&self.update, &mut self.measured);
        changed(param, |value| match kernel::updated(value, gradient, moments, update, measured) {
            // A parameter that is not where the others are stays as it is: there is none.
            Ok(value) | Err(value) => value,
        })
    }
}

/// Whether the first parameter of a module lies where updates are one pass; the others lie there too.
fn lies_on_the_cpu<M: Module>(module: &M) -> bool {
    #[derive(Default)]
    struct First(Option<bool>);
    impl ModuleVisitor for First {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.0.is_none() {
                self.0 = Some(kernel::has_fused_forms(&param.val()));
            }
        }
    }
    let mut first = First::default();
    module.visit(&mut first);
    first.0.unwrap_or(false)
}

fn rule(training: &TrainingConfig) -> Rule {
    match training.optimizer {
        config::Optimizer::Sgd if training.momentum > 0.0 => Rule::Momentum { momentum: training.momentum },
        config::Optimizer::Sgd => Rule::Sgd,
        config::Optimizer::Adam | config::Optimizer::Adamw => {
            Rule::Adam { beta_1: training.beta_1(), beta_2: training.beta_2(), epsilon: training.epsilon() }
        }
        config::Optimizer::Rmsprop => {
            Rule::RmsProp { smoothing: training.smoothing(), momentum: training.momentum, epsilon: training.epsilon() }
        }
    }
}

fn burns(training: &TrainingConfig) -> ModuleOptimizer {
    match training.optimizer {
        config::Optimizer::Sgd => {
            let momentum = (training.momentum > 0.0).then(|| {
                // Burn's default dampens the gradient by a tenth; the textbook's momentum does not.
                MomentumConfig::new().with_momentum(training.momentum).with_dampening(0.0)
            });
            SgdConfig::new().with_momentum(momentum).init()
        }
        config::Optimizer::Adam | config::Optimizer::Adamw => AdamConfig::new()
            .with_beta_1(training.beta_1() as f32)
            .with_beta_2(training.beta_2() as f32)
            .with_epsilon(training.epsilon() as f32)
            .init(),
        // Burn's default has a momentum of .9.
        config::Optimizer::Rmsprop => RmsPropConfig::new()
            .with_alpha(training.smoothing() as f32)
            .with_momentum(training.momentum as f32)
            .with_epsilon(training.epsilon() as f32)
            .init(),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::module::{Module, Param};
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::config::TrainingLength;

    #[derive(Module, Debug)]
    struct Single {
        weight: Param<Tensor<1>>,
    }

    const GRADIENTS: [f64; 4] = [0.5, -2.0, 1.0, 0.25];

    fn descend(training: &TrainingConfig) -> f64 {
        let found = [Kernels::Fused, Kernels::Stock].map(|kernels| descend_with(training, kernels));
        assert!((found[0] - found[1]).abs() < 1e-6, "{found:?}");
        found[0]
    }

    fn descend_with(training: &TrainingConfig, kernels: Kernels) -> f64 {
        let start = TensorData::new(vec![1.0_f32], [1]);
        let mut module = Single { weight: Param::from_data(start, &Device::flex().autodiff()) };
        let mut optimizer = Optimizer::new(training, kernels);
        for gradient in GRADIENTS {
            let mut gradients = GradientsParams::new();
            gradients.register::<1>(module.weight.id, Tensor::from_floats([gradient as f32], &Device::flex()));
            module = optimizer.step(training.learning_rate(), module, gradients);
        }
        module.weight.val().into_scalar::<f32>().into()
    }

    #[track_caller]
    fn assert_close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
    }

    #[test]
    fn sgd_and_momentum_are_the_textbooks() {
        let training = TrainingConfig::sgd(0.1, TrainingLength::Steps(1));
        assert_close(descend(&training), 1.0 - 0.1 * GRADIENTS.iter().sum::<f64>());
        let (mut w, mut v) = (1.0, 0.0);
        for gradient in GRADIENTS {
            v = 0.9 * v + gradient;
            w -= 0.1 * v;
        }
        assert_close(descend(&TrainingConfig { momentum: 0.9, ..training }), w);
    }

    /// Kingma and Ba 2015, algorithm 1.
    #[test]
    fn adam_is_that_of_the_paper() {
        let sgd = TrainingConfig::sgd(0.1, TrainingLength::Steps(1));
        let training = TrainingConfig { optimizer: config::Optimizer::Adam, ..sgd };
        let (mut w, mut m, mut v) = (1.0, 0.0, 0.0);
        for (step, gradient) in (1_i32..).zip(GRADIENTS) {
            m = 0.9 * m + 0.1 * gradient;
            v = 0.999 * v + 0.001 * gradient * gradient;
            let (m_hat, v_hat): (f64, f64) = (m / (1.0 - 0.9_f64.powi(step)), v / (1.0 - 0.999_f64.powi(step)));
            w -= 0.1 * m_hat / (v_hat.sqrt() + 1e-8);
        }
        assert_close(descend(&training), w);
    }

    #[test]
    fn rmsprop_divides_by_the_root_of_the_mean_square() {
        let sgd = TrainingConfig::sgd(0.1, TrainingLength::Steps(1));
        let training = TrainingConfig { optimizer: config::Optimizer::Rmsprop, smoothing: Some(0.9), ..sgd };
        let (mut w, mut square) = (1.0, 0.0_f64);
        for gradient in GRADIENTS {
            square = 0.9 * square + 0.1 * gradient * gradient;
            w -= 0.1 * gradient / (square.sqrt() + 1e-8);
        }
        assert_close(descend(&training), w);
        let (mut w, mut square, mut v) = (1.0, 0.0_f64, 0.0);
        for gradient in GRADIENTS {
            square = 0.9 * square + 0.1 * gradient * gradient;
            v = 0.8 * v + gradient / (square.sqrt() + 1e-8);
            w -= 0.1 * v;
        }
        assert_close(descend(&TrainingConfig { momentum: 0.8, ..training }), w);
    }
}
