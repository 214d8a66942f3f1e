//! From the name of a backend to a Burn device. The only file that knows which backends are compiled in.

use std::fmt;
use std::str::FromStr;

pub use burn::tensor::Device;
use serde::{Deserialize, Serialize};

#[cfg(not(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda")))]
compile_error!("switch on at least one backend: --features flex, ndarray, wgpu, vulkan or cuda");

/// A backend of Burn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// Burn's CPU backend.
    Flex,
    /// Burn's older CPU backend on the ndarray crate.
    Ndarray,
    /// Any GPU that wgpu reaches, with WGSL shaders (SPIR-V in a build with the feature `vulkan`).
    Wgpu,
    /// A GPU through Vulkan, with SPIR-V shaders.
    Vulkan,
    /// An NVIDIA GPU through CUDA.
    Cuda,
}

impl Backend {
    /// All backends, compiled in or not.
    pub const ALL: [Self; 5] = [Self::Flex, Self::Ndarray, Self::Wgpu, Self::Vulkan, Self::Cuda];

    /// The name of the backend, of its Cargo feature and of its `--device`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Ndarray => "ndarray",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Cuda => "cuda",
        }
    }

    /// Whether this build has the backend.
    pub fn is_compiled_in(self) -> bool {
        match self {
            Self::Flex => cfg!(feature = "flex"),
            Self::Ndarray => cfg!(feature = "ndarray"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Cuda => cfg!(feature = "cuda"),
        }
    }
}

/// The backends of this build, by name.
pub fn compiled_in() -> Vec<&'static str> {
    Backend::ALL.into_iter().filter(|backend| backend.is_compiled_in()).map(Backend::name).collect()
}

/// What kind of processor an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterKind {
    /// The CPU, driven by a CPU backend.
    Cpu,
    /// A GPU with memory of its own.
    DiscreteGpu,
    /// A GPU that shares the CPU's memory.
    IntegratedGpu,
    /// A GPU that a virtual machine passes on.
    VirtualGpu,
    /// A graphics driver that runs on the CPU: no GPU, and no measure of one.
    Software,
    /// A processor that its driver does not classify.
    Other,
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "CPU",
            Self::DiscreteGpu => "discrete GPU",
            Self::IntegratedGpu => "integrated GPU",
            Self::VirtualGpu => "virtual GPU",
            Self::Software => "software adapter",
            Self::Other => "other",
        })
    }
}

/// A processor that a backend can run on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapter {
    /// The backend.
    pub backend: Backend,
    /// Its number among the adapters of the backend, as in `--device wgpu:1`.
    pub index: usize,
    /// The name that the driver gives.
    pub name: String,
    /// The kind of processor.
    pub kind: AdapterKind,
    /// The driver and its version; empty for the CPU.
    pub driver: String,
    /// The graphics or compute interface: Vulkan, Metal, Dx12, Gl, CUDA; empty for the CPU.
    pub api: String,
}

impl Adapter {
    /// Whether it only imitates a GPU.
    pub fn is_software(&self) -> bool {
        self.kind == AdapterKind::Software
    }

    /// Whether `auto` may take it.
    fn is_hardware_gpu(&self) -> bool {
        matches!(self.kind, AdapterKind::DiscreteGpu | AdapterKind::IntegratedGpu | AdapterKind::VirtualGpu)
    }

    /// Backend and adapter name: what tells the runs of one device from those of another.
    pub fn label(&self) -> String {
        match self.kind {
            AdapterKind::Cpu => self.backend.name().to_owned(),
            _ => format!("{} {}", self.backend.name(), self.name),
        }
    }
}

/// What `--device` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceRequest {
    /// The first hardware GPU, else the CPU.
    Auto,
    /// An adapter of a backend.
    Adapter {
        /// The backend.
        backend: Backend,
        /// The number of the adapter, or the first suitable one.
        index: Option<usize>,
    },
}

