//! Kernels for GPUs, written in CubeCL, which translates them to WGSL, SPIR-V or CUDA for the device at hand.
//!
//! Burn's fusion queues operations and runs them later, several as one kernel where it can. A kernel of ours goes into the same queue
//! as an operation that it does not look into.

mod cell;
mod cross_entropy;
mod dense;
mod normalization;
mod recurrent;
mod rows;
mod summary;

use burn::backend::TensorMetadata;
use burn::backend::fusion::custom::{
    CustomOpIr, Float, FusionValueAdapter, HandleContainer, OperationFn, OperationIr, StreamId, TensorSpec,
};
use burn::backend::fusion::{Fusion, FusionBackend, FusionRuntime, FusionTensor};
use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::ir::HardwareProperties;
use burn_cubecl::cubecl::prelude::{BufferArg, Client};
use burn_cubecl::tensor::CubeTensor;

pub use cross_entropy::{cross_entropy, cross_entropy_backward};
pub use dense::derivative_and_sums;
pub use normalization::{normalized, normalized_backward};
pub use recurrent::{recurrent, recurrent_backward};
pub use summary::{activation_pieces, delta_pieces, gate_pieces, gradient_pieces, update_pieces};

/// Burn's backend for GPUs.
pub type Fused = Fusion<CubeBackend>;
type Runtime = <CubeBackend as FusionBackend>::FusionRuntime;
/// Its tensors.
pub type Primitive = FusionTensor<Runtime>;
type Handles = HandleContainer<<Runtime as FusionRuntime>::FusionHandle>;
type Adapter = Float;

/// Whether a tensor is one of f32 on a GPU.
pub fn is_ours<const D: usize>(tensor: &Tensor<D>) -> bool {
    let tensor = if tensor.is_autodiff() { tensor.clone().inner() } else { tensor.clone() };
    tensor.dtype() == DType::F32 && tensor.try_into_primitive::<Fused>().is_ok()
}

/// Tensors of f32 on a GPU, outside the graph; `None` if one is not.
fn primitives<const D: usize>(tensors: Vec<Tensor<D>>) -> Option<Vec<Primitive>> {
    let primitive = |tensor: Tensor<D>| tensor.try_into_primitive::<Fused>().ok();
    let primitives: Option<Vec<Primitive>> = tensors.into_iter().map(primitive).collect();
    primitives.filter(|primitives| primitives.iter().all(|primitive| primitive.dtype == DType::F32))
}

/// What a launch asks of a device.
struct Asked {
    /// Threads of a workgroup.
    threads: usize,
    /// Bytes that they share.
    shared: usize,
    /// Workgroups along each axis.
    cubes: [usize; 3],
    /// Tensors that it reads or writes.
    bindings: usize,
    /// Elements of the longest of them: places are u32, and a place may be looked for behind the last one.
    elements: usize,
}

/// What a device allows.
struct Limits(HardwareProperties);

impl Limits {
    fn of(tensor: &Primitive) -> Self {
        Self(tensor.client.device().client().properties().hardware.clone())
    }

    /// The most tensors of a launch.
    fn bindings(&self) -> usize {
        self.0.max_bindings as usize
    }

    fn allow(&self, asked: &Asked) -> bool {
        let Self(hardware) = self;
        let (most_x, most_y, most_z) = hardware.max_cube_count;
        let most = [most_x, most_y, most_z];
        asked.threads <= hardware.max_units_per_cube.min(hardware.max_cube_dim.0) as usize
            && asked.shared <= hardware.max_shared_memory_size
            && asked.cubes.iter().zip(most).all(|(cubes, most)| *cubes <= most as usize)
            && asked.bindings <= self.bindings()
            && i32::try_from(asked.elements).is_ok()
    }
}

/// The elements of the longest of some tensors.
fn longest<'a>(tensors: impl IntoIterator<Item = &'a Primitive>) -> usize {
    tensors.into_iter().map(|tensor| tensor.shape().num_elements()).max().unwrap_or(0)
}

