//! State and block overrides of calls, with geth's rules.

use alloy_evm::overrides::{StateOverrideError, apply_block_overrides, apply_state_overrides};
use alloy_primitives::Address;
use alloy_rpc_types_eth::{BlockOverrides, state::StateOverride};
use penstock_chain::CallRequest;
use penstock_evm::{INFERENCE, INFERENCE_V1, PRICE_FEED, Rules};
use revm::{
    Database, DatabaseCommit,
    precompile::{PrecompileSpecId, Precompiles},
};

use crate::error::{RpcError, RpcResult};

/// Accounts and slots that one call may override: more than any tool sends.
pub(super) const MAX_OVERRIDES: usize = 10_000;

/// The destination of a precompile's move is overridden itself (geth's code).
const MOVED_ONTO_ITSELF: i32 = -38022;

/// Applies what the caller overrides.
pub(super) fn apply(
    call: &mut CallRequest,
    rules: &Rules,
    state: Option<StateOverride>,
    block: Option<BlockOverrides>,
) -> RpcResult<()> {
    if let Some(block) = block {
        if block.beacon_root.is_some() {
            return Err(RpcError::InvalidParams(
                "the block override beaconRoot is not supported for this method".into(),
            ));
        }
        apply_block_overrides(block, &mut call.db, &mut call.env);
    }
    match state {
        Some(state) => apply_state(state, rules, &mut call.places, &mut call.db),
        None => Ok(()),
    }
}

/// Accounts and slots that are overridden.
pub(super) fn size(state: &StateOverride) -> usize {
    let slots = |list: &Option<alloy_primitives::map::B256HashMap<_>>| list.as_ref().map_or(0, |list| list.len());
    state.values().map(|account| 1 + slots(&account.state) + slots(&account.state_diff)).sum()
}

/// Applies state overrides, and moves precompiles.
pub(super) fn apply_state<DB: Database + DatabaseCommit>(
    state: StateOverride,
    rules: &Rules,
    places: &mut penstock_evm::PrecompilePlaces,
    db: &mut DB,
) -> RpcResult<()> {
    if size(&state) > MAX_OVERRIDES {
        return Err(RpcError::InvalidParams(format!("at most {MAX_OVERRIDES} accounts and slots can be overridden")));
    }
    let is_precompile = |address: &Address, places: &penstock_evm::PrecompilePlaces| match places.get(address) {
        Some(place) => place.is_some(),
        None => {
            [INFERENCE, INFERENCE_V1].contains(address)
                || (*address == PRICE_FEED && rules.price_feed)
                || Precompiles::new(PrecompileSpecId::from_spec_id(rules.spec)).contains(address)
        }
    };
    // In the order of their addresses: what an answer says must not depend on a map's order.
    let mut addresses: Vec<Address> = state.keys().copied().collect();
    addresses.sort_unstable();
    let before = places.clone();
    for address in &addresses {
        let Some(account) = state.get(address).filter(|_| is_precompile(address, &before)) else {
            if state.get(address).is_some_and(|account| account.move_precompile_to.is_some()) {
                return Err(RpcError::InvalidInput(format!("account {address} is not a precompile")));
            }
            continue;
        };
        let original = before.get(address).copied().flatten().unwrap_or(*address);
        // An overridden precompile is an account like any other.
        places.insert(*address, None);
        let Some(destination) = account.move_precompile_to else { continue };
        if state.contains_key(&destination) {
            let message = format!("account {destination} is already overridden");
            return Err(RpcError::Coded { code: MOVED_ONTO_ITSELF, message });
        }
        // Of two that are moved to one address the later one is there, as with geth.
        places.insert(destination, Some(original));
    }
    apply_state_overrides(state, db).map_err(|error| match error {
        StateOverrideError::InvalidBytecode(error) => RpcError::InvalidInput(format!("invalid code: {error}")),
        StateOverrideError::BothStateAndStateDiff(address) => {
            RpcError::InvalidInput(format!("account {address} has both 'state' and 'stateDiff'"))
        }
        StateOverrideError::Database(error) => RpcError::Internal(error.to_string()),
    })
}