impl FromStr for DeviceRequest {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let unknown = || DeviceError::Unknown { request: text.to_owned() };
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, Some(index.parse().map_err(|_| unknown())?)),
            None => (text, None),
        };
        let backend = Backend::ALL.into_iter().find(|backend| backend.name() == name).ok_or_else(unknown)?;
        Ok(Self::Adapter { backend, index })
    }
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Not the name of a device.
    #[error(
        "--device {request}: no such device; write auto, flex, ndarray, wgpu, vulkan or cuda, with :index for one of several adapters"
    )]
    Unknown {
        /// What was asked for.
        request: String,
    },
    /// The backend is not in this build.
    #[error("--device {name}: this build has no {name} backend, only {}; build with `--features {name}`", present.join(", "))]
    NotCompiledIn {
        /// The backend.
        name: &'static str,
        /// The backends of this build.
        present: Vec<&'static str>,
    },
    /// The backend has no such adapter.
    #[error("--device {request}: there is no such adapter; {found}; `gradmark devices` lists all")]
    Absent {
        /// What was asked for.
        request: String,
        /// What there is.
        found: String,
    },
    /// The adapter is there and does not start.
    #[error("--device {request}: {name} cannot be opened: {reason}")]
    Failed {
        /// What was asked for.
        request: String,
        /// The adapter.
        name: String,
        /// What the driver said.
        reason: String,
    },
}

/// Every adapter of every backend that is compiled in.
pub fn enumerate() -> Vec<Adapter> {
    Backend::ALL.into_iter().filter(|backend| backend.is_compiled_in()).flat_map(adapters).collect()
}

/// Finds the adapter that is asked for, without opening it.
///
/// # Errors
///
/// If the backend is not compiled in or has no such adapter.
pub fn find(request: DeviceRequest) -> Result<Adapter, DeviceError> {
    match request {
        DeviceRequest::Auto => automatic(),
        DeviceRequest::Adapter { backend, index } => {
            let name = backend.name();
            if !backend.is_compiled_in() {
                return Err(DeviceError::NotCompiledIn { name, present: compiled_in() });
            }
            let found = adapters(backend);
            // Named without a number, a software adapter is taken only if there is no other.
            let chosen = match index {
                Some(index) => found.get(index),
                None => found.iter().find(|adapter| !adapter.is_software()).or(found.first()),
            };
            chosen.cloned().ok_or_else(|| DeviceError::Absent {
                request: index.map_or(name.to_owned(), |index| format!("{name}:{index}")),
                found: match found.len() {
                    0 => format!("{name} finds no adapter on this machine"),
                    count => format!("{name} has the indices 0 to {}", count - 1),
                },
            })
        }
    }
}

/// The first hardware GPU, else a CPU backend. A software adapter is never taken unasked.
fn automatic() -> Result<Adapter, DeviceError> {
    let gpus = [Backend::Cuda, Backend::Vulkan, Backend::Wgpu].into_iter();
    let gpu = gpus.filter(|backend| backend.is_compiled_in()).flat_map(adapters).find(Adapter::is_hardware_gpu);
    let mut cpus = [Backend::Flex, Backend::Ndarray].into_iter().filter(|backend| backend.is_compiled_in());
    gpu.or_else(|| cpus.next().map(cpu)).ok_or_else(|| DeviceError::Absent {
        request: "auto".to_owned(),
        found: "this machine has no GPU that it can reach, and this build has no CPU backend".to_owned(),
    })
}

fn adapters(backend: Backend) -> Vec<Adapter> {
    match backend {
        Backend::Flex | Backend::Ndarray => vec![cpu(backend)],
        #[cfg(feature = "wgpu")]
        Backend::Wgpu => graphics::adapters(Backend::Wgpu),
        #[cfg(feature = "vulkan")]
        Backend::Vulkan => graphics::adapters(Backend::Vulkan),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda_adapters(),
        #[allow(unreachable_patterns)]
        _ => Vec::new(),
    }
}

fn cpu(backend: Backend) -> Adapter {
    Adapter {
        backend,
        index: 0,
        name: "CPU".to_owned(),
        kind: AdapterKind::Cpu,
        driver: String::new(),
        api: String::new(),
    }
}

