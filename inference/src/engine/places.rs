//! The places of an output, written to by several threads at once, each having some of its own.

use core::{marker::PhantomData, ops::Range};

/// Places whose user says which of them nobody else writes to.
#[derive(Debug)]
pub(super) struct Places<'a, T> {
    first: *mut T,
    count: usize,
    of: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Places<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Places<'_, T> {}

// SAFETY: it gives access to what `&mut [T]` does, and its methods are only called for places that no other thread has.
unsafe impl<T: Send> Send for Places<'_, T> {}
// SAFETY: the same.
unsafe impl<T: Send> Sync for Places<'_, T> {}

impl<'a, T> Places<'a, T> {
    pub(super) fn new(places: &'a mut [T]) -> Self {
        Self { first: places.as_mut_ptr(), count: places.len(), of: PhantomData }
    }

    /// How many there are.
    #[inline(always)]
    pub(super) fn count(self) -> usize {
        self.count
    }

    /// Those from one on.
    #[inline(always)]
    pub(super) fn from(self, place: usize) -> Self {
        assert!(place <= self.count, "the output is smaller than its shape");
        // SAFETY: it is one of them, or the end.
        Self { first: unsafe { self.first.add(place) }, count: self.count - place, of: PhantomData }
    }

    /// The first of them, to be written to by whoever knows that nobody else does.
    #[inline(always)]
    pub(super) fn start(self) -> *mut T {
        self.first
    }

    /// Some of them.
    ///
    /// # Safety
    /// As long as these are used, nobody else uses any of them.
    #[inline(always)]
    pub(super) unsafe fn some(self, places: Range<usize>) -> &'a mut [T] {
        let place = self.from(places.start);
        assert!(places.len() <= place.count, "the output is smaller than its shape");
        // SAFETY: they are there, as has been checked, and the caller has them alone.
        unsafe { core::slice::from_raw_parts_mut(place.first, places.len()) }
    }
}
