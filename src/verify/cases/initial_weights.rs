//! The sizes of initial weights and biases.

use super::{Case, Finding, Findings, Laboratory, Run, VerifyError, level, runs_of};
use crate::verify::Expected;

pub(super) const CASE: Case = Case {
    name: "initial_weights",
    about: "the root mean square of the initial weights and biases of every kind is that of its formula",
    source: "the initializers' papers",
    is_long: false,
    run: sizes,
};

/// A kind of weights: its name, its keys, and the root mean square of what it draws.
type Kind = (&'static str, &'static [(&'static str, &'static str)], f64);

/// From 300 inputs to 500 units.
const WEIGHTS: [Kind; 11] = [
    ("normal, .7", &[("network.weight_init", "\"normal\""), ("network.weight_std", "0.7")], 0.7),
    // sqrt(1 / 300)
    ("lecun", &[("network.weight_init", "\"lecun\"")], 0.057_735_03),
    // sqrt(2 / 800)
    ("xavier", &[("network.weight_init", "\"xavier\"")], 0.05),
    // sqrt(2 / 300)
    ("he", &[("network.weight_init", "\"he\"")], 0.081_649_66),
    ("he, scale 1.5", &[("network.weight_init", "\"he\""), ("network.weight_scale", "1.5")], 0.122_474_5),
    // 1 / sqrt(900)
    ("burn", &[("network.weight_init", "\"burn\"")], 0.033_333_33),
    // .2 / sqrt(3)
    ("uniform, .2", &[("network.weight_init", "\"uniform\""), ("network.weight_scale", "0.2")], 0.115_470_1),
    ("random_sign, .1", &[("network.weight_init", "\"random_sign\""), ("network.weight_scale", "0.1")], 0.1),
    ("constant, .3", &[("network.weight_init", "\"constant\""), ("network.weight_scale", "0.3")], 0.3),
    // 300 orthonormal rows of 500 numbers: sqrt(1 / 500)
    ("orthogonal", &[("network.weight_init", "\"orthogonal\"")], 0.044_721_36),
    ("zero", &[("network.weight_init", "\"zero\"")], 0.0),
];

/// Of 40000 units with 4 inputs.
const BIASES: [Kind; 4] = [
    ("normal, .7", &[("network.bias_init", "\"normal\""), ("network.bias_std", "0.7")], 0.7),
    // 1 / sqrt(3 x 4)
    ("burn", &[("network.bias_init", "\"burn\"")], 0.288_675_1),
    ("constant, -.4", &[("network.bias_init", "\"constant\""), ("network.bias_value", "-0.4")], 0.4),
    ("zero", &[("network.bias_init", "\"zero\"")], 0.0),
];

/// Of 400 units, to themselves.
const RECURRENT: [Kind; 6] = [
    // sqrt(1 / 400)
    ("orthogonal", &[("network.recurrent_init", "\"orthogonal\"")], 0.05),
    ("orthogonal, .9", &[("network.recurrent_init", "\"orthogonal\""), ("network.recurrent_scale", "0.9")], 0.045),
    ("identity", &[("network.recurrent_init", "\"identity\"")], 0.05),
    ("lecun", &[("network.recurrent_init", "\"lecun\"")], 0.05),
    // 1 / sqrt(1200)
    ("burn", &[("network.recurrent_init", "\"burn\"")], 0.028_867_51),
    ("zero", &[("network.recurrent_init", "\"zero\"")], 0.0),
];

/// The biases of all gates are one vector, of which those of one gate are not 0: a quarter of it, or a third.
const GATES: [Kind; 3] = [
    ("LSTM, forget gate by default (1)", &[("network.cell", "\"lstm\"")], 0.5),
    ("LSTM, forget gate 3", &[("network.cell", "\"lstm\""), ("network.forget_bias", "3.0")], 1.5),
    // 2 / sqrt(3)
    ("GRU, update gate 2", &[("network.cell", "\"gru\""), ("network.update_bias", "2.0")], 1.154_701),
];

const MEASUREMENT: &str = "[training]\nloss = \"linear_probe\"\nbatch_size = 1\nsteps = 0\n[probe]\nactivations = false\n\
                           [throughput]\nsamples = 0\n";