/// Opens an adapter.
///
/// # Errors
///
/// If the driver refuses, or if the adapter has gone since it was found.
pub fn open(adapter: &Adapter) -> Result<Device, DeviceError> {
    match adapter.backend {
        #[cfg(feature = "flex")]
        Backend::Flex => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)] // Burn has superseded it by flex; gradmark still compares the two.
        Backend::Ndarray => Ok(Device::ndarray()),
        #[cfg(feature = "wgpu")]
        Backend::Wgpu => graphics::open(adapter),
        #[cfg(feature = "vulkan")]
        Backend::Vulkan => graphics::open(adapter),
        #[cfg(feature = "cuda")]
        Backend::Cuda => guarded(adapter, || {
            let device = Device::cuda(adapter.index);
            device.sync().map(|()| device).map_err(|error| error.to_string())
        }),
        #[allow(unreachable_patterns)]
        backend => Err(DeviceError::NotCompiledIn { name: backend.name(), present: compiled_in() }),
    }
}

/// Runs what may panic inside a driver's wrapper and turns the panic into an error.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn guarded(adapter: &Adapter, opening: impl FnOnce() -> Result<Device, String>) -> Result<Device, DeviceError> {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(opening))
        .unwrap_or_else(|panic| Err(crate::panic_message(&*panic)));
    outcome.map_err(|reason| DeviceError::Failed {
        request: format!("{}:{}", adapter.backend.name(), adapter.index),
        name: adapter.name.clone(),
        reason,
    })
}

#[cfg(feature = "cuda")]
fn cuda_adapters() -> Vec<Adapter> {
    use burn::tensor::DeviceType;

    // Without NVIDIA's driver library the CUDA runtime panics instead of finding nothing.
    let names = std::panic::catch_unwind(|| {
        let devices = Device::enumerate(DeviceType::Cuda).into_vec();
        let name = |device: &Device| device.identity().map_or_else(String::new, |identity| identity.name);
        devices.iter().map(name).collect::<Vec<_>>()
    });
    let adapter = |(index, name): (usize, String)| Adapter {
        backend: Backend::Cuda,
        index,
        name: if name.is_empty() { format!("CUDA device {index}") } else { name },
        kind: AdapterKind::DiscreteGpu,
        driver: "NVIDIA".to_owned(),
        api: "CUDA".to_owned(),
    };
    names.unwrap_or_default().into_iter().enumerate().map(adapter).collect()
}

#[cfg(feature = "wgpu")]
mod graphics {
    //! Adapters that wgpu reaches.

    use std::sync::{Mutex, PoisonError};

    use burn::tensor::wgpu::WgpuBackend;
    use burn::tensor::wgpu::wgpu;
    use burn::tensor::{Device, DeviceKind};

    use super::{Adapter, AdapterKind, Backend, DeviceError, guarded};

    /// Burn registers a runtime once a process; who opens an adapter again gets the same device.
    static OPEN: Mutex<Vec<(Adapter, Device)>> = Mutex::new(Vec::new());

    /// The adapters of the graphics interface that Burn settles on: the first with a GPU, or else the first with
    /// anything.
    pub fn adapters(backend: Backend) -> Vec<Adapter> {
        let interfaces: &[wgpu::Backend] = match backend {
            Backend::Vulkan => &[wgpu::Backend::Vulkan],
            _ if cfg!(target_os = "macos") => &[wgpu::Backend::Metal],
            _ => &[wgpu::Backend::Vulkan, wgpu::Backend::Dx12, wgpu::Backend::Gl],
        };
        let mut software_only = Vec::new();
        for interface in interfaces {
            let found = probe(backend, *interface);
            if found.iter().any(|adapter| !adapter.is_software()) {
                return found;
            }
            if software_only.is_empty() {
                software_only = found;
            }
        }
        software_only
    }

