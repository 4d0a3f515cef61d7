//! Memory of values that nobody reads any more, for values to come: what a thread has written to lately is in its caches, and
//! need not be cleared.

use core::{cell::RefCell, ops::Range};

/// Sizes that are kept, in elements: small ones are had as fast from the allocator.
pub(super) const FLOATS: Range<usize> = 1 << 11..1 << 21;
/// So many are kept by a thread.
const MOST: usize = 8;
/// Elements of all of them, at most: 32 MiB.
const MOST_FLOATS: usize = 1 << 23;

thread_local! {
    static SPARE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Keeps memory, if it is worthwhile.
pub(super) fn keep(mut buffer: Vec<f32>) {
    if !FLOATS.contains(&buffer.capacity()) {
        return;
    }
    // What is beyond its end may never have been written to.
    buffer.resize(buffer.capacity(), 0.0);
    // A thread that ends has none any more, and drops it.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        spare.push(buffer);
        while spare.len() > MOST || spare.iter().map(Vec::capacity).sum::<usize>() > MOST_FLOATS {
            spare.remove(0);
        }
    });
}

/// Lets go of all that this thread keeps.
pub(super) fn clear() {
    let _ = SPARE.try_with(|spare| spare.take());
}

/// So many numbers, whatever they are.
pub(super) fn buffer(count: usize) -> Vec<f32> {
    // Little more than what is asked for: what is left over would have to be cleared for the next one.
    let fits = |spare: &Vec<f32>| spare.capacity() >= count && spare.capacity() - spare.capacity() / 4 <= count;
    let taken = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        let fitting = spare.iter().enumerate().filter(|(_, spare)| fits(spare));
        let (index, _) = fitting.min_by_key(|(_, spare)| spare.capacity())?;
        Some(spare.remove(index))
    });
    match taken {
        Ok(Some(mut buffer)) => {
            buffer.resize(count, 0.0);
            buffer
        }
        _ => vec![0.0; count],
    }
}

/// Memory for so many numbers while something is computed, whatever is in it.
pub(super) fn lend<T>(count: usize, compute: impl FnOnce(&mut [f32]) -> T) -> T {
    let mut lent = buffer(count);
    let result = compute(&mut lent);
    keep(lent);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_where_it_fits_and_bounded() {
        let first = vec![7.0; 5000];
        let at = first.as_ptr();
        keep(first);
        let larger = buffer(6000);
        assert_ne!(larger.as_ptr(), at, "too small");
        assert!(buffer(100).iter().all(|x| *x == 0.0), "too large");
        let again = buffer(4000);
        assert_eq!((again.as_ptr(), again.len()), (at, 4000));
        (0..20).for_each(|_| keep(vec![1.0; 5000]));
        SPARE.with(|spare| assert_eq!(spare.borrow().len(), MOST));
        let large = FLOATS.end - 1;
        clear();
        SPARE.with(|spare| assert!(spare.borrow().is_empty()));
        (0..10).for_each(|_| keep(vec![1.0; large]));
        keep(vec![1.0; FLOATS.end]);
        SPARE.with(|spare| assert_eq!(spare.borrow().len(), MOST_FLOATS / large));
    }
}
