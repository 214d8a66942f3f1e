//! Progress: bars on a terminal, plain lines elsewhere.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::say;

/// The outcome of a run that the bars do not remark on.
pub(super) const COMPLETE: &str = "complete";

/// Shows how far an experiment is.
pub(super) struct Progress {
    total: usize,
    kind: Kind,
}

enum Kind {
    Quiet,
    Lines,
    Bars { runs: ProgressBar, steps: ProgressBar },
}

impl Progress {
    /// Progress over `total` runs.
    pub(super) fn new(total: usize, quiet: bool) -> Self {
        let kind = if quiet {
            Kind::Quiet
        } else if std::io::stderr().is_terminal() {
            bars(total)
        } else {
            Kind::Lines
        };
        Self { total, kind }
    }

    /// A run starts; `done` are behind it.
    pub(super) fn start_run(&self, name: &str) {
        if let Kind::Bars { steps, .. } = &self.kind {
            steps.reset();
            steps.set_length(0);
            steps.set_message(format!("{name}: measuring throughput"));
        }
    }

    /// A step of the run is done.
    pub(super) fn step(&self, name: &str, done: usize, total: usize) {
        if let Kind::Bars { steps, .. } = &self.kind {
            if done == 1 {
                steps.reset();
                steps.set_length(total as u64);
                steps.set_message(name.to_owned());
            }
            steps.set_position(done as u64);
        }
    }

    /// A run is done, `done` with it.
    pub(super) fn finish_run(&self, done: usize, name: &str, outcome: &str) {
        match &self.kind {
            Kind::Quiet => {}
            Kind::Lines => say(&format!("[{done}/{}] {name}: {outcome}", self.total)),
            Kind::Bars { runs, .. } => {
                if outcome != COMPLETE {
                    runs.println(format!("{name}: {outcome}"));
                }
                runs.set_position(done as u64);
            }
        }
    }

    /// A remark that stays on the screen.
    pub(super) fn remark(&self, text: &str) {
        match &self.kind {
            Kind::Quiet => {}
            Kind::Lines => say(text),
            Kind::Bars { runs, .. } => runs.println(text),
        }
    }

    /// Takes the bars away.
    pub(super) fn end(&self) {
        if let Kind::Bars { runs, steps } = &self.kind {
            steps.finish_and_clear();
            runs.finish_and_clear();
        }
    }
}

fn bars(total: usize) -> Kind {
    let style =
        |template: &str| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let both = MultiProgress::new();
    let runs = both.add(ProgressBar::new(total as u64));
    // Before the first run ends nothing is known about the others.
    let left = |state: &ProgressState, text: &mut dyn Write| {
        let _ = match state.pos() {
            0 => text.write_str("?"),
            _ => write!(text, "{:.0?}", Duration::from_secs(state.eta().as_secs())),
        };
    };
    runs.set_style(style("{bar:30} {pos}/{len} runs, {elapsed} gone, {left} left").with_key("left", left));
    let steps = both.add(ProgressBar::new(0));
    steps.set_style(style("{bar:30} {pos}/{len} steps, {per_sec:.0}, {eta} left  {msg}"));
    runs.enable_steady_tick(Duration::from_millis(500));
    Kind::Bars { runs, steps }
}
