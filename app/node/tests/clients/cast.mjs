// Uses a Penstock chain from a shell, through foundry's cast: what it asks, sends, waits for and decodes.
//   scripts/contracts --install && node app/node/tests/clients/cast.mjs
// One line a check; ends at the first that fails.

import assert from 'node:assert/strict';
import { CHAIN_ID, KEY, PRECOMPILE, RPC, WS, artifact, check, foundry, result, run } from './common.mjs';

const FROM = '0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266';
const OTHER = '0x70997970C51812dc3A010C7d01b50e0d17dc79C8';
const OTHER_KEY = '0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d';
const FRESH = '0x00000000000000000000000000000000c0ffee01';

const cast = (...args) => run(foundry('cast'), args, { env: { ...process.env, ETH_RPC_URL: RPC } });
/** `cast send` and its receipt. */
const send = async (...args) => JSON.parse(await cast('send', '--private-key', KEY, '--json', ...args));
async function succeeded(...args) {
  const receipt = await send(...args);
  assert.equal(receipt.status, '0x1', JSON.stringify(receipt));
  return receipt;
}
const pendingNonce = async () => Number(await cast('nonce', FROM, '--block', 'pending'));

await check('cast connects', async () => {
  assert.equal(await cast('chain-id'), String(CHAIN_ID));
  assert.equal(await cast('rpc', 'net_version'), `"${CHAIN_ID}"`);
  assert.notEqual(await cast('client'), '');
  assert.ok(Number(await cast('block-number')) >= 0);
  assert.ok(BigInt(await cast('balance', FROM)) > 10n ** 18n);
  assert.ok(BigInt(await cast('gas-price')) > 0n);
  assert.ok(BigInt(await cast('base-fee')) > 0n);
});

const token = await check('cast deploys', async () => {
  const { bytecode } = artifact('Token');
  const receipt = await succeeded('--create', bytecode, 'constructor(uint256)', '1000000');
  const code = await cast('code', receipt.contractAddress);
  assert.equal(await cast('codehash', receipt.contractAddress), await cast('keccak', code));
  return receipt.contractAddress;
});

await check('cast calls, estimates and reads storage', async () => {
  assert.equal(await cast('call', token, 'symbol()(string)'), '"BENCH"');
  assert.match(await cast('call', token, 'balanceOf(address)(uint256)', FROM), /^1000000/);
  assert.ok(Number(await cast('estimate', '--from', FROM, token, 'transfer(address,uint256)', OTHER, '1')) > 21_000);
  const slot = await cast('index', 'address', FROM, '0');
  assert.equal(BigInt(await cast('storage', token, slot)), 1_000_000n);
  const { storageProof: [{ value }] } = JSON.parse(await cast('proof', token, slot));
  assert.equal(BigInt(value), 1_000_000n);
});

for (const [type, ...options] of [
  ['0x0', '--legacy'],
  ['0x1', '--legacy', '--access-list'],
  ['0x2'],
]) {
  await check(`cast sends a transaction of type ${type}, waits, and finds it again`, async () => {
    const receipt = await succeeded(token, 'transfer(address,uint256)', OTHER, '1', ...options);
    assert.equal(receipt.type, type);
    const tx = JSON.parse(await cast('tx', receipt.transactionHash, '--json'));
    assert.equal(tx.type, type);
    assert.equal(tx.blockNumber, receipt.blockNumber);
    if (type === '0x1') assert.ok(tx.accessList.length > 0, 'the access list that cast asked for is empty');
    const number = String(Number(receipt.blockNumber));
    const [log] = JSON.parse(await cast('logs', '--json', '--address', token, '--from-block', number, '--to-block', number,
      'Transfer(address indexed,address indexed,uint256)', FROM, OTHER));
    assert.equal(log.transactionHash, receipt.transactionHash);
    const again = JSON.parse(await cast('receipt', receipt.transactionHash, '--json'));
    assert.equal(again.gasUsed, receipt.gasUsed);
  });
}

await check('cast delegates an account to a contract (EIP-7702), and back', async () => {
  const auth = await cast('wallet', 'sign-auth', token, '--private-key', OTHER_KEY);
  assert.equal((await succeeded(OTHER, 'symbol()', '--auth', auth)).type, '0x4');
  assert.equal(await cast('code', OTHER), `0xef0100${token.slice(2).toLowerCase()}`);
  assert.equal(await cast('call', OTHER, 'symbol()(string)'), '"BENCH"');
  const back = await cast('wallet', 'sign-auth', `0x${'0'.repeat(40)}`, '--private-key', OTHER_KEY);
  await succeeded(FROM, '--auth', back);
  assert.equal(await cast('code', OTHER), '0x');
});

