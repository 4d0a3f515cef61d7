// Thousands of random transactions, the same on Penstock and on anvil: the same receipts, logs, gas, state roots.
//   scripts/contracts --install && cargo build --release && node app/node/tests/clients/anvil.mjs
//   COUNT=10000 SEED=7 node app/node/tests/clients/anvil.mjs
//
// Both begin with one genesis. Penstock makes blocks of what it is sent; then anvil is given each block's transactions in
// their order, its time and its fee recipient, and mines. Everything else follows from the rules, the base fee included.
// Two things are taken out of both, since they come from block hashes, and those differ (the mix hash and extra data do):
// the contracts of EIP-2935 and EIP-4788 have code that stores nothing, and no contract reads BLOCKHASH or PREVRANDAO.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { CHAIN_ID, check, require } from './common.mjs';
import { folder, startAnvil, startPenstock } from './nodes.mjs';
import {
  SEED, abi, accounts, contracts, delegators, deploy, menagerie, nonces, randomTransaction, senders, token,
} from './random.mjs';
import { stateRoot } from './trie.mjs';

const { encodeDeployData, encodeFunctionData, hexToBytes, keccak256, parseGwei, sliceHex, toHex } = require('viem');
const { privateKeyToAccount } = require('viem/accounts');

const COUNT = Number(process.env.COUNT || 3000);
console.log(`# SEED=${SEED} COUNT=${COUNT}`);

// One genesis for both.

const document = JSON.parse(readFileSync(fileURLToPath(new URL('../../../../genesis.json', import.meta.url)), 'utf8'));
// Contracts of which anvil knows nothing.
for (const section of ['inferenceHub', 'priceFeed', 'scheduler']) delete document.app_state[section];
const NOTHING = '0x00';
const alloc = {
  ...Object.fromEntries(senders.map(({ address }) => [address, { balance: '0x21e19e0c9bab2400000' }])),
  // They are there from the beginning: anvil 1.7.1 refunds for an authorization of an account that is not there, too,
  // which is against EIP-7702.
  ...Object.fromEntries(delegators.map(({ address }) => [address, { balance: '0x1' }])),
  '0x0000F90827F1C53a10cb7A02335B175320002935': { balance: '0x0', nonce: '0x1', code: NOTHING },
  '0x000F3df6D732807Ef1319fB7B8bB8522d0Beac02': { balance: '0x0', nonce: '0x1', code: NOTHING },
  // As Penstock's own genesis has the precompiles.
  '0x00000000000000000000000000000000000000F4': { balance: '0x0', nonce: '0x1', code: '0xfe' },
  '0x00000000000000000000000000000000000001F4': { balance: '0x0', nonce: '0x1', code: '0xfe' },
};
const { gasLimit, baseFee } = document.app_state.config;
const file = (name, value) => {
  writeFileSync(join(folder, name), JSON.stringify(value));
  return join(folder, name);
};
const ours = file('penstock.json', { ...document, app_state: { ...document.app_state, alloc } });
const theirs = file('anvil.json', {
  config: { chainId: CHAIN_ID, terminalTotalDifficulty: 0 },
  timestamp: toHex(Date.parse(document.genesis_time) / 1000),
  gasLimit: toHex(gasLimit),
  baseFeePerGas: toHex(baseFee),
  difficulty: '0x0',
  nonce: '0x0',
  extraData: '0x',
  coinbase: `0x${'0'.repeat(40)}`,
  mixHash: `0x${'0'.repeat(64)}`,
  alloc,
});

// More than a second apart, so that no two blocks have the same time, which anvil refuses.
const penstock = await startPenstock('--genesis', ours, '--block-time', '1100ms');
const time = String(Date.parse(document.genesis_time) / 1000);
const anvil = await startAnvil(
  ...['--init', theirs, '--chain-id', String(CHAIN_ID), '--hardfork', 'osaka', '--gas-limit', String(gasLimit)],
  ...['--no-mining', '--order', 'fifo', '--accounts', '1', '--disable-default-create2-deployer', '--disable-min-priority-fee'],
  // Of its first block: the genesis block's, an eighth lower, since that one is empty.
  ...['--block-base-fee-per-gas', String(baseFee - baseFee / 8), '--timestamp', time],
);

const sent = new Map(); // hash → raw
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Sends all to Penstock and waits until it has included them. */
async function include(raws) {
  const answers = await penstock.ask.all(raws.map((raw) => ['eth_sendRawTransaction', raw]));
  answers.forEach(({ error, result }, i) => {
    assert.equal(error, undefined, `${JSON.stringify(error)} for ${raws[i]}`);
    sent.set(result, raws[i]);
  });
  const last = answers.map(({ result }) => result);
  for (let waited = 0; ; waited++) {
    const receipts = await penstock.ask.all(last.map((hash) => ['eth_getTransactionReceipt', hash]));
    const missing = last.filter((_, i) => receipts[i].result === null);
    if (missing.length === 0) return receipts.map(({ result }) => result);
    if (waited > 120) {
      const why = await penstock.ask('pipe_getTransaction', missing[0]);
      throw new Error(`${missing.length} transactions were not included, such as ${JSON.stringify(why)}`);
    }
    await sleep(500);
  }
}

