//! Arrays: tensors on Burn's CPU backend, and texts, which Burn has not.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use burn_backend::{Shape, Slice, TensorData};
use burn_flex::FlexTensor;

use super::{
    elements::{Element, with_elements, with_integers},
    layout::{lay_out, strides, walk},
};
use crate::{DType, Tensor, TensorValues, tensor::element_count};

#[derive(Debug, Clone)]
enum Storage {
    /// Everything but text.
    Burn(FlexTensor),
    /// Text, row-major.
    Text(Arc<Texts>),
}

#[derive(Debug)]
struct Texts {
    values: Vec<String>,
    /// Of all of them, and of the longest.
    bytes: u64,
    longest: u64,
}

/// A tensor. Cloning shares the data.
#[derive(Debug, Clone)]
pub(crate) struct Array {
    dtype: DType,
    shape: Vec<usize>,
    storage: Storage,
    /// Of a view whose elements do not lie in order: those elements in order, from the first time that somebody asks for them.
    /// Its bytes are counted as the view's.
    laid_out: Option<Arc<OnceLock<FlexTensor>>>,
}

impl Array {
    /// An array without elements.
    pub(crate) fn empty(dtype: DType, shape: Vec<usize>) -> Self {
        with_elements!(dtype, T => Self::new::<T>(dtype, shape, vec![]), Self::text(shape, vec![]))
    }

    /// An array of row-major elements, as many as the shape says.
    pub(crate) fn new<T: Element>(dtype: DType, shape: Vec<usize>, values: Vec<T>) -> Self {
        debug_assert!(T::TYPES.contains(&dtype), "{dtype:?}");
        debug_assert_eq!(element_count(&shape), Some(values.len()), "{shape:?}");
        let storage = Storage::Burn(tensor_of(shape.clone(), values));
        Self { dtype, shape, storage, laid_out: None }
    }

    /// An array of texts.
    pub(crate) fn text(shape: Vec<usize>, values: Vec<String>) -> Self {
        debug_assert_eq!(element_count(&shape), Some(values.len()));
        let lengths = || values.iter().map(|text| text.len() as u64);
        let (bytes, longest) = (lengths().sum(), lengths().max().unwrap_or(0));
        Self {
            dtype: DType::String,
            shape,
            storage: Storage::Text(Arc::new(Texts { values, bytes, longest })),
            laid_out: None,
        }
    }

    /// A vector of int64.
    pub(crate) fn ints(values: Vec<i64>) -> Self {
        Self::new(DType::Int64, vec![values.len()], values)
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The row-major elements; empty if they are not of this type.
    pub(crate) fn values<T: Element>(&self) -> Cow<'_, [T]> {
        let Storage::Burn(tensor) = &self.storage else { return Cow::Borrowed(&[]) };
        match tensor.as_slice::<T>() {
            Some(values) if tensor.is_contiguous() => Cow::Borrowed(values),
            _ if tensor.dtype() != T::dtype() => Cow::Borrowed(&[]),
            _ => match &self.laid_out {
                Some(laid_out) => {
                    let tensor = laid_out.get_or_init(|| tensor_of(self.shape.clone(), self.in_order::<T>()));
                    Cow::Borrowed(tensor.as_slice::<T>().unwrap_or_default())
                }
                None => Cow::Owned(self.in_order()),
            },
        }
    }

    /// A copy of the elements, row-major.
    fn in_order<T: Element>(&self) -> Vec<T> {
        if let Some((values, strides, start)) = self.strided::<T>()
            && self.count() > 0
        {
            return lay_out(values, &self.shape, &strides, start);
        }
        let Storage::Burn(tensor) = &self.storage else { return vec![] };
        tensor.to_contiguous().as_slice::<T>().unwrap_or_default().to_vec()
    }

    /// The elements as they lie in memory, the stride of each dimension, and where the first element is; `None` when they
    /// are of another type or run backwards.
    pub(crate) fn strided<T: Element>(&self) -> Option<(&[T], Vec<usize>, usize)> {
        let Storage::Burn(tensor) = &self.storage else { return None };
        if tensor.dtype() != T::dtype() {
            return None;
        }
        let layout = tensor.layout();
        let strides = layout.strides().iter().map(|stride| usize::try_from(*stride).ok()).collect::<Option<_>>()?;
        Some((tensor.storage::<T>(), strides, layout.start_offset()))
    }

    /// Whether nobody else holds the elements, and they are all that there is of them, row-major.
    pub(crate) fn is_own(&self) -> bool {
        match &self.storage {
            Storage::Burn(tensor) => {
                tensor.is_unique()
                    && tensor.is_contiguous()
                    && tensor.layout().start_offset() == 0
                    && tensor.bytes().len() == self.count() * self.dtype.size()
            }
            Storage::Text(_) => false,
        }
    }

