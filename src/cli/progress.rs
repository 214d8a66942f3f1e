//! Progress: bars on a terminal, plain lines elsewhere.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::say;

/// The outcome of a run that the bars do not remark on.
pub(super) const COMPLETE: &str = "complete";

/// What a command counts: its pieces, and what a piece consists of.
pub(super) struct Counted {
    pieces: &'static str,
    parts: &'static str,
}

/// Runs of an experiment, which have steps.
pub(super) const RUNS: Counted = Counted { pieces: "runs", parts: "steps" };
/// Sessions of a gate or a baseline, which have samples.
pub(super) const SESSIONS: Counted = Counted { pieces: "sessions", parts: "samples" };
/// Cases that are verified, which have runs.
pub(super) const CASES: Counted = Counted { pieces: "cases", parts: "runs" };

/// Shows how far a command is.
pub(super) struct Progress {
    total: usize,
    kind: Kind,
}

enum Kind {
    Quiet,
    Lines,
    Bars { pieces: ProgressBar, parts: ProgressBar },
}

impl Progress {
    /// Progress over `total` pieces.
    pub(super) fn new(total: usize, counted: &Counted, quiet: bool) -> Self {
        let kind = if quiet {
            Kind::Quiet
        } else if std::io::stderr().is_terminal() {
            bars(total, counted)
        } else {
            Kind::Lines
        };
        Self { total, kind }
    }

    /// A piece starts, with what is said of it.
    pub(super) fn start(&self, message: &str) {
        if let Kind::Bars { parts, .. } = &self.kind {
            parts.reset();
            parts.set_length(0);
            parts.set_message(message.to_owned());
        }
    }

    /// A part of the piece is done, of which this is said.
    pub(super) fn step(&self, name: &str, done: usize, total: usize) {
        if let (Kind::Bars { parts, .. }, 1) = (&self.kind, done) {
            parts.set_message(name.to_owned());
        }
        self.advance(done, total);
    }

    /// A part of the piece is done.
    pub(super) fn advance(&self, done: usize, total: usize) {
        if let Kind::Bars { parts, .. } = &self.kind {
            if done == 1 {
                parts.reset();
                parts.set_length(total as u64);
            }
            parts.set_position(done as u64);
        }
    }

    /// A piece is done, `done` with it.
    pub(super) fn finish(&self, done: usize, name: &str, outcome: &str) {
        match &self.kind {
            Kind::Quiet => {}
            Kind::Lines => say(&format!("[{done}/{}] {name}: {outcome}", self.total)),
            Kind::Bars { pieces, .. } => {
                if outcome != COMPLETE {
                    pieces.println(format!("{name}: {outcome}"));
                }
                pieces.set_position(done as u64);
            }
        }
    }

    /// A remark that stays on the screen.
    pub(super) fn remark(&self, text: &str) {
        match &self.kind {
            Kind::Quiet => {}
            Kind::Lines => say(text),
            Kind::Bars { pieces, .. } => pieces.println(text),
        }
    }

    /// Takes the bars away.
    pub(super) fn end(&self) {
        if let Kind::Bars { pieces, parts } = &self.kind {
            parts.finish_and_clear();
            pieces.finish_and_clear();
        }
    }
}

fn bars(total: usize, counted: &Counted) -> Kind {
    let style =
        |template: &str| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let both = MultiProgress::new();
    let pieces = both.add(ProgressBar::new(total as u64));
    // Before the first piece ends nothing is known about the others.
    let left = |state: &ProgressState, text: &mut dyn Write| {
        let _ = match state.pos() {
            0 => text.write_str("?"),
            _ => write!(text, "{:.0?}", Duration::from_secs(state.eta().as_secs())),
        };
    };
    let template = format!("{{bar:30}} {{pos}}/{{len}} {}, {{elapsed}} gone, {{left}} left", counted.pieces);
    pieces.set_style(style(&template).with_key("left", left));
    let parts = both.add(ProgressBar::new(0));
    parts.set_style(style(&format!(
        "{{bar:30}} {{pos}}/{{len}} {}, {{per_sec:.0}}, {{eta}} left  {{msg}}",
        counted.parts
    )));
    pieces.enable_steady_tick(Duration::from_millis(500));
    Kind::Bars { pieces, parts }
}
