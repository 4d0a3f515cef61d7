// Figures of Penstock and of anvil, one after the other on this machine; no test.
//   scripts/contracts --install && cargo build --release && node app/node/tests/clients/compare.mjs
//
// 32 connections that are kept open, each with one request under way. The load generator needs its share of the cores: of
// two nodes that are both faster than it, no difference is seen but in the time that each spends on a request.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CHAIN_ID, artifact, require } from './common.mjs';
import { folder, startAnvil, startPenstock } from './nodes.mjs';

const { encodeDeployData, encodeFunctionData, keccak256, pad, parseGwei, toHex } = require('viem');
const { mnemonicToAccount, privateKeyToAccount } = require('viem/accounts');

const CONNECTIONS = 32;
const SECONDS = Number(process.env.SECONDS || 5);
const COUNT = Number(process.env.COUNT || 10_000);
const BLOCKS = Number(process.env.BLOCKS || 10_000);
const LOGS = BLOCKS / 5;
const SENDERS = 4 * CONNECTIONS;

/** One connection: `ask(body)` answers with the body of the response. fetch would need more time than the nodes. */
async function open(url) {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname).setNoDelay();
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  let received = Buffer.alloc(0);
  let settle;
  socket.on('data', (data) => {
    received = received.length ? Buffer.concat([received, data]) : data;
    const head = received.indexOf('\r\n\r\n');
    if (head < 0) return;
    const length = /content-length: *(\d+)/i.exec(received.toString('latin1', 0, head))?.[1];
    assert.ok(length, 'the answer has no length');
    if (received.length < head + 4 + Number(length)) return;
    const body = received.toString('utf8', head + 4);
    received = Buffer.alloc(0);
    settle.resolve(body);
  });
  socket.on('error', (error) => settle?.reject(error));
  return {
    ask: (body) =>
      new Promise((resolve, reject) => {
        settle = { resolve, reject };
        socket.write(
          `POST / HTTP/1.1\r\nhost: ${hostname}\r\ncontent-type: application/json\r\n` +
            `content-length: ${body.length}\r\n\r\n${body}`,
        );
      }),
    close: () => socket.destroy(),
  };
}

const body = (method, ...params) => JSON.stringify({ jsonrpc: '2.0', id: 1, method, params });
const at = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];

/** Seconds that a process had of the cores. */
const used = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
};

/** Sends what `next(connection)` gives, until it gives nothing: per second, p50 and p99 in ms, µs of the cores. */
async function load({ url, pid }, next, connections = CONNECTIONS) {
  const times = [];
  const before = used(pid);
  const begin = performance.now();
  await Promise.all(
    Array.from({ length: connections }, async (_, index) => {
      const { ask, close } = await open(url);
      for (let request = next(index); request; request = next(index)) {
        const sent = performance.now();
        const answer = await ask(request);
        times.push(performance.now() - sent);
        assert.ok(answer.includes('"result"'), `${request.slice(0, 200)}: ${answer.slice(0, 300)}`);
      }
      close();
    }),
  );
  const seconds = (performance.now() - begin) / 1000;
  const cores = Math.round(((used(pid) - before) * 1e6) / times.length);
  times.sort((a, b) => a - b);
  return {
    cores,
    perSecond: Math.round(times.length / seconds),
    p50: +at(times, 0.5).toFixed(2),
    p99: +at(times, 0.99).toFixed(2),
  };
}
const forSeconds = (request, seconds = SECONDS) => {
  const end = performance.now() + seconds * 1000;
  return () => (performance.now() < end ? request : undefined);
};

const holder = mnemonicToAccount('test test test test test test test test test test test junk');
const senders = Array.from({ length: SENDERS }, (_, i) => privateKeyToAccount(keccak256(toHex(`load ${i}`))));
const alloc = Object.fromEntries(
  [holder, ...senders].map(({ address }) => [address, { balance: '0x21e19e0c9bab2400000' }]),
);
const GAS_LIMIT = 3_000_000_000;

const document = JSON.parse(readFileSync(fileURLToPath(new URL('../../../../genesis.json', import.meta.url)), 'utf8'));
document.app_state.config.gasLimit = GAS_LIMIT;
writeFileSync(join(folder, 'penstock.json'), JSON.stringify({ ...document, app_state: { ...document.app_state, alloc } }));
writeFileSync(
  join(folder, 'anvil.json'),
  JSON.stringify({
    config: { chainId: CHAIN_ID, terminalTotalDifficulty: 0 },
    gasLimit: toHex(GAS_LIMIT),
    difficulty: '0x0',
    alloc,
  }),
);
const anvilArgs = [
  '--init',
  join(folder, 'anvil.json'),
  '--chain-id',
  String(CHAIN_ID),
  '--hardfork',
  'osaka',
  '--gas-limit',
  String(GAS_LIMIT),
];
const penstockArgs = ['--genesis', join(folder, 'penstock.json')];
// Both take all of the load at once.
process.env.PENSTOCK_POOL_MAX_TXS = String(2 * COUNT);

const nodes = {
  penstock: { start: () => startPenstock(...penstockArgs, '--block-time', '1s') },
  anvil: { start: () => startAnvil(...anvilArgs, '--block-time', '1') },
};

console.log(`# signing ${COUNT} transfers`);
const sign = (sender, nonce, fields) =>
  sender.signTransaction({
    type: 'eip1559',
    chainId: CHAIN_ID,
    nonce,
    gas: 100_000n,
    maxFeePerGas: parseGwei('100'),
    maxPriorityFeePerGas: 1_000_000n,
    ...fields,
  });
