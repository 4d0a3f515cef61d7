//! What an operator sees of its inputs.

use parking_lot::Mutex;

use super::{
    array::Array,
    cx::{MAX_INTS, Stop},
    elements::Element,
    value::{Value, count},
};
use crate::DType;

/// The inputs of a node; an omitted one is `None`.
#[derive(Debug)]
pub(crate) struct Inputs<'v> {
    values: Vec<Option<&'v Value>>,
    /// An input that nobody reads afterwards: its index, and its elements until the operator takes them. In `values` is
    /// its type alone.
    dying: Mutex<Option<(usize, Array)>>,
}

impl<'v> Inputs<'v> {
    pub(crate) fn new(values: Vec<Option<&'v Value>>) -> Self {
        Self { values, dying: Mutex::new(None) }
    }

    /// With an input that the operator may take, by [`Self::owned`] alone.
    pub(crate) fn with_dying(values: Vec<Option<&'v Value>>, dying: Option<(usize, Array)>) -> Self {
        Self { values, dying: Mutex::new(dying) }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn values_of(&self) -> &[Option<&'v Value>] {
        &self.values
    }

    /// The tensor at an index, to be written over if nobody else holds it.
    pub(crate) fn owned(&self, index: usize) -> Result<Array, Stop> {
        let mut dying = self.dying.lock();
        match dying.take() {
            Some((which, array)) if which == index => Ok(array),
            other => {
                *dying = other;
                self.array(index).cloned()
            }
        }
    }

    /// The elements at an index, to be written over.
    pub(crate) fn owned_values<T: Element>(&self, index: usize) -> Result<Vec<T>, Stop> {
        let array = self.owned(index)?;
        match T::TYPES.contains(&array.dtype()) {
            true if array.is_own() => Ok(array.into_vec()),
            true => Ok(array.values::<T>().into_owned()),
            false => Err(Stop::unsupported(array.dtype())),
        }
    }

    pub(crate) fn has(&self, index: usize) -> bool {
        self.get(index).is_some()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&'v Value> {
        self.values.get(index).copied().flatten()
    }

    pub(crate) fn value(&self, index: usize) -> Result<&'v Value, Stop> {
        self.get(index).ok_or_else(|| Stop::invalid(format!("its input {index} is missing")))
    }

    /// Whether every input's elements are there.
    pub(crate) fn known(&self) -> bool {
        self.values.iter().flatten().all(|value| value.is_known())
    }

    pub(crate) fn ty(&self, index: usize) -> Result<(DType, &'v [usize]), Stop> {
        self.value(index)?.ty()
    }

    pub(crate) fn dtype(&self, index: usize) -> Result<DType, Stop> {
        Ok(self.ty(index)?.0)
    }

    pub(crate) fn shape(&self, index: usize) -> Result<&'v [usize], Stop> {
        Ok(self.ty(index)?.1)
    }

    /// Number of elements, saturating.
    pub(crate) fn count(&self, index: usize) -> Result<u64, Stop> {
        Ok(count(self.ty(index)?.1))
    }

    /// The elements, which a shape or a branch depends on.
    pub(crate) fn array(&self, index: usize) -> Result<&'v Array, Stop> {
        match self.value(index)? {
            Value::Known(array) => Ok(array),
            Value::Unknown(..) => {
                Err(Stop::DataDependent(format!("what it does depends on the elements of its input {index}")))
            }
            _ => Err(Stop::invalid("it takes tensors, not sequences or optionals")),
        }
    }

    /// Integers that a shape depends on; `None` when the input is omitted.
    pub(crate) fn ints(&self, index: usize) -> Result<Option<Vec<i64>>, Stop> {
        self.ints_within(index, MAX_INTS)
    }

    /// [`Self::ints`], at most so many: they are read wherever the node is traced, whatever it costs.
    pub(crate) fn ints_within(&self, index: usize, most: usize) -> Result<Option<Vec<i64>>, Stop> {
        if !self.has(index) {
            return Ok(None);
        }
        let array = self.array(index)?;
        if array.count() > most {
            return Err(Stop::Limit(format!("its input {index} has more than {most} integers")));
        }
        let ints = array.to_ints();
        ints.map(Some).ok_or_else(|| Stop::invalid(format!("its input {index} must be integers")))
    }

    /// One integer that a shape depends on; `None` when the input is omitted.
    pub(crate) fn int(&self, index: usize) -> Result<Option<i64>, Stop> {
        match self.ints(index)?.as_deref() {
            None => Ok(None),
            Some([one]) => Ok(Some(*one)),
            Some(_) => Err(Stop::invalid(format!("its input {index} must be one integer"))),
        }
    }

    /// The elements of a type, in a computation that [`Cx::emit`] calls.
    pub(crate) fn values<T: Element>(&self, index: usize) -> Result<std::borrow::Cow<'v, [T]>, Stop> {
        let array = self.array(index)?;
        if T::TYPES.contains(&array.dtype()) { Ok(array.values()) } else { Err(Stop::unsupported(array.dtype())) }
    }

    /// The elements of a tensor that is known to be there, in a computation that [`Cx::emit`] calls.
    pub(crate) fn read(&self, index: usize) -> Result<&'v Array, Stop> {
        self.array(index)
    }
}
