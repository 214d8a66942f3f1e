//! The command line: one file a subcommand. The only place that parses arguments and prints.

mod baseline;
mod compare;
mod devices;
mod export;
mod fetch;
mod gate;
mod guard;
mod measure;
mod plan;
mod progress;
mod report;
mod run;
mod speed;
mod verify;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::ConfigError;
use crate::data::{DataError, FetchError};
use crate::device::DeviceError;
use crate::gate::MeasurerError;
use crate::record::StoreError;
use crate::report::ExportError;
use crate::verify::UnknownCase;

/// The exit code of a run that was stopped by Ctrl-C, as shells count it.
const INTERRUPTED: u8 = 130;
/// The exit code of two sides that cannot be compared, or of too few samples.
const INCOMPARABLE: u8 = 4;

/// Benchmark gradient flow: train deep networks, log every layer's gradients and the throughput to CSV.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "\
Exit codes: 0 done (a network that diverges is a result), 1 a run, a file, a download or a verification failed, \
2 wrong usage or config, or files of a data set absent or wrong, \
3 a gate found a regression, 4 two sides cannot be compared, 130 stopped by Ctrl-C."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an experiment; complete runs are kept and skipped when it is run again
    Run(run::RunArgs),
    /// Print the runs of an experiment without running them
    Plan(plan::PlanArgs),
    /// List the backends of this build and the adapters of this machine
    Devices(devices::DevicesArgs),
    /// Download the files of a data set; files that are there already are kept
    Fetch(fetch::FetchArgs),
    /// Reproduce known results on a device: is what it computes right?
    Verify(verify::VerifyArgs),
    /// Print the table and draw the figures of an experiment again, from its CSV files
    Report(report::ReportArgs),
    /// Keep the speed of a config's networks, or criterion's results, for `gradmark gate` to compare with
    Baseline(baseline::BaselineArgs),
    /// Compare speed with a baseline or another binary, or numbers with a reference; exit code 3 is a regression
    Gate(Box<gate::GateArgs>),
    /// Measure speed as a gate asks for it
    #[command(hide = true)]
    Measure(measure::MeasureArgs),
    /// Compare the results of two directories, such as two commits, two devices or two configs
    Compare(compare::CompareArgs),
    /// Export the results of an experiment, or of criterion, in the format of another tool
    Export(export::ExportArgs),
}

/// What names an experiment and a device.
#[derive(Debug, Args)]
struct ExperimentArgs {
    /// The config, a TOML file
    config: std::path::PathBuf,
    /// Override a key of the config, such as network.depth=8; replaces a swept list; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// auto, flex, ndarray, wgpu, vulkan or cuda; :INDEX picks one of several adapters. auto takes the first hardware
    /// GPU, else the CPU
    #[arg(long, default_value = "auto", value_name = "NAME[:INDEX]")]
    device: String,
    /// Train the seeds of a configuration one after the other, and not together as one batched network
    #[arg(long)]
    no_batch_seeds: bool,
}

/// Where the files of data sets are.
#[derive(Debug, Args)]
struct DataArgs {
    /// The directory of all data sets that are files [default: that in `GRADMARK_DATA_DIR`, else gradmark in the user's data
    /// directory, such as ~/.local/share/gradmark]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<std::path::PathBuf>,
}

/// Carries out a command.
///
/// # Errors
///
/// Whatever keeps the command from its end; [`exit_code`] tells the exit code.
pub fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Run(args) => run::execute(&args),
        Command::Plan(args) => plan::execute(&args),
        Command::Devices(args) => devices::execute(&args),
        Command::Fetch(args) => fetch::execute(&args),
        Command::Verify(args) => verify::execute(&args),
        Command::Report(args) => report::execute(&args),
        Command::Baseline(args) => baseline::execute(&args),
        Command::Gate(args) => gate::execute(&args),
        Command::Measure(args) => measure::execute(&args),
        Command::Compare(args) => compare::execute(&args),
        Command::Export(args) => export::execute(&args),
    }
}

/// 2 if the command, the config, the directory or the files of a data set have to be changed, 4 if two sides cannot be compared, 130
/// if it was stopped, 1 if something failed on the way.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<compare::NothingInCommon>()
        || error.is::<gate::Incomparable>()
        || matches!(error.downcast_ref(), Some(MeasurerError::Foreign { .. }))
    {
        return ExitCode::from(INCOMPARABLE);
    }
    if error.is::<speed::Interrupted>() {
        return ExitCode::from(INTERRUPTED);
    }
    let is_usage = error.is::<ConfigError>()
        || matches!(
            error.downcast_ref::<DeviceError>(),
            Some(DeviceError::Unknown { .. } | DeviceError::NotCompiledIn { .. } | DeviceError::Absent { .. })
        )
        || matches!(error.downcast_ref::<StoreError>(), Some(StoreError::Unusable { .. }))
        || error.is::<DataError>()
        || error.is::<UnknownCase>()
        || error.downcast_ref::<FetchError>().is_some_and(FetchError::is_usage)
        || error.is::<verify::AgainstError>()
        || error.is::<report::NothingToReport>()
        || error.is::<gate::NoConfig>()
        || matches!(error.downcast_ref(), Some(MeasurerError::Start { .. }))
        || error.is::<compare::SameSide>()
        || error.is::<ExportError>();
    ExitCode::from(if is_usage { 2 } else { 1 })
}

/// Writes a line to standard error. Who has closed it does not want to read it.
pub fn say(text: &str) {
    use std::io::Write;

    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints to standard output. A reader that closes the pipe, such as `head`, is no error.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;

    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
