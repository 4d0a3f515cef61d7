// What of JSON-RPC a dapp uses beyond sending and waiting, through viem: filled, awaited, replaced and delegated
// transactions, access lists, simulated blocks, overrides, chosen answers of models, filters and subscriptions.
//   scripts/contracts --install && node app/node/tests/clients/viem_more.mjs
// One line a check; ends at the first that fails.

import assert from 'node:assert/strict';
import { CHAIN_ID, MODEL_GAS, RPC, WS, assertClose, check, require, result, rpc, within } from './common.mjs';
import {
  DIGITS, account, answerOf, ask, balanceOf, chain, deployed, nobody, numbersOf, probe, question, reader, right, same,
  sign, token, transfer, unseen, wallet,
} from './viem_setup.mjs';

const {
  createPublicClient, encodeDeployData, http, keccak256, pad, parseGwei, parseTransaction, webSocket, zeroAddress,
} = require('viem');

// Sending.

const TOKEN = await check('eth_sendRawTransactionSync answers with the receipt', async () => {
  const data = encodeDeployData({ ...token, args: [1_000_000n] });
  const receipt = await wallet.sendRawTransactionSync({ serializedTransaction: await sign({ data, gas: 2_000_000n }) });
  assert.equal(receipt.status, 'success');
  assert.deepEqual(await reader.getTransactionReceipt({ hash: receipt.transactionHash }), receipt);
  return receipt.contractAddress;
});

await check('eth_sendRawTransactionSync ends with code 4 and the hash when no block takes it in time', async () => {
  const nonce = await reader.getTransactionCount({ address: account.address });
  const raw = await sign({ to: zeroAddress, nonce: nonce + 1 });
  const { error } = await rpc('eth_sendRawTransactionSync', raw, 300);
  assert.equal(error?.code, 4, JSON.stringify(error));
  assert.equal(error.data, keccak256(raw));
  const filled = await wallet.sendRawTransactionSync({ serializedTransaction: await sign({ to: zeroAddress, nonce }) });
  assert.equal(filled.status, 'success');
  assert.equal((await reader.waitForTransactionReceipt({ hash: keccak256(raw) })).status, 'success');
});

await check('eth_fillTransaction fills in what is missing, and what it gives can be signed and sent', async () => {
  const request = { from: account.address, to: TOKEN, data: transfer(zeroAddress, 3n) };
  const { raw, tx } = await result('eth_fillTransaction', request);
  for (const field of ['nonce', 'gas', 'maxFeePerGas', 'maxPriorityFeePerGas', 'chainId', 'value', 'type', 'input'])
    assert.ok(field in tx, `${field} is missing in ${JSON.stringify(tx)}`);
  assert.equal(parseTransaction(raw).nonce, Number(tx.nonce));
  const { transaction } = await wallet.fillTransaction({ to: TOKEN, data: transfer(zeroAddress, 3n) });
  const receipt = await wallet.sendRawTransactionSync({
    serializedTransaction: await account.signTransaction(transaction),
  });
  assert.equal(receipt.status, 'success');
});

await check('a transaction that is repriced, replaced or cancelled is told to who waits for it', async () => {
  for (const [reason, second] of [
    ['repriced', { value: 1n }],
    ['replaced', { value: 2n }],
    ['cancelled', { to: account.address, value: 0n }],
  ]) {
    const nonce = await reader.getTransactionCount({ address: account.address });
    const first = { to: nobody().address, value: 1n, gas: 21_000n };
    const cheap = await wallet.sendRawTransaction({ serializedTransaction: await sign({ ...first, nonce: nonce + 1 }) });
    let told;
    const waiting = reader.waitForTransactionReceipt({
      hash: cheap,
      timeout: 30_000,
      onReplaced: (event) => {
        told = event;
      },
    });
    // viem has to have seen the first one before it is gone.
    await reader.getTransaction({ hash: cheap });
    await new Promise((resolve) => setTimeout(resolve, 400));
    const raw = await sign({
      ...first,
      ...second,
      nonce: nonce + 1,
      maxFeePerGas: parseGwei('80'),
      maxPriorityFeePerGas: parseGwei('2'),
    });
    const dear = await wallet.sendRawTransaction({ serializedTransaction: raw });
    await wallet.sendRawTransaction({ serializedTransaction: await sign({ to: zeroAddress, nonce }) });
    assert.equal((await waiting).transactionHash, dear);
    assert.equal(told?.reason, reason);
  }
});

