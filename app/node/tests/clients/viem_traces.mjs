// Traces of a transaction that asked a model, and raw bytes that are what the hashes say, through viem.
//   scripts/contracts --install && node app/node/tests/clients/viem_traces.mjs
// One line a check; ends at the first that fails.

import assert from 'node:assert/strict';
import { MODEL_GAS, PRECOMPILE, assertClose, check, require, result, rpc } from './common.mjs';
import {
  DIGITS, account, ask, balanceOf, deployed, inference, numbersOf, probe, question, reader, right, same, sign,
  token, unseen, wallet,
} from './viem_setup.mjs';

const { decodeFunctionResult, fromRlp, keccak256, parseTransaction, toHex, toRlp } = require('viem');

const TOKEN = await check('a token is deployed', () => deployed(token, [1_000_000n]));
const PROBE = await check('a contract asks a model', () => deployed(probe));
const asked = await wallet.sendRawTransactionSync({
  serializedTransaction: await sign({ to: PROBE, data: ask, gas: MODEL_GAS }),
});

// Traces of the transaction that asked a model.

const trace = (tracer, more) =>
  result('debug_traceTransaction', asked.transactionHash, tracer ? { tracer, ...more } : more);

const calls = await check('callTracer shows the question at the precompile, and the answer', async () => {
  const top = await trace('callTracer', { tracerConfig: { withLog: true } });
  assert.ok(same(top.to, PROBE) && same(top.from, account.address));
  assert.equal(top.input, ask);
  assert.equal(BigInt(top.gasUsed), asked.gasUsed);
  assert.deepEqual(
    numbersOf(top.output),
    numbersOf(await result('eth_call', { from: account.address, to: PROBE, data: ask }, 'latest')),
  );
  const [inner] = top.calls;
  assert.ok(same(inner.to, PRECOMPILE) && inner.type === 'CALL');
  const { numbers } = decodeFunctionResult({ abi: inference, functionName: 'runModelInference', data: inner.output });
  assertClose(
    numbers.flatMap(({ values }) => values),
    right,
  );
  assert.equal(inner.logs?.length, 1, 'the log of the precompile');
  assert.equal(top.logs?.length, 1, 'the log of the contract');
  assert.equal((await trace('callTracer', { tracerConfig: { onlyTopCall: true } })).calls, undefined);
  return top;
});

await check('prestateTracer shows what was touched, and what changed', async () => {
  const before = await trace('prestateTracer');
  for (const address of [account.address, PROBE])
    assert.ok(address.toLowerCase() in before, `${address} in ${Object.keys(before)}`);
  const { pre, post } = await trace('prestateTracer', { tracerConfig: { diffMode: true } });
  const slot = Object.keys(post[PROBE.toLowerCase()].storage);
  assert.ok(slot.length > 0);
  assert.equal(post[account.address.toLowerCase()].nonce, (pre[account.address.toLowerCase()].nonce ?? 0) + 1);
  const stored = await reader.getStorageAt({ address: PROBE, slot: slot[0], blockNumber: asked.blockNumber });
  assert.equal(post[PROBE.toLowerCase()].storage[slot[0]], stored);
});

await check('4byteTracer, muxTracer and noopTracer', async () => {
  const selectors = await trace('4byteTracer');
  // Without those of precompiles, as geth has it.
  assert.deepEqual(selectors, { [`${ask.slice(0, 10)}-${ask.length / 2 - 5}`]: 1 });
  const mux = await trace('muxTracer', { tracerConfig: { callTracer: {}, '4byteTracer': null } });
  assert.deepEqual(mux['4byteTracer'], selectors);
  assert.deepEqual(await trace('noopTracer'), {});
});

