//! Results that are known from mathematics or from the literature, reproduced.

#![cfg(feature = "flex")]

mod experiment;

use experiment::{load, parse, run_all};
use gradmark::analysis::{RunSummary, configurations, geometric_mean, mean};
use gradmark::schema::{ActivationRow, RunRows, RunStatus};

type Run = (RunSummary, RunRows);

/// The factor by which deltas change a layer, for each configuration by the name of its case.
fn delta_rates(runs: &[Run]) -> Vec<(String, f64)> {
    let summaries: Vec<RunSummary> = runs.iter().map(|(summary, _)| summary.clone()).collect();
    let rate = |configuration: &gradmark::analysis::Configuration<'_>| {
        (configuration.levels.join(" "), configuration.delta_rate().expect("measured"))
    };
    configurations(&summaries).iter().map(rate).collect()
}

#[track_caller]
fn assert_rates(text: &str, expected: &[(&str, f64, f64)]) {
    let found = delta_rates(&run_all(&parse(text)));
    assert_eq!(found.len(), expected.len());
    for ((name, rate), (expected_name, expected, tolerance)) in found.iter().zip(expected) {
        assert_eq!(name, expected_name);
        eprintln!("{name}: {rate:.4}, expected {expected}");
        assert!((rate / expected - 1.0).abs() <= *tolerance, "{name}: {rate}, expected {expected}");
    }
}

/// The protocol of mean field theory: one N(0, 1) input, a random linear probe, nothing is trained.
fn mean_field(seeds: usize, width: usize, depth: usize, cases: &str) -> String {
    format!(
        "seeds = {seeds}\n[data]\nset = \"gaussian\"\nfeatures = {width}\n[network]\ndepth = {depth}\nwidth = {width}\n\
         weight_init = \"lecun\"\nbias_init = \"off\"\nactivation = \"relu\"\n[training]\nloss = \"linear_probe\"\n\
         batch_size = 1\nsteps = 0\n[probe]\nparameters = false\n[throughput]\nsamples = 0\n{cases}"
    )
}

fn case(name: &str, keys: &[&str]) -> String {
    format!("[[sweep.cases]]\nname = \"{name}\"\n{}\n", keys.join("\n"))
}

const BIAS_05: &str = "network.bias_init = \"normal\"\nnetwork.bias_std = 0.22360679775";

/// Nielsen, Neural Networks and Deep Learning, chapter 5. Before training the speeds of neighbouring layers differ by a factor
/// of .213 in his figures, of .2048 in mean field theory, and lie in bands that 20 seeds on MNIST fill.
#[test]
fn the_layers_of_nielsens_networks_learn_at_speeds_that_differ_by_a_fifth() {
    let bands: [&[(f64, f64)]; 3] = [
        &[(0.037, 0.082), (0.19, 0.40)],
        &[(0.0079, 0.019), (0.039, 0.089), (0.21, 0.41)],
        &[(0.0013, 0.0040), (0.0067, 0.018), (0.034, 0.092), (0.20, 0.41)],
    ];
    let runs = run_all(&load("nielsen.toml", &["training.epochs=1"]));
    let mut ratios = Vec::new();
    for (depth, bands) in (2..).zip(bands) {
        let of_depth = runs.iter().filter(|(summary, _)| summary.levels == [depth.to_string()]);
        let mut speeds = vec![Vec::new(); bands.len()];
        for (_, rows) in of_depth {
            let measured: Vec<f64> =
                rows.activations.iter().filter(|row| row.step == 0).filter_map(|row| row.mean_delta_l2).collect();
            ratios.extend(measured.windows(2).map(|pair| pair[0] / pair[1]));
            speeds.iter_mut().zip(measured).for_each(|(speeds, speed)| speeds.push(speed));
        }
        for (layer, (speeds, (low, high))) in speeds.iter().zip(bands).enumerate() {
            let center = geometric_mean(speeds).expect("20 seeds");
            assert!((low..=high).contains(&&center), "depth {depth} layer {layer}: {center}, band {low} to {high}");
        }
    }
    let ratio = geometric_mean(&ratios).expect("120 ratios");
    assert!((0.17..=0.25).contains(&ratio), "{ratio}");
}

