// Uses a Penstock chain as a dapp would, through viem.
//   scripts/contracts --install && node app/node/tests/clients/viem.mjs
// One line a check; ends at the first that fails. The last line is JSON: {"answers": [...]}, each answer as the chain
// committed it, for a comparison with `penstock model run` bit for bit.

import assert from 'node:assert/strict';
import {
  CHAIN_ID, KEY, MODEL_GAS, PRECOMPILE, RPC, WS,
  artifact, assertClose, check, fromDecimal, require, result, rpc, samples, toDecimal, within,
} from './common.mjs';

const {
  createPublicClient, createWalletClient, decodeErrorResult, decodeFunctionResult, defineChain, encodeErrorResult,
  encodeFunctionData, getContract, http, parseEther, parseEventLogs, parseGwei, toEventSelector, toFunctionSelector, toHex,
  webSocket,
} = require('viem');
const { generatePrivateKey, privateKeyToAccount } = require('viem/accounts');

const chain = defineChain({
  id: CHAIN_ID,
  name: 'Penstock',
  nativeCurrency: { name: 'Penstock', symbol: 'PEN', decimals: 18 },
  rpcUrls: { default: { http: [RPC], webSocket: [WS] } },
});
const account = privateKeyToAccount(KEY);
const reader = createPublicClient({ chain, transport: http(RPC), pollingInterval: 100, cacheTime: 0 });
const wallet = createWalletClient({ chain, account, transport: http(RPC) });
const inference = artifact('IInference').abi;

const DIGITS = 'penstock/digits-mlp';
const LINEAR = 'penstock/linear';
const VOLATILITY = 'penstock/volatility';

/** The receipt of a transaction that must have succeeded. */
async function succeeded(hash) {
  const receipt = await reader.waitForTransactionReceipt({ hash, timeout: 60_000 });
  assert.equal(receipt.status, 'success', `transaction ${hash} reverted`);
  return receipt;
}

async function deploy(name, args = []) {
  const { abi, bytecode } = artifact(name);
  const { contractAddress } = await succeeded(await wallet.deployContract({ abi, bytecode, args }));
  return getContract({ abi, address: contractAddress, client: { public: reader, wallet } });
}

/** Sends a call that asks models, with a fixed gas limit. */
const send = async (contract, name, args, options = {}) =>
  succeeded(await contract.write[name](args, { gas: MODEL_GAS, ...options }));

const emitted = (abi, receipt, eventName) => parseEventLogs({ abi, logs: receipt.logs, eventName });

/** The arguments of Probe.ask for a sample of a model with one input. */
function question(model, { inputs }) {
  const [[name, { values, shape }]] = Object.entries(inputs);
  return [model, name, values.map(toDecimal), shape];
}
const expected = ({ outputs }) => Object.values(outputs).flatMap(({ values }) => values);
const flat = (response) => response.numbers.flatMap(({ values }) => values);

const whole = (...values) => values.map((value) => ({ value: BigInt(value), decimals: 0n }));
const FIXED = 1_000_000n; // the examples' fixed point: six places

const [sample, unseen] = samples('digits-mlp');
const [, name, image, shape] = question(DIGITS, sample);
const answers = [];

await check('the compiled interface has the published selectors and topics', async () => {
  const published = {
    runModelInference: '7289e9c2',
    runLLMCompletion: '14800c61',
    runLLMInference: 'ea3dd516',
    runLLMChat: 'e39aa7e7',
    ModelInferenceEvent: '1b283af3452f3718585ce100f80d9aa81fc60924db4a582a36db6aae3b109d87',
    LLMCompletionEvent: '51fe69d513d73ecde3fa3bf17584f7d2acfd5f0b13d367e898d6e11e742127a3',
    LLMChat: '4c92d3df7819fcd1c9f9663332f0a599a65eefdad2eaf9193cffb9dbf1919c3b',
  };
  for (const item of inference) {
    if (item.type === 'function') assert.equal(toFunctionSelector(item), `0x${published[item.name]}`, item.name);
    if (item.type === 'event') assert.equal(toEventSelector(item), `0x${published[item.name]}`, item.name);
  }
  const [v1] = artifact('IInferenceV1').abi;
  assert.equal(toFunctionSelector(v1), `0x${published.runModelInference}`);
});

