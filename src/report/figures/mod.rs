//! The figures of an experiment, one file a figure or a family of figures.

mod activation_functions;
mod by_layer;
mod by_length;
mod by_time_step;
mod chain;
mod clipping;
mod first_and_last;
mod gates;
mod gathered;
mod heat_maps;
mod layout;
mod over_time;
mod over_training;
mod pretraining;
mod throughput;
mod unit_gradients;

use std::fs;
use std::path::{Path, PathBuf};

use self::layout::Layout;
pub(super) use self::layout::left_out;
use super::chart::Chart;
use super::page::Figure;
use crate::record::RunRecord;

/// A figure could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{}: the figure cannot be made: {reason}", path.display())]
pub struct FigureError {
    /// The file.
    path: PathBuf,
    /// What went wrong.
    reason: String,
}

/// Draws every figure for which there are rows into `<dir>/figures`, and returns the files.
///
/// # Errors
///
/// If a figure cannot be drawn or written.
pub fn draw_figures(dir: &Path, runs: &[RunRecord]) -> Result<Vec<PathBuf>, FigureError> {
    let folder = dir.join("figures");
    let failed = |path: &Path, reason: String| FigureError { path: path.to_owned(), reason };
    fs::create_dir_all(&folder).map_err(|error| failed(&folder, error.to_string()))?;
    let mut files = Vec::new();
    for (name, figure) in figures(&Layout::new(runs)) {
        let path = folder.join(format!("{name}.svg"));
        let Some(figure) = figure else {
            // A figure of earlier runs would tell about others than the table does.
            if path.exists() {
                fs::remove_file(&path).map_err(|error| failed(&path, error.to_string()))?;
            }
            continue;
        };
        let svg = figure.to_svg().map_err(|reason| failed(&path, reason))?;
        let temporary = folder.join(format!(".tmp-{name}.svg"));
        fs::write(&temporary, svg)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|error| failed(&path, error.to_string()))?;
        files.push(path);
    }
    Ok(files)
}

/// Every figure with the name of its file; `None` where there are no rows for it.
fn figures(layout: &Layout<'_>) -> Vec<(&'static str, Option<Box<dyn Figure>>)> {
    vec![
        ("gradient_by_layer", with_lines(by_layer::weight_gradient(layout))),
        ("delta_by_layer", with_lines(by_layer::delta(layout))),
        ("input_gradient_by_layer", with_lines(by_layer::input_gradient(layout))),
        ("hidden_gradient_by_time_step", with_lines(by_time_step::hidden_gradient(layout))),
        ("cell_gradient_by_time_step", with_lines(by_time_step::cell_gradient(layout))),
        ("gates", with_lines(gates::gates(layout))),
        ("saturated_gates", with_lines(gates::saturated_gates(layout))),
        ("gradient_over_steps", with_lines(over_training::weight_gradient(layout))),
        ("gradient_heat_map", boxed(heat_maps::weight_gradient(layout))),
        ("dead_units_heat_map", boxed(heat_maps::dead_units(layout))),
        ("unit_gradients", boxed(unit_gradients::unit_gradients(layout))),
        ("clipping", clipping::clipping(layout).and_then(with_lines)),
        ("chain", with_lines(chain::chain(layout))),
        ("activation_functions", activation_functions::activation_functions(layout).and_then(with_lines)),
        ("learning_curves", with_lines(over_training::learning_curves(layout))),
        ("accuracy_by_length", by_length::accuracy(layout).and_then(with_lines)),
        ("loss_by_length", by_length::loss(layout).and_then(with_lines)),
        ("accuracy_over_time", with_lines(over_time::accuracy(layout))),
        ("reconstruction_by_layer", with_lines(pretraining::reconstruction_by_layer(layout))),
        ("reconstruction_over_time", with_lines(over_time::reconstruction_error(layout))),
        ("training_loss", with_lines(over_training::training_loss(layout))),
        ("throughput", with_lines(throughput::throughput(layout))),
    ]
}

/// The chart, if anything is drawn in it.
fn with_lines(chart: Chart) -> Option<Box<dyn Figure>> {
    boxed(chart.panels.iter().any(|panel| !panel.lines.is_empty()).then_some(chart))
}