/// Queues an operation on tensors of f32 of one device. It gets them, and one tensor of f32 without values for each of the shapes, which
/// it fills; all have their numbers in the order of their rows.
///
/// # Panics
///
/// Without an input.
fn queue(
    name: &str,
    inputs: Vec<Primitive>,
    outputs: Vec<Vec<usize>>,
    run: impl Fn(&Client, Vec<CubeTensor>, Vec<CubeTensor>) + Send + Sync + 'static,
) -> Vec<Primitive> {
    let client = inputs.first().expect("an operation has an input").client.clone();
    let mut input_irs = Vec::with_capacity(inputs.len());
    let inputs: Vec<_> = inputs
        .into_iter()
        .map(|input| <Adapter as FusionValueAdapter<CubeBackend>>::append_input_ir(input, &mut input_irs))
        .collect();
    let mut output_irs = Vec::with_capacity(outputs.len());
    let states: Vec<_> = outputs
        .iter()
        .map(|dims| {
            let spec = TensorSpec::new(Shape::from(dims.clone()), DType::F32);
            <Adapter as FusionValueAdapter<CubeBackend>>::append_output_ir(&spec, &mut output_irs, &mut || {
                client.create_empty_handle()
            })
        })
        .collect();
    let description = CustomOpIr { id: name.into(), inputs: input_irs, outputs: output_irs, scalars: Vec::new() };
    let operation = OperationFn(move |handles: &mut Handles| {
        let inputs = inputs.iter().map(|input| {
            let tensor = <Adapter as FusionValueAdapter<CubeBackend>>::resolve_inputs(input, handles);
            burn_cubecl::kernel::into_contiguous(tensor)
        });
        let inputs: Vec<CubeTensor> = inputs.collect();
        let found: Vec<CubeTensor> = outputs.iter().map(|dims| empty_like(&inputs[0], dims)).collect();
        let client = inputs[0].client.clone();
        run(&client, inputs, found.clone());
        for (tensor, state) in found.into_iter().zip(&states) {
            <Adapter as FusionValueAdapter<CubeBackend>>::register_output_handles(tensor, state, handles);
        }
        Ok(())
    });
    client.register(StreamId::current(), OperationIr::Custom(description), operation)
}

/// A tensor without values, its numbers in the order of its rows, on the device of another.
fn empty_like(other: &CubeTensor, dims: &[usize]) -> CubeTensor {
    burn_cubecl::ops::numeric::empty_device_contiguous_dtype(
        other.client.clone(),
        other.device.clone(),
        Shape::from(dims.to_vec()),
        DType::F32,
    )
}

/// The arguments of a kernel.
///
/// # Panics
///
/// If there are not as many.
fn arguments<const N: usize>(tensors: Vec<CubeTensor>) -> [BufferArg; N] {
    let arguments: Vec<BufferArg> = tensors.into_iter().map(CubeTensor::into_buffer_arg).collect();
    arguments.try_into().unwrap_or_else(|_| unreachable!("an operation gets its inputs"))
}

#[cfg(all(test, feature = "wgpu"))]
pub use tests::{adapter_for_tests, assert_close, primitive, values};

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    //! What the tests of all kernels need.

    use burn::backend::TensorMetadata;
    use burn::tensor::{Device, Tensor, TensorData};

    use super::{Fused, Primitive};

    /// An adapter for tests; `None` on a machine without any.
    ///
    /// # Panics
    ///
    /// If there is none and `GRADMARK_REQUIRE_ADAPTER` is set.
    pub fn adapter_for_tests() -> Option<Device> {
        let found = crate::device::find("wgpu".parse().expect("a name"));
        match found.and_then(|adapter| crate::device::open(&adapter)) {
            Ok(device) => Some(device),
            Err(error) if std::env::var_os("GRADMARK_REQUIRE_ADAPTER").is_none() => {
                eprintln!("not tested: {error}");
                None
            }
            Err(error) => panic!("GRADMARK_REQUIRE_ADAPTER is set, and {error}"),
        }
    }

    /// Numbers of both signs, up to a size.
    pub fn primitive(seed: usize, dims: [usize; 2], size: f32, device: &Device) -> Primitive {
        let value = |i: usize| (((i + seed) * 7919 % 1013) as f32 / 506.5 - 1.0) * size;
        let data = TensorData::new((0..dims[0] * dims[1]).map(value).collect::<Vec<f32>>(), dims);
        Tensor::<2>::from_data(data, device).try_into_primitive::<Fused>().expect("on a GPU")
    }

    /// The numbers of a tensor.
    pub fn values(x: Primitive) -> Vec<f32> {
        // Of no tensor is the rank looked at here.
        Tensor::<1>::from_primitive::<Fused>(x).into_data().iter::<f32>().collect()
    }

    /// Holds each number of a fused form to that of the stock form, by the largest.
    #[track_caller]
    pub fn assert_close(fused: Primitive, stock: Primitive, what: &str) {
        assert_eq!(fused.shape(), stock.shape(), "{what}");
        let (fused, stock) = (values(fused), values(stock));
        let scale = stock.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
        for (a, b) in fused.iter().zip(&stock) {
            assert!((a - b).abs() <= 1e-5 * scale, "{what}: {a} and {b} of {scale}");
        }
    }
}