/** Sends without waiting; the hash. */
const post = (...args) => cast('send', '--async', '--private-key', KEY, '--gas-limit', '21000', ...args);
const paying = (fee, tip) => ['--gas-price', fee, '--priority-gas-price', tip];

await check('a waiting transaction is replaced, and cancelled, by one that pays more', async () => {
  const nonce = await pendingNonce();
  // Behind a gap, so that no block takes it before the second one comes.
  const behind = ['--nonce', String(nonce + 1)];
  const waits = await post(FRESH, '--value', '7', ...behind, ...paying('20gwei', '1gwei'));
  await assert.rejects(
    post(FRESH, '--value', '8', ...behind, ...paying('21gwei', '1gwei')), /replacement transaction underpriced/);
  const cancels = await post(FROM, '--value', '0', ...behind, ...paying('40gwei', '2gwei'));
  assert.notEqual(cancels, waits);
  await post(FRESH, '--value', '1', '--nonce', String(nonce), ...paying('20gwei', '1gwei'));
  const receipt = JSON.parse(await cast('receipt', cancels, '--json'));
  assert.equal(receipt.status, '0x1');
  assert.equal(await cast('balance', FRESH), '1');
  assert.equal(await result('eth_getTransactionReceipt', waits), null);
});

await check('cast signs alone, and publishes', async () => {
  const raw = await cast('mktx', '--private-key', KEY, FRESH, '--value', '1');
  const receipt = JSON.parse(await cast('publish', raw));
  assert.equal(receipt.status, '0x1');
  assert.equal(await cast('balance', FRESH), '2');
});

await check('refusals come through in the words that people know', async () => {
  await assert.rejects(post(FRESH, '--nonce', '0', ...paying('20gwei', '1gwei')), /nonce too low/);
  await assert.rejects(post(FRESH, '--value', '1000000ether', ...paying('20gwei', '1gwei')), /insufficient funds/i);
  await assert.rejects(
    cast('call', '--from', FRESH, token, 'transfer(address,uint256)', OTHER, '1'), /execution reverted/);
});

await check('cast reads blocks: by number, by hash, by time', async () => {
  const number = await cast('block-number');
  const block = JSON.parse(await cast('block', number, '--json'));
  assert.equal(BigInt(block.number), BigInt(number));
  assert.equal(JSON.parse(await cast('block', block.hash, '--json')).hash, block.hash);
  assert.ok(Number(await cast('find-block', String(Number(block.timestamp)))) <= Number(block.number));
  assert.notEqual(await cast('age', number), '');
});

await check('cast works over WebSocket', async () => {
  assert.equal(await cast('chain-id', '--rpc-url', WS), String(CHAIN_ID));
  assert.ok(Number(await cast('block-number', '--rpc-url', WS)) > 0);
});

const ASK = 'ask(string,string,(int128,int128)[],uint32[])';

const probe = await check('cast sends a question to a model and reads the answer', async () => {
  const { bytecode } = artifact('Probe');
  const { contractAddress: probe } = await succeeded('--create', bytecode);
  const receipt = await succeeded(probe, ASK, 'penstock/linear', 'x', '[(4,0),(5,0)]', '[2]', '--gas-limit', '3000000');
  assert.ok(receipt.logs.some(({ address }) => address.toLowerCase() === PRECOMPILE.toLowerCase()));
  assert.deepEqual((await cast('call', probe, 'firstNumber()(int128,int128)')).split('\n'), ['17', '0']);
  return { address: probe, hash: receipt.transactionHash };
});

await check('cast estimates a question, and sends it with what was estimated', async () => {
  await succeeded(probe.address, ASK, 'penstock/linear', 'x', '[(6,0),(5,0)]', '[2]');
  assert.deepEqual((await cast('call', probe.address, 'firstNumber()(int128,int128)')).split('\n'), ['19', '0']);
});

await check('cast traces the question on the node, down to the precompile', async () => {
  const trace = JSON.parse(await cast('rpc', 'debug_traceTransaction', probe.hash, '{"tracer":"callTracer"}'));
  assert.equal(trace.calls[0].to.toLowerCase(), PRECOMPILE.toLowerCase());
});