fn boxed<F: Figure + 'static>(figure: Option<F>) -> Option<Box<dyn Figure>> {
    figure.map(|figure| Box::new(figure) as Box<dyn Figure>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        Activation, Cell, DataConfig, NetworkConfig, ProbeConfig, RunConfig, ThroughputConfig, TrainingConfig,
        TrainingLength, WeightInit,
    };
    use crate::device::{Adapter, AdapterKind, Backend};
    use crate::record::{Environment, Manifest, RowCounts};
    use crate::schema::{
        ActivationRow, Gate, GateRow, GradientRow, LinkRow, RunRows, RunStatus, SCHEMA_VERSION, StepPhase, StepRow,
        UnitRow,
    };

    /// A run without rows.
    pub fn record(factors: &[(&str, &str)]) -> RunRecord {
        let adapter = Adapter {
            backend: Backend::Flex,
            index: 0,
            name: "CPU".to_owned(),
            kind: AdapterKind::Cpu,
            driver: String::new(),
            api: String::new(),
        };
        let manifest = Manifest {
            schema_version: SCHEMA_VERSION,
            run_id: "r".to_owned(),
            experiment: "example".to_owned(),
            question: String::new(),
            status: RunStatus::Complete,
            factors: factors.iter().map(|(name, level)| ((*name).to_owned(), (*level).to_owned())).collect(),
            seed: 1,
            data_sha256: None,
            no_prediction: None,
            rows: RowCounts::default(),
            gradient_coverage: None,
            trained_together: 1,
            config: RunConfig {
                data: DataConfig::default(),
                network: NetworkConfig::plain(3, 4, Activation::Relu, WeightInit::He),
                training: TrainingConfig::sgd(0.1, TrainingLength::Steps(5)),
                probe: ProbeConfig::default(),
                throughput: ThroughputConfig::default(),
            },
            environment: Environment::new(&adapter),
            started_at: String::new(),
            finished_at: String::new(),
        };
        RunRecord { manifest, rows: RunRows::default() }
    }

    pub fn gradient_row(step: usize, layer: &str, layer_index: usize, grad_l2: Option<f64>) -> GradientRow {
        GradientRow {
            run_id: "r".to_owned(),
            step,
            layer_index,
            layer: layer.to_owned(),
            parameter: format!("{layer}.weight"),
            time_step: None,
            element_count: 16,
            grad_l2,
            grad_rms: None,
            grad_max_abs: None,
            zero_count: 0,
            nonfinite_count: 0,
            weight_l2: None,
            update_l2: None,
            update_ratio: None,
        }
    }

    pub fn activation_row(step: usize, layer: &str, layer_index: usize) -> ActivationRow {
        ActivationRow {
            run_id: "r".to_owned(),
            step,
            layer_index,
            layer: layer.to_owned(),
            delta_l2: Some(1.0),
            ..ActivationRow::default()
        }
    }

    /// The state of a recurrent layer after so many time steps.
    pub fn state_row(
        step: usize,
        layer_index: usize,
        time_step: usize,
        hidden_grad_l2: Option<f64>,
        cell_grad_l2: Option<f64>,
    ) -> ActivationRow {
        let layer = format!("hidden.{layer_index}");
        ActivationRow {
            step,
            layer_index,
            layer,
            time_step: Some(time_step),
            hidden_grad_l2,
            cell_grad_l2,
            ..ActivationRow::default()
        }
    }

    /// A gate of a layer at a time step.
    pub fn gate_row(step: usize, layer_index: usize, gate: Gate, time_step: usize, mean: Option<f64>) -> GateRow {
        let layer = format!("hidden.{layer_index}");
        GateRow {
            step,
            layer_index,
            layer,
            gate,
            time_step,
            mean,
            low_fraction: Some(0.0),
            high_fraction: Some(0.0),
            ..GateRow::default()
        }
    }

    pub fn unit_row(step: usize, layer: &str, unit: usize, mean_delta: Option<f64>) -> UnitRow {
        UnitRow { run_id: "r".to_owned(), step, layer_index: 0, layer: layer.to_owned(), unit, mean_delta }
    }

    pub fn link_row(link: usize, factor: f64, factor_on_device: Option<f64>) -> LinkRow {
        LinkRow {
            run_id: "r".to_owned(),
            link,
            weight: 1.0,
            bias: 0.0,
            pre_activation: 0.0,
            factor,
            product: Some(1.0),
            factor_on_device,
            product_on_device: None,
        }
    }

    pub fn step_row(step: usize, grad_l2_before_clip: Option<f64>) -> StepRow {
        StepRow {
            run_id: "r".to_owned(),
            step,
            epoch: 0,
            phase: StepPhase::Train,
            loss: None,
            penalty: None,
            accuracy: None,
            reconstruction_error: None,
            learning_rate: None,
            grad_l2_before_clip,
            grad_l2_after_clip: None,
            clip_coefficient: None,
            clipped_fraction: None,
        }
    }

    fn drawn(runs: &[RunRecord]) -> Vec<&'static str> {
        let all = figures(&Layout::new(runs));
        all.into_iter().filter(|(_, figure)| figure.is_some()).map(|(name, _)| name).collect()
    }

    #[test]
    fn a_run_without_rows_has_no_figure() {
        assert!(drawn(&[record(&[])]).is_empty());
    }

    #[test]
    fn every_figure_is_drawn_as_soon_as_there_are_rows_for_it() {
        let mut run = record(&[]);
        let hidden = |step| (0..2).map(move |layer| (step, format!("hidden.{layer}"), layer));
        let rows = || (0..3).flat_map(hidden);
        run.rows.gradients = rows().map(|(step, layer, index)| gradient_row(step, &layer, index, Some(1.0))).collect();
        assert_eq!(drawn(&[run.clone()]), ["gradient_by_layer", "gradient_over_steps", "gradient_heat_map"]);
        run.rows.gradients.clear();
        run.rows.activations = rows().map(|(step, layer, index)| activation_row(step, &layer, index)).collect();
        assert_eq!(drawn(&[run.clone()]), ["delta_by_layer"]);
        let predicted = |run: &RunRecord| {
            let chart = by_layer::delta(&Layout::new(std::slice::from_ref(run)));
            (chart.panels[0].lines[0].broad, chart.to_svg().expect("draws").contains("predicted at step 0"))
        };
        assert_eq!(predicted(&run), (false, false));
        run.rows.activations[0].delta_l2_predicted = Some(0.9);
        assert_eq!(predicted(&run), (true, true));
        run.rows.activations[0].input_grad_l2 = Some(2.0);
        run.manifest.config.probe.inputs = true;
        run.rows.activations.iter_mut().for_each(|row| row.dead_fraction = Some(0.0));
        assert_eq!(drawn(&[run.clone()]), ["delta_by_layer", "input_gradient_by_layer"]);
        run.rows.activations[1].dead_fraction = Some(0.5);
        assert_eq!(drawn(&[run.clone()]), ["delta_by_layer", "input_gradient_by_layer", "dead_units_heat_map"]);
        run.rows.activations = vec![state_row(0, 0, 0, Some(0.5), None), state_row(0, 0, 1, Some(1.0), None)];
        assert_eq!(drawn(&[run.clone()]), ["hidden_gradient_by_time_step"]);
        run.manifest.config.network.cell = Some(Cell::Lstm);
        run.rows.activations.iter_mut().for_each(|row| row.cell_grad_l2 = Some(1.0));
        assert_eq!(drawn(&[run.clone()]), ["hidden_gradient_by_time_step", "cell_gradient_by_time_step"]);
        run.rows.activations.clear();
        run.rows.gates = vec![gate_row(0, 0, Gate::Update, 1, Some(0.5))];
        assert_eq!(drawn(&[run.clone()]), ["gates", "saturated_gates"]);
        run.rows.gates.clear();
        run.rows.units = vec![unit_row(0, "hidden.0", 0, Some(1.0))];
        assert_eq!(drawn(&[run.clone()]), ["unit_gradients"]);
        run.rows.units.clear();
        run.rows.links = vec![link_row(0, 0.25, Some(0.25))];
        assert_eq!(drawn(&[run.clone()]), ["chain"]);
        run.rows.links.clear();
        let mut row = step_row(0, Some(3.0));
        row.grad_l2_after_clip = Some(1.0);
        run.rows.steps = vec![row];
        assert_eq!(drawn(&[run.clone()]), ["clipping"]);
        // Two epochs are a curve. The rows have no loss: training loss is not finite there.
        let next = StepRow { step: 1, epoch: 1, ..run.rows.steps[0].clone() };
        run.rows.steps.push(next);
        assert_eq!(drawn(&[run]), ["clipping", "training_loss"]);
    }

    #[test]
    fn rows_of_time_steps_and_several_weights_do_not_change_what_is_drawn_of_a_layer() {
        let mut plain = record(&[]);
        let mut recurrent = record(&[]);
        recurrent.manifest.config.probe.inputs = true;
        plain.manifest.config.probe.inputs = true;
        for (step, layer) in (0..3).flat_map(|step| (0..2).map(move |layer| (step, layer))) {
            let name = format!("hidden.{layer}");
            let row = ActivationRow {
                input_grad_l2: Some(2.0),
                dead_fraction: Some(0.5),
                ..activation_row(step, &name, layer)
            };
            let weight = |part: &str, norm| GradientRow {
                parameter: format!("{name}.{part}"),
                ..gradient_row(step, &name, layer, Some(norm))
            };
            plain.rows.activations.push(row.clone());
            plain.rows.gradients.push(weight("weight", 5.0));
            recurrent.rows.activations.push(row);
            recurrent.rows.activations.extend((0..3).map(|time| state_row(step, layer, time, Some(1.0), None)));
            recurrent.rows.gradients.extend([weight("input.weight", 3.0), weight("recurrent.weight", 4.0)]);
        }
        let svgs = |run: RunRecord| -> Vec<(&str, String)> {
            let runs = [run];
            let all = figures(&Layout::new(&runs)).into_iter();
            all.filter(|(name, _)| !name.contains("time_step"))
                .filter_map(|(name, figure)| Some((name, figure?.to_svg().expect("draws"))))
                .collect()
        };
        let (plain, recurrent) = (svgs(plain), svgs(recurrent));
        assert_eq!(plain.len(), 6);
        assert_eq!(plain, recurrent);
    }

    #[test]
    fn of_a_network_with_a_stem_the_first_hidden_layer_is_1_and_has_its_line_over_training() {
        let mut run = record(&[]);
        let layers = ["stem", "hidden.0", "hidden.1", "output"].into_iter().enumerate();
        let rows =
            layers.flat_map(|(index, layer)| (0..2).map(move |step| gradient_row(step, layer, index, Some(1.0))));
        run.rows.gradients = rows.collect();
        let runs = [run];
        let layout = Layout::new(&runs);
        let by_layer = by_layer::weight_gradient(&layout);
        let places: Vec<f64> = by_layer.panels[0].lines[0].points.iter().map(|point| point.x).collect();
        assert_eq!(places, [1.0, 2.0]);
        assert!(over_training::weight_gradient(&layout).has_dashes());
    }

    #[test]
    fn a_figure_that_has_lost_its_rows_is_removed_and_others_stay() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut run = record(&[]);
        run.rows.links = vec![link_row(0, 0.25, Some(0.25))];
        run.rows.units = vec![unit_row(0, "hidden.0", 0, Some(1.0))];
        let names = |files: Vec<PathBuf>| -> Vec<String> {
            files.iter().filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned())).collect()
        };
        let files = draw_figures(dir.path(), &[run.clone()]).expect("draws");
        assert_eq!(names(files), ["unit_gradients.svg", "chain.svg"]);
        run.rows.links.clear();
        assert_eq!(names(draw_figures(dir.path(), &[run]).expect("draws")), ["unit_gradients.svg"]);
        let left = fs::read_dir(dir.path().join("figures")).expect("reads");
        assert_eq!(left.count(), 1);
    }
}