await check('contracts are deployed, and everyone has tokens', async () => {
  await include([
    await deploy(menagerie, abi),
    await deploy(encodeDeployData({ ...token, args: [10n ** 9n] }), token.abi),
    await deploy(menagerie, abi),
  ]);
  const [, [to]] = contracts;
  const [holder] = senders;
  await include(
    await Promise.all(
      senders
        .slice(1)
        .map(({ address }, i) =>
          holder.signTransaction({
            type: 'eip1559',
            chainId: CHAIN_ID,
            nonce: nonces.get(holder.address) + i,
            to,
            gas: 100_000n,
            maxFeePerGas: parseGwei('100'),
            data: encodeFunctionData({ abi: token.abi, functionName: 'transfer', args: [address, 10_000n] }),
          }),
        ),
    ),
  );
  nonces.set(holder.address, nonces.get(holder.address) + senders.length - 1);
});

const counts = { success: 0, failure: 0, created: 0, logs: 0, types: {} };
await check(`${COUNT} random transactions are included`, async () => {
  for (let done = 0; done < COUNT; done += 500) {
    const raws = [];
    for (let i = 0; i < Math.min(500, COUNT - done); i++) raws.push(await randomTransaction());
    for (const receipt of await include(raws)) {
      counts[receipt.status === '0x1' ? 'success' : 'failure'] += 1;
      counts.types[Number(receipt.type)] = (counts.types[Number(receipt.type)] ?? 0) + 1;
      counts.logs += receipt.logs.length;
      if (receipt.status === '0x1' && receipt.contractAddress) {
        counts.created += 1;
        accounts.add(receipt.contractAddress);
      }
    }
  }
  console.log(`# ${JSON.stringify(counts)}`);
  // A generator whose transactions all fail, or that has lost a kind, compares nothing.
  assert.ok(counts.success > COUNT / 4 && counts.failure > COUNT / 20 && counts.created > 0 && counts.logs > 0);
  assert.deepEqual(Object.keys(counts.types), ['0', '1', '2', '4']);
});

/** Fields of a receipt that follow from the transactions. */
const only = (fields) => (object) => Object.fromEntries(fields.map((field) => [field, object[field]]));
const contentOfLog = only(['address', 'topics', 'data', 'logIndex', 'transactionIndex', 'transactionHash']);
const contentOfReceipt = only([
  ...['type', 'status', 'cumulativeGasUsed', 'gasUsed', 'logsBloom', 'transactionHash', 'transactionIndex', 'blockNumber'],
  ...['effectiveGasPrice', 'from', 'to', 'contractAddress'],
]);
const content = (receipt) => ({ ...contentOfReceipt(receipt), logs: receipt.logs.map(contentOfLog) });

/** Accounts and slots that a block changed, with those that it only read. */
async function touched(block) {
  const traces = await penstock.ask('debug_traceBlockByNumber', block, { tracer: 'prestateTracer' });
  const changes = await penstock.ask('debug_traceBlockByNumber', block, {
    tracer: 'prestateTracer',
    tracerConfig: { diffMode: true },
  });
  const slots = new Map();
  const states = [...traces.map(({ result }) => result), ...changes.flatMap(({ result: { pre, post } }) => [pre, post])];
  for (const [address, { storage = {} }] of states.flatMap((state) => Object.entries(state))) {
    const known = slots.get(address) ?? slots.set(address, new Set()).get(address);
    for (const slot of Object.keys(storage)) known.add(slot);
  }
  return slots;
}

/** How many values of a block's accounts and slots were compared, and those that differ. */
async function differences(block) {
  const questions = [];
  for (const [address, slots] of await touched(block)) {
    for (const method of ['eth_getBalance', 'eth_getTransactionCount', 'eth_getCode'])
      questions.push([method, address, block]);
    for (const slot of slots) questions.push(['eth_getStorageAt', address, slot, block]);
  }
  const [mine, other] = await Promise.all([penstock.ask.all(questions), anvil.ask.all(questions)]);
  const differ = questions.flatMap((question, i) =>
    mine[i].result === other[i].result
      ? []
      : [`${question.join(' ')}: ${JSON.stringify(mine[i])}, anvil ${JSON.stringify(other[i])}`],
  );
  return { count: questions.length, differ };
}

