//! `gradmark plan`

use std::process::ExitCode;

use clap::Args;

use super::{ExperimentArgs, print};
use crate::config::Source;
use crate::{device, plan, report};

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    experiment: ExperimentArgs,
    /// Print JSON, with the resolved config of every run
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let source = Source::load(&args.experiment.config, &args.experiment.overrides)?;
    let adapter = device::find(args.experiment.device.parse()?)?;
    let plan = plan::plan(&source, &adapter.label())?;
    if args.json {
        print(&serde_json::to_string_pretty(&plan)?)?;
    } else {
        print(&report::plan_table(&plan))?;
        print(&format!("{} runs on {}", plan.runs.len(), adapter.label()))?;
    }
    Ok(ExitCode::SUCCESS)
}
