//! `gradmark gate --science`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::super::guard::stop_on_ctrl_c;
use super::super::progress::{COMPLETE, Progress, RUNS};
use super::super::speed::Interrupted;
use super::super::{print, say};
use super::{GateArgs, Incomparable, REGRESSION};
use crate::config::Source;
use crate::data::Sources;
use crate::gate::science::{deviations, reference_rows};
use crate::plan;
use crate::record::{load_reference, write_reference};
use crate::schema::ReferenceRow;
use crate::train::TrainError;
use crate::verify::{Laboratory, VerifyError};
use crate::{device, report};

/// The config of the science gate where none is named.
const CONFIG: &str = "configs/science.toml";

pub(super) fn execute(args: &GateArgs) -> anyhow::Result<ExitCode> {
    let config: PathBuf = args.config.clone().unwrap_or_else(|| CONFIG.into());
    let source = Source::load(&config, &args.speed.overrides)?;
    // What the reference is measured on: any machine has a CPU.
    let request = if args.speed.device == "auto" { "flex" } else { &args.speed.device };
    let adapter = device::find(request.parse()?)?;
    let plan = plan::plan(&source, &adapter.label())?;
    let reference = if args.update { Vec::new() } else { load_reference(&args.reference)? };
    let sources = Sources::new(args.speed.data.data_dir.as_deref());
    for spec in &plan.runs {
        sources.require(&spec.config)?;
    }
    let device = device::open(&adapter)?;
    let stop = stop_on_ctrl_c()?;
    let laboratory =
        Laboratory { adapter: &adapter, device: &device, sources: &sources, stop: &stop, progress: &|_, _| {} };
    let progress = Progress::new(plan.runs.len(), &RUNS, args.speed.quiet);
    let mut rows = Vec::new();
    for (done, spec) in plan.runs.iter().enumerate() {
        let name = spec.levels.join(" ");
        progress.start(&name);
        let run = match laboratory.run_one(spec) {
            Err(VerifyError::Train(TrainError::Interrupted)) => Err(Interrupted.into()),
            run => run.map_err(anyhow::Error::from),
        };
        let run = run.inspect_err(|_| progress.end())?;
        rows.extend(reference_rows(&plan, spec, &run.summary, &run.rows));
        progress.finish(done + 1, &name, COMPLETE);
    }
    progress.end();
    if args.update {
        write_reference(&args.reference, &rows)?;
        print(&format!(
            "{} quantities of {} runs written to {}",
            rows.len(),
            plan.runs.len(),
            args.reference.display()
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    compare(&reference, &rows, &args.reference, plan.runs.len())
}

fn compare(reference: &[ReferenceRow], rows: &[ReferenceRow], path: &Path, runs: usize) -> anyhow::Result<ExitCode> {
    let found = deviations(reference, rows).map_err(|mismatch| {
        let mend = "name the config that it was written from, or write it anew with --update";
        Incomparable::new(path, mismatch.to_string(), mend)
    })?;
    if found.is_empty() {
        print(&format!("passed: {} quantities of {runs} runs are where {} has them", reference.len(), path.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&report::deviation_table(&found))?;
    print(&format!("{} of {} quantities deviate from {}", found.len(), reference.len(), path.display()))?;
    say("a change that is meant belongs into the reference: gradmark gate --science --update");
    Ok(ExitCode::from(REGRESSION))
}