/// Eight layers on the digits, one seed of `configs/remedies.toml`.
#[test]
fn every_remedy_that_reaches_the_gradient_lets_eight_sigmoid_layers_train() {
    let plan = load("remedies.toml", &["experiment.seeds=1", "throughput.samples=0"]);
    let runs = run_all(&plan);
    let outcome = |name: &str| {
        let (summary, _) = runs.iter().find(|(summary, _)| summary.levels == [name]).expect(name);
        (summary.train_loss.expect("trained"), summary.test_accuracy.expect("trained") * 100.0)
    };
    for name in ["none", "clipping", "L2 penalty"] {
        let (loss, accuracy) = outcome(name);
        assert!(loss > 2.25 && accuracy < 20.0, "{name}: loss {loss}, accuracy {accuracy}");
    }
    for (name, least) in [("batch norm", 94.0), ("tanh", 94.0), ("ReLU", 94.0), ("ELU", 94.0), ("shortcuts", 88.0)] {
        let (_, accuracy) = outcome(name);
        assert!(accuracy > least, "{name}: accuracy {accuracy}");
    }
}

/// Nielsen, chapter 5: the factors of a chain of sigmoid neurons, on the device as in f64.
#[test]
fn a_chain_of_neurons_shrinks_the_gradient_by_a_quarter_or_grows_it_25_fold_a_link() {
    let runs = run_all(&load("single_neuron_chain.toml", &[]));
    let expected: [(&str, [f64; 5]); 4] = [
        ("w = 1, b = 0", [0.235_004, 0.227_266, 0.225_293, 0.224_837, 0.224_734]),
        ("w = 1, every z = 0", [0.25; 5]),
        ("w = 4, every z = 0", [1.0; 5]),
        ("w = 100, every z = 0", [25.0; 5]),
    ];
    for ((summary, rows), (name, factors)) in runs.iter().zip(expected) {
        assert_eq!(summary.levels, [name]);
        assert_eq!(rows.links.len(), 5);
        for (link, factor) in rows.links.iter().zip(factors) {
            let on_device = link.factor_on_device.expect("finite");
            assert!((link.factor / factor - 1.0).abs() < 1e-5, "{name}: {}, expected {factor}", link.factor);
            assert!((on_device / factor - 1.0).abs() < 1e-5, "{name}: {on_device}, expected {factor}");
        }
        let product: f64 = factors.iter().product();
        let on_device = rows.links[0].product_on_device.expect("finite");
        assert!((on_device / product - 1.0).abs() < 1e-4, "{name}: {on_device}, expected {product}");
    }
}

/// Poole et al. 2016, Schoenholz et al. 2017: sqrt(chi), chi = `sigma_w^2` E[phi'(sqrt(q*) z)^2], here for variances of
/// `weight_scale`^2 / n.
#[test]
fn deltas_change_a_layer_as_mean_field_theory_says() {
    let scale = |variance: f64| format!("network.weight_scale = {}", variance.sqrt());
    let tanh = "network.activation = \"tanh\"";
    let sigmoid = "network.activation = \"sigmoid\"";
    let cases = [
        case("tanh 1, .05", &[tanh, BIAS_05]),
        case("tanh 1.5, .05", &[tanh, BIAS_05, &scale(1.5)]),
        case("tanh 4, .05", &[tanh, BIAS_05, &scale(4.0)]),
        case("tanh 25/9, 0", &[tanh, &scale(25.0 / 9.0)]),
        case("sigmoid 1, 0", &[sigmoid]),
        case("sigmoid 1, 1", &[sigmoid, "network.bias_init = \"normal\"\nnetwork.bias_std = 1.0"]),
        case("ReLU 2", &["network.weight_init = \"he\""]),
        case("leaky ReLU 1.5", &["network.activation = \"leaky_relu\"\nnetwork.slope = 0.3", &scale(1.5)]),
        case("ELU 1.55052", &["network.activation = \"elu\"", &scale(1.55052)]),
        // On the edge of chaos.
        case("tanh 1.76095, .05", &[tanh, BIAS_05, &scale(1.76095)]),
        case(
            "tanh 2.50513, .3",
            &[tanh, "network.bias_init = \"normal\"\nnetwork.bias_std = 0.5477226", &scale(2.50513)],
        ),
    ];
    assert_rates(
        &mean_field(16, 300, 30, &cases.concat()),
        &[
            ("tanh 1, .05", 0.8712, 0.02),
            ("tanh 1.5, .05", 0.9688, 0.02),
            ("tanh 4, .05", 1.1586, 0.02),
            ("tanh 25/9, 0", 1.0999, 0.02),
            ("sigmoid 1, 0", 0.2361, 0.06),
            ("sigmoid 1, 1", 0.2048, 0.06),
            ("ReLU 2", 1.0, 0.02),
            ("leaky ReLU 1.5", (1.5 * 1.09 / 2.0_f64).sqrt(), 0.02),
            ("ELU 1.55052", 1.0178, 0.02),
            ("tanh 1.76095, .05", 1.0, 0.02),
            ("tanh 2.50513, .3", 1.0, 0.02),
        ],
    );
}

