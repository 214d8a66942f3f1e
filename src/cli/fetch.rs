//! `gradmark fetch`

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::{DataArgs, print, say};
use crate::data::{self, Download, FASHION_MNIST, FetchEvent, ImageSet, MNIST};

#[derive(Debug, Args)]
pub(super) struct FetchArgs {
    /// The data set
    set: Set,
    #[command(flatten)]
    data: DataArgs,
    /// The URL of the directory that has the four files, compressed with gzip [default: the set's own]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Replace files that are there and are not the right ones
    #[arg(long)]
    force: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// The sets that can be downloaded.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Set {
    /// 70000 handwritten digits of 28 x 28 pixels
    Mnist,
    /// 70000 pictures of clothes of 28 x 28 pixels
    FashionMnist,
}

impl Set {
    fn images(self) -> &'static ImageSet {
        match self {
            Self::Mnist => &MNIST,
            Self::FashionMnist => &FASHION_MNIST,
        }
    }
}

pub(super) fn execute(args: &FetchArgs) -> anyhow::Result<ExitCode> {
    let set = args.set.images();
    let dir = data::data_dir(args.data.data_dir.as_deref())?.join(set.name);
    let mirror = args.mirror.as_deref().unwrap_or(set.mirror);
    let progress = FetchProgress::new(args.quiet);
    let download = Download { set, dir: &dir, mirror, force: args.force };
    let result = data::fetch(&download, &mut |event| progress.show(event));
    progress.end();
    result?;
    print(&format!("{} is in {}", set.title, dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows how far a download is.
enum FetchProgress {
    Quiet,
    Lines,
    Bar(ProgressBar),
}

impl FetchProgress {
    fn new(quiet: bool) -> Self {
        if quiet {
            return Self::Quiet;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines;
        }
        let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left  {msg}");
        let bar = ProgressBar::new(0);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self::Bar(bar)
    }

    fn show(&self, event: FetchEvent) {
        match (self, event) {
            (_, FetchEvent::Kept(file)) => self.remark(&format!("{file}: already there")),
            (_, FetchEvent::Written(file)) => self.remark(&format!("{file}: downloaded and checked")),
            (Self::Bar(bar), FetchEvent::Begun(file, bytes)) => {
                bar.reset();
                bar.set_length(bytes.unwrap_or(0));
                bar.set_message(file);
            }
            (Self::Bar(bar), FetchEvent::Received(bytes)) => bar.set_position(bytes),
            (Self::Quiet | Self::Lines, FetchEvent::Begun(..) | FetchEvent::Received(_)) => {}
        }
    }

    fn remark(&self, text: &str) {
        match self {
            Self::Quiet => {}
            Self::Lines => say(text),
            Self::Bar(bar) => bar.println(text),
        }
    }

    fn end(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