    fn probe(backend: Backend, interface: wgpu::Backend) -> Vec<Adapter> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: interface.into(),
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let found = pollster::block_on(instance.enumerate_adapters(interface.into()));
        let describe = |(index, adapter): (usize, &wgpu::Adapter)| {
            let info = adapter.get_info();
            Adapter {
                backend,
                index,
                name: info.name,
                kind: match info.device_type {
                    wgpu::DeviceType::DiscreteGpu => AdapterKind::DiscreteGpu,
                    wgpu::DeviceType::IntegratedGpu => AdapterKind::IntegratedGpu,
                    wgpu::DeviceType::VirtualGpu => AdapterKind::VirtualGpu,
                    wgpu::DeviceType::Cpu => AdapterKind::Software,
                    wgpu::DeviceType::Other => AdapterKind::Other,
                },
                driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
                api: format!("{interface:?}"),
            }
        };
        found.iter().enumerate().map(describe).collect()
    }

    pub fn open(adapter: &Adapter) -> Result<Device, DeviceError> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, device)) = open.iter().find(|(other, _)| other == adapter) {
            return Ok(device.clone());
        }
        let (kind, interface) = selector(adapter)?;
        let device = guarded(adapter, || {
            let options = Device::wgpu_options().device_kind(kind).graphics_api(interface);
            options.init().map_err(|error| error.to_string())
        })?;
        open.push((adapter.clone(), device.clone()));
        Ok(device)
    }

    /// Burn counts the adapters of each kind from 0 and cannot name those of kind `Other`.
    fn selector(adapter: &Adapter) -> Result<(DeviceKind, WgpuBackend), DeviceError> {
        let same_kind = adapters(adapter.backend)
            .into_iter()
            .filter(|other| other.kind == adapter.kind && other.index < adapter.index)
            .count();
        let failed = |reason: &str| DeviceError::Failed {
            request: format!("{}:{}", adapter.backend.name(), adapter.index),
            name: adapter.name.clone(),
            reason: reason.to_owned(),
        };
        let kind = match adapter.kind {
            AdapterKind::DiscreteGpu => DeviceKind::DiscreteGpu(same_kind),
            AdapterKind::IntegratedGpu => DeviceKind::IntegratedGpu(same_kind),
            AdapterKind::VirtualGpu => DeviceKind::VirtualGpu(same_kind),
            AdapterKind::Software if same_kind == 0 => DeviceKind::Cpu,
            AdapterKind::Software => {
                return Err(failed("Burn reaches only the first software adapter"));
            }
            AdapterKind::Cpu | AdapterKind::Other => {
                return Err(failed("Burn cannot select an adapter that its driver does not classify"));
            }
        };
        let interface = match adapter.api.as_str() {
            "Metal" => WgpuBackend::Metal,
            "Dx12" => WgpuBackend::Dx12,
            "Gl" => WgpuBackend::Gl,
            _ => WgpuBackend::Vulkan,
        };
        Ok((kind, interface))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_parsed_with_and_without_an_index() {
        assert_eq!("auto".parse::<DeviceRequest>().expect("valid"), DeviceRequest::Auto);
        let wgpu = DeviceRequest::Adapter { backend: Backend::Wgpu, index: Some(2) };
        assert_eq!("wgpu:2".parse::<DeviceRequest>().expect("valid"), wgpu);
        for wrong in ["gpu", "wgpu:", "wgpu:x", "wgpu:-1", "", "auto:1"] {
            assert!(wrong.parse::<DeviceRequest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn auto_never_takes_a_software_adapter() {
        assert!(automatic().map_or(true, |adapter| !adapter.is_software()));
    }

    #[test]
    fn an_index_beyond_the_last_adapter_is_an_error() {
        let backend = if cfg!(feature = "flex") { Backend::Flex } else { Backend::Ndarray };
        if backend.is_compiled_in() {
            let error = find(DeviceRequest::Adapter { backend, index: Some(1) }).expect_err("one CPU only");
            assert!(error.to_string().contains("indices 0 to 0"), "{error}");
        }
    }
}