await check('too small a raise is refused in the words of geth', async () => {
  const nonce = await reader.getTransactionCount({ address: account.address });
  const far = { to: zeroAddress, nonce: nonce + 1 };
  await wallet.sendRawTransaction({ serializedTransaction: await sign(far) });
  const again = await rpc('eth_sendRawTransaction', await sign(far));
  assert.match(again.error?.message, /^already known/);
  const little = await rpc('eth_sendRawTransaction', await sign({ ...far, maxFeePerGas: parseGwei('50') + 1n }));
  assert.equal(little.error?.code, -32000);
  assert.match(little.error?.message, /^replacement transaction underpriced/);
  await wallet.sendRawTransactionSync({ serializedTransaction: await sign({ to: zeroAddress, nonce }) });
});

await check('an account is delegated to a contract, called, and freed again (EIP-7702)', async () => {
  const authority = nobody();
  const sending = async (contractAddress) => {
    const authorization = await wallet.signAuthorization({ account: authority, contractAddress });
    const hash = await wallet.sendTransaction({ to: account.address, authorizationList: [authorization] });
    const receipt = await reader.waitForTransactionReceipt({ hash });
    assert.equal(receipt.type, 'eip7702');
    const {
      authorizationList: [found],
    } = await reader.getTransaction({ hash });
    assert.ok(same(found.address, contractAddress));
  };
  await sending(TOKEN);
  assert.equal(await reader.getCode({ address: authority.address }), `0xef0100${TOKEN.slice(2).toLowerCase()}`);
  assert.equal((await reader.getDelegation({ address: authority.address })).toLowerCase(), TOKEN.toLowerCase());
  assert.equal(await reader.readContract({ address: authority.address, abi: token.abi, functionName: 'symbol' }), 'BENCH');
  await sending(zeroAddress);
  assert.equal(await reader.getCode({ address: authority.address }), undefined);
});

// Questions to a model.

const PROBE = await check('a contract asks a model', () => deployed(probe));

const asked = await wallet.sendRawTransactionSync({
  serializedTransaction: await sign({ to: PROBE, data: ask, gas: MODEL_GAS }),
});

await check('eth_call answers with zeros, the real answer, or what the caller says, as `inferences` wants', async () => {
  const call = { from: account.address, to: PROBE, data: question(unseen) };
  const zeros = answerOf(await result('eth_call', call, 'latest', null, null, { mode: 'placeholder' }));
  assert.equal(zeros.is_simulation_result, true);
  assert.ok(zeros.numbers[0].values.every(({ value }) => value === 0n));
  const real = answerOf(await result('eth_call', call, 'latest', {}, {}, { mode: 'real', timeoutMs: 500 }));
  assert.equal(real.is_simulation_result, false);
  assertClose(
    real.numbers.flatMap(({ values }) => values),
    Object.values(unseen.outputs).flatMap(({ values }) => values),
  );
  const chosen = [1.5, -2, '0.25', ['75', '2'], 0, 0, 0, 0, 0, 0];
  const given = answerOf(
    await result('eth_call', call, 'latest', null, null, { results: [{ model: DIGITS, output: [{ numbers: chosen }] }] }),
  );
  assert.deepEqual(
    given.numbers[0].values.slice(0, 4).map(({ value, decimals }) => Number(`${value}e${-decimals}`)),
    [1.5, -2, 0.25, 0.75],
  );
  const failed = await rpc('eth_call', call, 'latest', null, null, { results: [{ model: DIGITS, failure: 1 }] });
  assert.equal(failed.error?.code, 3, JSON.stringify(failed));
  for (const wrong of [
    { mode: 'guess' },
    { results: [{ model: 'nobody/nothing', failure: 1 }] },
    { results: [{ model: DIGITS, output: [{ numbers: [1] }] }] },
    { other: 1 },
  ])
    assert.equal((await rpc('eth_call', call, 'latest', null, null, wrong)).error?.code, -32602, JSON.stringify(wrong));
});

await check('eth_estimateGas needs no model: with a placeholder it has room for the answer', async () => {
  const call = { from: account.address, to: PROBE, data: question(unseen) };
  const gas = BigInt(await result('eth_estimateGas', call, 'latest', null, null, { mode: 'placeholder' }));
  const receipt = await wallet.sendRawTransactionSync({
    serializedTransaction: await sign({ to: PROBE, data: call.data, gas }),
  });
  assert.equal(receipt.status, 'success', `${receipt.gasUsed} of ${gas}`);
});

// Simulations.

