//! Networks of several seeds as one, whose parameters lie one below the other, those of the first seed first.
//!
//! There is no axis of seeds: a weight `[inputs, units]` becomes `[seeds x inputs, units]`, a vector `[units]` becomes
//! `[seeds x units]`. What works element by element, such as an optimizer, need not know of it; what does not is told the number
//! of seeds, as in [`LayerOps`](crate::kernel::LayerOps).

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, s};

use super::{BatchStatistics, Network};

impl Network {
    /// One network out of several of the same config that were drawn from different seeds and not trained yet. `None` out of no
    /// network, and for families that cannot be put together.
    pub fn together(networks: Vec<Self>) -> Option<Self> {
        let seeds = networks.len();
        let parts: Vec<Vec<Tensor<1>>> = networks.iter().map(values).collect();
        let joined = |place: usize| Tensor::cat(parts.iter().map(|part| part[place].clone()).collect(), 0);
        let first = networks.into_iter().next()?;
        if seeds == 1 {
            return Some(first);
        }
        let mut network = first.map(&mut Replace((0..parts[0].len()).map(joined)));
        network.set_seeds(seeds).then_some(network)
    }

    /// The network of one of the seeds, by its place.
    #[must_use]
    pub fn of_seed(&self, place: usize) -> Self {
        let seeds = self.seeds();
        if seeds == 1 {
            return self.clone();
        }
        let of_seed = |values: Tensor<1>| values.part(seeds, place);
        let mut network = self.clone().map(&mut Replace(values(self).into_iter().map(of_seed)));
        network.set_seeds(1);
        let statistics = network.running_statistics().into_iter().map(|running| {
            let BatchStatistics { mean, variance } = running.statistics?;
            Some(BatchStatistics { mean: of_seed(mean), variance: of_seed(variance) })
        });
        network.set_running_statistics(statistics.collect());
        network
    }

    /// The number of seeds whose networks these are.
    pub fn seeds(&self) -> usize {
        match self {
            Self::Plain(network) => network.seeds(),
            Self::Residual(network) => network.seeds(),
            Self::Convolutional(_) | Self::Recurrent(_) => 1,
        }
    }

    /// Whether the family can have several seeds.
    fn set_seeds(&mut self, seeds: usize) -> bool {
        match self {
            Self::Plain(network) => network.set_seeds(seeds),
            Self::Residual(network) => network.set_seeds(seeds),
            Self::Convolutional(_) | Self::Recurrent(_) => return false,
        }
        true
    }
}

/// Tensors `[seeds x rows, ..]`.
pub trait Stacked: Sized {
    /// The rows of one of the seeds. No copy where the device can do without.
    #[must_use]
    fn part(&self, seeds: usize, place: usize) -> Self;
}

impl<const D: usize> Stacked for Tensor<D> {
    fn part(&self, seeds: usize, place: usize) -> Self {
        let rows = self.dims()[0] / seeds;
        self.clone().slice(s![place * rows..(place + 1) * rows])
    }
}

/// The values of all parameters in the order of the module, outside the graph.
fn values(network: &Network) -> Vec<Tensor<1>> {
    let mut visitor = Values(Vec::new());
    network.visit(&mut visitor);
    visitor.0
}

struct Values(Vec<Tensor<1>>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().inner().reshape([-1]));
    }
}

/// Gives every parameter other values, in the order of the module. Their number decides how many rows it has.
struct Replace<I>(I);

impl<I: Iterator<Item = Tensor<1>>> ModuleMapper for Replace<I> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(values) = self.0.next() else {
            return param;
        };
        param.map(|value| {
            let mut dims = value.dims();
            dims[0] = values.dims()[0] / dims[1..].iter().product::<usize>();
            Tensor::from_inner(values.reshape(dims)).require_grad()
        })
    }
}