const compared = { blocks: 0, transactions: 0, values: 0 };
await check('anvil has the same blocks: gas, base fee, receipts, logs, balances, slots, state root', async () => {
  const head = Number(await penstock.ask('eth_blockNumber'));
  for (let number = 1; number <= head; number++) {
    const mine = await penstock.ask('eth_getBlockByNumber', toHex(number), false);
    await anvil.ask('anvil_setCoinbase', mine.miner);
    // One after the other: anvil works on a batch's requests side by side, and mines in the order of arrival.
    for (const hash of mine.transactions) await anvil.ask('eth_sendRawTransaction', sent.get(hash));
    await anvil.ask('evm_setNextBlockTimestamp', Number(mine.timestamp));
    await anvil.ask('evm_mine');
    const other = await anvil.ask('eth_getBlockByNumber', toHex(number), false);
    const first = mine.transactions.findIndex((hash, i) => hash !== other.transactions[i]);
    assert.equal(
      first,
      -1,
      `transaction ${first} of ${mine.transactions.length} of block ${number} is another one with anvil, which has ` +
        `${other.transactions.length}`,
    );
    assert.equal(other.transactions.length, mine.transactions.length);
    const [receipts, otherReceipts] = await Promise.all(
      [penstock, anvil].map(({ ask }) => ask('eth_getBlockReceipts', toHex(number))),
    );
    for (const [i, receipt] of receipts.entries())
      assert.deepEqual(content(receipt), content(otherReceipts[i]), `receipt of ${sent.get(receipt.transactionHash)}`);
    for (const field of [
      'number',
      'timestamp',
      'miner',
      'gasLimit',
      'gasUsed',
      'baseFeePerGas',
      'logsBloom',
      'transactionsRoot',
      'receiptsRoot',
    ])
      assert.equal(mine[field], other[field], `${field} of block ${number}`);
    const { count, differ } = await differences(toHex(number));
    assert.deepEqual(differ, [], `state after block ${number}`);
    // Anvil's own root has accounts that are empty. All that it holds is here: nothing may be in only one of the two.
    const { accounts } = JSON.parse(gunzipSync(hexToBytes(await anvil.ask('anvil_dumpState'))));
    assert.equal(
      stateRoot(accounts),
      mine.stateRoot,
      `state root of block ${number}, of whose ${count} changed values none differs`,
    );
    compared.values += count;
    compared.blocks += 1;
    compared.transactions += receipts.length;
  }
  assert.equal(compared.transactions, sent.size);
});

await check('what one refuses the other refuses, too', async () => {
  const sender = senders[1];
  const nonce = nonces.get(sender.address);
  const poor = privateKeyToAccount(keccak256(toHex('poor')));
  const good = {
    type: 'eip1559',
    chainId: CHAIN_ID,
    nonce,
    to: sender.address,
    gas: 100_000n,
    maxFeePerGas: parseGwei('200'),
    maxPriorityFeePerGas: 1n,
  };
  // Anvil finds out when it mines.
  const late = "less than EIP-7623's floor";
  const bad = {
    'a used nonce': sender.signTransaction({ ...good, nonce: 0 }),
    'another chain': sender.signTransaction({ ...good, chainId: 1 }),
    'less than the intrinsic gas': sender.signTransaction({ ...good, gas: 20_999n }),
    [late]: sender.signTransaction({ ...good, data: `0x${'ff'.repeat(1000)}`, gas: 40_000n }),
    'no money': poor.signTransaction({ ...good, nonce: 0 }),
    'less money than value': sender.signTransaction({ ...good, value: 10n ** 24n }),
    'init code that is too long': sender.signTransaction({
      ...good,
      to: undefined,
      data: `0x${'00'.repeat(49_153)}`,
      gas: 5_000_000n,
    }),
    'more gas than a block': sender.signTransaction({ ...good, gas: BigInt(gasLimit) + 1n }),
    'no transaction': Promise.resolve('0x02c0'),
    'a cut one': sender.signTransaction(good).then((raw) => sliceHex(raw, 0, 60)),
  };
  for (const [what, raw] of Object.entries(bad)) {
    const [mine, other] = await Promise.all(
      [penstock, anvil].map(async ({ ask }) =>
        ask('eth_sendRawTransaction', await raw).then(
          () => null,
          (error) => error,
        ),
      ),
    );
    assert.ok(mine, `Penstock accepts ${what}`);
    assert.ok(other || what === late, `anvil accepts ${what}`);
    console.log(
      `# ${what}: ${mine.code} ${mine.message.slice(0, 90)} | anvil ${other?.code} ${other?.message.slice(0, 90)}`,
    );
  }
});

console.log(JSON.stringify({ seed: SEED, ...compared, ...counts }));
await Promise.all([penstock.stop(), anvil.stop()]);
