//! Tensors as safetensors: networks, to be saved and to start another training from, and what is dumped of a step.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData, Transaction};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use crate::config::StartLayers;
use crate::network::{BatchStatistics, Network, RunningStatistics};
use crate::probe::tensors::{self, running_name};
use crate::probe::{NamedTensor, Path, ReadError, follow_path};

/// A saved network that a network cannot start from.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The bytes are not those of safetensors, or hold other numbers than f32.
    #[error("it is not a network that gradmark has saved: {0}")]
    Format(String),
    /// A parameter of the network is not in the file.
    #[error("it has no `{0}`, which the network has")]
    Missing(String),
    /// The file has a parameter that is not in the network.
    #[error("it has `{0}`, which the network has not")]
    Unknown(String),
    /// A parameter has another shape.
    #[error("its `{parameter}` has the shape {found:?} and that of the network {expected:?}")]
    Shape {
        /// The parameter.
        parameter: String,
        /// The shape in the network.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
}

/// The parameters of a network as safetensors, under the names that they have in `gradients.csv`, and the running statistics
/// of batch norm beside them: `hidden.0.norm.running_mean`, `hidden.0.norm.running_variance`. The state of the optimizer is not
/// among them. Waits for the device.
///
/// # Errors
///
/// If the device cannot be read.
pub fn to_safetensors(network: &mut Network) -> Result<Vec<u8>, ReadError> {
    serialized(tensors::parameters(network))
}

/// Tensors as safetensors, brought to the host in one transfer. Waits for the device.
///
/// # Errors
///
/// If the device cannot be read.
pub fn serialized(mut tensors: Vec<NamedTensor>) -> Result<Vec<u8>, ReadError> {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut transaction = Transaction::default();
    let mut headers = Vec::with_capacity(tensors.len());
    for NamedTensor { name, shape, values } in tensors {
        transaction = transaction.register(values);
        headers.push((name, shape));
    }
    let read = transaction.try_execute().map_err(|error| ReadError(error.to_string()))?;
    let bytes: Vec<Vec<u8>> =
        read.into_iter().map(|data| data.iter::<f32>().flat_map(f32::to_le_bytes).collect()).collect();
    let failed = |error: safetensors::SafeTensorError| ReadError(error.to_string());
    let named = headers.into_iter().zip(&bytes);
    let views: Result<Vec<_>, _> =
        named.map(|((name, shape), bytes)| Ok((name, TensorView::new(Dtype::F32, shape, bytes)?))).collect();
    serialize(views.map_err(failed)?, None).map_err(failed)
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
    let device = network.devices().first().cloned().unwrap_or_default();
    let found = network.running_statistics().into_iter().map(|running| filler.statistics(running, &device));
    let statistics = found.collect::<Result<Vec<_>, _>>()?;
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

impl Filler {
    fn takes(&self, name: &str) -> bool {
        self.layers == StartLayers::All || name.starts_with("hidden.")
    }

    /// The saved statistics of a normalization: both, or none.
    fn statistics(
        &mut self,
        running: RunningStatistics,
        device: &Device,
    ) -> Result<Option<BatchStatistics>, StartError> {
        if !self.takes(&running.norm) {
            return Ok(running.statistics);
        }
        let names = ["mean", "variance"].map(|what| running_name(&running.norm, what));
        let found = names.clone().map(|name| self.saved.remove(&name));
        for (name, data) in names.iter().zip(&found) {
            let shape = data.as_ref().map(|data| data.shape().to_vec());
            if let Some(shape) = shape.filter(|shape| *shape != [running.units]) {
                let (parameter, expected) = (name.clone(), vec![running.units]);
                return Err(StartError::Shape { parameter, expected, found: shape });
            }
        }
        let [mean, variance] = found;
        match (mean, variance) {
            (Some(mean), Some(variance)) => {
                Ok(Some(BatchStatistics { mean: on_device(mean, device), variance: on_device(variance, device) }))
            }
            (None, None) => Ok(None),
            (Some(_), None) => Err(StartError::Missing(running_name(&running.norm, "variance"))),
            (None, Some(_)) => Err(StartError::Missing(running_name(&running.norm, "mean"))),
        }
    }
}

impl ModuleMapper for Filler {
    follow_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.to_string();
        if !self.takes(&name) {
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

    /// A residual network has a normalization behind its blocks too, which is no hidden layer's.
    #[test]
    fn the_statistics_of_a_deeper_network_go_to_the_layers_that_they_are_of() {
        let residual = |depth, seed| {
            let config = NetworkConfig {
                kind: crate::config::NetworkKind::Residual,
                norm: Norm::Batch,
                ..NetworkConfig::plain(depth, 5, Activation::Relu, WeightInit::He)
            };
            let interface = Interface { features: 3, image: None, sequence: None, outputs: Some(2) };
            Network::init(&config, interface, seed, &Device::flex().autodiff())
        };
        let mut deep = residual(4, 1);
        let mut pass = Pass::training();
        let inputs = [[0.0, 1.0, 2.0], [5.0, 3.0, -4.0], [1.0, 1.0, 1.0]];
        let _ = deep.forward(Tensor::from_floats(inputs, &Device::flex().autodiff()), &mut pass);
        deep.absorb(pass.finish().1);
        let bytes = to_safetensors(&mut deep).expect("saved");
        let mut started = start_from(residual(2, 2), &bytes, StartLayers::Hidden).expect("fits");
        let means = |network: &mut Network| -> Vec<(String, Option<Vec<f32>>)> {
            let numbers = |statistics: BatchStatistics| statistics.mean.into_data().iter::<f32>().collect();
            let of = |running: RunningStatistics| (running.norm, running.statistics.map(numbers));
            network.running_statistics().into_iter().map(of).collect()
        };
        let (deep, started) = (means(&mut deep), means(&mut started));
        assert_eq!(deep.last().map(|(name, _)| name.as_str()), Some("end.norm"));
        assert_eq!(started[..2], deep[..2]);
        assert_eq!(started[2], ("end.norm".to_owned(), None));
    }

    #[test]
    fn statistics_of_another_size_or_without_their_other_half_are_refused() {
        let mut saved = network(2, Norm::Batch, 1);
        let values = |count: usize| vec![0_u8; 4 * count];
        let with = |name: &str, count: usize, saved: &mut Network| {
            let bytes = to_safetensors(saved).expect("saved");
            let file = SafeTensors::deserialize(&bytes).expect("safetensors");
            let extra = values(count);
            let mut views: Vec<(String, TensorView<'_>)> =
                file.iter().map(|(name, view)| (name.to_owned(), view)).collect();
            views.push((name.to_owned(), TensorView::new(Dtype::F32, vec![count], &extra).expect("a view")));
            let bytes = serialize(views, None).expect("serializes");
            start_from(network(2, Norm::Batch, 2), &bytes, StartLayers::All).expect_err("does not fit").to_string()
        };
        let error = with("hidden.1.norm.running_mean", 4, &mut saved);
        assert!(error.contains("`hidden.1.norm.running_mean` has the shape [4]"), "{error}");
        let error = with("hidden.1.norm.running_variance", 5, &mut saved);
        assert!(error.starts_with("it has no `hidden.1.norm.running_mean`"), "{error}");
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
