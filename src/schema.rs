//! The vocabulary of the records: one struct a CSV file, one field a column.
//!
//! A missing value is `None`, an empty field, never 0. Units stand in the names. A *step* is one update of
//! the parameters, counted from 0, and a row of step s describes the network before update s. The *delta* of a
//! layer is the gradient of the loss with respect to its pre-activations. `layer_index` 0 is nearest to the
//! input.

use std::io;

use serde::{Deserialize, Serialize};

/// The version of the files. It changes when a column changes its name or meaning.
pub const SCHEMA_VERSION: u32 = 5;

/// A row of `gradients.csv`: one parameter at one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GradientRow {
    /// The run.
    pub run_id: String,
    /// The step, from 0.
    pub step: usize,
    /// The layer, from 0 at the input; the output layer is last.
    pub layer_index: usize,
    /// The layer's path in the network: `stem`, `hidden.3`, `end` (which has the number of the output layer), `output`.
    pub layer: String,
    /// The parameter's path: `hidden.3.weight`.
    pub parameter: String,
    /// Empty: a recurrent network has the same parameters at every time step, and the gradient is summed over them.
    pub time_step: Option<usize>,
    /// Elements of the parameter.
    pub element_count: usize,
    /// Euclidean norm of the gradient, with the penalties and before clipping; empty if an element is not finite.
    pub grad_l2: Option<f64>,
    /// Root mean square of the gradient's elements; empty if one is not finite.
    pub grad_rms: Option<f64>,
    /// Largest absolute element of the gradient; empty if one is not finite.
    pub grad_max_abs: Option<f64>,
    /// Elements of the gradient that are exactly 0.
    pub zero_count: u64,
    /// Elements of the gradient that are infinite or not a number.
    pub nonfinite_count: u64,
    /// Euclidean norm of the parameter before the update; empty if not finite.
    pub weight_l2: Option<f64>,
    /// Euclidean norm of the change that the update made, weight decay included; empty if not finite or if nothing is
    /// updated.
    pub update_l2: Option<f64>,
    /// `update_l2 / weight_l2`; empty if either is, or if the parameter is 0.
    pub update_ratio: Option<f64>,
}

/// A row of `activations.csv`: the stem or one hidden layer at one step; with `probe.inputs` also `output`, of which only the
/// gradient with respect to its input is measured: to what the last hidden layer or the last block hands on. In a
/// convolutional network every pixel of a channel is a unit. Activations are what normalization and activation function make
/// together; linear layers have none: the stem, and the first layer of a convolutional network of pre-activation blocks.
///
/// A recurrent layer has a row without time step, over all time steps, and with `probe.time_steps` one for the initial
/// state and for the state after each time step, in which only the gradients with respect to the state are filled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActivationRow {
    /// The run.
    pub run_id: String,
    /// The step, from 0.
    pub step: usize,
    /// The layer, from 0 at the input.
    pub layer_index: usize,
    /// The layer's path in the network: `hidden.3`.
    pub layer: String,
    /// Of the state of a recurrent layer, the time steps that it has seen: 0 is the initial state. Empty in rows of whole
    /// layers.
    pub time_step: Option<usize>,
    /// Euclidean norm of the delta over all examples and units, of the loss that is a mean over the batch.
    pub delta_l2: Option<f64>,
    /// What theory predicts of it at step 0, before anything is measured: the root of the mean square over seeds. Empty at later
    /// steps and where theory does not hold; the manifest has the reason.
    pub delta_l2_predicted: Option<f64>,
    /// Euclidean norm, over units, of the mean over the batch of each example's delta: the norm of the bias
    /// gradient (but for convolutions, whose biases belong to channels), Nielsen's learning speed.
    pub mean_delta_l2: Option<f64>,
    /// Euclidean norm, over examples and units, of the gradient with respect to the layer's input; empty unless
    /// `probe.inputs` asks for it.
    pub input_grad_l2: Option<f64>,
    /// Mean activation over examples and units.
    pub activation_mean: Option<f64>,
    /// Standard deviation of the activations over examples and units.
    pub activation_std: Option<f64>,
    /// Fraction of the activations in a flat part (not of an LSTM or a GRU): sigmoid outside .05 to .95, tanh outside -.9 to .9, ReLU at 0, ELU and
    /// SELU within a twentieth of their lower limit, softplus where its slope is at most .05; empty for functions without a
    /// flat part.
    pub saturated_fraction: Option<f64>,
    /// Fraction of the units that are 0 for every example of the batch, for ReLU and its relatives (leaky ReLU, PReLU, ELU,
    /// SELU, GELU); empty for other functions.
    pub dead_fraction: Option<f64>,
    /// Euclidean norm, over examples and units, of the gradient of the loss with respect to the hidden state after
    /// `time_step` time steps, with all that it reaches: later states, the layer above, the outputs. Empty in rows without
    /// time step, and if not finite.
    pub hidden_grad_l2: Option<f64>,
    /// The same of the cell state of an LSTM; empty for other cells.
    pub cell_grad_l2: Option<f64>,
}

