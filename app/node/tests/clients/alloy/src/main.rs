//! Uses a Penstock chain through alloy: connects, deploys, sends every type of transaction, replaces, cancels, waits, reads
//! events, filters, subscriptions and traces, and lets a contract ask a model.
//!
//! `PENSTOCK_RPC` and `PENSTOCK_WS` name the node. One line a check; ends at the first that fails.

use std::time::Duration;

use alloy::{
    eips::{BlockId, eip2718::Encodable2718, eip7702::Authorization},
    network::{EthereumWallet, TransactionBuilder, TransactionBuilder7702},
    primitives::{Address, U256, address, bytes},
    providers::{
        DynProvider, Provider, ProviderBuilder, WalletProvider, WsConnect,
        ext::{DebugApi, TxPoolApi},
    },
    rpc::types::{
        BlockNumberOrTag, Filter, TransactionRequest,
        state::{AccountOverride, StateOverride},
        trace::geth::{CallConfig, GethDebugBuiltInTracerType, GethDebugTracingOptions, GethTrace},
    },
    signers::{SignerSync, local::PrivateKeySigner},
    sol,
    sol_types::SolEvent,
};
use eyre::{Result, ensure, eyre};
use futures_util::StreamExt;

sol!(
    #[sol(rpc)]
    #[derive(Debug)]
    Token,
    "../../../../contracts/out/Token.json"
);

sol!(
    #[sol(rpc)]
    #[allow(clippy::too_many_arguments)]
    Probe,
    "../../../../contracts/out/Probe.json"
);

/// The first two accounts of the mnemonic `test test ... junk`.
const KEYS: [&str; 2] = [
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
];
const CHAIN_ID: u64 = 7483;
const OTHER: Address = address!("70997970C51812dc3A010C7d01b50e0d17dc79C8");
const FRESH: Address = address!("00000000000000000000000000000000a110c001");
const POOR: Address = address!("00000000000000000000000000000000a110c002");
const SUPPLY: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(30);

fn setting(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.into())
}

fn signer(index: usize) -> Result<PrivateKeySigner> {
    Ok(KEYS[index].parse()?)
}

/// What the checks share.
struct Stand {
    provider: DynProvider,
    from: Address,
}