await check('eth_createAccessList lists the slots, and what they cost', async () => {
  const { accessList, gasUsed } = await reader.createAccessList({ account, to: TOKEN, data: transfer(zeroAddress, 1n) });
  const [{ address, storageKeys }] = accessList;
  assert.ok(same(address, TOKEN));
  assert.equal(storageKeys.length, 2); // both balances
  const receipt = await wallet.sendRawTransactionSync({
    serializedTransaction: await sign({ to: TOKEN, data: transfer(zeroAddress, 1n), accessList }),
  });
  assert.equal(receipt.gasUsed, gasUsed);
});

await check('state overrides: balance, code, slots; block overrides: time', async () => {
  const rich = nobody();
  const slot = keccak256(`${pad(rich.address)}${pad('0x0').slice(2)}`);
  const tokens = [{ address: TOKEN, stateDiff: [{ slot, value: pad('0x4d') }] }];
  const { data } = await reader.call({ to: TOKEN, data: balanceOf(rich.address), stateOverride: tokens });
  assert.equal(BigInt(data), 77n);
  const { data: none } = await reader.call({
    to: TOKEN,
    data: balanceOf(account.address),
    stateOverride: [{ address: TOKEN, state: [{ slot: pad('0x1'), value: pad('0x1') }] }],
  });
  assert.equal(BigInt(none), 0n);
  await reader.call({
    account: rich,
    to: zeroAddress,
    value: 5n,
    stateOverride: [{ address: rich.address, balance: 10n ** 18n }],
  });
  const time = '0x425f5260205ff3'; // TIMESTAMP, returned
  const { data: now } = await reader.call({
    to: rich.address,
    stateOverride: [{ address: rich.address, code: time }],
    blockOverrides: { time: 4_000_000_000n },
  });
  assert.equal(BigInt(now), 4_000_000_000n);
  const gas = await reader.estimateGas({
    account: rich,
    to: TOKEN,
    data: transfer(zeroAddress, 1n),
    stateOverride: [...tokens, { address: rich.address, balance: 10n ** 18n }],
  });
  assert.ok(gas > 21_000n);
});

await check('eth_simulateV1 runs blocks of calls that see each other', async () => {
  const to = nobody().address;
  const blocks = await reader.simulateBlocks({
    traceTransfers: true,
    blocks: [
      {
        calls: [
          { account: account.address, to: TOKEN, data: transfer(to, 9n) },
          { account: account.address, to, value: 5n },
        ],
      },
      { blockOverrides: { time: 4_000_000_000n }, calls: [{ to: TOKEN, data: balanceOf(to) }] },
    ],
  });
  assert.equal(blocks.length, 2);
  assert.deepEqual(
    blocks[0].calls.map(({ status }) => status),
    ['success', 'success'],
  );
  assert.equal(blocks[0].calls[0].logs.length, 1);
  assert.equal(blocks[0].calls[1].logs.length, 1, 'the coins that traceTransfers shows as a log');
  assert.equal(BigInt(blocks[1].calls[0].data), 9n);
  assert.equal(blocks[1].timestamp, 4_000_000_000n);
  assert.equal(blocks[1].parentHash, blocks[0].hash);
});

await check('viem shows what calls would change', async () => {
  const to = nobody().address;
  const { results, assetChanges } = await reader.simulateCalls({
    account: account.address,
    traceAssetChanges: true,
    calls: [
      { to: TOKEN, abi: token.abi, functionName: 'transfer', args: [to, 4n] },
      { to, value: 6n },
    ],
  });
  assert.deepEqual(
    results.map(({ status }) => status),
    ['success', 'success'],
  );
  const change = assetChanges.find(({ token }) => same(token.address, TOKEN));
  assert.equal(change?.value.diff, -4n);
});

await check('eth_simulateV1 asks models, too', async () => {
  const [
    {
      calls: [{ status, data }],
    },
  ] = await reader.simulateBlocks({ blocks: [{ calls: [{ account: account.address, to: PROBE, data: ask }] }] });
  assert.equal(status, 'success');
  assertClose(numbersOf(data), right);
});

// State.

await check('slots of several accounts, an account in one answer, and what this node can answer for', async () => {
  const slot = pad('0x0');
  const values = await result('eth_getStorageValues', { [TOKEN]: [slot, pad('0x1')], [PROBE]: [slot] }, 'latest');
  assert.deepEqual(
    Object.values(values)
      .map(({ length }) => length)
      .sort(),
    [1, 2],
  );
  const found = Object.entries(values).find(([address]) => same(address, PROBE));
  assert.equal(found[1][0], await reader.getStorageAt({ address: PROBE, slot }));
  const info = await result('eth_getAccountInfo', TOKEN, 'latest');
  assert.equal(info.code, await reader.getCode({ address: TOKEN }));
  assert.equal(BigInt(info.nonce), 1n);
  assert.equal(BigInt(info.balance), 0n);
  const { head, state, blocks } = await result('eth_capabilities');
  assert.ok(BigInt(head.number) >= asked.blockNumber);
  assert.equal(state.disabled, false);
  assert.equal(BigInt(blocks.oldestBlock), 0n);
});