/// A gate of a recurrent cell, whose values are sigmoids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// i of an LSTM: what enters the cell state.
    #[default]
    Input,
    /// f of an LSTM: what stays in the cell state.
    Forget,
    /// o of an LSTM: what the hidden state shows of the cell state.
    Output,
    /// r of a GRU: what the candidate sees of the old state.
    Reset,
    /// z of a GRU: what stays of the old state.
    Update,
}

/// A row of `gates.csv`: one gate of a recurrent layer at one time step of one measured step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GateRow {
    /// The run.
    pub run_id: String,
    /// The step, from 0.
    pub step: usize,
    /// The layer, from 0 at the input.
    pub layer_index: usize,
    /// The layer's path in the network: `hidden.0`.
    pub layer: String,
    /// The gate.
    pub gate: Gate,
    /// The time step, from 1, that the gate takes part in.
    pub time_step: usize,
    /// Mean of the gate's values, from 0 (closed) to 1 (open), over examples and units; empty if not finite.
    pub mean: Option<f64>,
    /// Fraction of the values below .05; empty if one is not finite.
    pub low_fraction: Option<f64>,
    /// Fraction of the values above .95; empty if one is not finite.
    pub high_fraction: Option<f64>,
}

/// A row of `units.csv`: one unit of the stem or of a hidden layer at one step; of maxout, one piece of a unit; of a recurrent
/// layer, one pre-activation of a unit, those of the first gate for all units first, summed over the time steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitRow {
    /// The run.
    pub run_id: String,
    /// The step, from 0.
    pub step: usize,
    /// The layer, from 0 at the input.
    pub layer_index: usize,
    /// The layer's path in the network: `hidden.3`.
    pub layer: String,
    /// The unit, from 0.
    pub unit: usize,
    /// The mean over the batch of each example's delta: the gradient of the unit's bias, but for convolutions. Empty if not
    /// finite.
    pub mean_delta: Option<f64>,
}

/// A row of `chain.csv`: one link of a chain of single neurons, a = phi(z), z = w a' + b. The gradient of the chain's
/// output with respect to its input is the product of the factors w phi'(z) of all links.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkRow {
    /// The run.
    pub run_id: String,
    /// The link, from 0 at the input.
    pub link: usize,
    /// w
    pub weight: f64,
    /// b
    pub bias: f64,
    /// z, in f64 on the host.
    pub pre_activation: f64,
    /// w phi'(z), in f64 on the host.
    pub factor: f64,
    /// The product of the factors from this link to the last one: the gradient of the output with respect to this link's
    /// input, in f64 on the host. Empty if it leaves f64.
    pub product: Option<f64>,
    /// The factor as the device has it: its gradient with respect to this link's input by that with respect to the next
    /// one's. Empty if not finite.
    pub factor_on_device: Option<f64>,
    /// The device's gradient of the output with respect to this link's input, in f32. Empty if not finite.
    pub product_on_device: Option<f64>,
}

/// What a row of `steps.csv` was computed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepPhase {
    /// The step's mini-batch, before the update.
    #[default]
    Train,
    /// The whole training split, after training; of a task whose examples are drawn, the first 1000 examples of the first
    /// epoch.
    TrainSplit,
    /// The whole test split, before the update of the step; the last such row is after training.
    TestSplit,
    /// The whole test split, put back together from its principal components: the best that a linear autoencoder with a code of
    /// the same size learns from the training split. One row of a run with an autoencoder, at step 0.
    PrincipalComponents,
}

