//! What accounts may make this node compute before they pay for it.
//!
//! An account's requests in the pool are *pending*. When a transaction leaves the pool the cost of its requests is compared
//! with what its included gas pays for (nothing, when it is not included): what is not paid becomes *debt*, what is paid
//! beyond it reduces debt and then is *earned*. Pending cost and debt together stay below `free + earned`; the first
//! transaction of an account without much debt may go on beyond that, up to what one transaction may cost, so that
//! nothing blocks itself. Debt is forgiven at the rate of `free` in an hour. Unpaid work of an account within a time `t`
//! is so at most `free · (1 + t / 1 h)`, and one transaction's, besides what it has paid for. Whoever owes much comes
//! after everybody else.
//!
//! This bounds accounts. Whoever makes new ones pays at least the 42,000 gas of funding and emptying each, for `free`.

use std::{collections::VecDeque, time::Duration};

use alloy_primitives::{Address, map::HashMap};

use crate::PoolConfig;

/// Accounts without a pending request that are remembered.
const MAX_IDLE: usize = 50_000;

/// The same of accounts that owe: some 20 MB.
const MAX_DEBTORS: usize = 4 * MAX_IDLE;

/// The time in which the free allowance is forgiven.
const FORGIVEN_IN: Duration = Duration::from_secs(3_600);

#[derive(Debug, Clone, Copy, Default)]
struct Account {
    pending: u64,
    debt: u64,
    earned: u64,
    /// When the debt was `debt`.
    at: Duration,
}

/// What an account has under way, for decisions and for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// Cost of its requests in the pool.
    pub pending: u64,
    /// Cost of requests that nobody paid for.
    pub debt: u64,
    /// The most that both may be together.
    pub limit: u64,
}

impl Allowance {
    /// It goes behind all others.
    pub(crate) fn is_in_debt(&self, config: &PoolConfig) -> bool {
        self.debt > config.free_sender_ops / 4
    }
}

#[derive(Debug, Default)]
pub(crate) struct Budgets {
    accounts: HashMap<Address, Account>,
    /// In the order in which they settled: candidates for being forgotten.
    settled: VecDeque<(Address, Duration)>,
}

impl Budgets {
    pub(crate) fn of(&self, config: &PoolConfig, now: Duration, address: &Address) -> Allowance {
        let account = self.accounts.get(address).copied().unwrap_or_default();
        Allowance {
            pending: account.pending,
            debt: forgiven(config, &account, now),
            limit: config.free_sender_ops.saturating_add(account.earned),
        }
    }

    /// Work for a transaction in the pool.
    pub(crate) fn charge(&mut self, address: Address, ops: u64) {
        let account = self.accounts.entry(address).or_default();
        account.pending = account.pending.saturating_add(ops);
    }

    /// Work that was not done for a transaction in the pool.
    pub(crate) fn give_back(&mut self, address: Address, ops: u64) {
        if let Some(account) = self.accounts.get_mut(&address) {
            account.pending = account.pending.saturating_sub(ops);
        }
    }

    /// The same for one that left the pool.
    pub(crate) fn forgive(&mut self, address: Address, ops: u64) {
        if let Some(account) = self.accounts.get_mut(&address) {
            account.debt = account.debt.saturating_sub(ops);
        }
    }

    /// A transaction that cost `work` left the pool; its gas paid for `paid`.
    pub(crate) fn settle(&mut self, config: &PoolConfig, now: Duration, address: Address, work: u64, paid: u64) {
        if work == 0 && paid == 0 {
            return;
        }
        let account = self.accounts.entry(address).or_default();
        account.pending = account.pending.saturating_sub(work);
        let debt = forgiven(config, account, now).saturating_add(work);
        account.earned = account.earned.saturating_add(paid.saturating_sub(debt)).min(config.earned_sender_ops);
        (account.debt, account.at) = (debt.saturating_sub(paid), now);
        self.settled.push_back((address, now));
        // Debts are remembered longest: nobody can have them forgotten with a flood of transfers.
        let mut debtors = 0;
        while self.settled.len() > MAX_IDLE && debtors < 4 {
            let Some((oldest, at)) = self.settled.pop_front() else { return };
            // One that settled again since then, or will, is remembered by that.
            let is_last = |account: &&Account| account.pending == 0 && account.at == at;
            let Some(account) = self.accounts.get(&oldest).filter(is_last) else { continue };
            if forgiven(config, account, now) > 0 && self.settled.len() < MAX_DEBTORS {
                self.settled.push_back((oldest, at));
                debtors += 1;
            } else {
                self.accounts.remove(&oldest);
            }
        }
    }
}