await check('a client connects: chain id, client version, block number', async () => {
  assert.equal(await reader.getChainId(), CHAIN_ID);
  assert.equal(await result('net_version'), String(CHAIN_ID));
  assert.ok((await result('web3_clientVersion')).length > 0);
  assert.ok((await reader.getBlockNumber()) >= 0n);
  assert.ok((await reader.getBalance({ address: account.address })) > parseEther('1'));
});

await check('the precompile has code', async () => {
  assert.ok(((await reader.getCode({ address: PRECOMPILE })) ?? '0x').length > 2, `no code at ${PRECOMPILE}`);
});

const [probe, batch, modelChain, pool, token] = await check('the examples deploy', async () => [
  await deploy('Probe'),
  await deploy('BatchCaller'),
  await deploy('ModelChain'),
  await deploy('DynamicFeePool', [VOLATILITY, parseEther('1000'), parseEther('2000')]),
  await deploy('Token', [parseEther('1000000')]),
]);

/** Asks through Probe.ask and returns the receipt, the decoded event and what the contract kept. */
async function ask(model, sample) {
  const receipt = await send(probe, 'ask', question(model, sample));
  const [{ address, args }] = emitted(inference, receipt, 'ModelInferenceEvent');
  assert.equal(address.toLowerCase(), PRECOMPILE.toLowerCase());
  assert.match(args.inferenceID, /^0x[0-9a-f]{64}$/);
  assert.equal(args.request.modelCID, model);
  assert.equal(args.response.is_simulation_result, false);
  assertClose(flat(args.response), expected(sample));
  answers.push({
    model,
    inputs: sample.inputs,
    numbers: flat(args.response).map(({ value, decimals }) => [String(value), String(decimals)]),
  });
  return { receipt, id: args.inferenceID, numbers: flat(args.response) };
}

const asked = await check('a contract asks a model and has the answer in the same transaction', async () => {
  const asked = await ask(DIGITS, sample);
  const [value, decimals] = await probe.read.firstNumber();
  assert.deepEqual({ value, decimals }, asked.numbers[0]);
  assert.equal(await probe.read.simulated(), false);
  const [{ args }] = emitted(probe.abi, asked.receipt, 'Answered');
  assert.equal(args.answerHash, await probe.read.answerHash());
  assert.equal(args.simulated, false);
  return asked;
});

await check('the linear and the volatility model answer as onnxruntime recorded', async () => {
  await ask(LINEAR, samples('linear')[0]);
  await ask(VOLATILITY, samples('volatility')[0]);
});

await check('the same question has the same id and the same answer again', async () => {
  const again = await send(probe, 'ask', question(DIGITS, sample));
  const [{ args }] = emitted(inference, again, 'ModelInferenceEvent');
  assert.equal(args.inferenceID, asked.id);
  assert.deepEqual(flat(args.response), asked.numbers);
});

await check('an empty name and a 1-D tensor are the same question', async () => {
  for (const [inputName, inputShape] of [['', shape], [name, [64]], [name, []]]) {
    const receipt = await send(probe, 'ask', [DIGITS, inputName, image, inputShape]);
    const [{ args }] = emitted(inference, receipt, 'ModelInferenceEvent');
    assert.equal(args.inferenceID, asked.id, `name "${inputName}", shape [${inputShape}]`);
  }
});

await check('pipe_getTransaction, pipe_getInference and pipe_getBlockInferences know it', async () => {
  const { stage } = await result('pipe_getTransaction', asked.receipt.transactionHash);
  assert.equal(stage, 'included');
  const known = await result('pipe_getInference', asked.id);
  assert.ok(known !== null && typeof known === 'object', 'pipe_getInference answered nothing');
  const inBlock = JSON.stringify(await result('pipe_getBlockInferences', toHex(asked.receipt.blockNumber)));
  assert.ok(inBlock.includes(asked.id), `${asked.id} is not in ${inBlock}`);
});

await check('eth_call of a known question gives the real numbers', async () => {
  const { result: output } = await probe.simulate.ask(question(DIGITS, sample), { account });
  assert.deepEqual(flat(output), asked.numbers);
  assert.equal(output.is_simulation_result, false);
});

