// What the scripts with viem beyond viem.mjs share: clients, signed transactions, calls of contracts.

import { CHAIN_ID, KEY, RPC, WS, artifact, require, samples, toDecimal } from './common.mjs';

const {
  createPublicClient, createWalletClient, decodeFunctionResult, defineChain, encodeFunctionData, http, parseGwei,
} = require('viem');
const { generatePrivateKey, privateKeyToAccount } = require('viem/accounts');

export const chain = defineChain({
  id: CHAIN_ID,
  name: 'Penstock',
  nativeCurrency: { name: 'Penstock', symbol: 'PEN', decimals: 18 },
  rpcUrls: { default: { http: [RPC], webSocket: [WS] } },
});
export const account = privateKeyToAccount(KEY);
export const reader = createPublicClient({ chain, transport: http(RPC), pollingInterval: 50, cacheTime: 0 });
export const wallet = createWalletClient({ chain, account, transport: http(RPC) });
export const token = artifact('Token');
export const probe = artifact('Probe');
export const inference = artifact('IInference').abi;
export const DIGITS = 'penstock/digits-mlp';
export const nobody = () => privateKeyToAccount(generatePrivateKey());
export const same = (a, b) => a.toLowerCase() === b.toLowerCase();

/** A signed transaction, with fees that hold for the whole run. */
export async function sign(fields, signer = account) {
  const nonce = fields.nonce ?? (await reader.getTransactionCount({ address: signer.address, blockTag: 'pending' }));
  return signer.signTransaction({
    type: 'eip1559',
    chainId: CHAIN_ID,
    gas: 100_000n,
    maxFeePerGas: parseGwei('50'),
    maxPriorityFeePerGas: parseGwei('1'),
    ...fields,
    nonce,
  });
}
/** A contract's address. */
export async function deployed({ bytecode, abi }, args = []) {
  const hash = await wallet.deployContract({ abi, bytecode, args });
  return (await reader.waitForTransactionReceipt({ hash })).contractAddress;
}

export const transfer = (to, value) => encodeFunctionData({ abi: token.abi, functionName: 'transfer', args: [to, value] });
export const balanceOf = (of) => encodeFunctionData({ abi: token.abi, functionName: 'balanceOf', args: [of] });

// Questions to a model, by the contract Probe.

const [{ inputs, outputs }, other] = samples('digits-mlp');
/** A question that nobody asked before. */
export const unseen = other;
export const question = ({ inputs }) => {
  const [[name, { values, shape }]] = Object.entries(inputs);
  return encodeFunctionData({ abi: probe.abi, functionName: 'ask', args: [DIGITS, name, values.map(toDecimal), shape] });
};
export const ask = question({ inputs });
export const numbersOf = (data) =>
  decodeFunctionResult({ abi: probe.abi, functionName: 'ask', data }).numbers.flatMap(({ values }) => values);
export const answerOf = (data) => decodeFunctionResult({ abi: probe.abi, functionName: 'ask', data });
export const right = Object.values(outputs).flatMap(({ values }) => values);
