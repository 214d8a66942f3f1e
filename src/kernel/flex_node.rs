//! Stages on the CPU as one node of Burn's graph.

use std::iter;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Dispatch, Flex};
use burn::tensor::Tensor;

use super::flex_stages::{Left, StagesForm, WantedOfStages, by_stage, recycle, stages, stages_backward};
use super::stages::{MOST_PARAMETERS, StageLeft};

type Primitive = FloatTensor<Flex>;
type Tracked = Autodiff<Flex, NoCheckpointing>;
type TrackedPrimitive = FloatTensor<Tracked>;

/// What the stages leave, as [`Stages::run`](super::Stages::run) does; `None` where there is no fused form.
pub fn run(
    x: Tensor<2>,
    parameters: &[FloatTensor<Dispatch>],
    offset: Option<Tensor<2>>,
    form: StagesForm,
) -> Option<Vec<StageLeft>> {
    // Of no tensor is the rank looked at here.
    let parameters = || parameters.iter().cloned().map(Tensor::<1>::from_dispatch);
    if !x.is_autodiff() && !parameters().any(|parameter| parameter.is_autodiff()) {
        let primitives: Option<Vec<Primitive>> =
            parameters().map(|parameter| parameter.try_into_primitive::<Flex>().ok()).collect();
        let left = stages(&x.try_into_primitive::<Flex>().ok()?, &primitives?, &form)?;
        let left = by_stage(&form.stages, left).into_iter();
        return Some(left.map(|left| of_stage(left, Tensor::from_primitive::<Flex>)).collect());
    }
    let offset = match offset {
        Some(offset) => Some(tracked(offset)?),
        None => None,
    };
    let parents = Parents { offset, x: tracked(x)?, parameters: parameters().map(tracked).collect::<Option<_>>()? };
    let parameters: Vec<Primitive> = parents.parameters.iter().map(|tensor| tensor.primitive().clone()).collect();
    let left = stages(parents.x.primitive(), &parameters, &form)?;
    let by_stage: Vec<Left<Primitive>> = by_stage(&form.stages, left.clone());
    let output = by_stage.last()?.output.clone();
    let state = State { x: parents.x.primitive().clone(), parameters, left, form };
    let output = match parents.parameters.len() + 2 {
        ..=8 => record::<8>(&parents, state, output),
        9..=32 => record::<32>(&parents, state, output),
        33..=128 => record::<128>(&parents, state, output),
        _ => record::<{ MOST_PARAMETERS + 2 }>(&parents, state, output),
    };
    let mut left: Vec<StageLeft> =
        by_stage.into_iter().map(|left| of_stage(left, Tensor::from_primitive::<Flex>)).collect();
    left.last_mut()?.output = Tensor::from_primitive::<Tracked>(output);
    Some(left)
}

fn of_stage(left: Left<Primitive>, tensor: impl Fn(Primitive) -> Tensor<2>) -> StageLeft {
    StageLeft { output: tensor(left.output), moments: left.moments.map(|moments| moments.map(tensor)) }
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
    offset: Option<TrackedPrimitive>,
    x: TrackedPrimitive,
    parameters: Vec<TrackedPrimitive>,
}

#[derive(Debug)]
struct Node;

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct State {
    x: Primitive,
    parameters: Vec<Primitive>,
    left: Vec<Primitive>,
    form: StagesForm,
}

/// The parents are the offset, x and the parameters; constants fill up the rest.
impl<const N: usize> Backward<Flex, N> for Node {
    type State = State;

    fn backward(self, ops: Ops<State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let State { x, parameters, left, form } = ops.state;
        let wanted = WantedOfStages { of_z: ops.parents[0].is_some(), of_x: ops.parents[1].is_some() };
        let Some(found) = stages_backward(&x, &parameters, &left, &gradient, &form, wanted) else {
            unreachable!("stages whose forward pass is fused have a fused backward pass");
        };
        // Nobody else needs them any more, unless the probe does.
        left.into_iter().chain([gradient]).for_each(recycle);
        let mut found = found.into_iter();
        let is_found = [wanted.of_z, wanted.of_x].into_iter().chain(iter::repeat(true));
        for (parent, is_found) in ops.parents.iter().zip(is_found) {
            let gradient = if is_found { found.next() } else { None };
            if let Some((node, gradient)) = parent.as_ref().zip(gradient) {
                gradients.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// The output as a node with so many parents.
fn record<const N: usize>(parents: &Parents, state: State, output: Primitive) -> TrackedPrimitive {
    let Parents { offset, x, parameters } = parents;
    let count = parameters.len();
    assert!(count + 2 <= N, "stages have at most {MOST_PARAMETERS} parameters, these have {count}");
    let nothing = Tracked::from_inner(state.x.clone());
    let nodes = std::array::from_fn::<_, N, _>(|place| match place {
        0 => offset.as_ref().unwrap_or(&nothing).node(),
        1 => x.node(),
        _ => parameters.get(place - 2).unwrap_or(&nothing).node(),
    });
    match Node.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(state, output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    }
}