/** eth_estimateGas, then the same with exactly that gas. */
async function sendAsEstimated(contract, sample) {
  const gas = await contract.estimateGas.ask(question(DIGITS, sample), { account });
  const hash = await contract.write.ask(question(DIGITS, sample), { gas });
  const { status, gasUsed } = await reader.waitForTransactionReceipt({ hash, timeout: 60_000 });
  assert.equal(status, 'success', `reverted with the estimated gas ${gas}, of which it used ${gasUsed}`);
  return contract;
}

await check('the estimated gas is enough for a known question', async () => {
  await sendAsEstimated(await deploy('Probe'), sample);
});

await check('the estimated gas is enough for a question never asked before', async () => {
  const contract = await sendAsEstimated(await deploy('Probe'), unseen);
  const [value, decimals] = await contract.read.firstNumber();
  assertClose([{ value, decimals }], expected(unseen).slice(0, 1));
});

await check('64 independent requests in one transaction: every answer and their sum are right', async () => {
  const receipt = await send(batch, 'run', [64n, 7n]);
  assert.equal(emitted(inference, receipt, 'ModelInferenceEvent').length, 64);
  assert.equal(await batch.read.answerCount(), 64n);
  let sum = 0n;
  for (let i = 0n; i < 64n; i++) {
    const answer = (10n + 3n * i) * FIXED; // seed + 3 i + 3
    sum += answer;
    if (i % 21n === 0n) assert.equal(await batch.read.answers([i]), answer, `answer ${i}`);
  }
  assert.equal(await batch.read.sum(), sum);
});

await check('8 requests that each ask about the answer before', async () => {
  const receipt = await send(modelChain, 'iterate', [7n, 8n]);
  assert.equal(emitted(inference, receipt, 'ModelInferenceEvent').length, 8);
  assert.equal(await modelChain.read.value(), 87n * FIXED); // 7 + 2 (0 + ... + 7) + 8 * 3
});

await check('one model is asked about the answer of another', async () => {
  await send(modelChain, 'classifyThenScore', [image]);
  const probabilities = expected(sample).slice(0, 10);
  const best = probabilities.indexOf(Math.max(...probabilities));
  assert.equal(await modelChain.read.digit(), BigInt(best));
  const score = Number(await modelChain.read.score()) / Number(FIXED);
  assert.ok(Math.abs(score - (best + 2 * probabilities[best] + 3)) < 3e-4, `score ${score} of digit ${best}`);
});

await check('the second question follows the first answer', async () => {
  for (const [threshold, way, answer] of [[12n, 2, 15n], [13n, 1, 11n]]) {
    await send(probe, 'askTwoWays', [LINEAR, 10n, threshold]); // 10 + 3, then 10 + 2 + 3 or 10 - 2 + 3
    assert.equal(await probe.read.way(), way, `13 above ${threshold}`);
    const [value, decimals] = await probe.read.firstNumber();
    assert.equal(fromDecimal({ value, decimals }), Number(answer));
  }
});

await check('the question follows the state', async () => {
  for (const bumps of [1n, 2n]) {
    await send(probe, 'bump', []);
    await send(probe, 'askVolatile', [LINEAR]);
    assert.equal(await probe.read.counterAsked(), bumps);
    const [value, decimals] = await probe.read.firstNumber();
    assert.equal(fromDecimal({ value, decimals }), Number(bumps) + 3);
  }
});

await check('a pool takes its fee from a model, within its clamp', async () => {
  await succeeded(await pool.write.fund([parseEther('500'), parseEther('500')]));
  let k = 0n;
  for (const [aForB, amount] of [[true, '50'], [false, '80'], [true, '5'], [true, '120'], [false, '1'], [true, '0.01']]) {
    const amountIn = parseEther(amount);
    const receipt = await send(pool, 'swap', [aForB, amountIn]);
    const [{ args }] = emitted(pool.abi, receipt, 'Swap');
    assert.ok(args.feeBps >= 5n && args.feeBps <= 500n, `fee of ${args.feeBps}`);
    const [{ args: { response } }] = emitted(inference, receipt, 'ModelInferenceEvent');
    const [volatility] = flat(response).map(fromDecimal);
    const wanted = Math.min(Math.max(Math.floor(volatility * 10_000), 5), 500);
    assert.ok(Math.abs(Number(args.feeBps) - wanted) <= 1, `fee of ${args.feeBps} for a volatility of ${volatility}`);
    assert.equal(await pool.read.lastFeeBps(), args.feeBps);
    assert.equal(args.amountIn, amountIn);
    assert.ok(args.amountOut > 0n);
    const product = (await pool.read.reserveA()) * (await pool.read.reserveB());
    assert.ok(product >= k, 'x * y fell');
    k = product;
  }
});