impl Stand {
    async fn tx(&self, request: TransactionRequest) -> Result<alloy::rpc::types::TransactionReceipt> {
        let receipt = self.provider.send_transaction(request).await?.get_receipt().await?;
        ensure!(receipt.status(), "{receipt:?}");
        Ok(receipt)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let url = setting("PENSTOCK_RPC", "http://127.0.0.1:8545");
    let wallet = EthereumWallet::from(signer(0)?);
    // Nonces as the node counts them: some of the checks choose their own.
    let provider = ProviderBuilder::default()
        .with_gas_estimation()
        .with_simple_nonce_management()
        .fetch_chain_id()
        .wallet(wallet)
        .connect_http(url.parse()?);
    let stand = Stand { from: provider.default_signer_address(), provider: provider.erased() };
    let websocket = setting("PENSTOCK_WS", &url.replacen("http", "ws", 1));
    let live = ProviderBuilder::new().connect_ws(WsConnect::new(websocket)).await?.erased();

    connects(&stand).await?;
    let token = deploys(&stand).await?;
    sends_every_type(&stand, token).await?;
    replaces_and_cancels(&stand).await?;
    finds_events(&stand, &live, token).await?;
    polls_filters(&stand, token).await?;
    overrides(&stand, token).await?;
    reads_errors(&stand, token).await?;
    traces(&stand, token).await?;
    asks_a_model(&stand, &live).await?;
    Ok(())
}

fn passed(what: &str) {
    println!("ok - alloy {what}");
}

async fn connects(stand: &Stand) -> Result<()> {
    let provider = &stand.provider;
    ensure!(provider.get_chain_id().await? == CHAIN_ID);
    ensure!(provider.get_net_version().await? == CHAIN_ID);
    ensure!(provider.get_balance(stand.from).await? > U256::from(10).pow(U256::from(18)));
    ensure!(provider.get_gas_price().await? > 0);
    let fees = provider.estimate_eip1559_fees().await?;
    ensure!(fees.max_fee_per_gas >= fees.max_priority_fee_per_gas);
    let history = provider.get_fee_history(4, BlockNumberOrTag::Latest, &[25.0, 75.0]).await?;
    ensure!(!history.base_fee_per_gas.is_empty());
    let block = provider.get_block(BlockId::latest()).full().await?.ok_or_else(|| eyre!("no block"))?;
    ensure!(block.header.hash_slow() == block.header.hash, "the hash is that of the header");
    passed("connects");
    Ok(())
}

async fn deploys(stand: &Stand) -> Result<Address> {
    let token = Token::deploy(&stand.provider, U256::from(SUPPLY)).await?;
    ensure!(token.balanceOf(stand.from).call().await? == U256::from(SUPPLY));
    let proof = stand.provider.get_proof(*token.address(), vec![]).await?;
    ensure!(proof.code_hash == alloy::primitives::keccak256(stand.provider.get_code_at(*token.address()).await?));
    passed("deploys and calls");
    Ok(*token.address())
}

async fn sends_every_type(stand: &Stand, token: Address) -> Result<()> {
    let provider = &stand.provider;
    let plain = TransactionRequest::default().with_to(FRESH).with_value(U256::from(1));
    let price = provider.get_gas_price().await?;
    let transfer = Token::new(token, provider).transfer(OTHER, U256::from(1)).into_transaction_request();
    let list = provider.create_access_list(&transfer.clone().from(stand.from)).await?.access_list;
    ensure!(!list.is_empty());
    let legacy = plain.clone().with_gas_price(price);
    let with_list = transfer.with_gas_price(price).access_list(list);
    let authorization = Authorization { chain_id: U256::from(CHAIN_ID), address: token, nonce: 0 };
    let signature = signer(1)?.sign_hash_sync(&authorization.signature_hash())?;
    let authorized = TransactionRequest::default()
        .with_to(FRESH)
        .with_authorization_list(vec![authorization.into_signed(signature)]);
    for (kind, request) in [(0, legacy), (1, with_list), (2, plain), (4, authorized)] {
        let receipt = stand.tx(request).await?;
        ensure!(receipt.transaction_type() as u8 == kind, "{receipt:?}");
        let found = provider.get_transaction_by_hash(receipt.transaction_hash).await?;
        let found = found.ok_or_else(|| eyre!("no transaction {}", receipt.transaction_hash))?;
        ensure!(found.block_number == receipt.block_number && found.inner.signer() == stand.from);
        let raw = provider.get_raw_transaction_by_hash(receipt.transaction_hash).await?;
        ensure!(raw.is_some_and(|raw| raw == found.inner.inner().encoded_2718()));
    }
    let delegated = provider.get_code_at(OTHER).await?;
    ensure!(delegated.starts_with(&bytes!("ef0100")) && delegated.ends_with(token.as_slice()), "{delegated}");
    passed("sends transactions of types 0, 1, 2 and 4");
    Ok(())
}

/// The nonce after a gap waits; what fills the gap is replaced, then cancelled, before it can be in a block.
async fn replaces_and_cancels(stand: &Stand) -> Result<()> {
    let provider = &stand.provider;
    let next = provider.get_transaction_count(stand.from).await?;
    let fees = provider.estimate_eip1559_fees().await?;
    let later = |value: u64, times: u128| {
        TransactionRequest::default()
            .with_to(FRESH)
            .with_value(U256::from(value))
            .with_nonce(next + 1)
            .with_gas_limit(21_000)
            .with_max_fee_per_gas(fees.max_fee_per_gas * times)
            .with_max_priority_fee_per_gas(fees.max_priority_fee_per_gas.max(1) * times)
    };
    let first = *provider.send_transaction(later(7, 1)).await?.tx_hash();
    let cheap = provider.send_transaction(later(8, 1)).await;
    ensure!(cheap.is_err_and(|error| error.to_string().contains("underpriced")));
    let second = *provider.send_transaction(later(8, 2)).await?.tx_hash();
    ensure!(provider.get_transaction_by_hash(first).await?.is_none(), "it was replaced");
    let queued = provider.txpool_content().await?.queued;
    let queued = queued.get(&stand.from).ok_or_else(|| eyre!("nothing is queued"))?;
    ensure!(queued.contains_key(&(next + 1).to_string()), "{queued:?}");
    // Cancelled: a transfer of nothing to oneself.
    let cancel = later(0, 4).with_to(stand.from);
    let cancelling = provider.send_transaction(cancel).await?;
    ensure!(provider.get_transaction_by_hash(second).await?.is_none());
    let before = provider.get_balance(FRESH).await?;
    stand.tx(TransactionRequest::default().with_to(FRESH).with_value(U256::from(1)).with_nonce(next)).await?;
    ensure!(cancelling.get_receipt().await?.status());
    ensure!(provider.get_balance(FRESH).await? == before + U256::from(1));
    passed("replaces, and cancels");
    Ok(())
}

async fn finds_events(stand: &Stand, live: &DynProvider, token: Address) -> Result<()> {
    let filter = Filter::new().address(token).event_signature(Token::Transfer::SIGNATURE_HASH);
    let mut logs = live.subscribe_logs(&filter).await?.into_stream();
    let mut heads = live.subscribe_blocks().await?.into_stream();
    let mut pending = live.subscribe_pending_transactions().await?.into_stream();
    let contract = Token::new(token, &stand.provider);
    let receipt = contract.transfer(FRESH, U256::from(5)).send().await?.get_receipt().await?;
    let number = receipt.block_number.unwrap_or_default();

    let log = tokio::time::timeout(PATIENCE, logs.next()).await?.ok_or_else(|| eyre!("the subscription ended"))?;
    let event = log.log_decode::<Token::Transfer>()?.inner.data;
    ensure!((event.from, event.to, event.value) == (stand.from, FRESH, U256::from(5)), "{event:?}");
    ensure!(log.transaction_hash == Some(receipt.transaction_hash));
    let hash = tokio::time::timeout(PATIENCE, pending.next()).await?;
    ensure!(hash == Some(receipt.transaction_hash), "{hash:?}");
    loop {
        let head =
            tokio::time::timeout(PATIENCE, heads.next()).await?.ok_or_else(|| eyre!("the subscription ended"))?;
        if head.number >= number {
            break;
        }
    }
    let found = contract.Transfer_filter().from_block(number).topic2(FRESH).query().await?;
    ensure!(found.len() == 1 && found[0].0.value == U256::from(5), "{found:?}");
    passed("finds events, and hears of them over a WebSocket");
    Ok(())
}

async fn polls_filters(stand: &Stand, token: Address) -> Result<()> {
    let provider = &stand.provider;
    let id = provider.new_filter(&Filter::new().address(token)).await?;
    let receipt = Token::new(token, provider).transfer(FRESH, U256::from(6)).send().await?.get_receipt().await?;
    let changes = provider.get_filter_changes::<alloy::rpc::types::Log>(id).await?;
    ensure!(changes.len() == 1 && changes[0].transaction_hash == Some(receipt.transaction_hash), "{changes:?}");
    ensure!(provider.get_filter_changes::<alloy::rpc::types::Log>(id).await?.is_empty());
    ensure!(provider.uninstall_filter(id).await?);
    passed("polls filters");
    Ok(())
}

async fn overrides(stand: &Stand, token: Address) -> Result<()> {
    let code = stand.provider.get_code_at(token).await?;
    let elsewhere = address!("00000000000000000000000000000000000c0de5");
    let state = StateOverride::from_iter([(elsewhere, AccountOverride::default().with_code(code))]);
    let symbol = Token::new(elsewhere, &stand.provider).symbol().state(state).call().await?;
    ensure!(symbol == Token::new(token, &stand.provider).symbol().call().await?);
    passed("overrides the state of a call");
    Ok(())
}

async fn reads_errors(stand: &Stand, token: Address) -> Result<()> {
    let poor = Token::new(token, &stand.provider);
    let failed = poor.transfer(OTHER, U256::from(1)).from(POOR).call().await;
    let error = failed.err().ok_or_else(|| eyre!("a transfer of nothing went through"))?;
    ensure!(error.as_decoded_error::<Token::InsufficientBalance>().is_some(), "{error}");
    passed("decodes a contract's own error");
    Ok(())
}

async fn traces(stand: &Stand, token: Address) -> Result<()> {
    let contract = Token::new(token, &stand.provider);
    let hash = contract.transfer(OTHER, U256::from(1)).send().await?.get_receipt().await?.transaction_hash;
    let options = GethDebugTracingOptions::new_tracer(GethDebugBuiltInTracerType::CallTracer)
        .with_call_config(CallConfig::default().with_log());
    let GethTrace::CallTracer(frame) = stand.provider.debug_trace_transaction(hash, options).await? else {
        return Err(eyre!("no frames"));
    };
    ensure!(frame.to == Some(token) && frame.logs.len() == 1, "{frame:?}");
    let GethTrace::Default(steps) = stand.provider.debug_trace_transaction(hash, Default::default()).await? else {
        return Err(eyre!("no steps"));
    };
    ensure!(!steps.failed && steps.struct_logs.last().is_some_and(|step| step.op == "RETURN"));
    passed("traces");
    Ok(())
}

async fn asks_a_model(stand: &Stand, live: &DynProvider) -> Result<()> {
    let probe = Probe::deploy(&stand.provider).await?;
    // 1.5 and -0.25.
    let number = |value, decimals| Probe::Number { value, decimals };
    let values = vec![number(15, 1), number(-25, 2)];
    let ask = probe.ask("penstock/linear".into(), "x".into(), values, vec![1, 2]);
    let simulated = ask.call().await?;
    let receipt = ask.gas(30_000_000).send().await?.get_receipt().await?;
    ensure!(receipt.status());
    let answered = receipt.decoded_log::<Probe::Answered>().ok_or_else(|| eyre!("the contract told nothing"))?;
    let first = probe.firstNumber().call().await?;
    ensure!((answered.value, answered.decimals) == (first.value, first.decimals) && !answered.simulated);
    let called = &simulated.numbers[0].values[0];
    ensure!((called.value, called.decimals) == (first.value, first.decimals), "a call has the bits of the transaction");
    // The inferences of the transaction, by a method of Penstock's own.
    let told: serde_json::Value = live.raw_request("pipe_getTransaction".into(), [receipt.transaction_hash]).await?;
    ensure!(told["requests"].as_array().is_some_and(|requests| requests.len() == 1), "{told}");
    passed("lets a contract ask a model");
    Ok(())
}