/// |`delta_1`| / |`delta_50`| by mean field theory, for four initial variances and four functions; logarithms within 20 %.
#[test]
fn fifty_layers_lose_or_gain_the_gradient_that_their_initialization_foretells() {
    let expected = [
        ("burn", [2.3e-42, 1.53e-12, 8.6e-20, 1.4e-12]),
        ("lecun", [1.7e-31, 0.121, 4.21e-8, 0.059]),
        ("he", [3.4e-25, 7.66, 1.00, 13.8]),
    ];
    let sweep = "[sweep]\nnetwork.weight_init = [\"burn\", \"lecun\", \"he\"]\n\
                 network.activation = [\"sigmoid\", \"tanh\", \"relu\", \"elu\"]\n";
    let runs = run_all(&parse(&mean_field(6, 256, 50, sweep)));
    for (init, of_functions) in expected {
        for (function, expected) in ["sigmoid", "tanh", "relu", "elu"].into_iter().zip(of_functions) {
            let is_it = |run: &&Run| run.0.levels == [function, init];
            let squares: Vec<f64> = runs
                .iter()
                .filter(is_it)
                .map(|(_, rows)| {
                    let delta = |layer: usize| rows.activations[layer].delta_l2.expect("finite");
                    (delta(0) / delta(49)).powi(2)
                })
                .collect();
            assert_eq!(squares.len(), 6);
            let found = mean(&squares).expect("six seeds").sqrt();
            eprintln!("{init} {function}: {found:.3e}, expected {expected:e}");
            // A ratio of 1 has the logarithm 0: there a factor of 2 is allowed, which is a logarithm of .7 in 49 layers.
            let allowed = (0.2 * f64::ln(expected).abs()).max(0.7);
            assert!(
                (found.ln() - expected.ln()).abs() <= allowed,
                "{init} {function}: {found:e}, expected {expected:e}"
            );
        }
    }
}

/// Yang et al. 2019: batch norm multiplies the gradient at every layer, by sqrt(pi / (pi - 1)) with ReLU and an infinite batch.
#[test]
fn batch_norm_makes_gradients_explode_at_the_rate_of_its_batch() {
    let batch = |size: usize| format!("training.batch_size = {size}");
    let cases = [
        case("ReLU 16", &[&batch(16)]),
        case("ReLU 32", &[&batch(32)]),
        case("ReLU 64", &[&batch(64)]),
        case("ReLU 128", &[&batch(128)]),
        case("tanh", &["network.activation = \"tanh\"", &batch(256)]),
        case("sigmoid", &["network.activation = \"sigmoid\"", &batch(256)]),
        case("ELU", &["network.activation = \"elu\"", &batch(256)]),
        case("PReLU", &["network.activation = \"prelu\"", &batch(256)]),
        case("linear 16", &["network.activation = \"identity\"", &batch(16)]),
    ];
    let text = mean_field(3, 512, 20, &cases.concat()).replace("[training]", "norm = \"batch\"\n[training]");
    assert_rates(
        &text,
        &[
            ("ReLU 16", 1.263, 0.015),
            ("ReLU 32", 1.234, 0.015),
            ("ReLU 64", 1.222, 0.015),
            ("ReLU 128", 1.214, 0.015),
            ("tanh", 1.08527, 0.015),
            ("sigmoid", 1.01666, 0.015),
            ("ELU", 1.03876, 0.015),
            ("PReLU", 1.09665, 0.015),
            ("linear 16", (14.0_f64 / 13.0).sqrt(), 0.015),
        ],
    );
}

/// Residual networks without normalization whose blocks are x + a W phi(x).
fn residual(seeds: usize, width: usize, activation: &str, weight_init: &str, cases: &[String]) -> Vec<Run> {
    let network = format!("kind = \"residual\"\nstem = false\nweight_init = \"{weight_init}\"");
    let text = mean_field(seeds, width, 10, &cases.concat())
        .replace("weight_init = \"lecun\"", &network)
        .replace("activation = \"relu\"", &format!("activation = \"{activation}\""))
        .replace("parameters = false", "parameters = false\ninputs = true");
    run_all(&parse(&text))
}