/** The revert bytes that the precompile gave to a try- function, as a contract keeps them. */
async function revertBytes(call, args) {
  await send(probe, call, args);
  assert.equal(await probe.read.lastOk(), false, `${call} was answered`);
  return probe.read.lastError();
}

const error = (errorName, args) => encodeErrorResult({ abi: inference, errorName, args });

await check('an unknown model is exactly UnknownModel()', async () => {
  assert.equal(await revertBytes('tryAsk', ['nobody/nothing', name, image, shape]), error('UnknownModel'));
});

await check('a wrong shape, a wrong name and a number out of range are three InvalidInput(uint16)', async () => {
  const codes = new Set();
  for (const args of [
    [DIGITS, name, image.slice(1), [1, 63]],
    [DIGITS, 'no-such-input', image, shape],
    [DIGITS, name, [{ value: 1n, decimals: -60n }, ...image.slice(1)], shape],
  ]) {
    const bytes = await revertBytes('tryAsk', args);
    assert.equal(bytes.length, 2 + 2 * 36, `revert bytes ${bytes}`);
    const decoded = decodeErrorResult({ abi: inference, data: bytes });
    assert.equal(decoded.errorName, 'InvalidInput');
    codes.add(decoded.args[0]);
  }
  assert.equal(codes.size, 3, `codes ${[...codes]}`);
});

await check('modes and kinds of call that are not served are ModeNotSupported', async () => {
  for (const mode of [1, 2]) {
    assert.equal(
      await revertBytes('askMode', [mode, DIGITS, name, image, shape]), error('ModeNotSupported', [mode]), `mode ${mode}`);
  }
  const bytes = await revertBytes('tryCompletion', [DIGITS, 'Once upon a time']);
  assert.equal(decodeErrorResult({ abi: inference, data: bytes }).errorName, 'ModeNotSupported');
});

await check('an unguarded call reverts the transaction, and eth_call tells why', async () => {
  const call = encodeFunctionData({ abi: probe.abi, functionName: 'ask', args: ['nobody/nothing', name, image, shape] });
  const answer = await rpc('eth_call', { from: account.address, to: probe.address, data: call }, 'latest');
  assert.equal(answer.error?.data, error('UnknownModel'), JSON.stringify(answer));
  const hash = await wallet.sendTransaction({ to: probe.address, data: call, gas: MODEL_GAS });
  assert.equal((await reader.waitForTransactionReceipt({ hash, timeout: 60_000 })).status, 'reverted');
});

const linearCall = encodeFunctionData({
  abi: inference,
  functionName: 'runModelInference',
  args: [{
    mode: 0,
    modelCID: LINEAR,
    input: { numbers: [{ name: 'x', values: whole(4, 5), shape: [2] }], strings: [] },
  }],
});

await check('a low-level call is answered', async () => {
  await send(probe, 'rawAsk', [linearCall]);
  assert.equal(await probe.read.lastOk(), true);
  const output = decodeFunctionResult({
    abi: inference, functionName: 'runModelInference', data: await probe.read.lastReturn() });
  assert.deepEqual(flat(output), whole(17));
});

await check('delegatecall and value are refused', async () => {
  await send(probe, 'delegateAsk', [linearCall]);
  assert.equal(await probe.read.lastOk(), false, 'delegatecall');
  await send(probe, 'valueAsk', [linearCall], { value: 1n });
  assert.equal(await probe.read.lastOk(), false, 'value');
  assert.equal(await reader.getBalance({ address: PRECOMPILE }), 0n);
});

await check('a staticcall does not harm', async () => {
  await send(probe, 'staticAsk', [linearCall]);
});

await check('the older generation is served at 0x1F4', async () => {
  const args = [LINEAR, 'x', whole(4, 5), [2]];
  const { result: output } = await probe.simulate.askV1(args, { account });
  assert.deepEqual(flat(output), whole(17));
  assert.equal('jsons' in output, false);
  await send(probe, 'askV1', args);
  assert.deepEqual(await probe.read.firstNumber(), [17n, 0n]);
  assert.equal(await probe.read.simulated(), false);
});

