//! Tasks that run by themselves: contracts that accounts registered with the contract `WorkflowScheduler` at [`SCHEDULER`].
//!
//! ```text
//!  commit ──► ahead: due now or soon? simulate, order what is missing ──► results
//!                                                                           │
//!  PrepareProposal: due, paid, every result here ──► header transaction [id, gas] …
//!  everybody: header transaction ──► system transactions, before the users' ──► runTask(id) ──► the contract's `run()`
//! ```
//!
//! Whether a task may run is the contract's decision: a block is valid only if every `runTask` of it succeeds. Besides, the
//! tasks of a block come in the order in which they are due, with the gas that the contract names, and within
//! [`Rules::task_gas_per_block`](penstock_evm::Rules).
//!
//! A system transaction is a legacy transaction from [`TASK_SENDER`](penstock_evm::TASK_SENDER) whose signature no key
//! makes: nobody can send one. It is not among the block's transactions as consensus knows them; it follows from the header
//! transaction and the Ethereum header.

mod ahead;
mod layout;

use alloy_consensus::{Header, SignableTransaction, TxEnvelope, TxLegacy};
use alloy_eips::eip2718::{Decodable2718, Eip2718Error};
use alloy_primitives::{Address, Bytes, Signature, TxKind, U256, address};
use alloy_sol_types::{SolCall, sol};

pub(crate) use self::{
    ahead::{Ahead, due_in},
    layout::{Parameters, Task},
};
use crate::HeaderTx;

/// The contract that holds the tasks.
pub const SCHEDULER: Address = address!("00000000000000000000000000000000000000F9");

sol! {
    function runTask(uint256 id);
}

/// A task that a block runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduledTask {
    /// Its number.
    pub id: u64,
    /// Gas limit of the transaction that runs it.
    pub gas: u64,
}

impl From<&Task> for ScheduledTask {
    fn from(task: &Task) -> Self {
        Self { id: task.id, gas: task.run_gas() }
    }
}

impl ScheduledTask {
    /// The transaction that runs it in the block of a height. Its nonce is the height, so that no two are equal; its price
    /// is what the task's owner is charged.
    pub fn transaction(&self, height: u64, base_fee: u64) -> TxEnvelope {
        let tx = TxLegacy {
            chain_id: None,
            nonce: height,
            gas_price: base_fee.into(),
            gas_limit: self.gas,
            to: TxKind::Call(SCHEDULER),
            value: U256::ZERO,
            input: runTaskCall { id: U256::from(self.id) }.abi_encode().into(),
        };
        tx.into_signed(NOBODYS).into()
    }
}

/// A signature that clients take for well-formed, unlike zeros, and that nobody can make for any hash: no point of secp256k1
/// has the x-coordinate 5.
const NOBODYS: Signature = Signature::new(U256::from_limbs([5, 0, 0, 0]), U256::from_limbs([1, 0, 0, 0]), false);

/// Tasks that a block can run at most: none has less gas than the overhead of a run.
pub(crate) fn most_tasks(gas_per_block: u64) -> usize {
    usize::try_from(gas_per_block / layout::RUN_OVERHEAD).unwrap_or(usize::MAX)
}

/// The transactions of an Ethereum block: those that run the tasks of its header transaction, then the users'.
///
/// # Errors
/// When one of the users' is no transaction.
pub(crate) fn transactions(
    header: &Header,
    header_tx: &HeaderTx,
    users: &[Bytes],
) -> Result<Vec<TxEnvelope>, Eip2718Error> {
    let base_fee = header.base_fee_per_gas.unwrap_or_default();
    let tasks = header_tx.tasks.iter().map(|task| Ok(task.transaction(header.number, base_fee)));
    tasks.chain(users.iter().map(|raw| TxEnvelope::decode_2718_exact(raw))).collect()
}

#[cfg(test)]
mod tests {
    use alloy_consensus::transaction::SignerRecoverable;
    use alloy_eips::eip2718::Encodable2718;

    use super::*;

    #[test]
    fn no_two_runs_have_one_hash_and_none_can_be_signed() {
        let task = ScheduledTask { id: 1, gas: 3_000_000 };
        let tx = task.transaction(5, 7);
        assert!(tx.recover_signer().is_err());
        for other in [task.transaction(6, 7), ScheduledTask { id: 2, ..task }.transaction(5, 7)] {
            assert_ne!(other.tx_hash(), tx.tx_hash());
        }
        assert_eq!(TxEnvelope::decode_2718_exact(&tx.encoded_2718()).unwrap(), tx, "clients read it as any other");
    }
}