fn forgiven(config: &PoolConfig, account: &Account, now: Duration) -> u64 {
    let since = now.saturating_sub(account.at);
    let forgiven = u128::from(config.free_sender_ops) * since.as_millis() / FORGIVEN_IN.as_millis();
    account.debt.saturating_sub(u64::try_from(forgiven).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Address = Address::repeat_byte(1);

    fn config() -> PoolConfig {
        PoolConfig { free_sender_ops: 1_000, earned_sender_ops: 5_000, ..PoolConfig::default() }
    }

    #[test]
    fn unpaid_work_becomes_debt_which_gas_and_time_reduce() {
        let (mut budgets, config) = (Budgets::default(), config());
        let hour = FORGIVEN_IN;
        budgets.charge(ONE, 600);
        assert_eq!(budgets.of(&config, hour, &ONE), Allowance { pending: 600, debt: 0, limit: 1_000 });
        budgets.settle(&config, hour, ONE, 600, 100);
        assert_eq!(budgets.of(&config, hour, &ONE), Allowance { pending: 0, debt: 500, limit: 1_000 });
        assert!(budgets.of(&config, hour, &ONE).is_in_debt(&config));
        budgets.settle(&config, hour, ONE, 0, 200);
        assert_eq!(budgets.of(&config, hour, &ONE).debt, 300);
        assert_eq!(budgets.of(&config, hour + hour / 10, &ONE).debt, 200);
        assert_eq!(budgets.of(&config, 2 * hour, &ONE).debt, 0);
        // Whoever pays for more than he asks may ask for more at once, to a limit.
        budgets.settle(&config, 2 * hour, ONE, 0, 700);
        assert_eq!(budgets.of(&config, 2 * hour, &ONE).limit, 1_700);
        budgets.settle(&config, 2 * hour, ONE, 0, 1 << 40);
        assert_eq!(budgets.of(&config, 2 * hour, &ONE).limit, 6_000);
    }

    #[test]
    fn a_flood_of_transfers_makes_nobody_forget_a_debt() {
        let (mut budgets, config) = (Budgets::default(), config());
        budgets.charge(ONE, 900);
        budgets.settle(&config, Duration::ZERO, ONE, 900, 0);
        for n in 0..3 * MAX_IDLE as u64 {
            let address = Address::left_padding_from(&(n + 1_000).to_be_bytes());
            budgets.settle(&config, Duration::from_micros(n), address, 0, 21);
        }
        assert_eq!(budgets.of(&config, Duration::from_secs(1), &ONE).debt, 900);
        assert!(budgets.accounts.len() <= MAX_IDLE + 1);
    }

    #[test]
    fn the_memory_of_accounts_is_bounded() {
        let (mut budgets, config) = (Budgets::default(), config());
        for n in 0..2 * MAX_IDLE as u64 {
            let address = Address::left_padding_from(&n.to_be_bytes());
            budgets.charge(address, 1);
            budgets.settle(&config, Duration::from_millis(n), address, 1, 5);
        }
        assert!(budgets.accounts.len() <= MAX_IDLE + 1 && budgets.settled.len() <= MAX_IDLE);
        for n in 0..5 * MAX_IDLE as u64 {
            let address = Address::left_padding_from(&(n + 1_000_000).to_be_bytes());
            budgets.charge(address, 500);
            budgets.settle(&config, Duration::from_secs(1_000), address, 500, 0);
        }
        assert!(budgets.accounts.len() <= MAX_DEBTORS + 1 && budgets.settled.len() <= MAX_DEBTORS);
    }
}
