//! The candles in the storage of the contract `CandleFeed` (app/contracts/src/CandleFeed.sol): where they are, and longer
//! candles of them.
//!
//! | slot | value |
//! |---|---|
//! | 0 | the feeder |
//! | p = keccak256(keccak256(keccak256(base) ‖ keccak256(quote)) ‖ 1) | from the lowest byte on: newest minute (8 bytes), places after the point of prices (1) and of volumes (1), 1 if the pair is there |
//! | p + 1 + m % 20160 | the newest of the minutes with this remainder, from the lowest bit on: open, high, low, close (44 bits each), volume (52), minute m since the epoch (28) |

use alloy_primitives::{Address, B256, U256, address, keccak256};

use crate::Denied;

/// The contract that holds the candles.
pub const CANDLE_FEED: Address = address!("00000000000000000000000000000000000000F8");

/// Minutes that are kept of a pair.
pub(super) const CAPACITY: u64 = 20_160;

const PRICE_BITS: usize = 44;
const VOLUME_BITS: usize = 52;
const VOLUME_AT: usize = 4 * PRICE_BITS;
const MINUTE_AT: usize = VOLUME_AT + VOLUME_BITS;

/// A pair and what its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    slot: U256,
    latest_minute: u64,
    /// Places after the point of prices.
    pub(super) price_decimals: u8,
    /// Places after the point of volumes.
    pub(super) volume_decimals: u8,
}

/// A candle of one minute or of more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candle {
    pub(super) open: u64,
    pub(super) high: u64,
    pub(super) low: u64,
    pub(super) close: u64,
    pub(super) volume: u128,
}

/// The slot of a pair's head.
pub(super) fn head_slot(base: &str, quote: &str) -> U256 {
    let key = keccak256([keccak256(base), keccak256(quote)].concat());
    keccak256([key, B256::from(U256::from(1))].concat()).into()
}

impl Pair {
    /// Reads what is in the slot of a head.
    pub(super) fn read(slot: U256, head: U256) -> Result<Self, Denied> {
        if head.byte(10) == 0 {
            return Err(Denied::UnknownPair);
        }
        let [latest_minute, ..] = *head.as_limbs();
        Ok(Self { slot, latest_minute, price_decimals: head.byte(8), volume_decimals: head.byte(9) })
    }

    /// The first minute of the newest `count` candles of `duration` minutes that are over. They begin at multiples of
    /// their duration since the epoch.
    pub(super) fn first_minute(&self, count: u64, duration: u64) -> Result<u64, Denied> {
        let end = self.latest_minute.saturating_add(1) / duration * duration;
        end.checked_sub(count * duration).ok_or(Denied::CandlesUnavailable(0))
    }

    /// The slot of a minute's candle.
    pub(super) fn minute_slot(&self, minute: u64) -> U256 {
        self.slot.wrapping_add(U256::from(1 + minute % CAPACITY))
    }
}

impl Candle {
    /// Reads what is in the slot of a minute.
    pub(super) fn read(minute: u64, packed: U256) -> Result<Self, Denied> {
        let bits = |at: usize, bits: usize| {
            let [low, ..] = *(packed >> at).as_limbs();
            low & ((1 << bits) - 1)
        };
        if packed.is_zero() || packed >> MINUTE_AT != U256::from(minute) {
            return Err(Denied::CandlesUnavailable(minute.saturating_mul(60)));
        }
        Ok(Self {
            open: bits(0, PRICE_BITS),
            high: bits(PRICE_BITS, PRICE_BITS),
            low: bits(2 * PRICE_BITS, PRICE_BITS),
            close: bits(3 * PRICE_BITS, PRICE_BITS),
            volume: bits(VOLUME_AT, VOLUME_BITS).into(),
        })
    }

    /// This candle and the one that follows it as one.
    pub(super) fn and(self, next: Self) -> Self {
        Self {
            open: self.open,
            high: self.high.max(next.high),
            low: self.low.min(next.low),
            close: next.close,
            // 20,160 times 2^52 are far below 2^128.
            volume: self.volume + next.volume,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candle(numbers: [u64; 4], volume: u128) -> Candle {
        let [open, high, low, close] = numbers;
        Candle { open, high, low, close, volume }
    }

    #[test]
    fn a_candle_of_two_minutes_spans_both() {
        let both = candle([5, 9, 4, 6], 10).and(candle([6, 7, 2, 3], 1));
        assert_eq!(both, candle([5, 9, 2, 3], 11));
    }

    #[test]
    fn candles_begin_at_multiples_of_their_duration_and_only_whole_ones_count() {
        let pair = |latest_minute| Pair { slot: U256::ZERO, latest_minute, price_decimals: 0, volume_decimals: 0 };
        assert_eq!(pair(59).first_minute(2, 30), Ok(0), "minute 59 is the last of the second half hour");
        assert_eq!(pair(88).first_minute(2, 30), Ok(0), "the third is not over");
        assert_eq!(pair(89).first_minute(2, 30), Ok(30));
        assert_eq!(pair(58).first_minute(2, 30), Err(Denied::CandlesUnavailable(0)));
        assert_eq!(pair(7).first_minute(3, 1), Ok(5));
    }

    #[test]
    fn a_slot_with_another_minute_is_no_candle() {
        let packed = U256::from(77) << MINUTE_AT | U256::from(3) << VOLUME_AT | U256::from(9) << PRICE_BITS;
        assert_eq!(Candle::read(77, packed), Ok(candle([0, 9, 0, 0], 3)));
        assert_eq!(Candle::read(77 + CAPACITY, packed), Err(Denied::CandlesUnavailable((77 + CAPACITY) * 60)));
        assert_eq!(Candle::read(0, U256::ZERO), Err(Denied::CandlesUnavailable(0)));
    }
}