fn sizes(laboratory: &Laboratory<'_>) -> Findings {
    let plain = |features, width, init| {
        format!(
            "[data]\nset = \"gaussian\"\nfeatures = {features}\n[network]\ndepth = 1\nwidth = {width}\nactivation = \"tanh\"\n{init}\n"
        )
    };
    let recurrent = |width, keys| {
        format!(
            "[data]\nset = \"gaussian\"\nfeatures = 2\nsequence_length = 2\n[network]\nkind = \"recurrent\"\ndepth = 1\n\
             width = {width}\nactivation = \"tanh\"\nweight_init = \"zero\"\n{keys}\n"
        )
    };
    let weights = plain(300, 500, "");
    let biases = format!("seeds = 4\n{}", plain(4, 40_000, "weight_init = \"zero\""));
    let states = recurrent(400, "cell = \"rnn\"");
    let gates = recurrent(100, "");
    Ok([
        of_kinds(laboratory, "weights", &weights, "hidden.0.weight", &WEIGHTS)?,
        convolution(laboratory)?,
        of_kinds(laboratory, "biases", &biases, "hidden.0.bias", &BIASES)?,
        of_kinds(laboratory, "recurrent weights", &states, "hidden.0.recurrent.weight", &RECURRENT)?,
        of_kinds(laboratory, "gate biases", &gates, "hidden.0.input.bias", &GATES)?,
        of_chains(laboratory)?,
    ]
    .concat())
}

fn of_kinds(laboratory: &Laboratory<'_>, what: &str, config: &str, parameter: &str, kinds: &[Kind]) -> Findings {
    let levels: String = kinds.iter().map(|(name, keys, _)| level(name, keys)).collect();
    let runs = laboratory.run(&format!("{config}{MEASUREMENT}{levels}"))?;
    let finding = |(name, _, size): &Kind| {
        let measured = root_mean_square(runs_of(&runs, name), &[parameter]);
        Finding::new(format!("{what}, {name}"), Expected::relative(*size, 0.01), measured)
    };
    Ok(kinds.iter().map(finding).collect())
}

/// Over all elements of parameters of these names before the first update.
fn root_mean_square<'a>(runs: impl Iterator<Item = &'a Run>, parameters: &[&str]) -> Option<f64> {
    let (mut squares, mut count) = (0.0, 0);
    for run in runs {
        for parameter in parameters {
            let row = run.rows.gradients.iter().find(|row| row.step == 0 && row.parameter == *parameter)?;
            squares += row.weight_l2?.powi(2);
            count += row.element_count;
        }
    }
    (count > 0).then(|| (squares / count as f64).sqrt())
}

/// A 3 x 3 convolution of 64 channels has 576 inputs: sqrt(2 / 576). Four layers of the first stage have that size.
fn convolution(laboratory: &Laboratory<'_>) -> Findings {
    let runs = laboratory.run(
        "[network]\nkind = \"convolutional\"\ndepth = 14\nwidth = 64\nactivation = \"relu\"\nweight_init = \"he\"\n\
         [training]\nbatch_size = 1\nsteps = 0\n[probe]\nactivations = false\n[throughput]\nsamples = 0\n",
    )?;
    let layers = ["hidden.1.weight", "hidden.2.weight", "hidden.3.weight", "hidden.4.weight"];
    let measured = root_mean_square(runs.iter(), &layers);
    Ok(vec![Finding::new("weights, he, 3 x 3 convolution", Expected::relative(0.058_925_57, 0.01), measured)])
}

/// Weights and biases that are given one by one, and biases that bring every z of a chain of softplus neurons to 0: -w x .5, and
/// -w ln 2 from the second link on.
fn of_chains(laboratory: &Laboratory<'_>) -> Findings {
    let chain = |keys: &str| -> Result<Vec<Run>, VerifyError> {
        laboratory.run(&format!(
            "[data]\nset = \"single\"\nvalue = 0.5\n[network]\nkind = \"chain\"\ndepth = 3\nactivation = \"softplus\"\n\
             weight_init = \"given\"\nweights = [2.0, -0.75, 3.5]\n{keys}\n{}",
            MEASUREMENT.replace("batch_size = 1\n", "")
        ))
    };
    let given = chain("bias_init = \"given\"\nbiases = [0.5, -1.25, 4.0]")?;
    let centered = chain("bias_init = \"centered\"")?;
    let values = |runs: &[Run], expected: [f64; 3], value: fn(&crate::schema::LinkRow) -> f64| {
        let links: Vec<f64> = runs.iter().flat_map(|run| run.rows.links.iter().map(value)).collect();
        let of_link = |(link, expected): (usize, &f64)| {
            (format!("link {}", link + 1), Expected::relative(*expected, 1e-4), links.get(link).copied())
        };
        expected.iter().enumerate().map(of_link).collect::<Vec<_>>()
    };
    Ok(vec![
        Finding::worst("weights of a chain, given", values(&given, [2.0, -0.75, 3.5], |row| row.weight)),
        Finding::worst("biases of a chain, given", values(&given, [0.5, -1.25, 4.0], |row| row.bias)),
        Finding::worst(
            "biases of a chain, centered",
            values(&centered, [-1.0, 0.519_860_4, -2.426_015], |row| row.bias),
        ),
    ])
}
