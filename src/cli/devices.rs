//! `gradmark devices`

use std::process::ExitCode;

use clap::Args;

use super::print;
use crate::{device, report};

#[derive(Debug, Args)]
pub(super) struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &DevicesArgs) -> anyhow::Result<ExitCode> {
    let adapters = device::enumerate();
    if args.json {
        print(&serde_json::to_string_pretty(&adapters)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&report::adapter_table(&adapters))?;
    let automatic = device::find(device::DeviceRequest::Auto)?;
    print(&format!(
        "backends of this build: {}\n--device auto takes {}:{} ({})",
        device::compiled_in().join(", "),
        automatic.backend.name(),
        automatic.index,
        automatic.name,
    ))?;
    for backend in device::Backend::ALL.into_iter().filter(|backend| !backend.is_compiled_in()) {
        print(&format!("{} is not in this build; build with --features {0}", backend.name()))?;
    }
    Ok(ExitCode::SUCCESS)
}