await check('GET /health says that the node is well', async () => {
  const response = await fetch(new URL('/health', RPC));
  assert.equal(response.status, 200);
});

// Filters and subscriptions.

const event = token.abi.find(({ type, name }) => type === 'event' && name === 'Transfer');

await check('events are watched through filters that are polled', async () => {
  const to = nobody().address;
  const seen = new Promise((resolve) => {
    const end = reader.watchContractEvent({
      address: TOKEN,
      abi: token.abi,
      eventName: 'Transfer',
      args: { to },
      pollingInterval: 50,
      onLogs: (logs) => {
        end();
        resolve(logs);
      },
    });
  });
  await new Promise((resolve) => setTimeout(resolve, 300));
  await wallet.sendRawTransactionSync({ serializedTransaction: await sign({ to: TOKEN, data: transfer(to, 8n) }) });
  const [{ args }] = await within(10, 'the event', seen);
  assert.equal(args.value, 8n);
  const filter = await reader.createEventFilter({ address: TOKEN, event, args: { to }, fromBlock: 'earliest' });
  assert.equal((await reader.getFilterLogs({ filter })).length, 1);
  assert.equal(await reader.uninstallFilter({ filter }), true);
  await assert.rejects(reader.getFilterChanges({ filter }), /filter not found/);
});

await check('a block filter tells new blocks', async () => {
  const filter = await reader.createBlockFilter();
  const { blockHash } = await wallet.sendRawTransactionSync({ serializedTransaction: await sign({ to: zeroAddress }) });
  assert.ok((await reader.getFilterChanges({ filter })).includes(blockHash));
});

await check('over WebSocket: heads, logs, pending transactions, and requests', async () => {
  const socket = createPublicClient({ chain, transport: webSocket(WS) });
  assert.equal(await socket.getChainId(), CHAIN_ID);
  const to = nobody().address;
  const next = (start) =>
    new Promise((resolve, reject) => {
      start((value) => resolve(value), reject);
    });
  const head = next((onBlock, onError) => socket.watchBlocks({ onBlock, onError }));
  const logs = next((onLogs, onError) =>
    socket.watchContractEvent({ address: TOKEN, abi: token.abi, eventName: 'Transfer', args: { to }, onLogs, onError }),
  );
  const pending = next((onTransactions, onError) =>
    socket.watchPendingTransactions({ batch: false, onTransactions, onError }),
  );
  await new Promise((resolve) => setTimeout(resolve, 300));
  const { transactionHash } = await wallet.sendRawTransactionSync({
    serializedTransaction: await sign({ to: TOKEN, data: transfer(to, 2n) }),
  });
  assert.equal((await within(10, 'a log', logs))[0].transactionHash, transactionHash);
  assert.ok((await within(10, 'a pending transaction', pending)).includes(transactionHash));
  assert.ok((await within(10, 'a head', head)).number > 0n);
  (await socket.transport.getRpcClient()).close();
});

await check('requests in batches', async () => {
  const batching = createPublicClient({ chain, transport: http(RPC, { batch: { batchSize: 100 } }) });
  const blocks = await Promise.all(Array.from({ length: 30 }, () => batching.getBlockNumber({ cacheTime: 0 })));
  assert.ok(blocks.every((number) => number > 0n));
});

await check('calls that could not be paid for are refused in words that viem knows', async () => {
  const poor = nobody();
  const call = { account: poor, to: zeroAddress, value: 5n };
  for (const [fields, name] of [
    [{ maxFeePerGas: parseGwei('50') }, 'InsufficientFundsError'],
    [{ maxFeePerGas: 1n, value: 0n }, 'FeeCapTooLowError'],
    [{ gas: 20_000n, value: 0n }, 'IntrinsicGasTooLowError'],
  ]) {
    const error = await reader.call({ ...call, ...fields }).then(
      () => null,
      (error) => error,
    );
    assert.equal(
      error?.walk(({ name: found }) => found === name)?.name,
      name,
      `${error?.details} is not known as ${name}`,
    );
  }
});

// viem keeps its WebSocket open.
process.exit(0);
