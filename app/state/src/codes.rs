//! Code that was read: hashed once, and its jump destinations found once.

use std::collections::HashMap;

use alloy_primitives::B256;
use parking_lot::RwLock;
use revm::bytecode::Bytecode;

/// Bytes of code in memory: some thousand large contracts.
const MAX_BYTES: usize = 64 << 20;

/// What an entry takes besides the code.
const OVERHEAD: usize = 256;

/// Code by its hash. What a hash stands for never changes.
#[derive(Debug, Default)]
pub(crate) struct Codes(RwLock<Kept>);

#[derive(Debug, Default)]
struct Kept {
    codes: HashMap<B256, Bytecode>,
    bytes: usize,
}

impl Codes {
    pub(crate) fn get(&self, hash: &B256) -> Option<Bytecode> {
        self.0.read().codes.get(hash).cloned()
    }

    /// Keeps code whose hash was checked.
    pub(crate) fn put(&self, hash: B256, code: Bytecode) {
        let mut kept = self.0.write();
        let bytes = code.len() + OVERHEAD;
        if kept.bytes + bytes > MAX_BYTES {
            // All of it: what is in use is back after the next block.
            *kept = Kept::default();
        }
        kept.bytes += bytes;
        if let Some(same) = kept.codes.insert(hash, code) {
            kept.bytes -= same.len() + OVERHEAD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_kept_within_its_memory() {
        let codes = Codes::default();
        let code = Bytecode::new_raw(vec![0; MAX_BYTES / 4].into());
        for index in 0..10 {
            codes.put(B256::with_last_byte(index), code.clone());
            codes.put(B256::with_last_byte(index), code.clone());
            assert!(codes.0.read().bytes <= MAX_BYTES);
            assert!(codes.get(&B256::with_last_byte(index)).is_some());
        }
        assert!(codes.get(&B256::ZERO).is_none());
    }
}
