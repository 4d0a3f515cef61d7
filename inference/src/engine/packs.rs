//! Constants laid out for the kernels, each once however many nodes share it.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
};

use super::{kernels::matmul::Packed, program::Slot};

/// Bytes of all layouts of one model. What does not fit is laid out in each run instead, to the same bits.
const MAX_BYTES: u64 = 4 << 30;

/// Layouts by constant, as it is and transposed.
#[derive(Debug, Default)]
pub(crate) struct Packs {
    packs: RefCell<HashMap<(Slot, bool), Arc<Packed>>>,
    /// Of the graphs around and inside, too.
    bytes: Rc<Cell<u64>>,
}

impl Packs {
    /// Those of a graph inside, within the same bound.
    pub(crate) fn inner(&self) -> Self {
        Self { packs: RefCell::default(), bytes: self.bytes.clone() }
    }

    /// Counts bytes of a layout that is kept elsewhere; false when they do not fit.
    pub(crate) fn reserve(&self, bytes: u64) -> bool {
        let bytes = self.bytes.get().saturating_add(bytes);
        let fits = bytes <= MAX_BYTES;
        if fits {
            self.bytes.set(bytes);
        }
        fits
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
        if let Some(packed) = self.packs.borrow().get(&(slot, transposed)) {
            return Some(packed.clone());
        }
        if !self.reserve(Packed::bytes(k, n)) {
            return None;
        }
        let packed = Arc::new(make());
        self.packs.borrow_mut().insert((slot, transposed), packed.clone());
        Some(packed)
    }
}