const transfers = [];
for (let i = 0; i < COUNT; i++)
  transfers.push(
    body(
      'eth_sendRawTransaction',
      await sign(senders[i % SENDERS], Math.floor(i / SENDERS), {
        to: pad(toHex(i + 1_000_000), { size: 20 }),
        value: 1n,
        gas: 21_000n,
      }),
    ),
  );

const { abi, bytecode } = artifact('Token');
const deploy = await sign(holder, 0, { data: encodeDeployData({ abi, bytecode, args: [10n ** 9n] }), gas: 2_000_000n });
const balanceOf = encodeFunctionData({ abi, functionName: 'balanceOf', args: [holder.address] });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function receipt(ask, hash) {
  for (;;) {
    const found = await ask('eth_getTransactionReceipt', hash);
    if (found) return found;
    await sleep(20);
  }
}

/** All but the logs. */
async function figures({ start }) {
  const node = await start();
  const { ask, stop } = node;
  const { contractAddress: token } = await receipt(ask, await ask('eth_sendRawTransaction', deploy));
  const found = {};
  const requests = {
    eth_chainId: body('eth_chainId'),
    eth_getBalance: body('eth_getBalance', holder.address, 'latest'),
    'eth_call of balanceOf': body('eth_call', { to: token, data: balanceOf }, 'latest'),
  };
  for (const [name, request] of Object.entries(requests)) {
    await load(node, forSeconds(request, 1));
    found[name] = await load(node, forSeconds(request));
    console.log(`# ${name}: ${JSON.stringify(found[name])}`);
  }
  // A connection has its senders for itself, so that their nonces arrive in order.
  const own = Array.from({ length: CONNECTIONS }, (_, index) => transfers.filter((_, i) => i % CONNECTIONS === index));
  const begin = performance.now();
  found.eth_sendRawTransaction = await load(node, (index) => own[index].shift());
  const counts = () => Promise.all(senders.map(({ address }) => ask('eth_getTransactionCount', address, 'latest')));
  while ((await counts()).reduce((sum, count) => sum + Number(count), 0) < COUNT) await sleep(50);
  found.included = { perSecond: Math.round(COUNT / ((performance.now() - begin) / 1000)) };
  await stop();
  return found;
}

/** A request for LOGS logs among BLOCKS blocks, alone and by all connections. */
async function logs(node, token) {
  const { ask } = node;
  const request = body('eth_getLogs', { fromBlock: '0x0', toBlock: toHex(BLOCKS), address: token });
  const { length } = await ask('eth_getLogs', { fromBlock: '0x0', toBlock: toHex(BLOCKS), address: token });
  assert.ok(length >= LOGS, `${length} logs`);
  const none = body('eth_getLogs', { fromBlock: '0x0', toBlock: toHex(BLOCKS), address: `0x${'77'.repeat(20)}` });
  return {
    [`eth_getLogs of ${LOGS} among ${BLOCKS} blocks, alone`]: await load(node, forSeconds(request), 1),
    [`the same of an address without logs`]: await load(node, forSeconds(none), 1),
  };
}

const tokenTransfers = [];
for (let i = 0; i < LOGS; i++)
  tokenTransfers.push((to) =>
    sign(holder, i + 1, {
      to,
      data: encodeFunctionData({ abi, functionName: 'transfer', args: [senders[i % SENDERS].address, 1n] }),
    }),
  );

async function logsOfPenstock() {
  const data = join(folder, 'chain');
  const first = await startPenstock(...penstockArgs, '--data', data, '--block-time', '1ms');
  const { contractAddress: token } = await receipt(first.ask, await first.ask('eth_sendRawTransaction', deploy));
  let last;
  for (const [i, transfer] of tokenTransfers.entries()) {
    last = await first.ask('eth_sendRawTransaction', await transfer(token));
    if (i % 100 === 99) await receipt(first.ask, last);
  }
  while (Number(await first.ask('eth_blockNumber')) < BLOCKS) await sleep(100);
  await first.stop();
  // Without new blocks beside.
  const second = await startPenstock(...penstockArgs, '--data', data, '--block-time', '1h');
  const found = await logs(second, token);
  await second.stop();
  return found;
}

async function logsOfAnvil() {
  const node = await startAnvil(...anvilArgs);
  const { ask } = node;
  const { contractAddress: token } = await receipt(ask, await ask('eth_sendRawTransaction', deploy));
  for (const transfer of tokenTransfers) {
    await receipt(ask, await ask('eth_sendRawTransaction', await transfer(token)));
    await ask('anvil_mine', toHex(Math.ceil(BLOCKS / LOGS) - 1));
  }
  while (Number(await ask('eth_blockNumber')) < BLOCKS) await ask('anvil_mine', '0xa');
  const found = await logs(node, token);
  await node.stop();
  return found;
}

// One after the other: whoever stops it half way has what there is.
const results = { penstock: {}, anvil: {} };
for (const [name, node] of Object.entries(nodes)) Object.assign(results[name], await figures(node));
Object.assign(results.penstock, await logsOfPenstock());
Object.assign(results.anvil, await logsOfAnvil());

const told = ({ perSecond, p50, p99, cores }) =>
  `${perSecond}/s${p50 === undefined ? '' : `, ${p50} / ${p99} ms, ${cores} µs`}`;
console.log(
  '| what: per second, p50 / p99, time of the node on the cores | Penstock | anvil | ratio |\n|---|---|---|---|',
);
for (const [what, mine] of Object.entries(results.penstock)) {
  const other = results.anvil[what];
  console.log(`| ${what} | ${told(mine)} | ${told(other)} | ${(mine.perSecond / other.perSecond).toFixed(1)} |`);
}
