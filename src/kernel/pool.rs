//! Buffers that are used again from step to step.
//!
//! Every step asks for the same activations and gradients. A buffer that has just been given back is still in the cache, and need not be
//! filled with zeros. Each thread has buffers of its own: it is the thread that goes through forward and backward pass.

use std::cell::RefCell;
use std::collections::HashMap;

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;

/// The most bytes that a thread keeps.
const MOST_BYTES: usize = 1 << 30;

/// Shorter buffers are left to the allocator, which is as fast.
const LEAST_LENGTH: usize = 256;

/// Buffers by their length.
#[derive(Debug)]
pub struct Buffers<T> {
    by_length: HashMap<usize, Vec<Vec<T>>>,
    bytes: usize,
}

impl<T> Default for Buffers<T> {
    fn default() -> Self {
        Self { by_length: HashMap::new(), bytes: 0 }
    }
}

impl<T: Copy + Default> Buffers<T> {
    /// So many numbers, whichever they are.
    fn take(&mut self, length: usize) -> Vec<T> {
        match self.by_length.get_mut(&length).and_then(Vec::pop) {
            Some(buffer) => {
                self.bytes -= length * size_of::<T>();
                buffer
            }
            None => vec![T::default(); length],
        }
    }

    fn give(&mut self, buffer: Vec<T>) {
        let bytes = buffer.len() * size_of::<T>();
        if buffer.len() < LEAST_LENGTH {
            return;
        }
        if self.bytes + bytes > MOST_BYTES {
            // What is kept is of networks that are gone.
            *self = Self::default();
        }
        self.bytes += bytes;
        self.by_length.entry(buffer.len()).or_default().push(buffer);
    }
}

/// A number that buffers are kept of.
pub trait Pooled: Copy + Default + bytemuck::Pod + burn::tensor::Element {
    /// Does something with the buffers of this thread.
    fn with<R>(work: impl FnOnce(&mut Buffers<Self>) -> R) -> R;
}

macro_rules! pooled {
    ($number:ty) => {
        impl Pooled for $number {
            fn with<R>(work: impl FnOnce(&mut Buffers<Self>) -> R) -> R {
                thread_local! {
                    static BUFFERS: RefCell<Buffers<$number>> = RefCell::default();
                }
                BUFFERS.with_borrow_mut(work)
            }
        }
    };
}

pooled!(f32);
pooled!(f64);

/// So many numbers, whichever they are: all of them must be written.
pub fn take<T: Pooled>(length: usize) -> Vec<T> {
    if length < LEAST_LENGTH { vec![T::default(); length] } else { T::with(|buffers| buffers.take(length)) }
}

/// So many zeros.
pub fn zeros<T: Pooled>(length: usize) -> Vec<T> {
    let mut buffer = take(length);
    buffer.fill(T::default());
    buffer
}

/// Keeps a buffer for the next who asks for as many numbers.
pub fn give<T: Pooled>(buffer: Vec<T>) {
    T::with(|buffers| buffers.give(buffer));
}

/// Keeps the buffer of a tensor that nobody else holds.
pub fn recycle<T: Pooled>(tensor: FloatTensor<Flex>) {
    if tensor.dtype() == T::dtype()
        && tensor.is_unique()
        && let Ok(buffer) = tensor.into_data().try_into_vec::<T>()
    {
        give(buffer);
    }
}

/// The same of either precision.
pub fn recycle_any(tensor: FloatTensor<Flex>) {
    match tensor.dtype() {
        DType::F32 => recycle::<f32>(tensor),
        DType::F64 => recycle::<f64>(tensor),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn a_buffer_that_was_given_back_comes_again_and_one_that_is_held_does_not() {
        let tensor = |values: Vec<f32>| FloatTensor::<Flex>::from_data(TensorData::new(values, [1000]));
        let buffer = vec![7.0_f32; 1000];
        let address = buffer.as_ptr();
        recycle::<f32>(tensor(buffer));
        let again = take::<f32>(1000);
        assert_eq!((again.as_ptr(), again.len(), again[999]), (address, 1000, 7.0));
        let held = tensor(again);
        recycle::<f32>(held.clone());
        let other = take::<f32>(1000);
        assert_ne!(other.as_ptr(), address);
        drop(held);
    }

    #[test]
    fn a_thread_keeps_no_more_than_its_bound() {
        let mut buffers = Buffers::<f64>::default();
        for length in [1000, 2000, MOST_BYTES / 8 - 3000, 5000] {
            buffers.give(vec![0.0; length]);
        }
        assert_eq!(buffers.bytes, 5000 * 8);
        assert_eq!(buffers.take(5000).len(), 5000);
        assert_eq!(buffers.bytes, 0);
    }
}
