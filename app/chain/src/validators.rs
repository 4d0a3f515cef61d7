//! The validators, with their public keys, in the state: under the state root, so that they come with state sync and
//! can be proved. They are in the storage of the contract `app/contracts/src/Validators.sol` at [`VALIDATORS`], which the
//! genesis fills from InitChain. What a block changes there are the block's validator updates.
//!
//! | slot | value |
//! |---|---|
//! | 0 | the account that may change them |
//! | 1 | their number |
//! | keccak256(1) + 2·i | the first 32 bytes of the i-th one's key |
//! | keccak256(1) + 2·i + 1 | from the lowest byte on: the key's 33rd byte, its kind (1: ed25519, 2: secp256k1), power (8 bytes) |

use std::collections::{BTreeMap, HashMap};

use alloy_genesis::GenesisAccount;
use alloy_primitives::{Address, B256, Bytes, U256, address, keccak256};
use penstock_abci::{
    crypto::{PublicKey, public_key::Sum},
    messages::ValidatorUpdate,
};
use penstock_state::{StoreError, View};
use revm::{DatabaseRef, database::BundleState};

use crate::{GenesisError, predeploys::runtime_code};

/// The contract that holds the validators.
pub const VALIDATORS: Address = address!("00000000000000000000000000000000000000F6");

const ARTIFACT: &str = include_str!("../../contracts/out/Validators.json");

/// The public key of a validator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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

/// Slots of one validator.
const STRIDE: u64 = 2;

/// The slot where the list begins: Solidity's layout of a dynamic array in slot 1.
fn first_slot() -> U256 {
    keccak256(U256::from(1).to_be_bytes::<32>()).into()
}

/// The contract's code.
pub(crate) fn code() -> Result<Bytes, GenesisError> {
    runtime_code(ARTIFACT)
}

/// The contract's bound of a validator's power: with it the sum of all stays below CometBFT's.
const MAX_POWER: u64 = 1 << 40;

/// Reads what InitChain brings. Where an account may change validators, they must be ones that the contract can change.
pub(crate) fn from_init_chain(updates: &[ValidatorUpdate], may_change: bool) -> Result<Vec<Validator>, GenesisError> {
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
        if may_change && power > MAX_POWER {
            return Err(error("power", "must be at most 2^40 on a chain with app_state.config.validatorAdmin"));
        }
        if may_change && !matches!(key, ValidatorKey::Ed25519(_)) {
            return Err(error("pub_key", "must be ed25519 on a chain with app_state.config.validatorAdmin"));
        }
        Ok(Validator { key, power })
    };
    let mut validators = updates.iter().enumerate().map(validator).collect::<Result<Vec<_>, _>>()?;
    // The state must not depend on the order in which a version of CometBFT names them.
    validators.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(validators)
}

/// The contract's storage at the beginning.
pub(crate) fn slots(validators: &[Validator], admin: Option<Address>) -> HashMap<U256, U256> {
    let mut slots = HashMap::from([
        (U256::ZERO, U256::from_be_slice(admin.unwrap_or_default().as_slice())),
        (U256::from(1), U256::from(validators.len())),
    ]);
    for (index, validator) in validators.iter().enumerate() {
        let (head, tail) = validator.key.bytes().split_at(32);
        let tail = tail.first().copied().unwrap_or_default();
        let rest = U256::from(tail) | U256::from(validator.key.kind()) << 8 | U256::from(validator.power) << 16;
        let slot = first_slot() + U256::from(STRIDE * index as u64);
        slots.extend([(slot, U256::from_be_slice(head)), (slot + U256::from(1), rest)]);
    }
    slots.retain(|_, value| !value.is_zero());
    slots
}

/// The validators in a state, given by its slots.
fn read_from(slot: impl Fn(U256) -> Result<U256, StoreError>) -> Result<Vec<Validator>, StoreError> {
    let count: u64 = slot(U256::from(1))?.try_into().map_err(|_| StoreError::damaged("the number of validators"))?;
    let validator = |index: u64| {
        let place = first_slot() + U256::from(STRIDE * index);
        let head = slot(place)?.to_be_bytes::<32>();
        let rest = slot(place + U256::from(1))?;
        let key = match rest.byte(1) {
            1 => ValidatorKey::Ed25519(head.to_vec()),
            2 => ValidatorKey::Secp256k1([&head[..], &[rest.byte(0)]].concat()),
            _ => return Err(StoreError::damaged(format_args!("the key of validator {index}"))),
        };
        Ok(Validator { key, power: (rest >> 16usize).as_limbs()[0] })
    };
    (0..count).map(validator).collect()
}

/// Whether the contract in a genesis has just these validators, in whatever order.
pub(crate) fn are_in(account: &GenesisAccount, validators: &[Validator]) -> bool {
    let storage = account.storage.clone().unwrap_or_default();
    let slot = |slot: U256| Ok(storage.get(&B256::from(slot)).copied().unwrap_or_default().into());
    // As many as there are slots, at most: a number in a genesis file may say anything.
    let count: U256 = storage.get(&B256::from(U256::from(1))).copied().unwrap_or_default().into();
    if count != U256::from(validators.len()) {
        return false;
    }
    let Ok(mut found) = read_from(slot) else { return false };
    found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let mut expected = validators.to_vec();
    expected.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    found == expected
}

/// The validators after a block.
pub(crate) fn read(view: &View) -> Result<Vec<Validator>, StoreError> {
    read_from(|slot| view.storage_ref(VALIDATORS, slot))
}

/// The account that may change them.
pub(crate) fn admin(view: &View) -> Result<Option<Address>, StoreError> {
    let slot = view.storage_ref(VALIDATORS, U256::ZERO)?;
    Ok(Some(Address::from_word(slot.into())).filter(|admin| !admin.is_zero()))
}

/// What a block changed: the difference between the validators before and after it, by key. So a validator
/// that comes and goes within a block is none, and none is named twice: CometBFT halts on both.
pub(crate) fn updates(before: &View, changes: &BundleState) -> Result<Vec<ValidatorUpdate>, StoreError> {
    let Some(account) = changes.state.get(&VALIDATORS).filter(|account| !account.storage.is_empty()) else {
        return Ok(vec![]);
    };
    let after = read_from(|slot| match account.storage.get(&slot) {
        Some(value) => Ok(value.present_value),
        None => before.storage_ref(VALIDATORS, slot),
    })?;
    let by_key = |validators: Vec<Validator>| -> BTreeMap<ValidatorKey, u64> {
        validators.into_iter().map(|validator| (validator.key, validator.power)).collect()
    };
    let (before, after) = (by_key(read(before)?), by_key(after));
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key, 0));
    let changed = after.iter().filter(|(key, power)| before.get(*key) != Some(power)).map(|(key, power)| (key, *power));
    let update = |(key, power): (&ValidatorKey, u64)| {
        let sum = match key {
            ValidatorKey::Ed25519(bytes) => Sum::Ed25519(bytes.clone()),
            ValidatorKey::Secp256k1(bytes) => Sum::Secp256k1(bytes.clone()),
        };
        ValidatorUpdate { pub_key: Some(PublicKey { sum: Some(sum) }), power: power as i64 }
    };
    Ok(gone.chain(changed).map(update).collect())
}
