// Run by `hardhat run`: what hardhat's own provider asks, signs and sends.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import hre from 'hardhat';

const require = createRequire(`${process.env.PENSTOCK_CLIENTS}/`);
const { decodeFunctionResult, encodeAbiParameters, encodeFunctionData } = require('viem');

const { provider } = await hre.network.connect('penstock');
const request = (method, ...params) => provider.request({ method, params });
const [from] = await request('eth_accounts');

/** Sends through hardhat, which fills in nonce, gas and fees and signs; the receipt of a success. */
async function send(transaction) {
  const hash = await request('eth_sendTransaction', { from, ...transaction });
  for (;;) {
    const receipt = await request('eth_getTransactionReceipt', hash);
    if (receipt !== null) {
      assert.equal(receipt.status, '0x1', JSON.stringify(receipt));
      return receipt;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
async function read({ abi }, to, functionName, args) {
  const data = await request('eth_call', { to, data: encodeFunctionData({ abi, functionName, args }) }, 'latest');
  return decodeFunctionResult({ abi, functionName, data });
}
const to = '0x0000000000000000000000000000000000c0ffee';

assert.equal(await request('eth_chainId'), '0x1d3b');
console.log('ok - hardhat connects');

const token = await hre.artifacts.readArtifact('Token');
const supply = encodeAbiParameters([{ type: 'uint256' }], [1_000_000n]).slice(2);
const { contractAddress } = await send({ data: token.bytecode + supply });
assert.equal(await read(token, contractAddress, 'balanceOf', [from]), 1_000_000n);
console.log('ok - hardhat compiles and deploys');

for (const [type, fields] of [
  ['0x2', {}],
  ['0x2', { maxFeePerGas: '0x4a817c800', maxPriorityFeePerGas: '0x3b9aca00' }],
  ['0x0', { gasPrice: '0x4a817c800' }],
  ['0x1', { gasPrice: '0x4a817c800', accessList: [{ address: contractAddress, storageKeys: [] }] }],
]) {
  const data = encodeFunctionData({ abi: token.abi, functionName: 'transfer', args: [to, 5n] });
  const { type: sent, logs } = await send({ to: contractAddress, data, ...fields });
  assert.equal(sent, type);
  assert.equal(logs.length, 1);
}
console.log('ok - hardhat sends transactions of types 0, 1 and 2');

const [log] = await request('eth_getLogs', { address: contractAddress, fromBlock: 'earliest', toBlock: 'latest' });
assert.equal(log.address, contractAddress.toLowerCase());
await assert.rejects(
  request(
    'eth_call',
    {
      from: to,
      to: contractAddress,
      data: encodeFunctionData({ abi: token.abi, functionName: 'transfer', args: [from, 1_000n] }),
    },
    'latest',
  ),
  /revert/,
);
console.log('ok - hardhat reads logs, and says that a call reverts');

const advisor = await hre.artifacts.readArtifact('Advisor');
const deployed = await send({ data: advisor.bytecode });
const number = (value) => ({ value, decimals: 0n });
const data = encodeFunctionData({
  abi: advisor.abi,
  functionName: 'ask',
  args: ['penstock/linear', 'x', [number(4n), number(5n)], []],
});
await send({ to: deployed.contractAddress, data });
assert.deepEqual(await read(advisor, deployed.contractAddress, 'answerOf', [from]), [17n, 0n]); // 4 + 2 * 5 + 3
console.log('ok - a contract that hardhat compiled asks a model');
