//! The activation functions of an experiment and their derivatives.

use super::layout::Layout;
use crate::config::{Activation, ActivationFunction};
use crate::report::axis::{Axis, Scale};
use crate::report::chart::{Chart, Line, Panel, Point, Style};
use crate::theory::activation::value_and_derivative;

/// The functions are drawn from -5 to 5 in steps of a thirtieth.
const REACH: f64 = 5.0;
const STEPS_A_UNIT: f64 = 30.0;
/// So close above 0 that a step of the derivative is upright.
const ABOVE_KINK: f64 = 1e-9;

/// A panel a function; `None` if there is only one in the experiment.
pub fn activation_functions(layout: &Layout<'_>) -> Option<Chart> {
    let mut functions: Vec<ActivationFunction> = Vec::new();
    for run in layout.configurations.iter().flat_map(|configuration| &configuration.runs) {
        let function = run.manifest.config.network.function();
        if !functions.contains(&function) {
            functions.push(function);
        }
    }
    if functions.len() < 2 {
        return None;
    }
    let x = Axis { label: "z".to_owned(), scale: Scale::Linear };
    let y = Axis { label: "φ(z), φ'(z)".to_owned(), scale: Scale::Linear };
    let mut chart = layout.chart("activation functions", "", x, y);
    chart.legend.clear();
    chart.styles = vec![(Style::Solid, "φ(z)".to_owned()), (Style::Dashed, "φ'(z), its derivative".to_owned())];
    // Maxout is a function of several numbers.
    let drawn = functions.into_iter().filter(|function| function.kind != Activation::Maxout);
    chart.panels = drawn.map(panel).collect();
    Some(chart)
}

fn panel(function: ActivationFunction) -> Panel {
    let steps = (REACH * STEPS_A_UNIT) as i32;
    let line = |dashed: bool, value: fn((f64, f64)) -> f64| {
        let mut places: Vec<f64> = (-steps..=steps).map(|step| f64::from(step) / STEPS_A_UNIT).collect();
        places.insert(steps as usize + 1, ABOVE_KINK);
        let points = places.into_iter().map(|x| {
            let y = value(value_and_derivative(function, x));
            Point { x, y, low: y, high: y }
        });
        Line {
            color: usize::from(dashed),
            dashed,
            joined: true,
            bare: true,
            points: points.collect(),
            ..Line::default()
        }
    };
    Panel { title: name(function), lines: vec![line(false, |(value, _)| value), line(true, |(_, slope)| slope)] }
}

/// The name as the config has it, with the slope where the function has one.
fn name(function: ActivationFunction) -> String {
    let kind = serde_json::to_value(function.kind).ok();
    let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or_default();
    match function.kind {
        Activation::LeakyRelu => format!("{kind}, slope {}", function.slope),
        Activation::Prelu => format!("{kind}, slope {} before training", function.slope),
        _ => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn every_function_has_a_panel_but_maxout_and_equal_ones_share_it() {
        let kinds = [Activation::Sigmoid, Activation::Maxout, Activation::Relu, Activation::Sigmoid];
        let runs: Vec<_> = kinds
            .into_iter()
            .map(|kind| {
                let mut run = record(&[]);
                run.manifest.config.network.activation = kind;
                run
            })
            .collect();
        let chart = activation_functions(&Layout::new(&runs)).expect("three functions");
        let titles: Vec<&str> = chart.panels.iter().map(|panel| panel.title.as_str()).collect();
        assert_eq!(titles, ["sigmoid", "relu"]);
        assert!(activation_functions(&Layout::new(&runs[..1])).is_none());
    }

    #[test]
    fn leaky_relu_of_two_slopes_is_two_functions() {
        let mut runs = vec![record(&[]), record(&[])];
        for (run, slope) in runs.iter_mut().zip([0.01, 0.2]) {
            run.manifest.config.network.activation = Activation::LeakyRelu;
            run.manifest.config.network.slope = Some(slope);
        }
        let chart = activation_functions(&Layout::new(&runs)).expect("two functions");
        assert_eq!(chart.panels[1].title, "leaky_relu, slope 0.2");
    }

    #[test]
    fn the_solid_line_is_the_function_and_the_dashed_one_its_derivative() {
        let panel = panel(ActivationFunction { kind: Activation::Sigmoid, slope: 0.0, pieces: 1 });
        let at_0 = |line: &Line| line.points.iter().find(|point| point.x == 0.0).map(|point| point.y);
        let ends = |line: &Line| (line.points[0].x, line.points[line.points.len() - 1].x);
        assert_eq!(
            (panel.lines[0].dashed, at_0(&panel.lines[0]), ends(&panel.lines[0])),
            (false, Some(0.5), (-5.0, 5.0))
        );
        assert_eq!((panel.lines[1].dashed, at_0(&panel.lines[1])), (true, Some(0.25)));
    }
}