/// A row of `steps.csv`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// The run.
    pub run_id: String,
    /// The updates that the network has had.
    pub step: usize,
    /// The pass over the training split, from 0.
    pub epoch: usize,
    /// What the row was computed on.
    pub phase: StepPhase,
    /// The loss, a mean over the examples, and over the time steps that have an answer, without penalties; empty if not
    /// finite.
    pub loss: Option<f64>,
    /// The penalties of `training.l1` and `training.l2`, which the gradients contain; empty without them and at steps that
    /// the probe left out.
    pub penalty: Option<f64>,
    /// The fraction of answers that are right: a class if its output is the largest, a number if it is closer than .04 to the
    /// answer. With an answer after every time step it is the mean over all of them, of `copying` over the last ten, the
    /// symbols, alone. Empty in `train` rows, and of an autoencoder.
    pub accuracy: Option<f64>,
    /// The mean over the examples of the squared distance |x - r|^2 between an input and its reconstruction; of an autoencoder,
    /// and empty in `train` rows.
    pub reconstruction_error: Option<f64>,
    /// The learning rate of the update; empty in evaluations and where nothing is updated.
    pub learning_rate: Option<f64>,
    /// Norm of all gradients as one vector, before clipping; empty at steps that the probe left out, but with
    /// `training.clipping = "global_norm"`, which needs it at every step. The same holds for the other three. Without clipping
    /// it is measured only with `probe.parameters`.
    pub grad_l2_before_clip: Option<f64>,
    /// The same after clipping; empty without clipping.
    pub grad_l2_after_clip: Option<f64>,
    /// The factor that clipping put on the gradients; empty unless they have one in common (`global_norm`).
    pub clip_coefficient: Option<f64>,
    /// The fraction of the elements that clipping changed; empty without clipping.
    pub clipped_fraction: Option<f64>,
}

/// A row of `pretraining.csv`: one hidden layer after one pass of its pretraining over the training split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PretrainingRow {
    /// The run.
    pub run_id: String,
    /// The layer, from 0 at the input.
    pub layer_index: usize,
    /// The layer's path in the network: `hidden.3`.
    pub layer: String,
    /// The passes that the layer has had: 0 is before the first.
    pub epoch: usize,
    /// The mean over the pass of the cost of an autoencoder, while it was trained; empty in epoch 0, of restricted Boltzmann
    /// machines, whose likelihood is not known, and if not finite.
    pub loss: Option<f64>,
    /// The mean over the test split of the squared distance |x - r|^2 between what the layer below hands on and its
    /// reconstruction by this layer alone, without noise and drawing; empty if not finite.
    pub reconstruction_error: Option<f64>,
}

/// What a run does with its network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunPhase {
    /// Hidden layers are trained one by one.
    Pretraining,
    /// The whole network is trained: after pretraining, its fine-tuning.
    #[default]
    Training,
}

/// A row of `phases.csv`: the time that a pass over the training split has taken, the device synchronised on both sides.
/// Evaluations are left out. In it are the measurements of the probe, at the steps that are measured. A run that trained together with
/// others (`trained_together` in its manifest) has an equal share of the time of all: the time of all divided by their number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseRow {
    /// The run.
    pub run_id: String,
    /// The phase.
    pub phase: RunPhase,
    /// The layer that is pretrained: `hidden.3`; empty in training.
    pub layer: Option<String>,
    /// The pass over the training split, from 0 for each layer and for training.
    pub epoch: usize,
    /// The updates of the network as a whole that have been made at its end.
    pub step: usize,
    /// The time of the pass in milliseconds; of training that is evaluated, else of all training.
    pub elapsed_ms: f64,
    /// The time of all passes up to its end, those of pretraining among them.
    pub total_ms: f64,
}

/// The part of a run that a timing sample belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThroughputPhase {
    /// The first steps, with allocation, shader compilation and autotuning.
    Cold,
    /// After them.
    Steady,
}

/// A row of the reference of the science gate: one quantity of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReferenceRow {
    /// The levels of the swept factors.
    pub configuration: String,
    /// The seed.
    pub seed: u64,
    /// The quantity, one of those of the science gate.
    pub quantity: String,
    /// The number of the hidden layer, from 1 at the input; empty for quantities of the whole network.
    pub layer: Option<usize>,
    /// Its value.
    pub value: Option<f64>,
}

/// What the speed of a configuration is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// The baseline as it was saved.
    #[default]
    Pinned,
    /// The last measurement that passed.
    Rolling,
    /// The other binary of a pair.
    Base,
}

/// What a gate says of a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No change beyond threshold and noise floor was confirmed.
    #[default]
    Pass,
    /// It became faster.
    Improvement,
    /// It became slower.
    Regression,
    /// An attempt shows a change, and nothing could be measured again to confirm it.
    Unconfirmed,
}

