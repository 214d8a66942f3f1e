//! Whether every parameter has a gradient.

use burn::module::Module;

use super::gradient;
use super::seeds::Numbers;
use crate::kernel::{GradientSummary, Reading};
use crate::schema::GradientCoverage;

/// Which parameters have a gradient, and what it is, not yet read.
#[derive(Debug)]
pub struct Measurement {
    header: Header,
    reading: Reading,
}

/// What is known of the parameters before anything is read.
#[derive(Clone, Debug, Default)]
pub struct Header {
    without_gradient: Vec<String>,
    /// Those that have one, each with its number of elements.
    found: Vec<(String, u64)>,
}

/// Goes through all parameters of a module, those that took no part in the loss and have no gradient among them. It takes the
/// readings of the gradients that have been made already. Nothing waits for the device.
pub fn measure<M: Module>(module: &M, gradients: &gradient::Measurement, seeds: usize) -> Measurement {
    let mut header = Header::default();
    let mut found = gradients.ids.iter().peekable();
    for gradient::Parameter { id, name, element_count } in gradient::parameters(module, seeds) {
        match found.next_if_eq(&&id) {
            Some(_) => header.found.push((name, element_count as u64)),
            None => header.without_gradient.push(name),
        }
    }
    Measurement { header, reading: gradients.reading.clone() }
}

impl Measurement {
    /// Moves the reading behind the others and keeps the names.
    pub fn take(self, readings: &mut Vec<Reading>) -> Header {
        readings.push(self.reading);
        self.header
    }
}

impl Header {
    /// Takes the reading in the order in which it was moved.
    pub fn fill(&self, numbers: &mut Numbers<'_>) -> GradientCoverage {
        let parameters = self.without_gradient.len() + self.found.len();
        let without_gradient = self.without_gradient.clone();
        let mut coverage = GradientCoverage { parameters, without_gradient, ..GradientCoverage::default() };
        for ((name, element_count), read) in self.found.iter().zip(numbers.next_of(self.found.len())) {
            let gradient = GradientSummary::from_reading(read);
            if gradient.nonfinite > 0 {
                coverage.nonfinite.push(name.clone());
            } else if gradient.zeros == *element_count {
                coverage.zero.push(name.clone());
            }
        }
        coverage
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::module::Param;
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::probe::fetch;

    #[derive(Module, Debug)]
    struct Layer {
        weight: Param<Tensor<2>>,
        bias: Param<Tensor<1>>,
    }

    /// Two layers of two inputs and three units.
    #[derive(Module, Debug)]
    struct Layers {
        hidden: Vec<Layer>,
    }

    fn layers() -> Layers {
        let device = Device::flex().autodiff();
        let layer = || Layer {
            weight: Param::from_data(TensorData::new(vec![1.0_f32; 6], [2, 3]), &device),
            bias: Param::from_data(TensorData::new(vec![0.0_f32; 3], [3]), &device),
        };
        Layers { hidden: vec![layer(), layer()] }
    }

    fn coverage(layers: &Layers, gradients: &GradientsParams) -> GradientCoverage {
        let mut readings = Vec::new();
        let header = measure(layers, &gradient::measure(layers, gradients, 1), 1).take(&mut readings);
        header.fill(&mut Numbers::of_run(&fetch(readings).expect("reads"), 0, 1))
    }

    fn matrix(values: [f32; 6]) -> Tensor<2> {
        Tensor::<1>::from_floats(values, &Device::flex()).reshape([2, 3])
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn parameters_are_named_that_have_no_gradient_or_zeros_or_numbers_that_are_not_finite() {
        let layers = layers();
        let mut gradients = GradientsParams::new();
        gradients.register::<2>(layers.hidden[0].weight.id, matrix([0.0, -0.0, 0.0, 0.0, 0.0, 0.0]));
        gradients.register::<2>(layers.hidden[1].weight.id, matrix([0.0, 1e-38, 0.0, 0.0, 0.0, 0.0]));
        let bias = Tensor::from_floats([0.0, f32::NAN, 0.0], &Device::flex());
        gradients.register::<1>(layers.hidden[1].bias.id, bias);
        let expected = GradientCoverage {
            parameters: 4,
            without_gradient: names(&["hidden.0.bias"]),
            zero: names(&["hidden.0.weight"]),
            nonfinite: names(&["hidden.1.bias"]),
        };
        assert_eq!(coverage(&layers, &gradients), expected);
    }

    #[test]
    fn a_parameter_that_the_loss_does_not_reach_has_no_gradient() {
        let layers = layers();
        let inputs = Tensor::from_floats([[1.0, 2.0]], &Device::flex().autodiff());
        let loss = inputs.matmul(layers.hidden[0].weight.val()).sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &layers);
        let found = coverage(&layers, &gradients);
        assert_eq!(found.without_gradient, names(&["hidden.0.bias", "hidden.1.weight", "hidden.1.bias"]));
        assert!(found.zero.is_empty() && found.nonfinite.is_empty());
    }
}