    /// The texts; empty if it holds none.
    pub(crate) fn texts(&self) -> &[String] {
        match &self.storage {
            Storage::Text(texts) => &texts.values,
            Storage::Burn(_) => &[],
        }
    }

    /// Bytes of its texts, and of the longest one.
    pub(crate) fn text_bytes(&self) -> (u64, u64) {
        match &self.storage {
            Storage::Text(texts) => (texts.bytes, texts.longest),
            Storage::Burn(_) => (0, 0),
        }
    }

    /// The same array laid out row-major, so that [`Self::values`] borrows.
    pub(crate) fn contiguous(&self) -> Self {
        match &self.storage {
            Storage::Burn(tensor) if !tensor.is_contiguous() => {
                // It is there afterwards, if it is kept at all.
                with_elements!(self.dtype, T => drop(self.values::<T>()), ());
                match self.laid_out.as_ref().and_then(|laid_out| laid_out.get()) {
                    Some(tensor) => self.with(self.shape.clone(), tensor.clone()),
                    None => self.copy(),
                }
            }
            _ => self.clone(),
        }
    }

    /// The elements as `i64`: integers and bools; `None` for other types and for what does not fit.
    pub(crate) fn to_ints(&self) -> Option<Vec<i64>> {
        match self.dtype {
            DType::Bool => Some(self.values::<u8>().iter().map(|x| i64::from(*x)).collect()),
            dtype => {
                with_integers!(dtype, T => self.values::<T>().iter().map(|x| i64::try_from(*x).ok()).collect(), None)
            }
        }
    }

    /// The elements as `f64`, rounded only where they are integers beyond 2^53; `None` for texts.
    pub(crate) fn to_doubles(&self) -> Option<Vec<f64>> {
        with_elements!(self.dtype, T => Some(self.values::<T>().iter().map(|x| crate::engine::numeric::to_double(*x)).collect()), None)
    }

    fn with(&self, shape: Vec<usize>, tensor: FlexTensor) -> Self {
        let laid_out = (!tensor.is_contiguous()).then(Arc::default);
        Self { dtype: self.dtype, shape, storage: Storage::Burn(tensor), laid_out }
    }

    /// The same elements under another shape of equal size.
    pub(crate) fn reshape(&self, shape: Vec<usize>) -> Self {
        match &self.storage {
            Storage::Burn(tensor) if tensor.is_contiguous() => {
                let reshaped = tensor.reshape(Shape::from(shape.clone()));
                self.with(shape, reshaped)
            }
            Storage::Burn(_) => self.contiguous().reshape(shape),
            Storage::Text(texts) => {
                Self { dtype: self.dtype, shape, storage: Storage::Text(texts.clone()), laid_out: None }
            }
        }
    }

    /// Dimension `i` of the result is dimension `axes[i]` of this; shares the data.
    pub(crate) fn permute(&self, axes: &[usize]) -> Self {
        let shape: Vec<usize> = axes.iter().map(|axis| self.shape[*axis]).collect();
        match &self.storage {
            Storage::Burn(tensor) => self.with(shape, tensor.permute(axes)),
            Storage::Text(_) => {
                let strides = strides(&self.shape);
                let picked: Vec<usize> = axes.iter().map(|axis| strides[*axis]).collect();
                self.pick_texts(shape, &picked, 0)
            }
        }
    }

    /// Repeats dimensions of size 1 to a shape of the same rank or more; shares the data. The shapes must fit.
    pub(crate) fn broadcast(&self, shape: &[usize]) -> Self {
        if self.shape == shape {
            return self.clone();
        }
        let repeated = self.repeated(shape);
        match &self.storage {
            Storage::Burn(tensor) => {
                if !tensor.is_contiguous() {
                    return self.contiguous().broadcast(shape);
                }
                let strides: Vec<isize> = repeated.iter().map(|stride| *stride as isize).collect();
                let layout =
                    burn_flex::Layout::new(Shape::from(shape.to_vec()), strides, tensor.layout().start_offset());
                self.with(shape.to_vec(), tensor.clone().with_layout(layout))
            }
            Storage::Text(_) => self.pick_texts(shape.to_vec(), &repeated, 0),
        }
    }