/// A row of a gate's table and of `history.csv`: the speed of one configuration beside one baseline. Ratios are those of the last
/// attempt: the time of a step now by that of the baseline, 1.1 where it takes 10 % longer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerdictRow {
    /// When it was measured, in UTC.
    pub measured_at: String,
    /// The version of gradmark that was measured.
    pub gradmark_version: String,
    /// The commit that it was built from; empty outside a git checkout.
    pub commit: Option<String>,
    /// Whether tracked files differed from the commit.
    pub dirty: Option<bool>,
    /// The version of Burn.
    pub burn_version: Option<String>,
    /// Backend and adapter.
    pub device: String,
    /// The levels of the swept factors, or the id of a benchmark.
    pub configuration: String,
    /// What it is compared with.
    pub against: Against,
    /// The median time of a step of the baseline in milliseconds.
    pub baseline_step_ms: f64,
    /// The median time of a step now in milliseconds, over all attempts.
    pub step_ms: f64,
    /// The time of a step now by that of the baseline.
    pub ratio: f64,
    /// The lower end of its 95 % interval.
    pub ratio_low: f64,
    /// The upper end.
    pub ratio_high: f64,
    /// The ratio divided by that of a fixed piece of work, on one core or on all, whichever leaves less of it: it shows whether the machine
    /// itself became slower. Empty where it does not count: on GPUs, between pairs, and for benchmarks.
    pub corrected_ratio: Option<f64>,
    /// The relative change that two measurements of the same program show.
    pub noise_floor: f64,
    /// The relative change that is asked for.
    pub threshold: f64,
    /// The attempts that were made.
    pub attempts: usize,
    /// What the gate says.
    pub verdict: Verdict,
}

/// What the probe measured in a timing sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeLoad {
    /// Nothing.
    Off,
    /// The parameters, at every step.
    Parameters,
    /// The hidden layers, at every step.
    Activations,
    /// The parameters and the hidden layers, at every step.
    ParametersAndActivations,
}

/// A row of `throughput.csv`: one sample of whole steps, the device synchronised on both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThroughputRow {
    /// The run.
    pub run_id: String,
    /// Cold or steady.
    pub phase: ThroughputPhase,
    /// The sample, from 0 in each phase; samples of the same number were taken one after the other.
    pub sample: usize,
    /// Steps in the sample.
    pub steps: usize,
    /// The sample's wall time in milliseconds.
    pub elapsed_ms: f64,
    /// Steps a second.
    pub steps_per_second: f64,
    /// Examples a second.
    pub examples_per_second: f64,
    /// Floating-point operations a second, by the network's own count of its matrix products.
    pub flops_per_second: f64,
    /// What the probe measured.
    pub probe: ProbeLoad,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum RunStatus {
    /// All steps were made.
    Complete,
    /// The loss or a gradient became infinite or not a number. A valid result.
    Diverged {
        /// The first step with a value that is not finite.
        diverged_at_step: usize,
    },
}

/// Which parameters have a gradient at the first step of a run, before any update and after pretraining: that of the loss alone,
/// without the penalties of `training.l1` and `training.l2`, which would stand in for a gradient that is missing. A critic's
/// gradient penalty is part of it. Parameters have their names of `gradients.csv`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GradientCoverage {
    /// The parameters of the network: tensors, not elements.
    pub parameters: usize,
    /// Those that the backward pass did not reach.
    pub without_gradient: Vec<String>,
    /// Those whose gradient is exactly 0 in every element.
    pub zero: Vec<String>,
    /// Those whose gradient has an element that is infinite or not a number.
    pub nonfinite: Vec<String>,
}

