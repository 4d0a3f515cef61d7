// What MetaMask asks, replayed from its origin: a network is added, an account looked at, coins and tokens sent.
//   scripts/contracts --install && node app/node/tests/clients/metamask.mjs
// One line a check; ends at the first that fails.

import assert from 'node:assert/strict';
import { CHAIN_ID, KEY, RPC, artifact, check, require } from './common.mjs';

const { decodeAbiParameters, encodeDeployData, encodeFunctionData, parseGwei, toHex } = require('viem');
const { privateKeyToAccount } = require('viem/accounts');

const ORIGIN = 'chrome-extension://nkbihfbeogaeaoehlefnkodbefgpgknn';
const account = privateKeyToAccount(KEY);
const OTHER = '0x70997970C51812dc3A010C7d01b50e0d17dc79C8';
const QUANTITY = /^0x(0|[1-9a-f][0-9a-f]*)$/;
let id = 5_577_006_791_947;

/** As MetaMask's middleware sends it: large ids, `params` always there, the page's origin. */
async function ask(method, ...params) {
  id += 1;
  const response = await fetch(RPC, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json', origin: ORIGIN },
    body: JSON.stringify({ id, jsonrpc: '2.0', method, params }),
  });
  assert.equal(response.status, 200);
  assert.ok(
    ['*', ORIGIN].includes(response.headers.get('access-control-allow-origin')),
    `${method} is not for other origins`,
  );
  assert.match(response.headers.get('content-type'), /^application\/json/);
  const answer = await response.json();
  assert.equal(answer.id, id);
  assert.equal(answer.jsonrpc, '2.0');
  return answer;
}
async function result(method, ...params) {
  const { error, result } = await ask(method, ...params);
  assert.equal(error, undefined, `${method}: ${JSON.stringify(error)}`);
  return result;
}

await check('the browser asks first whether it may (CORS)', async () => {
  const response = await fetch(RPC, {
    method: 'OPTIONS',
    headers: {
      origin: ORIGIN,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'content-type,x-metamask-clientid',
    },
  });
  assert.ok(response.ok, `status ${response.status}`);
  assert.ok(['*', ORIGIN].includes(response.headers.get('access-control-allow-origin')));
  assert.match(response.headers.get('access-control-allow-methods') ?? '', /POST|\*/);
  assert.match(response.headers.get('access-control-allow-headers') ?? '', /content-type|\*/i);
});

await check('a network is added: its chain id, and the decimal net_version', async () => {
  assert.equal(await result('eth_chainId'), toHex(CHAIN_ID));
  assert.equal(await result('net_version'), String(CHAIN_ID));
  // It decides by this whether the network has EIP-1559.
  const { baseFeePerGas } = await result('eth_getBlockByNumber', 'latest', false);
  assert.match(baseFeePerGas, QUANTITY);
});

await check('an account is looked at: block, balance, nonce, code, tokens', async () => {
  assert.match(await result('eth_blockNumber'), QUANTITY);
  assert.ok(BigInt(await result('eth_getBalance', account.address, 'latest')) > 0n);
  assert.match(await result('eth_getTransactionCount', account.address, 'latest'), QUANTITY);
  assert.equal(await result('eth_getCode', OTHER, 'latest'), '0x');
  // Whether a token is an NFT (ERC-165), of an address without code: an empty answer, no error.
  assert.equal(
    await result(
      'eth_call',
      { to: OTHER, data: '0x01ffc9a780ac58cd00000000000000000000000000000000000000000000000000000000' },
      'latest',
    ),
    '0x',
  );
  // Names of ENS: MetaMask asks only mainnet, but takes null for a block that is not there.
  assert.equal(await result('eth_getBlockByNumber', '0xffffffff', false), null);
  assert.equal(await result('eth_getTransactionReceipt', `0x${'12'.repeat(32)}`), null);
});

