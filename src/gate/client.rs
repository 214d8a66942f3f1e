//! The side of the protocol that asks: a process that measures, and what it answers.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};

use super::protocol::{Configuration, Hello, HelloVersion, PROTOCOL_VERSION, Request, Response};

/// A process that measures.
#[derive(Debug)]
pub struct Measurer {
    binary: PathBuf,
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    errors: Errors,
    hello: Hello,
}

/// What the process says to people, read as it comes so that it never has to wait.
type Errors = Option<JoinHandle<String>>;

/// Why a process does not measure.
#[derive(Debug, thiserror::Error)]
pub enum MeasurerError {
    /// It cannot be started.
    #[error("{}: cannot be started: {cause}; name the binary of a gradmark", binary.display())]
    Start {
        /// The binary.
        binary: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// It does not speak the protocol.
    #[error("{}: does not measure as this gradmark asks: {problem}; name the binary of a gradmark that has `gradmark gate`", binary.display())]
    Foreign {
        /// The binary.
        binary: PathBuf,
        /// What it said.
        problem: String,
    },
    /// It failed.
    #[error("{}: {problem}", binary.display())]
    Failed {
        /// The binary.
        binary: PathBuf,
        /// What it said.
        problem: String,
    },
}

impl Measurer {
    /// Starts `BINARY measure ARGUMENTS` and hears what it can measure.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or is none that speaks this version of the protocol.
    pub fn start(binary: &Path, arguments: &[OsString]) -> Result<Self, MeasurerError> {
        let mut child = Command::new(binary)
            .arg("measure")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|cause| MeasurerError::Start { binary: binary.to_owned(), cause })?;
        let pipe = || MeasurerError::Start { binary: binary.to_owned(), cause: io::ErrorKind::BrokenPipe.into() };
        let mut errors = child.stderr.take().map(|mut errors| {
            thread::spawn(move || {
                let mut said = Vec::new();
                let _ = errors.read_to_end(&mut said);
                String::from_utf8_lossy(&said).into_owned()
            })
        });
        let requests = child.stdin.take().ok_or_else(pipe)?;
        let mut answers = BufReader::new(child.stdout.take().ok_or_else(pipe)?);
        let mut line = String::new();
        let foreign = |problem| MeasurerError::Foreign { binary: binary.to_owned(), problem };
        if answers.read_line(&mut line).is_err() || line.is_empty() {
            drop(requests);
            return Err(foreign(last_words(&mut child, &mut errors)));
        }
        let parsed = serde_json::from_str::<HelloVersion>(&line).map_err(|error| error.to_string());
        let hello = parsed.and_then(|hello| match hello.protocol_version {
            PROTOCOL_VERSION => serde_json::from_str(&line).map_err(|error| error.to_string()),
            other => Err(format!("it speaks version {other} of the protocol, and this one version {PROTOCOL_VERSION}")),
        });
        match hello {
            Ok(hello) => {
                Ok(Self { binary: binary.to_owned(), child, requests: Some(requests), answers, errors, hello })
            }
            Err(problem) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(foreign(problem))
            }
        }
    }

    /// [`Measurer::start`] of this program itself, which cannot be a foreign one: what it says is a failure.
    ///
    /// # Errors
    ///
    /// If it cannot be started or fails.
    pub fn start_own(binary: &Path, arguments: &[OsString]) -> Result<Self, MeasurerError> {
        Self::start(binary, arguments).map_err(|error| match error {
            MeasurerError::Foreign { binary, problem } => MeasurerError::Failed { binary, problem },
            error => error,
        })
    }

    /// What it can measure, and its machine and build.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Asks for the configurations that were there before.
    ///
    /// # Errors
    ///
    /// If they are others: the config was changed meanwhile.
    pub fn expect(&self, configurations: &[Configuration]) -> Result<(), MeasurerError> {
        let same = |(a, b): (&Configuration, &Configuration)| a.is_same(b);
        let theirs = &self.hello.configurations;
        if theirs.len() == configurations.len() && theirs.iter().zip(configurations).all(same) {
            return Ok(());
        }
        let problem = "the config has changed since the command began; run it again".to_owned();
        Err(MeasurerError::Failed { binary: self.binary.clone(), problem })
    }

    /// Prepares a configuration, to be measured on one of the cores, and returns the milliseconds of a step.
    ///
    /// # Errors
    ///
    /// If the process fails.
    pub fn prepare(&mut self, configuration: usize, core: usize) -> Result<f64, MeasurerError> {
        self.ask(&Request::Prepare { configuration, core })
    }

    /// Takes so many steps of the prepared configuration and returns the milliseconds of one.
    ///
    /// # Errors
    ///
    /// If the process fails.
    pub fn step_ms(&mut self, steps: usize) -> Result<f64, MeasurerError> {
        Ok(self.ask(&Request::Sample { steps })? / steps as f64)
    }

    /// Does the fixed pieces of work, on one core and on all that steps use, and returns the milliseconds of each.
    ///
    /// # Errors
    ///
    /// If the process fails.
    pub fn yardsticks_ms(&mut self) -> Result<[f64; 2], MeasurerError> {
        Ok([self.ask(&Request::Yardstick)?, self.ask(&Request::YardstickTogether)?])
    }

    /// The milliseconds that its threads have waited for a core so far; 0 where the system does not tell.
    ///
    /// # Errors
    ///
    /// If the process fails.
    pub fn waited_ms(&mut self) -> Result<f64, MeasurerError> {
        self.ask(&Request::Waited)
    }

    fn ask(&mut self, request: &Request) -> Result<f64, MeasurerError> {
        let mut line = String::new();
        let told = serde_json::to_string(request).map_err(io::Error::from).and_then(|text| {
            let requests = self.requests.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
            writeln!(requests, "{text}")?;
            requests.flush()?;
            self.answers.read_line(&mut line)
        });
        let problem = match told.map(|_| serde_json::from_str(&line)) {
            Ok(Ok(Response::ElapsedMs(elapsed_ms))) => return Ok(elapsed_ms),
            Ok(Ok(Response::Failed(problem))) => problem,
            _ => {
                self.requests = None;
                last_words(&mut self.child, &mut self.errors)
            }
        };
        Err(MeasurerError::Failed { binary: self.binary.clone(), problem })
    }
}

impl Drop for Measurer {
    fn drop(&mut self) {
        // It ends by itself when nobody asks any more.
        self.requests = None;
        let _ = self.child.wait();
    }
}

/// What a process that ended said, or how it ended: its error, or everything, which of a panic is two lines.
fn last_words(child: &mut Child, errors: &mut Errors) -> String {
    let status = child.wait().map_or_else(|error| error.to_string(), |status| format!("it ended with {status}"));
    let said = errors.take().and_then(|errors| errors.join().ok()).unwrap_or_default();
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.iter().find_map(|line| line.strip_prefix("error: ")) {
        Some(error) => format!("{status} and said: {error}"),
        None if lines.is_empty() => status,
        None => format!("{status} and said: {}", lines.join(" ")),
    }
}
