//! `gradmark measure`, the process that measures for `gradmark gate` and `gradmark baseline`.

use std::process::ExitCode;

use clap::Args;

use super::{DataArgs, ExperimentArgs};
use crate::config::Source;
use crate::data::Sources;
use crate::record::Environment;
use crate::{device, gate, plan};

#[derive(Debug, Args)]
pub(super) struct MeasureArgs {
    #[command(flatten)]
    experiment: ExperimentArgs,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) fn execute(args: &MeasureArgs) -> anyhow::Result<ExitCode> {
    let source = Source::load(&args.experiment.config, &args.experiment.overrides)?;
    let adapter = device::find(args.experiment.device.parse()?)?;
    let plan = plan::plan(&source, &adapter.label())?;
    let sources = Sources::new(args.data.data_dir.as_deref());
    let device = device::open(&adapter)?;
    let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
    gate::serve(&plan, &sources, &device, Environment::new(&adapter), input, output)?;
    Ok(ExitCode::SUCCESS)
}
