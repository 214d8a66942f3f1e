//! The links of a chain of single neurons, as the device has them and in f64.

use burn::tensor::Tensor;

use super::Workload;
use super::loss::mean_loss;
use crate::kernel::Reading;
use crate::network::{Network, Pass, Wanted};
use crate::probe::{ReadError, fetch};
use crate::schema::LinkRow;
use crate::theory::chain::{Link, links};

/// Measures every link of a chain at initialization. Waits for the device.
///
/// # Errors
///
/// If the device cannot be read.
pub fn measure(run_id: &str, workload: &Workload) -> Result<Vec<LinkRow>, ReadError> {
    let network = workload.network();
    let mut pass = Pass::traced(Wanted { inputs: true, ..Wanted::default() });
    let batch = workload.batches().next_batch();
    let outputs = network.forward(batch.inputs, &mut pass);
    let gradients = mean_loss(workload.config().training.loss, outputs, batch.targets).backward();
    let (trace, _) = pass.finish();
    let Network::Plain(chain) = &network else {
        return Ok(Vec::new());
    };
    let offsets = trace.iter().filter_map(|layer| layer.tensors()?.input_offset.as_ref());
    // The gradients with respect to the input of every link, and last the output itself, of which it is 1.
    let products = read(offsets.filter_map(|offset| offset.grad(&gradients)))?;
    let weights = read(chain.hidden.iter().map(|layer| layer.weight.val().inner()))?;
    let biases = read(chain.hidden.iter().filter_map(|layer| layer.bias.as_ref().map(|bias| bias.val().inner())))?;
    let biases = if biases.is_empty() { vec![0.0; weights.len()] } else { biases };

    let config = workload.config();
    // The input as the device has it: rounded to f32.
    let input = f64::from(config.data.value.unwrap_or(0.0) as f32);
    let exact = links(config.network.function(), input, &weights, &biases);
    let finite = |value: f64| value.is_finite().then_some(value);
    let row = |(link, exact): (usize, Link)| LinkRow {
        run_id: run_id.to_owned(),
        link,
        weight: weights[link],
        bias: biases[link],
        pre_activation: exact.pre_activation,
        factor: exact.factor,
        product: finite(exact.product),
        factor_on_device: finite(products[link] / products[link + 1]),
        product_on_device: finite(products[link]),
    };
    Ok(exact.into_iter().enumerate().map(row).collect())
}

/// One number from each tensor.
fn read<const D: usize>(numbers: impl Iterator<Item = Tensor<D>>) -> Result<Vec<f64>, ReadError> {
    let readings = numbers.map(|number| Reading::from(number.reshape([1]))).collect();
    Ok(fetch(readings)?.concat())
}
