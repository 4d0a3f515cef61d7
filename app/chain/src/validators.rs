//! The validators of the genesis, with their public keys, in the state: so that they are under the state root, come
//! with state sync, and can be proved.
//!
//! CometBFT tells addresses and powers with each block, keys only at InitChain. They are slots of the account
//! [`VALIDATORS`]: slot 0 is their number; the `i`-th, from 0, has from slot `1 + 4·i` on: its kind of key (1:
//! ed25519, 2: secp256k1), the key's first 32 bytes, the rest of the key (left-aligned), its power.

use alloy_primitives::{Address, U256, address};
use penstock_abci::{
    crypto::{PublicKey, public_key::Sum},
    messages::ValidatorUpdate,
};
use penstock_state::{StoreError, View};
use revm::DatabaseRef;

use crate::GenesisError;

/// The account whose slots hold the validators.
pub const VALIDATORS: Address = address!("00000000000000000000000000000000000000F6");

/// Slots of one validator.
const STRIDE: u64 = 4;

/// The public key of a validator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidatorKey {
    /// 32 bytes.
    Ed25519(Vec<u8>),
    /// 33 bytes, compressed.
    Secp256k1(Vec<u8>),
}

/// A validator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validator {
    /// Its consensus key.
    pub key: ValidatorKey,
    /// Its voting power.
    pub power: u64,
}

impl ValidatorKey {
    /// The key's bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Ed25519(bytes) | Self::Secp256k1(bytes) => bytes,
        }
    }

    fn kind(&self) -> u64 {
        match self {
            Self::Ed25519(_) => 1,
            Self::Secp256k1(_) => 2,
        }
    }
}

/// Reads what InitChain brings.
pub(crate) fn from_init_chain(updates: &[ValidatorUpdate]) -> Result<Vec<Validator>, GenesisError> {
    let validator = |(index, update): (usize, &ValidatorUpdate)| {
        let error = |field: &str, reason: &str| GenesisError {
            path: format!("validators[{index}].{field}"),
            reason: reason.into(),
        };
        let key = match &update.pub_key {
            Some(PublicKey { sum: Some(Sum::Ed25519(key)) }) if key.len() == 32 => ValidatorKey::Ed25519(key.clone()),
            Some(PublicKey { sum: Some(Sum::Secp256k1(key)) }) if key.len() == 33 => {
                ValidatorKey::Secp256k1(key.clone())
            }
            _ => return Err(error("pub_key", "only ed25519 and secp256k1 are supported")),
        };
        let power = u64::try_from(update.power).map_err(|_| error("power", "is negative"))?;
        Ok(Validator { key, power })
    };
    updates.iter().enumerate().map(validator).collect()
}

/// The slots that hold validators.
pub(crate) fn slots(validators: &[Validator]) -> Vec<(U256, U256)> {
    let mut slots = vec![(U256::ZERO, U256::from(validators.len()))];
    for (index, validator) in validators.iter().enumerate() {
        let first = 1 + STRIDE * index as u64;
        let mut key = [0; 64];
        let bytes = validator.key.bytes();
        key[..bytes.len()].copy_from_slice(bytes);
        let values = [
            U256::from(validator.key.kind()),
            U256::from_be_slice(&key[..32]),
            U256::from_be_slice(&key[32..]),
            U256::from(validator.power),
        ];
        slots.extend((first..).map(U256::from).zip(values));
    }
    slots.retain(|(_, value)| !value.is_zero());
    slots
}

/// The validators in a state.
pub(crate) fn read(view: &View) -> Result<Vec<Validator>, StoreError> {
    let slot = |index: u64| view.storage_ref(VALIDATORS, U256::from(index));
    let count: u64 = slot(0)?.try_into().map_err(|_| StoreError::damaged("the number of validators"))?;
    let validator = |index: u64| {
        let first = 1 + STRIDE * index;
        let head = slot(first + 1)?.to_be_bytes::<32>();
        let tail = slot(first + 2)?.to_be_bytes::<32>();
        let key = match slot(first)?.try_into() {
            Ok(1u64) => ValidatorKey::Ed25519(head.to_vec()),
            Ok(2) => ValidatorKey::Secp256k1([&head[..], &tail[..1]].concat()),
            _ => return Err(StoreError::damaged(format!("the key of validator {index}"))),
        };
        let power = slot(first + 3)?.try_into().map_err(|_| StoreError::damaged("the power of a validator"))?;
        Ok(Validator { key, power })
    };
    (0..count).map(validator).collect()
}