    /// The strides with which a row-major array is repeated to a shape.
    fn repeated(&self, shape: &[usize]) -> Vec<usize> {
        let added = shape.len() - self.shape.len();
        let own = strides(&self.shape);
        let stride = |axis: usize| match axis.checked_sub(added) {
            Some(axis) if self.shape[axis] != 1 => own[axis],
            _ => 0,
        };
        (0..shape.len()).map(stride).collect()
    }

    /// The texts repeated to a shape, none of them copied.
    pub(crate) fn texts_over(&self, shape: &[usize]) -> Vec<&String> {
        let (texts, mut out) = (self.texts(), Vec::with_capacity(shape.iter().product()));
        walk(shape, &self.repeated(shape), 0, &mut |at| out.push(&texts[at]));
        out
    }

    /// The elements at `start`, `start + step`, …, `count` of them, along one axis; `step` may be negative.
    pub(crate) fn slice(&self, axis: usize, start: usize, step: isize, count: usize) -> Self {
        let mut shape = self.shape.clone();
        shape[axis] = count;
        if count == 0 || self.count() == 0 {
            return self.none(shape);
        }
        match &self.storage {
            Storage::Burn(tensor) => {
                if step > 0 {
                    let mut slices: Vec<Slice> =
                        self.shape.iter().map(|n| Slice::new(0, Some(*n as isize), 1)).collect();
                    let end = start as isize + step * (count as isize - 1) + 1;
                    slices[axis] = Slice::new(start as isize, Some(end), step);
                    let (layout, _) = tensor.layout().slice(&slices);
                    let part = self.with(shape, tensor.clone().with_layout(layout));
                    // A view would keep all of it: memory that nobody has counted.
                    let small = part.count().saturating_mul(2 * self.dtype.size()) < tensor.bytes().len();
                    return if small { part.copy() } else { part };
                }
                let layout = tensor.layout();
                let mut strides = layout.strides().to_vec();
                let offset = layout.start_offset() as isize + start as isize * strides[axis];
                strides[axis] *= step;
                let layout = burn_flex::Layout::new(Shape::from(shape.clone()), strides, offset as usize);
                // A layout that runs backwards is understood by `to_contiguous` alone.
                self.with(shape, tensor.clone().with_layout(layout).to_contiguous())
            }
            Storage::Text(texts) => {
                let values = &texts.values;
                let inner: usize = self.shape[axis + 1..].iter().product();
                let outer: usize = self.shape[..axis].iter().product();
                let mut out = Vec::with_capacity(outer * count * inner);
                for o in 0..outer {
                    for i in 0..count {
                        let at = (o * self.shape[axis] + (start as isize + step * i as isize) as usize) * inner;
                        out.extend_from_slice(&values[at..at + inner]);
                    }
                }
                Self::text(shape, out)
            }
        }
    }

    fn copy(&self) -> Self {
        let shape = self.shape.clone();
        with_elements!(self.dtype, T => Self::new::<T>(self.dtype, shape, self.in_order()), self.clone())
    }

    /// No elements of its type.
    pub(crate) fn none(&self, shape: Vec<usize>) -> Self {
        with_elements!(self.dtype, T => Self::new::<T>(self.dtype, shape, vec![]), Self::text(shape, vec![]))
    }

    fn pick_texts(&self, shape: Vec<usize>, strides: &[usize], offset: usize) -> Self {
        let texts = self.texts();
        let mut out = Vec::with_capacity(shape.iter().product());
        walk(&shape, strides, offset, &mut |at| out.push(texts[at].clone()));
        Self::text(shape, out)
    }

    /// Takes a host tensor over.
    pub(crate) fn from_host(tensor: Tensor) -> Self {
        let shape = tensor.shape().to_vec();
        let dtype = tensor.dtype();
        match tensor.into_values() {
            TensorValues::Float32(v) => Self::new(dtype, shape, v),
            TensorValues::Float64(v) => Self::new(dtype, shape, v),
            TensorValues::Float16(v) => Self::new(dtype, shape, v),
            TensorValues::BFloat16(v) => Self::new(dtype, shape, v),
            TensorValues::Int8(v) => Self::new(dtype, shape, v),
            TensorValues::Int16(v) => Self::new(dtype, shape, v),
            TensorValues::Int32(v) => Self::new(dtype, shape, v),
            TensorValues::Int64(v) => Self::new(dtype, shape, v),
            TensorValues::Uint8(v) => Self::new(dtype, shape, v),
            TensorValues::Uint16(v) => Self::new(dtype, shape, v),
            TensorValues::Uint32(v) => Self::new(dtype, shape, v),
            TensorValues::Uint64(v) => Self::new(dtype, shape, v),
            TensorValues::Bool(v) => Self::new(dtype, shape, v.into_iter().map(u8::from).collect()),
            TensorValues::String(v) => Self::text(shape, v),
        }
    }

