//! A look at call data before it is decoded.
//!
//! ABI offsets may point anywhere, so that a few kilobytes can describe gigabytes (a thousand tensors
//! that share one array). This walk adds up what a decoder would produce and refuses call data
//! that describes more than it holds; what solc, viem or any other encoder writes passes.

use super::super::errors::InputFault;

const WORD: usize = 32;

/// Checks the arguments (without selector) of `runModelInference`.
pub(super) fn check_model_request(data: &[u8]) -> Result<(), InputFault> {
    let mut walk = Walk { data, budget: data.len() };
    let request = walk.pointer(0, 0)?;
    let name = walk.pointer(request, 1)?;
    walk.bytes(name)?;
    let input = walk.pointer(request, 2)?;
    let numbers = walk.pointer(input, 0)?;
    walk.each(numbers, |walk, tensor| {
        let name = walk.pointer(tensor, 0)?;
        walk.bytes(name)?;
        let values = walk.pointer(tensor, 1)?;
        walk.flat(values, 2)?;
        let shape = walk.pointer(tensor, 2)?;
        walk.flat(shape, 1)
    })?;
    let strings = walk.pointer(input, 1)?;
    walk.each(strings, |walk, tensor| {
        let name = walk.pointer(tensor, 0)?;
        walk.bytes(name)?;
        let values = walk.pointer(tensor, 1)?;
        walk.each(values, |walk, text| walk.bytes(text))
    })
}

struct Walk<'a> {
    data: &'a [u8],
    /// Bytes that the rest may still describe.
    budget: usize,
}

impl Walk<'_> {
    /// The word at `at`, as a size.
    fn size(&self, at: usize) -> Result<usize, InputFault> {
        let end = at.checked_add(WORD).ok_or(InputFault::Malformed)?;
        let word = self.data.get(at..end).ok_or(InputFault::Malformed)?;
        let (high, low) = word.split_at(WORD - 4);
        match (high.iter().all(|b| *b == 0), low) {
            (true, &[a, b, c, d]) => Ok(u32::from_be_bytes([a, b, c, d]) as usize),
            _ => Err(InputFault::Malformed),
        }
    }

    /// Where the `index`-th member of the tuple at `base` lies.
    fn pointer(&self, base: usize, index: usize) -> Result<usize, InputFault> {
        let offset = self.size(base.checked_add(index * WORD).ok_or(InputFault::Malformed)?)?;
        base.checked_add(offset).ok_or(InputFault::Malformed)
    }

    fn spend(&mut self, bytes: usize) -> Result<(), InputFault> {
        self.budget = self.budget.checked_sub(bytes).ok_or(InputFault::Malformed)?;
        Ok(())
    }

    /// A string or `bytes`.
    fn bytes(&mut self, at: usize) -> Result<(), InputFault> {
        let length = self.size(at)?;
        self.spend(length.checked_add(WORD).ok_or(InputFault::Malformed)?)
    }

    /// An array of elements of `words` words.
    fn flat(&mut self, at: usize, words: usize) -> Result<(), InputFault> {
        let count = self.size(at)?;
        self.spend(count.checked_mul(words * WORD).and_then(|n| n.checked_add(WORD)).ok_or(InputFault::Malformed)?)
    }

    /// An array of dynamic elements.
    fn each(
        &mut self,
        at: usize,
        mut element: impl FnMut(&mut Self, usize) -> Result<(), InputFault>,
    ) -> Result<(), InputFault> {
        let count = self.size(at)?;
        self.spend(count.checked_mul(WORD).and_then(|n| n.checked_add(WORD)).ok_or(InputFault::Malformed)?)?;
        let base = at + WORD;
        for index in 0..count {
            let at = self.pointer(base, index)?;
            element(self, at)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloy_sol_types::SolCall;

    use super::*;
    use crate::abi;

    fn call(tensors: usize, numbers: usize) -> Vec<u8> {
        let number = abi::Number { value: 1, decimals: 0 };
        let tensor = abi::MultiDimensionalNumberTensor {
            name: "a rather long name of a tensor, more than one word".into(),
            values: vec![number; numbers],
            shape: vec![numbers as u32],
        };
        let text = abi::StringTensor { name: String::new(), values: vec!["x".into(), String::new()] };
        let input = abi::ModelInput { numbers: vec![tensor; tensors], strings: vec![text] };
        let request = abi::ModelInferenceRequest { mode: 0, modelCID: "org/name".into(), input };
        abi::runModelInferenceCall { request }.abi_encode()[4..].to_vec()
    }

    #[test]
    fn honest_encodings_pass_and_truncated_ones_do_not() {
        for (tensors, numbers) in [(0, 0), (1, 0), (1, 64), (5, 3)] {
            let data = call(tensors, numbers);
            assert_eq!(check_model_request(&data), Ok(()));
            assert_eq!(check_model_request(&data[..WORD * 3]), Err(InputFault::Malformed));
        }
        assert_eq!(check_model_request(&[]), Err(InputFault::Malformed));
    }

    #[test]
    fn tensors_that_share_one_array_are_refused() {
        let mut data = call(40, 40);
        // Point every tensor at the first one: the encoding describes 40 times what one holds.
        let numbers = WORD // request
            + WORD * 3 + WORD * 2 // its head, its name
            + WORD * 2; // the input's head
        let first: [u8; WORD] = data[numbers + WORD..numbers + 2 * WORD].try_into().unwrap();
        for index in 1..40 {
            data[numbers + WORD + index * WORD..][..WORD].copy_from_slice(&first);
        }
        data.truncate(data.len() / 4);
        assert_eq!(check_model_request(&data), Err(InputFault::Malformed));
    }
}
