//! From rows to one value for each layer and step.

use crate::schema::{ActivationRow, GradientRow};

/// The gradient with respect to the weights of a hidden layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightGradient {
    /// The step, from 0.
    pub step: usize,
    /// The number of the layer, from 1 at the input.
    pub layer: usize,
    /// Euclidean norm of all its weights' gradients as one vector; `None` if an element is not finite.
    pub l2: Option<f64>,
}

/// The weight gradients of the hidden layers, in the order of the rows. A recurrent layer has several weights: those of its
/// input and those of its state, or those of each gate.
pub fn weight_gradients(gradients: &[GradientRow]) -> Vec<WeightGradient> {
    let is_weight = |row: &&GradientRow| hidden_number(&row.layer).is_some() && row.parameter.ends_with(".weight");
    let weights: Vec<&GradientRow> = gradients.iter().filter(is_weight).collect();
    let same_layer = |a: &&GradientRow, b: &&GradientRow| a.step == b.step && a.layer == b.layer;
    weights.chunk_by(same_layer).filter_map(as_one).collect()
}

fn as_one(weights: &[&GradientRow]) -> Option<WeightGradient> {
    let first = weights.first()?;
    let norms: Option<Vec<f64>> = weights.iter().map(|row| row.grad_l2).collect();
    // The norm of a single weight stays as it is, to the last bit.
    let l2 = norms.and_then(|norms| norms.into_iter().reduce(f64::hypot));
    Some(WeightGradient { step: first.step, layer: hidden_number(&first.layer)?, l2 })
}

/// The norm of each hidden layer's weight gradient at a step, the layer nearest to the input first; `None` where it
/// is not finite.
pub fn gradient_profile(gradients: &[GradientRow], step: usize) -> Vec<Option<f64>> {
    weight_gradients(gradients).into_iter().filter(|layer| layer.step == step).map(|layer| layer.l2).collect()
}

/// The rows of whole layers: one a layer and step, without those of the state after single time steps.
pub fn whole_layers(activations: &[ActivationRow]) -> impl Iterator<Item = &ActivationRow> {
    activations.iter().filter(|row| row.time_step.is_none())
}

/// The rows of the state of the first recurrent layer: one a step and time step, the initial state first.
pub fn first_states(activations: &[ActivationRow]) -> Vec<&ActivationRow> {
    let states = || activations.iter().filter(|row| row.time_step.is_some());
    let first = states().map(|row| row.layer_index).min();
    let mut found: Vec<&ActivationRow> = states().filter(|row| Some(row.layer_index) == first).collect();
    found.sort_by_key(|row| (row.step, row.time_step));
    found
}

/// The number of a hidden layer, from 1 at the input: 4 for `hidden.3`. `None` for stem and output.
pub fn hidden_number(layer: &str) -> Option<usize> {
    layer.strip_prefix("hidden.")?.parse::<usize>().ok().map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(step: usize, layer: &str, name: &str, grad_l2: Option<f64>) -> GradientRow {
        let parameter = format!("{layer}.{name}");
        GradientRow { step, layer: layer.to_owned(), parameter, grad_l2, ..GradientRow::default() }
    }

    #[test]
    fn the_weights_of_a_recurrent_layer_are_one_vector_and_its_biases_do_not_count() {
        let rows: Vec<GradientRow> = [0, 7]
            .into_iter()
            .flat_map(|step| {
                [
                    weight(step, "hidden.0", "input.weight", Some(3.0)),
                    weight(step, "hidden.0", "input.bias", Some(100.0)),
                    weight(step, "hidden.0", "recurrent.weight", Some(4.0)),
                    weight(step, "hidden.1", "input.weight", Some(5.0)),
                    weight(step, "hidden.1", "recurrent.weight", Some(12.0)),
                    weight(step, "output", "weight", Some(1.0)),
                ]
            })
            .collect();
        assert_eq!(gradient_profile(&rows, 7), [Some(5.0), Some(13.0)]);
        assert_eq!(weight_gradients(&rows).len(), 4);
        assert_eq!(weight_gradients(&rows)[1], WeightGradient { step: 0, layer: 2, l2: Some(13.0) });
    }

    #[test]
    fn eight_weights_of_burns_lstm_have_the_norm_that_they_have_as_one() {
        let gates = ["input_gate", "forget_gate", "output_gate", "cell_gate"];
        let names =
            gates.iter().flat_map(|gate| [format!("{gate}.input_transform"), format!("{gate}.hidden_transform")]);
        let rows: Vec<GradientRow> =
            names.map(|name| weight(0, "hidden.0", &format!("lstm.{name}.weight"), Some(1e-200))).collect();
        let [Some(norm)] = gradient_profile(&rows, 0)[..] else { panic!("one layer") };
        assert!((norm / (8.0_f64.sqrt() * 1e-200) - 1.0).abs() < 1e-12, "{norm}");
    }

    #[test]
    fn one_weight_that_is_not_finite_makes_its_layer_so_and_no_other() {
        let rows = [
            weight(0, "hidden.0", "input.weight", Some(3.0)),
            weight(0, "hidden.0", "recurrent.weight", None),
            weight(0, "hidden.1", "weight", Some(0.1)),
        ];
        assert_eq!(gradient_profile(&rows, 0), [None, Some(0.1)]);
    }

    #[test]
    fn states_are_those_of_the_first_recurrent_layer_and_no_whole_layers() {
        let row = |layer_index: usize, time_step| ActivationRow {
            layer_index,
            layer: format!("hidden.{layer_index}"),
            time_step,
            ..ActivationRow::default()
        };
        let rows = [row(0, None), row(1, None), row(1, Some(1)), row(1, Some(0)), row(2, Some(0)), row(2, None)];
        let steps: Vec<Option<usize>> = first_states(&rows).iter().map(|row| row.time_step).collect();
        assert_eq!(steps, [Some(0), Some(1)]);
        assert!(whole_layers(&rows).map(|row| row.layer_index).eq([0, 1, 2]));
    }
}
