//! Networks as safetensors: to be saved, and to start another training from.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use crate::config::StartLayers;
use crate::network::{BatchStatistics, Network};
use crate::probe::{Path, ReadError};

/// A saved network that a network cannot start from.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The bytes are not those of safetensors, or hold other numbers than f32.
    #[error("it is not a network that gradmark has saved: {0}")]
    Format(String),
    /// A parameter of the network is not in the file.
    #[error("it has no `{0}`, which the network has; {OTHER_NETWORK}")]
    Missing(String),
    /// The file has a parameter that is not in the network.
    #[error("it has `{0}`, which the network has not; {OTHER_NETWORK}")]
    Unknown(String),
    /// A parameter has another shape.
    #[error("its `{parameter}` has the shape {found:?} and that of the network {expected:?}; {OTHER_NETWORK}")]
    Shape {
        /// The parameter.
        parameter: String,
        /// The shape in the network.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
}

const OTHER_NETWORK: &str =
    "the two networks must be equal, or their hidden layers with `training.start_layers = \"hidden\"`";

/// A parameter on the host.
struct Saved {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// The parameters of a network as safetensors, under the names that they have in `gradients.csv`, and the running statistics
/// of batch norm, numbered in the order of the pass: `norm.0.running_mean`, `norm.0.running_variance`. The state of the
/// optimizer is not among them. Waits for the device.
///
/// # Errors
///
/// If the device cannot be read.
pub fn to_safetensors(network: &mut Network) -> Result<Vec<u8>, ReadError> {
    let mut collector = Collector { path: Path::default(), saved: BTreeMap::new(), failure: None };
    network.visit(&mut collector);
    for (number, running) in network.running_statistics().into_iter().enumerate() {
        if let Some(BatchStatistics { mean, variance }) = running {
            collector.keep(running_name(number, "mean"), mean);
            collector.keep(running_name(number, "variance"), variance);
        }
    }
    let Collector { saved, failure, .. } = collector;
    if let Some(failure) = failure {
        return Err(ReadError(failure));
    }
    let failed = |error: safetensors::SafeTensorError| ReadError(error.to_string());
    let views: Result<Vec<_>, _> = saved
        .iter()
        .map(|(name, Saved { shape, bytes })| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect();
    serialize(views.map_err(failed)?, None).map_err(failed)
}

fn running_name(number: usize, what: &str) -> String {
    format!("norm.{number}.running_{what}")
}

struct Collector {
    path: Path,
    saved: BTreeMap<String, Saved>,
    failure: Option<String>,
}

impl Collector {
    fn keep<const D: usize>(&mut self, name: String, tensor: Tensor<D>) {
        let shape = tensor.dims().to_vec();
        match tensor.try_into_data() {
            Ok(data) => {
                let bytes = data.iter::<f32>().flat_map(f32::to_le_bytes).collect();
                self.saved.insert(name, Saved { shape, bytes });
            }
            Err(error) => self.failure = Some(error.to_string()),
        }
    }
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.keep(self.path.to_string(), param.val());
    }
}

/// The network with the parameters and running statistics of a saved one; with [`StartLayers::Hidden`] with those of its hidden
/// layers, of which the saved one may have more.
///
/// # Errors
///
/// If the bytes are not a saved network, or not one that fits.
pub fn start_from(network: Network, safetensors: &[u8], layers: StartLayers) -> Result<Network, StartError> {
    let format = |error: safetensors::SafeTensorError| StartError::Format(error.to_string());
    let file = SafeTensors::deserialize(safetensors).map_err(format)?;
    let mut saved = BTreeMap::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(StartError::Format(format!("`{name}` holds {:?} numbers, not F32", view.dtype())));
        }
        saved.insert(name.to_owned(), numbers(view.shape(), view.data()));
    }
    let mut filler = Filler { path: Path::default(), saved, layers, failure: None };
    let mut network = network.map(&mut filler);
    let mut statistics = Vec::new();
    for (number, _) in network.running_statistics().iter().enumerate() {
        let mut take = |what| filler.saved.remove(&running_name(number, what));
        let pair = take("mean").zip(take("variance"));
        let device = network.devices().first().cloned().unwrap_or_default();
        statistics.push(pair.map(|(mean, variance)| BatchStatistics {
            mean: on_device(mean, &device),
            variance: on_device(variance, &device),
        }));
    }
    network.set_running_statistics(statistics);
    let Filler { saved, failure, .. } = filler;
    match failure {
        Some(failure) => Err(failure),
        None => match saved.into_keys().next().filter(|_| layers == StartLayers::All) {
            Some(name) => Err(StartError::Unknown(name)),
            None => Ok(network),
        },
    }
}

fn numbers(shape: &[usize], bytes: &[u8]) -> TensorData {
    let values: Vec<f32> =
        bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
    TensorData::new(values, shape.to_vec())
}

fn on_device(data: TensorData, device: &Device) -> Tensor<1> {
    Tensor::from_data(data, &device.clone().inner())
}

struct Filler {
    path: Path,
    saved: BTreeMap<String, TensorData>,
    layers: StartLayers,
    failure: Option<StartError>,
}