/// The logarithm of the squared gradient with respect to the input by that with respect to the last block's output.
#[track_caller]
fn assert_log_growth(runs: &[Run], name: &str, expected: f64, tolerance: f64) {
    let squares: Vec<f64> = runs
        .iter()
        .filter(|(summary, _)| summary.levels == [name])
        .map(|(summary, _)| summary.input_gradient_ratio_first.expect("measured").powi(2))
        .collect();
    let found = mean(&squares).expect("several seeds").ln();
    eprintln!("{name}: {found:.3}, expected {expected}");
    assert!((found - expected).abs() <= tolerance, "{name}: {found}, expected {expected}");
}

/// x + a W relu(x) with He's weights: the square of the gradient grows by 1 + a^2 a block. 2^1000 does not fit into f32.
#[test]
fn residual_gradients_grow_by_1_plus_a_squared_a_block_and_leave_f32_at_1000_blocks() {
    let cases = [
        case("a = 1, 100", &["network.depth = 100"]),
        case("scaled, 1000", &["network.depth = 1000", "network.branch_scale = \"inverse_sqrt_blocks\""]),
        case("a = 1, 1000", &["network.depth = 1000"]),
    ];
    let runs = residual(12, 128, "relu", "he", &cases);
    // The tolerances are three standard errors of twelve seeds.
    assert_log_growth(&runs, "a = 1, 100", 100.0 * 2.0_f64.ln(), 2.5);
    assert_log_growth(&runs, "scaled, 1000", 1000.0 * 1.001_f64.ln(), 0.2);
    for (summary, rows) in runs.iter().filter(|(summary, _)| summary.levels == ["a = 1, 1000"]) {
        assert_eq!(summary.status, RunStatus::Diverged { diverged_at_step: 0 });
        assert_eq!(summary.input_gradient_ratio_first, None);
        assert!(rows.steps.iter().all(|row| row.loss.is_none()));
    }
}

/// x + W tanh(x): the gradient grows like a power of the depth, not exponentially (Yang and Schoenholz 2017).
#[test]
fn residual_tanh_networks_grow_the_gradient_slower_than_exponentially() {
    let depth = |depth: &str| case(depth, &[&format!("network.depth = {depth}")]);
    let runs = residual(10, 256, "tanh", "lecun", &[depth("10"), depth("100"), depth("1000")]);
    assert_log_growth(&runs, "10", 2.643, 0.3);
    assert_log_growth(&runs, "100", 10.55, 1.0);
    assert_log_growth(&runs, "1000", 34.27, 3.5);
}

/// Gulrajani et al. 2017, figure 1b: weights of +-c, to which clipping drives them, multiply the gradient by c sqrt(n / 2).
#[test]
fn weights_clipped_to_c_multiply_the_gradient_by_c_times_the_root_of_half_the_width() {
    let sign = |c: &str| format!("network.weight_init = \"random_sign\"\nnetwork.weight_scale = {c}");
    let cases = [case(".1", &[&sign("0.1")]), case(".01", &[&sign("0.01")]), case(".001", &[&sign("0.001")])];
    assert_rates(
        &mean_field(4, 512, 12, &cases.concat()),
        &[(".1", 1.6, 0.02), (".01", 0.16, 0.02), (".001", 0.016, 0.02)],
    );
}

/// An orthogonal matrix keeps every norm, and maxout of two pieces with variance 1/n passes one row of N(0, 1/n) on.
#[test]
fn orthogonal_layers_keep_the_gradient_exactly_and_maxout_keeps_it_on_average() {
    let cases = [
        case("orthogonal", &["network.activation = \"identity\"", "network.weight_init = \"orthogonal\""]),
        case("maxout", &["network.activation = \"maxout\""]),
    ];
    assert_rates(&mean_field(10, 256, 30, &cases.concat()), &[("orthogonal", 1.0, 1e-5), ("maxout", 1.0, 0.02)]);
}