await check('struct logs: every step, with the gas that it had', async () => {
  const { failed, gas, returnValue, structLogs } = await trace(undefined, { disableStorage: true });
  assert.equal(failed, false);
  assert.equal(BigInt(gas), asked.gasUsed);
  assert.equal(returnValue.replace(/^0x/, ''), calls.output.slice(2));
  const [first] = structLogs;
  assert.deepEqual([first.pc, first.op, first.depth], [0, 'PUSH1', 1]);
  assert.ok(structLogs.some(({ op }) => op === 'CALL'));
  assert.ok(structLogs.every(({ gasCost, gas }) => Number.isInteger(gasCost) && Number.isInteger(gas)));
});

await check('debug_traceCall runs what was not sent, with the answers of the caller', async () => {
  const call = { from: account.address, to: PROBE, data: question(unseen) };
  const chosen = {
    tracer: 'callTracer',
    inferences: { results: [{ model: DIGITS, output: [{ numbers: [3, 0, 0, 0, 0, 0, 0, 0, 0, 0] }] }] },
  };
  const { output } = await result('debug_traceCall', call, 'latest', chosen);
  assert.equal(numbersOf(output)[0].value, 3n);
  const overridden = await result('debug_traceCall', { to: TOKEN, data: balanceOf(account.address) }, 'latest', {
    tracer: 'callTracer',
    stateOverrides: { [TOKEN]: { state: {} } },
  });
  assert.equal(BigInt(overridden.output), 0n);
});

await check('debug_traceBlockByNumber and ByHash trace all transactions of a block', async () => {
  const options = { tracer: 'callTracer', tracerConfig: { withLog: true } };
  const byNumber = await result('debug_traceBlockByNumber', toHex(asked.blockNumber), options);
  const { result: traced } = byNumber.find(({ txHash }) => txHash === asked.transactionHash);
  assert.deepEqual(traced, calls);
  assert.deepEqual(await result('debug_traceBlockByHash', asked.blockHash, options), byNumber);
});

await check('geth says that a transaction is unknown, and so is a tracer', async () => {
  const unknown = await rpc('debug_traceTransaction', `0x${'11'.repeat(32)}`, {});
  assert.equal(unknown.error?.message, 'transaction not found');
  assert.ok((await rpc('debug_traceTransaction', asked.transactionHash, { tracer: 'noSuchTracer' })).error);
});

// Raw bytes, decoded by viem's RLP.

await check('raw headers, blocks, receipts and transactions have the hashes that the chain says', async () => {
  const number = toHex(asked.blockNumber);
  const block = await reader.getBlock({ blockNumber: asked.blockNumber });
  const header = await result('debug_getRawHeader', number);
  assert.equal(keccak256(header), block.hash);
  const fields = fromRlp(header, 'hex');
  assert.equal(fields[0], block.parentHash);
  assert.equal(fields[3], block.stateRoot);
  assert.equal(BigInt(fields[8]), block.number);
  const [ofBlock, transactions] = fromRlp(await result('debug_getRawBlock', number), 'hex');
  assert.equal(toRlp(ofBlock, 'hex'), header);
  // The typed ones are byte strings in it.
  assert.deepEqual(
    transactions.map((raw) => keccak256(Array.isArray(raw) ? toRlp(raw) : raw)),
    block.transactions,
  );
  const raw = await result('debug_getRawTransaction', asked.transactionHash);
  assert.equal(keccak256(raw), asked.transactionHash);
  assert.equal(parseTransaction(raw).data, ask);
  assert.equal(await result('eth_getRawTransactionByHash', asked.transactionHash), raw);
  const receipts = await result('debug_getRawReceipts', number);
  assert.equal(receipts.length, block.transactions.length);
  const [status, cumulative, bloom, logs] = fromRlp(`0x${receipts[asked.transactionIndex].slice(4)}`, 'hex');
  assert.deepEqual(
    [status, BigInt(cumulative), bloom],
    ['0x1', asked.cumulativeGasUsed, asked.logsBloom].map((v) => (v === '0x1' ? '0x01' : v)),
  );
  assert.deepEqual(
    logs.map(([address, topics, data]) => [address, topics, data]),
    asked.logs.map(({ address, topics, data }) => [address, topics, data]),
  );
});