await check('fees are suggested: gas price, history, percentiles', async () => {
  assert.match(await result('eth_gasPrice'), QUANTITY);
  const history = await result('eth_feeHistory', '0x5', 'latest', [10, 20, 30]);
  assert.equal(history.baseFeePerGas.length, history.gasUsedRatio.length + 1);
  assert.ok(history.reward.every((row) => row.length === 3 && row.every((tip) => QUANTITY.test(tip))));
  assert.match(history.oldestBlock, QUANTITY);
  assert.match(await result('eth_maxPriorityFeePerGas'), QUANTITY);
});

/** Estimates, signs, sends and waits as MetaMask does. */
async function send(fields) {
  const request = { from: account.address, value: '0x0', ...fields };
  const nonce = Number(await result('eth_getTransactionCount', account.address, 'latest'));
  const { gasLimit, baseFeePerGas } = await result('eth_getBlockByNumber', 'latest', false);
  const estimate = BigInt(await result('eth_estimateGas', { ...request, gas: gasLimit }));
  const raw = await account.signTransaction({
    type: 'eip1559',
    chainId: CHAIN_ID,
    nonce,
    to: fields.to,
    data: fields.data,
    value: BigInt(request.value),
    gas: (estimate * 3n) / 2n,
    maxFeePerGas: 2n * BigInt(baseFeePerGas) + parseGwei('2'),
    maxPriorityFeePerGas: parseGwei('2'),
  });
  const hash = await result('eth_sendRawTransaction', raw);
  for (let tries = 0; tries < 100; tries++) {
    const receipt = await result('eth_getTransactionReceipt', hash);
    if (receipt) {
      assert.equal(receipt.status, '0x1');
      const sent = await result('eth_getTransactionByHash', hash);
      assert.equal(sent.blockHash, receipt.blockHash);
      // It reads the time and the base fee of the transaction's block.
      const block = await result('eth_getBlockByHash', receipt.blockHash, false);
      assert.ok(block.transactions.includes(hash));
      return receipt;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${hash} was not included`);
}

await check('coins are sent', () => send({ to: OTHER, value: '0x1' }));

await check('a token is added and sent', async () => {
  const { abi, bytecode } = artifact('Token');
  const { contractAddress: to } = await send({ data: encodeDeployData({ abi, bytecode, args: [100n] }) });
  assert.notEqual(await result('eth_getCode', to, 'latest'), '0x');
  const read = async (functionName, ...args) =>
    result('eth_call', { to, data: encodeFunctionData({ abi, functionName, args }) }, 'latest');
  assert.deepEqual(decodeAbiParameters([{ type: 'string' }], await read('symbol')), ['BENCH']);
  assert.equal(Number(await read('decimals')), 18);
  await send({ to, data: encodeFunctionData({ abi, functionName: 'transfer', args: [OTHER, 3n] }) });
  assert.equal(Number(await read('balanceOf', OTHER)), 3);
  // Before it asks its user it tells what would fail, by the estimate's error.
  const { error } = await ask('eth_estimateGas', {
    from: account.address,
    to,
    data: encodeFunctionData({ abi, functionName: 'transfer', args: [OTHER, 1000n] }),
  });
  assert.equal(error.code, 3);
  assert.match(error.message, /^execution reverted/);
  assert.equal(error.data, '0xf4d678b8'); // InsufficientBalance()
});

await check('balances of many accounts in one call, by a contract that is not there', async () => {
  // MetaMask asks through contracts at fixed addresses; where they are missing it gets an empty answer and goes on.
  assert.equal(
    await result('eth_call', { to: '0xcA11bde05977b3631167028862bE2a173976CA11', data: '0x82ad56cb' }, 'latest'),
    '0x',
  );
});

await check('what the node does not do is said with -32601', async () => {
  for (const method of ['eth_accountsNever', 'personal_sign', 'wallet_getCapabilities']) {
    const { error } = await ask(method);
    assert.equal(error?.code, -32601, `${method}: ${JSON.stringify(error)}`);
  }
  assert.deepEqual(await result('eth_accounts'), []);
  assert.equal(await result('eth_syncing'), false);
});
