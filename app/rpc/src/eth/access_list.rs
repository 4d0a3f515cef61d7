//! `eth_createAccessList`: the accounts and slots that a call touches.

use std::sync::Arc;

use alloy_eips::eip2930::AccessListResult;
use alloy_primitives::{TxKind, U256};
use penstock_evm::{Execution, Status};
use revm_inspectors::access_list::AccessListInspector;

use super::{Eth, execute::CallParams};
use crate::error::{RpcError, RpcResult};

/// Runs until the list is the one that the run with it gives; mostly two.
const MAX_RUNS: usize = 8;

impl Eth {
    pub(super) async fn access_list(self: Arc<Self>, params: CallParams) -> RpcResult<AccessListResult> {
        self.blocking(move |eth, turn| {
            let (mut call, session) = eth.prepare(params, turn)?;
            for _ in 0..MAX_RUNS {
                let before = call.tx.access_list.clone();
                let inspector = AccessListInspector::new(before.clone());
                let (execution, list) = eth.chain.inspect_call(&call, &session, inspector, |executor, inspected| {
                    let list = core::mem::take(executor.parts_mut().0).into_access_list();
                    (Execution::from(inspected), list)
                })?;
                if list == before {
                    let error = match execution.status {
                        Status::Success => None,
                        Status::Revert => Some("execution reverted".to_owned()),
                        Status::Halt(reason) => Some(reason),
                    };
                    return Ok(AccessListResult { access_list: list, gas_used: U256::from(execution.gas_used), error });
                }
                call.tx.access_list = list;
                call.tx.tx_type = call.tx.tx_type.max(1);
            }
            let to = match call.tx.kind {
                TxKind::Call(to) => to.to_string(),
                TxKind::Create => "a new contract".to_owned(),
            };
            Err(RpcError::InvalidInput(format!("the access list of the call to {to} depends on itself")))
        })
        .await
    }
}
