//! Constants laid out for the kernels, each once however many nodes share it.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::Hash,
    rc::Rc,
    sync::Arc,
};

use super::{
    kernels::{
        bytes::ByteMatrix,
        conv::Weights,
        matmul::Packed,
        term::{Pair, Term},
    },
    program::Slot,
    value::count,
};

type Kept<K, V> = RefCell<HashMap<K, Arc<V>>>;

/// Layouts by constant, within a bound: what does not fit is laid out in each run instead, to the same bits.
#[derive(Debug)]
pub(crate) struct Packs {
    /// Matrices as they are and transposed.
    matrices: Kept<(Slot, bool), Packed>,
    /// Matrices of bytes with their zero points, as they are and transposed.
    byte_matrices: Kept<(Slot, Option<Slot>, bool), ByteMatrix>,
    /// Weights of convolutions, with the number of groups.
    weights: Kept<(Slot, usize), Weights<f32>>,
    /// The same of integers, with their zero point.
    integer_weights: Kept<(Slot, usize, Option<Slot>), Weights<Pair>>,
    /// Bytes that are left, for the graphs around and inside, too.
    left: Rc<Cell<u64>>,
}

impl Packs {
    /// None yet, of so many bytes at most.
    pub(crate) fn within(bytes: u64) -> Self {
        Self::sharing(Rc::new(Cell::new(bytes)))
    }

    fn sharing(left: Rc<Cell<u64>>) -> Self {
        Self {
            matrices: Kept::default(),
            byte_matrices: Kept::default(),
            weights: Kept::default(),
            integer_weights: Kept::default(),
            left,
        }
    }

    /// Those of a graph inside, within the same bound.
    pub(crate) fn inner(&self) -> Self {
        Self::sharing(self.left.clone())
    }

    /// Bytes that are left.
    pub(crate) fn left(&self) -> u64 {
        self.left.get()
    }

    /// Counts bytes of a layout that is kept elsewhere; false when they do not fit.
    pub(crate) fn reserve(&self, bytes: u64) -> bool {
        let left = self.left.get().checked_sub(bytes);
        left.inspect(|left| self.left.set(*left)).is_some()
    }

    /// The layout of a `[k, n]` matrix; `None` when it does not fit.
    pub(crate) fn pack(
        &self,
        slot: Slot,
        transposed: bool,
        k: usize,
        n: usize,
        make: impl FnOnce() -> Packed,
    ) -> Option<Arc<Packed>> {
        self.keep(&self.matrices, (slot, transposed), Packed::<f32>::bytes(k, n), || Some(make()))
    }

    /// The layout of a `[k, n]` matrix of bytes; `None` when it does not fit, or `make` says no.
    pub(crate) fn pack_bytes(
        &self,
        key: (Slot, Option<Slot>, bool),
        k: usize,
        n: usize,
        make: impl FnOnce() -> Option<ByteMatrix>,
    ) -> Option<Arc<ByteMatrix>> {
        self.keep(&self.byte_matrices, key, ByteMatrix::bytes(k, n), make)
    }

    /// The layout of the weights of a convolution; `None` when it does not fit.
    pub(crate) fn weights(
        &self,
        key: (Slot, usize),
        shape: &[usize],
        make: impl FnOnce() -> Weights<f32>,
    ) -> Option<Arc<Weights<f32>>> {
        // Panels are filled up by a fifth at most.
        self.keep(&self.weights, key, bytes::<f32>(shape).saturating_mul(6) / 5, || Some(make()))
    }

    /// The same of integers, or `make` says no.
    pub(crate) fn integer_weights(
        &self,
        key: (Slot, usize, Option<Slot>),
        shape: &[usize],
        make: impl FnOnce() -> Option<Weights<Pair>>,
    ) -> Option<Arc<Weights<Pair>>> {
        self.keep(&self.integer_weights, key, bytes::<Pair>(shape), make)
    }

    fn keep<K: Eq + Hash, V>(
        &self,
        kept: &Kept<K, V>,
        key: K,
        bytes: u64,
        make: impl FnOnce() -> Option<V>,
    ) -> Option<Arc<V>> {
        if let Some(layout) = kept.borrow().get(&key) {
            return Some(layout.clone());
        }
        if !self.reserve(bytes) {
            return None;
        }
        let layout = Arc::new(make()?);
        kept.borrow_mut().insert(key, layout.clone());
        Some(layout)
    }
}

/// Bytes of weights as terms, at most, saturating.
fn bytes<T: Term>(shape: &[usize]) -> u64 {
    count(shape).saturating_mul(size_of::<T>() as u64)
}
