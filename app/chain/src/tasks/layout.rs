//! The tasks in the storage of the contract `WorkflowScheduler` (app/contracts/src/WorkflowScheduler.sol).
//!
//! | slot | value |
//! |---|---|
//! | 0 | from the lowest byte on: the most gas of a task (8 bytes), the tip of a run (16), the last id (8) |
//! | 1 | the number of tasks |
//! | keccak256(1) + i | the id of the i-th one |
//! | t = keccak256(id ‖ 2) | from the lowest byte on: contract (20 bytes), frequency (6), gas limit (6) |
//! | t + 1 | from the lowest byte on: owner (20 bytes), time of the next run (6), end (6) |
//! | 3 | the stake of a task |
//! | keccak256(owner ‖ 6) | the owner's deposit |

use alloy_primitives::{Address, B256, U256, keccak256};

/// Gas of a run besides the task's own: `RUN_OVERHEAD` of the contract.
pub(super) const RUN_OVERHEAD: u64 = 150_000;

/// Tasks of all accounts together: `MAX_TASKS` of the contract.
const MAX_TASKS: u64 = 1_024;

/// A task that is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Task {
    /// Its number: from 1, never used again.
    pub(crate) id: u64,
    /// When it is due next, in seconds since the epoch.
    pub(crate) next_run: u64,
    /// When it ends.
    pub(crate) end_time: u64,
    gas_limit: u64,
    owner: Address,
}

/// What the genesis says of all tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// The most gas of a task's own.
    pub(crate) max_gas_limit: u64,
    /// Wei that a run pays to the proposer.
    pub(crate) tip: u128,
}

fn element(list: u64, index: u64) -> U256 {
    U256::from_be_bytes(keccak256(U256::from(list).to_be_bytes::<32>()).0).wrapping_add(U256::from(index))
}

fn entry(map: u64, key: B256) -> U256 {
    keccak256([key.0, U256::from(map).to_be_bytes::<32>()].concat()).into()
}

/// 6 bytes from the `from`-th lowest on.
fn uint48(slot: U256, from: usize) -> u64 {
    let [low, ..] = *(slot >> (8 * from)).as_limbs();
    low & ((1 << 48) - 1)
}

impl Parameters {
    /// The slot that has them.
    pub(crate) const SLOT: u64 = 0;

    /// Those with which a run never has more than `gas` in all.
    pub(crate) fn with_gas(gas: u64, tip: u128) -> Self {
        // The inverse of `run_gas`, rounded down.
        Self { max_gas_limit: gas.saturating_sub(RUN_OVERHEAD) / 64 * 63, tip }
    }

    /// The slot's value while no task was registered.
    pub(crate) fn slot(&self) -> U256 {
        U256::from(self.max_gas_limit) | U256::from(self.tip) << 64
    }

    /// The bits of the slot that they take.
    pub(crate) fn mask() -> U256 {
        U256::MAX >> 64
    }

    fn tip_of(slot: U256) -> U256 {
        (slot & Self::mask()) >> 64
    }
}

impl Task {
    /// The task of a number; `None`: it is not registered. `read` reads a slot of the contract.
    pub(crate) fn read<E>(id: u64, read: &mut impl FnMut(U256) -> Result<U256, E>) -> Result<Option<Self>, E> {
        let place = entry(2, U256::from(id).into());
        let (first, second) = (read(place)?, read(place.wrapping_add(U256::from(1)))?);
        let owner = Address::from_word(second.into());
        Ok((!owner.is_zero()).then(|| Self {
            id,
            next_run: uint48(second, 20),
            end_time: uint48(second, 26),
            gas_limit: uint48(first, 26),
            owner,
        }))
    }

    /// The tasks that are due at `time` and paid at a base fee, in the order in which a block may run them: whatever waits
    /// longest comes first. While none is registered this reads one slot.
    pub(crate) fn due<E>(
        time: u64,
        base_fee: u64,
        read: &mut impl FnMut(U256) -> Result<U256, E>,
    ) -> Result<Vec<Self>, E> {
        let count = read(U256::from(1))?;
        if count.is_zero() {
            return Ok(vec![]);
        }
        let tip = Parameters::tip_of(read(U256::from(Parameters::SLOT))?);
        let mut due = Vec::new();
        for index in 0..count.saturating_to::<u64>().min(MAX_TASKS) {
            let id: u64 = read(element(1, index))?.saturating_to();
            let Some(task) = Self::read(id, read)? else { continue };
            if (task.next_run..task.end_time).contains(&time) {
                let deposit = read(entry(6, task.owner.into_word()))?;
                let cost = U256::from(task.run_gas()).saturating_mul(U256::from(base_fee)).saturating_add(tip);
                due.extend((deposit >= cost).then_some(task));
            }
        }
        due.sort_unstable_by_key(Self::turn);
        // The contract lists none twice; a genesis may.
        due.dedup_by_key(|task| task.id);
        Ok(due)
    }

    /// Tasks run in ascending order of this.
    pub(crate) fn turn(&self) -> (u64, u64) {
        (self.next_run, self.id)
    }

    /// Gas limit of the transaction that runs it: `runGas` of the contract.
    pub(crate) fn run_gas(&self) -> u64 {
        self.gas_limit + self.gas_limit / 63 + RUN_OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gas_of_a_run_stays_within_what_the_parameters_are_made_for() {
        for gas in [RUN_OVERHEAD, 1_000_000, 1_000_063, 15_000_000, 60_000_000] {
            let gas_limit = Parameters::with_gas(gas, 7).max_gas_limit;
            let task = Task { id: 1, next_run: 0, end_time: 1, gas_limit, owner: Address::ZERO };
            assert!(task.run_gas() <= gas && gas - task.run_gas() < 130, "{gas}: {}", task.run_gas());
        }
    }

    #[test]
    fn parameters_leave_the_last_id_alone() {
        let parameters = Parameters { max_gas_limit: 5, tip: u128::MAX };
        let with_id = parameters.slot() | U256::from(9) << 192;
        assert_eq!(with_id & Parameters::mask(), parameters.slot());
        assert_eq!(Parameters::tip_of(with_id), U256::from(u128::MAX));
    }
}
