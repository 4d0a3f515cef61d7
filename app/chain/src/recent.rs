//! Blocks that are at hand: those that clients ask for are mostly the newest, and the same ones again.

use std::sync::Arc;

use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

use crate::Block;

/// Memory for blocks, about.
const BYTES: u64 = 64 << 20;

/// Blocks that this is room for when they are small.
const BLOCKS: usize = 4_096;

/// Committed blocks by their numbers. A committed block never changes.
#[derive(Debug)]
pub(crate) struct RecentBlocks(Cache<u64, Arc<Block>, ByBytes>);

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<u64, Arc<Block>> for ByBytes {
    fn weight(&self, _: &u64, block: &Arc<Block>) -> u64 {
        block.memory() as u64
    }
}

impl Default for RecentBlocks {
    fn default() -> Self {
        let mut options = OptionsBuilder::new();
        // In one part: of several each had no room for a large block.
        let options = options.estimated_items_capacity(BLOCKS).weight_capacity(BYTES).shards(1).build();
        let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self(match options {
            Ok(options) => Cache::with_options(options, ByBytes, hasher, lifecycle),
            // Nothing that it needs is missing.
            Err(_) => Cache::with_weighter(BLOCKS, BYTES, ByBytes),
        })
    }
}

impl RecentBlocks {
    pub(crate) fn get(&self, number: u64) -> Option<Arc<Block>> {
        self.0.get(&number)
    }

    pub(crate) fn keep(&self, block: &Arc<Block>) {
        self.0.insert(block.header.number, block.clone());
    }
}

#[cfg(test)]
mod tests {
    use alloy_consensus::Header;

    use super::*;

    fn block(number: u64, bytes: usize) -> Arc<Block> {
        let header = Header { number, extra_data: vec![0; bytes].into(), ..Header::default() };
        Arc::new(Block { hash: header.hash_slow(), header, header_tx: None, txs: vec![], receipts: vec![] })
    }

    #[test]
    fn blocks_are_at_hand_until_they_need_more_memory_than_there_is() {
        let recent = RecentBlocks::default();
        recent.keep(&block(1, 100));
        assert_eq!(recent.get(1).unwrap().header.number, 1);
        assert!(recent.get(2).is_none());
        const COUNT: u64 = 300;
        for number in 0..COUNT {
            recent.keep(&block(number, 1 << 20));
        }
        recent.keep(&block(COUNT, 40 << 20));
        assert!(recent.get(COUNT).is_some(), "a large one");
        let kept = (0..COUNT).filter(|number| recent.get(*number).is_some()).count();
        assert!((1..=24).contains(&kept), "{kept} of a MiB each");
    }
}
