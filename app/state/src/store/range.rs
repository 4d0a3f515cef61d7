//! Keys in order.

/// Keys from a first one on, below an end if there is one. What is behind the end is not looked at, and looking at it would
/// be a good part of the cost of a short scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range<'a> {
    pub(super) from: &'a [u8],
    pub(super) to: Option<Vec<u8>>,
}

impl<'a> Range<'a> {
    /// All keys from one on.
    pub fn from(from: &'a [u8]) -> Self {
        Self { from, to: None }
    }

    /// Keys from one on, below another.
    pub fn between(from: &'a [u8], to: &[u8]) -> Self {
        Self { from, to: Some(to.to_vec()) }
    }

    /// Keys that begin with a prefix.
    pub fn of(prefix: &'a [u8]) -> Self {
        Self { from: prefix, to: after(prefix) }
    }

    /// Keys from one on that begin with a prefix, as that one does.
    pub fn rest(prefix: &[u8], from: &'a [u8]) -> Self {
        Self { from, to: after(prefix) }
    }

    /// Whether there can be no key.
    pub(super) fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| self.from >= to.as_slice())
    }
}

/// The first key behind all with a prefix; `None`: there is none.
pub(crate) fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_without_it() {
        assert_eq!(after(b"a"), Some(b"b".to_vec()));
        assert_eq!(after(&[b'a', 255, 255]), Some(b"b".to_vec()));
        assert_eq!(after(&[255]), None);
        assert_eq!(after(&[]), None);
    }
}