    /// A copy for the host.
    pub(crate) fn to_host(&self) -> Option<Tensor> {
        let values = match self.dtype {
            DType::Float32 => TensorValues::Float32(self.values().into_owned()),
            DType::Float64 => TensorValues::Float64(self.values().into_owned()),
            DType::Float16 => TensorValues::Float16(self.values().into_owned()),
            DType::BFloat16 => TensorValues::BFloat16(self.values().into_owned()),
            DType::Int8 => TensorValues::Int8(self.values().into_owned()),
            DType::Int16 => TensorValues::Int16(self.values().into_owned()),
            DType::Int32 => TensorValues::Int32(self.values().into_owned()),
            DType::Int64 => TensorValues::Int64(self.values().into_owned()),
            DType::Uint8 => TensorValues::Uint8(self.values().into_owned()),
            DType::Uint16 => TensorValues::Uint16(self.values().into_owned()),
            DType::Uint32 => TensorValues::Uint32(self.values().into_owned()),
            DType::Uint64 => TensorValues::Uint64(self.values().into_owned()),
            DType::Bool => TensorValues::Bool(self.values::<u8>().iter().map(|x| *x != 0).collect()),
            DType::String => TensorValues::String(self.texts().to_vec()),
        };
        Tensor::new(self.shape.clone(), values)
    }

    /// The elements, for a kernel that writes over them: without a copy when nobody else holds them.
    pub(crate) fn into_vec<T: Element>(self) -> Vec<T> {
        match self.storage {
            Storage::Burn(ref tensor) if tensor.dtype() == T::dtype() && !tensor.is_contiguous() => {
                match self.values::<T>() {
                    Cow::Borrowed(values) => values.to_vec(),
                    Cow::Owned(values) => values,
                }
            }
            Storage::Burn(tensor) if tensor.dtype() == T::dtype() => {
                tensor.into_data().try_into_vec::<T>().unwrap_or_default()
            }
            _ => vec![],
        }
    }
}

fn tensor_of<T: Element>(shape: Vec<usize>, values: Vec<T>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, Shape::from(shape)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_laid_out_once() {
        let view = Array::ints((0..60).collect()).reshape(vec![3, 4, 5]).permute(&[2, 0, 1]);
        let first = view.values::<i64>().as_ptr();
        assert_eq!(view.values::<i64>().as_ptr(), first);
        assert_eq!(view.contiguous().values::<i64>().as_ptr(), first);
        assert_eq!(view.reshape(vec![60]).values::<i64>().as_ptr(), first);
        assert_eq!(view.values::<i64>()[..4], [0, 5, 10, 15]);
    }

    #[test]
    fn a_small_part_does_not_keep_the_whole() {
        let array = Array::ints((0..1000).collect());
        for part in [array.slice(0, 0, 1, 1), array.slice(0, 5, 3, 100), array.slice(0, 990, -1, 9)] {
            assert!(part.is_own(), "{part:?}");
        }
        assert_eq!(*array.slice(0, 5, 3, 100).values::<i64>(), (0..100).map(|i| 5 + 3 * i).collect::<Vec<i64>>());
        assert!(!array.slice(0, 0, 1, 900).is_own(), "a great one is a view");
    }

    #[test]
    fn views_are_laid_out_element_by_element() {
        let mut random = crate::engine::sample::random(3);
        for _ in 0..500 {
            let rank = 1 + random(5);
            let shape: Vec<usize> = (0..rank).map(|_| 1 + random(if rank < 3 { 70 } else { 7 })).collect();
            let n: usize = shape.iter().product();
            let mut array = Array::ints((0..n as i64).collect()).reshape(shape);
            for _ in 0..random(4) {
                let shape = array.shape().to_vec();
                let axis = random(rank);
                array = match random(3) {
                    0 => array.permute(&(0..rank).map(|i| (i + axis) % rank).collect::<Vec<_>>()),
                    1 if shape[axis] > 1 => array.slice(axis, 1, 1 + random(2) as isize, shape[axis] / 2),
                    _ => array.slice(axis, 0, 1, 1).broadcast(&shape),
                };
            }
            let (values, strides, start) = array.strided::<i64>().unwrap();
            let mut expected = Vec::new();
            walk(array.shape(), &strides, start, &mut |at| expected.push(values[at]));
            assert_eq!(*array.values::<i64>(), expected);
            assert_eq!(*array.contiguous().values::<i64>(), expected);
            assert_eq!(array.into_vec::<i64>(), expected);
        }
    }
}
