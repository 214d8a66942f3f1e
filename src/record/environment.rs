//! The machine and the build that a run was made with.

use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::device::{self, Adapter};
use crate::fault;

/// What a result depends on besides its config and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// The version of gradmark.
    pub gradmark_version: String,
    /// The commit that it was built from; `None` outside a git checkout.
    pub commit: Option<String>,
    /// Whether tracked files differed from the commit.
    pub dirty: Option<bool>,
    /// The version of Burn.
    pub burn_version: Option<String>,
    /// The compiler.
    pub rustc: Option<String>,
    /// The Cargo profile: release or debug.
    pub profile: Option<String>,
    /// The level of optimization and `RUSTFLAGS`.
    #[serde(default)]
    pub compiler_flags: Option<String>,
    /// The backends that are compiled in, and `faults` if it has some on purpose.
    pub features: Vec<String>,
    /// Backend, adapter, kind and driver.
    pub adapter: Adapter,
    /// Whether the adapter only imitates a GPU.
    pub software_adapter: bool,
    /// The CPU's name.
    pub cpu: Option<String>,
    /// Logical CPU cores that the program may use.
    pub cores: Option<usize>,
    /// `RAYON_NUM_THREADS`, if it is set.
    pub threads_requested: Option<String>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// The operating system and its version.
    pub os: Option<String>,
    /// The instruction set.
    pub arch: String,
}

impl Environment {
    /// Looks at this machine and this build.
    pub fn new(adapter: &Adapter) -> Self {
        let looked_at = RefreshKind::nothing()
            .with_memory(MemoryRefreshKind::nothing().with_ram())
            .with_cpu(CpuRefreshKind::nothing());
        let system = System::new_with_specifics(looked_at).ok();
        Self {
            gradmark_version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: known(env!("GRADMARK_COMMIT")),
            dirty: env!("GRADMARK_DIRTY").parse().ok(),
            burn_version: known(env!("GRADMARK_BURN")),
            rustc: known(env!("GRADMARK_RUSTC")),
            profile: known(env!("GRADMARK_PROFILE")),
            compiler_flags: known(env!("GRADMARK_FLAGS")),
            features: device::compiled_in()
                .into_iter()
                .chain(fault::IS_COMPILED_IN.then_some("faults"))
                .map(str::to_owned)
                .collect(),
            adapter: adapter.clone(),
            software_adapter: adapter.is_software(),
            cpu: system.as_ref().and_then(|system| known(system.cpus().first()?.brand().trim())),
            cores: std::thread::available_parallelism().ok().map(usize::from),
            threads_requested: std::env::var("RAYON_NUM_THREADS").ok(),
            memory_bytes: system.map(|system| system.total_memory()),
            os: System::long_os_version().ok(),
            arch: std::env::consts::ARCH.to_owned(),
        }
    }
}

impl Environment {
    /// The compiler and its flags: what decides how fast code is that has not changed.
    pub fn compiler(&self) -> Option<String> {
        let parts = [&self.rustc, &self.profile, &self.compiler_flags];
        parts.into_iter().cloned().collect::<Option<Vec<_>>>().map(|parts| parts.join(", "))
    }
}

fn known(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