impl ModuleMapper for Filler {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.to_string();
        if self.layers == StartLayers::Hidden && !name.starts_with("hidden.") {
            return param;
        }
        let Some(data) = self.saved.remove(&name) else {
            self.failure.get_or_insert(StartError::Missing(name));
            return param;
        };
        let expected = param.val().dims().to_vec();
        let found: Vec<usize> = data.shape().to_vec();
        if found != expected {
            self.failure.get_or_insert(StartError::Shape { parameter: name, expected, found });
            return param;
        }
        param.map(|value| Tensor::from_data(data, &value.device()).require_grad())
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Tensor;

    use super::*;
    use crate::config::{Activation, NetworkConfig, Norm, WeightInit};
    use crate::network::{Interface, Pass};

    fn network(depth: usize, norm: Norm, seed: u64) -> Network {
        let config = NetworkConfig { norm, ..NetworkConfig::plain(depth, 5, Activation::Tanh, WeightInit::Lecun) };
        let interface = Interface { features: 3, image: None, sequence: None, outputs: Some(2) };
        Network::init(&config, interface, seed, &Device::flex().autodiff())
    }

    fn outputs(network: &Network) -> Vec<f32> {
        let inputs = Tensor::from_floats([[0.1, -0.5, 2.0], [1.0, 0.3, -0.7]], &Device::flex());
        let outputs = network.valid().forward(inputs, &mut Pass::evaluation());
        outputs.into_data().iter::<f32>().collect()
    }

    #[test]
    fn a_network_that_starts_from_a_saved_one_is_that_one() {
        let mut saved = network(2, Norm::None, 1);
        let bytes = to_safetensors(&mut saved).expect("saved");
        let other = network(2, Norm::None, 2);
        assert_ne!(outputs(&other), outputs(&saved));
        assert_eq!(outputs(&start_from(other, &bytes, StartLayers::All).expect("fits")), outputs(&saved));
    }

    #[test]
    fn running_statistics_of_batch_norm_are_saved_with_the_parameters() {
        let mut saved = network(2, Norm::Batch, 1);
        let inputs =
            Tensor::from_floats([[0.0, 1.0, 2.0], [5.0, 3.0, -4.0], [1.0, 1.0, 1.0]], &Device::flex().autodiff());
        let mut pass = Pass::training();
        let _ = saved.forward(inputs, &mut pass);
        saved.absorb(pass.finish().1);
        let bytes = to_safetensors(&mut saved).expect("saved");
        let names = SafeTensors::deserialize(&bytes).expect("safetensors").len();
        // Two layers with weight, bias, gamma, beta and two statistics each, and the output layer.
        assert_eq!(names, 2 * 6 + 2);
        let restored = start_from(network(2, Norm::Batch, 2), &bytes, StartLayers::All).expect("fits");
        assert_eq!(outputs(&restored), outputs(&saved));
    }

    #[test]
    fn hidden_layers_alone_may_start_from_a_deeper_network() {
        let mut deep = network(3, Norm::None, 1);
        let bytes = to_safetensors(&mut deep).expect("saved");
        let started = start_from(network(2, Norm::None, 2), &bytes, StartLayers::Hidden).expect("fits");
        let (Network::Plain(deep), Network::Plain(started), Network::Plain(drawn)) =
            (deep, started, network(2, Norm::None, 2))
        else {
            panic!("plain networks")
        };
        let numbers = |tensor: Tensor<2>| tensor.into_data().iter::<f32>().collect::<Vec<f32>>();
        for (started, deep) in started.hidden.iter().zip(&deep.hidden) {
            assert_eq!(numbers(started.weight.val()), numbers(deep.weight.val()));
        }
        let output = |network: &crate::network::Plain| numbers(network.output.as_ref().expect("outputs").weight.val());
        assert_eq!(output(&started), output(&drawn));
    }

    #[test]
    fn a_network_that_does_not_fit_is_refused_with_the_name_of_what_differs() {
        let mut saved = network(2, Norm::None, 1);
        let bytes = to_safetensors(&mut saved).expect("saved");
        let refused = |network: Network, bytes: &[u8], layers| {
            start_from(network, bytes, layers).expect_err("does not fit").to_string()
        };
        let error = refused(network(3, Norm::None, 1), &bytes, StartLayers::All);
        assert!(error.starts_with("it has no `hidden.2.weight`"), "{error}");
        let error = refused(network(3, Norm::None, 1), &bytes, StartLayers::Hidden);
        assert!(error.starts_with("it has no `hidden.2.weight`"), "{error}");
        let error = refused(network(1, Norm::None, 1), &bytes, StartLayers::All);
        assert!(error.starts_with("it has `hidden.1.bias`, which the network has not"), "{error}");
        let config = NetworkConfig::plain(2, 6, Activation::Tanh, WeightInit::Lecun);
        let interface = Interface { features: 3, image: None, sequence: None, outputs: Some(2) };
        let wide = Network::init(&config, interface, 1, &Device::flex().autodiff());
        let error = refused(wide, &bytes, StartLayers::All);
        assert!(error.contains("`hidden.0.weight` has the shape [3, 5] and that of the network [3, 6]"), "{error}");
        let error = refused(network(2, Norm::None, 1), &bytes[..bytes.len() - 4], StartLayers::All);
        assert!(error.starts_with("it is not a network that gradmark has saved"), "{error}");
        let error = refused(network(2, Norm::None, 1), b"", StartLayers::All);
        assert!(error.starts_with("it is not a network that gradmark has saved"), "{error}");
    }
}