await check('coins and tokens are transferred', async () => {
  const { address: to } = privateKeyToAccount(generatePrivateKey());
  await succeeded(await wallet.sendTransaction({ to, value: 1n }));
  assert.equal(await reader.getBalance({ address: to }), 1n);
  const receipt = await succeeded(await token.write.transfer([to, 5n]));
  assert.equal(await token.read.balanceOf([to]), 5n);
  assert.equal(emitted(token.abi, receipt, 'Transfer')[0].args.value, 5n);
});

await check('eth_getLogs finds inferences by address and by topic', async () => {
  const event = inference.find((item) => item.type === 'event' && item.name === 'ModelInferenceEvent');
  const { blockNumber, transactionHash } = asked.receipt;
  const block = { fromBlock: blockNumber, toBlock: blockNumber };
  const found = (logs) => logs.some((log) => log.transactionHash === transactionHash);
  assert.ok(found(await reader.getLogs({ ...block, address: PRECOMPILE })), 'by address');
  assert.ok(found(await reader.getLogs({ ...block, event })), 'by topic');
  assert.ok(found(await reader.getLogs({ ...block, address: PRECOMPILE, event })), 'by both');
  assert.equal(found(await reader.getLogs({ ...block, address: token.address, event })), false, 'by another address');
});

await check('WebSocket subscriptions deliver new heads and logs', async () => {
  const socket = createPublicClient({ chain, transport: webSocket(WS) });
  const next = async (params, accept) => {
    let settle;
    const delivered = new Promise((resolve, reject) => { settle = { resolve, reject }; });
    const { unsubscribe } = await socket.transport.subscribe({
      params,
      onData: ({ result }) => { if (accept(result)) settle.resolve(result); },
      onError: (error) => settle.reject(error),
    });
    return { delivered, unsubscribe };
  };
  let hash;
  const heads = await next(['newHeads'], () => true);
  const logs = await next(['logs', { address: PRECOMPILE }], () => true);
  ({ transactionHash: hash } = await send(probe, 'askVolatile', [LINEAR]));
  const head = await within(20, 'a new head', heads.delivered);
  assert.match(head.hash, /^0x[0-9a-f]{64}$/);
  const log = await within(20, 'a log', logs.delivered);
  assert.equal(log.transactionHash, hash);
  assert.equal(log.address.toLowerCase(), PRECOMPILE.toLowerCase());
  await heads.unsubscribe();
  await logs.unsubscribe();
  (await socket.transport.getRpcClient()).close();
});

await check('legacy and access-list transactions are included', async () => {
  const gasPrice = (await reader.getGasPrice()) + parseGwei('1');
  for (const [type, fields] of [['legacy', {}], ['eip2930', { accessList: [] }]]) {
    const receipt = await succeeded(
      await wallet.sendTransaction({ type, to: account.address, value: 1n, gasPrice, ...fields }));
    assert.equal(receipt.type, type);
  }
});

await check('five transactions sent at once, out of order, are all included', async () => {
  const from = { address: account.address };
  const first = await reader.getTransactionCount({ ...from, blockTag: 'pending' });
  const hashes = await Promise.all([4, 0, 3, 1, 2].map((ahead) =>
    wallet.sendTransaction({ to: account.address, value: 1n, nonce: first + ahead, gas: 21_000n })));
  await Promise.all(hashes.map(succeeded));
  assert.equal(await reader.getTransactionCount({ ...from, blockTag: 'pending' }), first + 5);
  assert.equal(await reader.getTransactionCount(from), first + 5);
});

/** The message with which the node refuses a signed transfer. */
async function refusal(signer, fields) {
  const fees = await reader.estimateFeesPerGas();
  const serialized = await signer.signTransaction({
    chainId: CHAIN_ID, type: 'eip1559', to: signer.address, value: 1n, gas: 21_000n, ...fees, ...fields });
  const { error } = await rpc('eth_sendRawTransaction', serialized);
  assert.ok(error, 'the transaction was accepted');
  return error.message;
}

await check('a used nonce and a missing balance are refused in words that clients look for', async () => {
  assert.match(await refusal(account, { nonce: 0 }), /nonce too low/);
  assert.match(await refusal(privateKeyToAccount(generatePrivateKey()), { nonce: 0 }), /insufficient funds/);
});

console.log(JSON.stringify({ answers }));
