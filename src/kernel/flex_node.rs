//! Stages on the CPU as one node of Burn's graph.

use std::iter;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Dispatch, Flex};
use burn::tensor::Tensor;

use super::flex_layer::contiguous;
use super::flex_stages::{Left, Passed, StagesForm, WantedOfStages, stages, stages_backward};
use super::pool;
use super::stages::{FoundDeltas, MOST_PARAMETERS, StageLeft, StagesLeft, Watch};

type Primitive = FloatTensor<Flex>;
type Tracked = Autodiff<Flex, NoCheckpointing>;
type TrackedPrimitive = FloatTensor<Tracked>;

/// What the stages leave, as [`Stages::run`](super::Stages::run) does; `None` where there is no fused form.
pub fn run(
    x: Tensor<2>,
    parameters: &[FloatTensor<Dispatch>],
    watch: Option<&Watch>,
    form: StagesForm,
) -> Option<StagesLeft> {
    // Of no tensor is the rank looked at here.
    let parameters = || parameters.iter().cloned().map(Tensor::<1>::from_dispatch);
    let deltas = FoundDeltas::default();
    if !x.is_autodiff() && !parameters().any(|parameter| parameter.is_autodiff()) {
        let row_by_row = |tensor: Primitive| contiguous(&tensor);
        let primitives: Option<Vec<Primitive>> =
            parameters().map(|parameter| parameter.try_into_primitive::<Flex>().ok().map(row_by_row)).collect();
        let x = x.try_into_primitive::<Flex>().ok().map(row_by_row)?;
        let left = stages(&Passed { x, parameters: primitives?, form }, watch)?;
        return Some(StagesLeft { stages: left.into_iter().map(stage_left).collect(), deltas });
    }
    let parents = Parents { x: tracked(x)?, parameters: parameters().map(tracked).collect::<Option<_>>()? };
    let parameters = parents.parameters.iter().map(|tensor| contiguous(tensor.primitive())).collect();
    let passed = Passed { x: contiguous(parents.x.primitive()), parameters, form };
    let left = stages(&passed, watch)?;
    let output = left.last()?.output.clone();
    let watched = watch.map(|_| deltas.clone());
    let state = State { passed, left: left.clone(), deltas: watched };
    let output = match parents.parameters.len() + 1 {
        ..=8 => record::<8>(&parents, state, output),
        9..=32 => record::<32>(&parents, state, output),
        33..=128 => record::<128>(&parents, state, output),
        _ => record::<{ MOST_PARAMETERS + 1 }>(&parents, state, output),
    };
    let mut stages: Vec<StageLeft> = left.into_iter().map(stage_left).collect();
    stages.last_mut()?.output = Tensor::from_primitive::<Tracked>(output);
    Some(StagesLeft { stages, deltas })
}

fn stage_left(left: Left) -> StageLeft {
    let Left { output, moments, activation, .. } = left;
    let plain = Tensor::from_primitive::<Flex>;
    StageLeft { output: plain(output), moments: moments.map(|moments| moments.map(plain)), activation }
}

/// A tensor in the graph, or a constant of it.
fn tracked<const D: usize>(tensor: Tensor<D>) -> Option<TrackedPrimitive> {
    if tensor.is_autodiff() {
        tensor.try_into_primitive::<Tracked>().ok()
    } else {
        tensor.try_into_primitive::<Flex>().ok().map(Tracked::from_inner)
    }
}

/// What the node comes from.
struct Parents {
    x: TrackedPrimitive,
    parameters: Vec<TrackedPrimitive>,
}

#[derive(Debug)]
struct Node;

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct State {
    passed: Passed,
    left: Vec<Left>,
    /// Where the summaries of the deltas go, if they are wanted.
    deltas: Option<FoundDeltas>,
}

/// The parents are x and the parameters; constants fill up the rest.
impl<const N: usize> Backward<Flex, N> for Node {
    type State = State;

    fn backward(self, ops: Ops<State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let State { passed, left, deltas } = ops.state;
        let of_x = ops.parents[0].is_some();
        let wanted = WantedOfStages { of_x, deltas: deltas.is_some() };
        let Some(found) = stages_backward(&passed, &left, &gradient, wanted) else {
            unreachable!("stages whose forward pass is fused have a fused backward pass");
        };
        if let (Some(place), Some(summaries)) = (deltas, found.deltas) {
            // A node is gone through once.
            place.0.get_or_init(|| summaries);
        }
        // Nobody else needs them any more.
        left.into_iter().flat_map(Left::tensors).chain([gradient]).for_each(pool::recycle_any);
        let of_parents = iter::once(found.of_x).chain(found.of_parameters.into_iter().map(Some));
        for (parent, gradient) in ops.parents.iter().zip(of_parents) {
            if let Some((node, gradient)) = parent.as_ref().zip(gradient) {
                gradients.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// The output as a node with so many parents.
fn record<const N: usize>(parents: &Parents, state: State, output: Primitive) -> TrackedPrimitive {
    let Parents { x, parameters } = parents;
    let count = parameters.len();
    assert!(count < N, "stages have at most {MOST_PARAMETERS} parameters, these have {count}");
    let nothing = Tracked::from_inner(state.passed.x.clone());
    let nodes = std::array::from_fn::<_, N, _>(|place| match place {
        0 => x.node(),
        _ => parameters.get(place - 1).unwrap_or(&nothing).node(),
    });
    match Node.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(state, output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    }
}