/// Recurrent networks at a state of 0, which their inputs do not reach, and the gradient of a linear probe of the last state.
fn at_rest(cell: &str, steps: usize, recurrent: &str, cases: &[String]) -> Vec<Run> {
    run_all(&parse(&format!(
        "[data]\nset = \"gaussian\"\nfeatures = 4\nsequence_length = {steps}\n[network]\nkind = \"recurrent\"\n\
         cell = \"{cell}\"\nactivation = \"tanh\"\ndepth = 1\nwidth = 24\nweight_init = \"zero\"\nbias_init = \"zero\"\n\
         recurrent_init = \"{recurrent}\"\n[training]\nloss = \"linear_probe\"\nbatch_size = 3\nsteps = 0\n\
         [throughput]\nsamples = 0\n{}",
        cases.concat()
    )))
}

/// The gradient with respect to a state by that with respect to the last one, at every time step against a power of a factor.
#[track_caller]
fn assert_powers(runs: &[Run], gradient: fn(&ActivationRow) -> Option<f64>, factors: &[(&str, f64)], tolerance: f64) {
    assert_eq!(runs.len(), factors.len());
    for ((summary, rows), (name, factor)) in runs.iter().zip(factors) {
        assert_eq!(summary.levels, [*name]);
        let states: Vec<f64> = rows
            .activations
            .iter()
            .filter(|row| row.time_step.is_some())
            .map(|row| gradient(row).expect(name))
            .collect();
        let steps = states.len() - 1;
        for (time_step, norm) in states.iter().enumerate() {
            let (found, expected) = (norm / states[steps], factor.powi((steps - time_step) as i32));
            assert!(
                (found / expected - 1.0).abs() <= tolerance,
                "{name}, {time_step}: {found:e}, expected {expected:e}"
            );
        }
        let error = states[0] / states[steps] / factor.powi(steps as i32) - 1.0;
        eprintln!("{name}: {:.4e} over {steps} time steps, relative error {error:.1e}", states[0] / states[steps]);
    }
}

/// A tanh RNN at h = 0 multiplies the gradient by its orthogonal matrix, whose norm is g: .9^100 = 2.6561e-5, 1.1^100 = 13780.6
/// (Pascanu et al. 2013, section 2.1).
#[test]
fn a_vanilla_rnn_at_rest_multiplies_the_gradient_by_its_gain_at_every_time_step() {
    let gain = |gain: &str| case(gain, &[&format!("network.recurrent_scale = {gain}")]);
    let runs = at_rest("rnn", 100, "orthogonal", &[gain("0.9"), gain("1.0"), gain("1.1")]);
    assert_powers(&runs, |row| row.hidden_grad_l2, &[("0.9", 0.9), ("1.0", 1.0), ("1.1", 1.1)], 1e-5);
}

/// An LSTM without weights passes the gradient of its cell state on by the forget gate alone: 7.889e-31, 2.484e-14, 3.073e-6
/// and 7.760e-3 in 100 time steps (Gers et al. 2000).
#[test]
fn an_lstm_at_rest_multiplies_the_gradient_of_its_cell_state_by_its_forget_gate() {
    let biases = ["0.0", "1.0", "2.0", "3.0"];
    let cases = biases.map(|bias| case(bias, &[&format!("network.forget_bias = {bias}")]));
    let runs = at_rest("lstm", 100, "zero", &cases);
    let sigmoid = |x: &str| 1.0 / (1.0 + (-x.parse::<f64>().expect("a number")).exp());
    assert_powers(&runs, |row| row.cell_grad_l2, &biases.map(|bias| (bias, sigmoid(bias))), 1e-5);
    let [first, second, third, fourth] = biases.map(|bias| sigmoid(bias).powi(100));
    for (found, expected) in [(first, 7.889e-31), (second, 2.484e-14), (third, 3.073e-6), (fourth, 7.760e-3)] {
        assert!((found / expected - 1.0).abs() < 5e-4, "{found:e}, expected {expected:e}");
    }
}

/// A GRU without weights keeps of its state what the update gate lets through: s(2)^50 = 1.7530e-3.
#[test]
fn a_gru_at_rest_multiplies_the_gradient_by_its_update_gate() {
    let runs = at_rest("gru", 50, "zero", &[case("2", &["network.update_bias = 2.0"])]);
    let update = 1.0 / (1.0 + (-2.0_f64).exp());
    assert!((update.powi(50) / 1.7530e-3 - 1.0).abs() < 1e-4);
    assert_powers(&runs, |row| row.hidden_grad_l2, &[("2", update)], 1e-5);
}
