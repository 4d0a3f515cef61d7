//! Hashes of blocks and transactions, and numbers of slots, as clients send them.

use alloy_primitives::{B256, U256};
use serde::{Deserialize, Deserializer, de::Error};

/// 32 bytes in hex, with the prefix: without it the text may be a decimal number that lost its way, and geth refuses it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hash(pub(crate) B256);

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if !text.starts_with("0x") {
            return Err(D::Error::custom("hex string without 0x prefix"));
        }
        text.parse().map(Self).map_err(|error| D::Error::custom(format!("no hash of 32 bytes: {error}")))
    }
}

/// The number of a slot: hex of any length up to 32 bytes, with leading zeros or without.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot(pub(crate) U256);

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(&text);
        if digits.len() > 64 {
            return Err(D::Error::custom(format!("storage key too long (want at most 32 bytes): {text:?}")));
        }
        let number = U256::from_str_radix(if digits.is_empty() { "0" } else { digits }, 16);
        number.map(Self).map_err(|_| D::Error::custom(format!("invalid hex in storage key: {text:?}")))
    }
}
