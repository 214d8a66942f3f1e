//! `gradmark plan`

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{ExperimentArgs, print};
use crate::config::Source;
use crate::plan::{self, Plan, RunSpec};
use crate::{device, report};

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    experiment: ExperimentArgs,
    /// Print JSON, with the resolved config of every run
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Grouped<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    /// The ids of the runs that train together.
    groups: Vec<Vec<&'a str>>,
}

pub(super) fn execute(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let source = Source::load(&args.experiment.config, &args.experiment.overrides)?;
    let adapter = device::find(args.experiment.device.parse()?)?;
    let plan = plan::plan(&source, &adapter.label())?;
    let runs: Vec<&RunSpec> = plan.runs.iter().collect();
    let groups = plan::groups(&runs, !args.experiment.no_batch_seeds);
    if args.json {
        let ids = groups.iter().map(|group| group.iter().map(|run| run.run_id.as_str()).collect());
        print(&serde_json::to_string_pretty(&Grouped { plan: &plan, groups: ids.collect() })?)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&report::plan_table(&plan, &groups))?;
    let together: Vec<usize> = groups.iter().map(Vec::len).filter(|runs| *runs > 1).collect();
    print(&match together.len() {
        0 => format!("{} runs on {}", runs.len(), adapter.label()),
        groups => format!(
            "{} runs on {}, {} of them in {groups} groups that train together",
            runs.len(),
            adapter.label(),
            together.iter().sum::<usize>()
        ),
    })?;
    Ok(ExitCode::SUCCESS)
}
