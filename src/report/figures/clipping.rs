//! The global gradient norm that clipping meets.

use super::gathered::{GEOMETRIC_SPREAD, Gathered};
use super::layout::Layout;
use crate::config::Clipping;
use crate::record::RunRecord;
use crate::report::axis::{Axis, Scale};
use crate::report::chart::Chart;
use crate::schema::{RunStatus, StepPhase};

/// The most points of a line; more steps share a point, and the band reaches over all of them.
const MAX_POINTS: usize = 200;

/// The norm of all gradients before clipping, over training; `None` where nothing was clipped.
pub fn clipping(layout: &Layout<'_>) -> Option<Chart> {
    let runs: Vec<&RunRecord> = layout.configurations.iter().flat_map(|known| known.runs.iter().copied()).collect();
    if !is_about_clipping(&runs) {
        return None;
    }
    let last = runs.iter().flat_map(|run| norms(run)).map(|(step, _)| step).max().unwrap_or(0);
    let steps_a_point = (last + 1).div_ceil(MAX_POINTS);
    let merged = match steps_a_point {
        1 => String::new(),
        steps => format!(" A point stands for {steps} steps."),
    };
    let x = Axis { label: "step".to_owned(), scale: Scale::Count };
    let y = Axis { label: "|all gradients| before clipping".to_owned(), scale: Scale::Log };
    let mut chart = layout.chart("gradient norm before clipping", format!("{GEOMETRIC_SPREAD}{merged}"), x, y);
    chart.level = common_threshold(&runs).map(|threshold| (threshold, format!("threshold {threshold}")));
    chart.panels = layout.panels(|group| {
        let mut gathered = Gathered::default();
        for (step, norm) in group.runs.iter().flat_map(|run| norms(run)) {
            gathered.add((step / steps_a_point * steps_a_point) as f64, norm);
        }
        vec![gathered.log_line(group.color)]
    });
    Some(chart)
}

/// Whether gradients were clipped, or runs with and without clipping are compared.
fn is_about_clipping(runs: &[&RunRecord]) -> bool {
    let kind = |run: &RunRecord| run.manifest.config.training.clipping;
    let differs = runs.windows(2).any(|pair| kind(pair[0]) != kind(pair[1]));
    differs || runs.iter().any(|run| run.rows.steps.iter().any(|row| row.grad_l2_after_clip.is_some()))
}

/// The steps at which the norm was measured; `None` where the run diverged.
fn norms(run: &RunRecord) -> Vec<(usize, Option<f64>)> {
    let train = run.rows.steps.iter().filter(|row| row.phase == StepPhase::Train);
    // A step that the probe left out has no norm, just as one that is not finite: only the status tells them apart.
    let finite = train.filter_map(|row| row.grad_l2_before_clip.map(|norm| (row.step, Some(norm))));
    let mut norms: Vec<(usize, Option<f64>)> = finite.collect();
    if let RunStatus::Diverged { diverged_at_step } = run.manifest.status {
        norms.push((diverged_at_step, None));
    }
    norms
}

/// The threshold of the global norm, if all runs that are clipped have the same. Thresholds of elements and of single
/// parameters have no place on its axis.
fn common_threshold(runs: &[&RunRecord]) -> Option<f64> {
    let mut clipped =
        runs.iter().map(|run| &run.manifest.config.training).filter(|training| training.clipping != Clipping::None);
    let first = clipped.next()?;
    let same = clipped.all(|other| other.clipping == first.clipping && other.clip_threshold == first.clip_threshold);
    (first.clipping == Clipping::GlobalNorm && same).then_some(first.clip_threshold).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{record, step_row};
    use super::*;

    fn clipped(clipping: Clipping, threshold: Option<f64>) -> RunRecord {
        let level = format!("{clipping:?} {threshold:?}");
        let mut run = record(&[("training.clipping", &level)]);
        run.manifest.config.training.clipping = clipping;
        run.manifest.config.training.clip_threshold = threshold;
        run.rows.steps = (0..3).map(|step| step_row(step, Some(10.0))).collect();
        run
    }

    fn chart(runs: &[RunRecord]) -> Option<Chart> {
        clipping(&Layout::new(runs))
    }

    #[test]
    fn a_threshold_is_marked_only_if_all_clipped_runs_share_it_and_it_is_one_of_the_global_norm() {
        let none = clipped(Clipping::None, None);
        let norm = |threshold| clipped(Clipping::GlobalNorm, Some(threshold));
        let level = |runs: &[RunRecord]| chart(runs).expect("clipping").level.map(|(level, _)| level);
        assert_eq!(level(&[none.clone(), norm(0.5)]), Some(0.5));
        assert_eq!(level(&[norm(0.5), norm(1.0), none.clone()]), None);
        assert_eq!(level(&[none, clipped(Clipping::Value, Some(0.5))]), None);
    }

    #[test]
    fn an_experiment_without_clipping_has_no_such_figure() {
        assert!(chart(&[clipped(Clipping::None, None)]).is_none());
    }

    #[test]
    fn a_step_without_a_norm_is_left_out_and_the_step_of_divergence_is_marked() {
        let mut run = clipped(Clipping::None, None);
        run.rows.steps[1].grad_l2_before_clip = None;
        run.manifest.status = RunStatus::Diverged { diverged_at_step: 7 };
        let chart = chart(&[run, clipped(Clipping::GlobalNorm, Some(1.0))]).expect("two kinds");
        let line = &chart.panels[0].lines[0];
        assert_eq!(line.points.iter().map(|point| point.x).collect::<Vec<_>>(), [0.0, 2.0]);
        assert_eq!(line.nonfinite, [7.0]);
    }

    #[test]
    fn a_single_spike_among_many_steps_reaches_the_band() {
        let mut run = clipped(Clipping::GlobalNorm, Some(1.0));
        run.rows.steps = (0..5000).map(|step| step_row(step, Some(if step == 4321 { 1e6 } else { 1.0 }))).collect();
        run.rows.steps[0].grad_l2_after_clip = Some(1.0);
        let chart = chart(&[run]).expect("clipped");
        let line = &chart.panels[0].lines[0];
        assert!(line.points.len() <= MAX_POINTS && line.points.iter().any(|point| point.high == 1e6));
    }
}