/// Takes the rows of a run as they are read from the device.
pub trait RowSink {
    /// Adds rows of `gradients.csv`.
    ///
    /// # Errors
    ///
    /// If they cannot be written; likewise below.
    fn gradients(&mut self, rows: Vec<GradientRow>) -> io::Result<()>;
    /// Adds rows of `activations.csv`.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    fn activations(&mut self, rows: Vec<ActivationRow>) -> io::Result<()>;
    /// Keeps why the deltas of layers, or of all, are not predicted.
    fn no_prediction(&mut self, reason: String);
    /// Adds rows of `units.csv`.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    fn units(&mut self, rows: Vec<UnitRow>) -> io::Result<()>;
    /// Adds rows of `gates.csv`.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    fn gates(&mut self, rows: Vec<GateRow>) -> io::Result<()>;
    /// Adds rows of `chain.csv`.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    fn links(&mut self, rows: Vec<LinkRow>) -> io::Result<()>;
    /// Adds rows of `steps.csv`.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    fn steps(&mut self, rows: Vec<StepRow>) -> io::Result<()>;
    /// Adds rows of `pretraining.csv`.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    fn pretraining(&mut self, rows: Vec<PretrainingRow>) -> io::Result<()>;
    /// Adds rows of `phases.csv`.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    fn phases(&mut self, rows: Vec<PhaseRow>) -> io::Result<()>;
    /// Keeps the network after training, as safetensors.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    fn network(&mut self, safetensors: Vec<u8>) -> io::Result<()>;
    /// Keeps the tensors of a step, as safetensors: every parameter before the update under its name in `gradients.csv`, its
    /// gradient, as in that table, with `.grad` behind the name, and the running statistics of batch norm before the step as
    /// in saved networks.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    fn tensors(&mut self, step: usize, safetensors: Vec<u8>) -> io::Result<()>;
    /// Keeps which parameters have a gradient at the first step, for the manifest.
    fn coverage(&mut self, coverage: GradientCoverage);
    /// Adds rows of `throughput.csv`.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    fn throughput(&mut self, rows: Vec<ThroughputRow>) -> io::Result<()>;
}

/// All rows of a run, in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunRows {
    /// `gradients.csv`
    pub gradients: Vec<GradientRow>,
    /// `activations.csv`
    pub activations: Vec<ActivationRow>,
    /// Why the deltas of layers, or of all, are not predicted; none where all are. It stands in the manifest.
    pub no_prediction: Option<String>,
    /// `units.csv`
    pub units: Vec<UnitRow>,
    /// `gates.csv`
    pub gates: Vec<GateRow>,
    /// `chain.csv`
    pub links: Vec<LinkRow>,
    /// `steps.csv`
    pub steps: Vec<StepRow>,
    /// `pretraining.csv`
    pub pretraining: Vec<PretrainingRow>,
    /// `phases.csv`
    pub phases: Vec<PhaseRow>,
    /// `throughput.csv`
    pub throughput: Vec<ThroughputRow>,
    /// `network.safetensors`, if the run was asked to save it; it is not read back with the tables.
    pub network: Option<Vec<u8>>,
    /// `tensors_step_10.safetensors` and the like, each with its step, if the run was asked for them; they are not read back
    /// with the tables.
    pub tensors: Vec<(usize, Vec<u8>)>,
    /// Which parameters have a gradient at the first step, if there was one; read back, it stands in the manifest alone.
    pub coverage: Option<GradientCoverage>,
}

impl RowSink for RunRows {
    fn gradients(&mut self, rows: Vec<GradientRow>) -> io::Result<()> {
        self.gradients.extend(rows);
        Ok(())
    }
    fn activations(&mut self, rows: Vec<ActivationRow>) -> io::Result<()> {
        self.activations.extend(rows);
        Ok(())
    }
    fn no_prediction(&mut self, reason: String) {
        self.no_prediction = Some(reason);
    }
    fn units(&mut self, rows: Vec<UnitRow>) -> io::Result<()> {
        self.units.extend(rows);
        Ok(())
    }
    fn gates(&mut self, rows: Vec<GateRow>) -> io::Result<()> {
        self.gates.extend(rows);
        Ok(())
    }
    fn links(&mut self, rows: Vec<LinkRow>) -> io::Result<()> {
        self.links.extend(rows);
        Ok(())
    }
    fn steps(&mut self, rows: Vec<StepRow>) -> io::Result<()> {
        self.steps.extend(rows);
        Ok(())
    }
    fn pretraining(&mut self, rows: Vec<PretrainingRow>) -> io::Result<()> {
        self.pretraining.extend(rows);
        Ok(())
    }
    fn phases(&mut self, rows: Vec<PhaseRow>) -> io::Result<()> {
        self.phases.extend(rows);
        Ok(())
    }
    fn network(&mut self, safetensors: Vec<u8>) -> io::Result<()> {
        self.network = Some(safetensors);
        Ok(())
    }
    fn tensors(&mut self, step: usize, safetensors: Vec<u8>) -> io::Result<()> {
        self.tensors.push((step, safetensors));
        Ok(())
    }
    fn coverage(&mut self, coverage: GradientCoverage) {
        self.coverage = Some(coverage);
    }
    fn throughput(&mut self, rows: Vec<ThroughputRow>) -> io::Result<()> {
        self.throughput.extend(rows);
        Ok(())
    }
}
