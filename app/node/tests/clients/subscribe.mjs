// The stages of a transaction and its requests over WebSocket, as they happen: pipe_subscribe.
//   scripts/contracts --install && node app/node/tests/clients/subscribe.mjs
// One line a check; ends at the first that fails.

import assert from 'node:assert/strict';
import { CHAIN_ID, KEY, MODEL_GAS, RPC, WS, artifact, check, require, toDecimal, within } from './common.mjs';

const WebSocket = require('ws');
const { createPublicClient, createWalletClient, defineChain, http } = require('viem');
const { privateKeyToAccount } = require('viem/accounts');

const chain = defineChain({
  id: CHAIN_ID,
  name: 'Penstock',
  nativeCurrency: { name: 'Penstock', symbol: 'PEN', decimals: 18 },
  rpcUrls: { default: { http: [RPC] } },
});
const account = privateKeyToAccount(KEY);
const reader = createPublicClient({ chain, transport: http(RPC), pollingInterval: 50 });
const wallet = createWalletClient({ chain, account, transport: http(RPC) });

/** A WebSocket with answers by id and messages by subscription. */
async function open() {
  const socket = new WebSocket(WS);
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
  const answers = new Map();
  const messages = new Map();
  socket.on('message', (data) => {
    const message = JSON.parse(data);
    if (message.id !== undefined) answers.get(message.id)(message);
    else {
      assert.equal(message.method, 'pipe_subscription');
      const { subscription, result } = message.params;
      messages.set(subscription, [...(messages.get(subscription) ?? []), result]);
    }
  });
  let next = 0;
  const call = (method, ...params) => new Promise((resolve) => {
    const id = next++;
    answers.set(id, resolve);
    socket.send(JSON.stringify({ jsonrpc: '2.0', id, method, params }));
  });
  return { call, heard: (subscription) => messages.get(subscription) ?? [], close: () => socket.close() };
}

const socket = await open();
const all = (await socket.call('pipe_subscribe', 'transactions')).result;
const own = (await socket.call('pipe_subscribe', 'transactions', { from: account.address })).result;
const other = (await socket.call('pipe_subscribe', 'transactions', { hash: `0x${'11'.repeat(32)}` })).result;
const inferences = (await socket.call('pipe_subscribe', 'inferences')).result;
await check('four subscriptions', () => assert.equal(new Set([all, own, other, inferences]).size, 4));

const { abi, bytecode } = artifact('Advisor');
const deployed = await wallet.deployContract({ abi, bytecode });
const { contractAddress } = await reader.waitForTransactionReceipt({ hash: deployed });
// A model that is too dear to be answered inside the simulation (the node of this test answers none there).
const args = ['penstock/linear', '', [5, 1].map(toDecimal), []];
const hash = await wallet.writeContract({ address: contractAddress, abi, functionName: 'ask', args, gas: MODEL_GAS });
const receipt = await reader.waitForTransactionReceipt({ hash });
assert.equal(receipt.status, 'success');

const ofIt = (subscription) => socket.heard(subscription).filter((message) => message.hash === hash);
const told = async () => {
  while (!ofIt(own).some(({ stage }) => stage === 'included')) await new Promise((resolve) => setTimeout(resolve, 20));
};
await within(10, 'the last stage', told());
const stages = ofIt(own).map(({ stage }) => stage);
await check('every stage of a transaction, in order', () =>
  assert.deepEqual(stages, ['simulating', 'inferring', 'simulating', 'ready', 'proposed', 'included']));
await check('why it waits, and its block', () => {
  assert.equal(ofIt(own)[1].reason, 'waits for 1 results');
  assert.equal(BigInt(ofIt(own).at(-1).blockNumber), receipt.blockNumber);
  assert.equal(ofIt(own)[0].from.toLowerCase(), account.address.toLowerCase());
});
await check('all transactions, and nothing of others', () => {
  assert.deepEqual(ofIt(all), ofIt(own));
  assert.deepEqual(socket.heard(other), []);
});
await check('its request and the answer', () => {
  const asked = socket.heard(inferences).find(({ state, transaction }) => state === 'asked' && transaction === hash);
  assert.equal(asked.model, 'penstock/linear');
  assert.equal(asked.wave, 1);
  const answered = socket.heard(inferences).find(({ state, id }) => state === 'answered' && id === asked.id);
  assert.ok(answered.tookMs >= 0 && answered.failure === null);
});

const refused = async (...params) => (await socket.call('pipe_subscribe', ...params)).error;
const [workers, unknown, filter] = [
  await refused('workers'), await refused('everything'), await refused('transactions', { sender: account.address }),
];
await check('what is not there is refused with a reason', () => {
  assert.match(workers.message, /workers/);
  assert.match(unknown.message, /transactions and inferences/);
  assert.equal(filter.code, -32602);
});
const ended = await socket.call('pipe_unsubscribe', own);
await check('a subscription can be ended', () => assert.equal(ended.result, true));
socket.close();
