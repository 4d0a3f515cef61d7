// Random transactions from a seed, for anvil.mjs: every kind of them, and whatever contracts do.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { CHAIN_ID, artifact, require } from './common.mjs';

const solc = require('solc');
const {
  concatHex, encodeDeployData, encodeFunctionData, getContractAddress, hexToBytes, keccak256, numberToHex, pad, parseGwei,
  toHex,
} = require('viem');
const { mnemonicToAccount, privateKeyToAccount } = require('viem/accounts');

export const SEED = Number(process.env.SEED || Date.now() % 1e9);

/** Numbers from the seed (mulberry32). */
let state = SEED >>> 0;
function random() {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), state | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const below = (n) => Math.floor(random() * n);
const one = (list) => list[below(list.length)];
const chance = (p) => random() < p;
const bytes = (n) => toHex(Uint8Array.from({ length: n }, () => (chance(0.3) ? 0 : below(256))));
const word = () => (chance(0.3) ? BigInt(below(70)) : BigInt(bytes(32)));

export const senders = [
  ...Array.from({ length: 10 }, (_, addressIndex) =>
    mnemonicToAccount('test test test test test test test test test test test junk', { addressIndex }),
  ),
  ...Array.from({ length: 20 }, (_, i) => privateKeyToAccount(keccak256(toHex(`sender ${i}`)))),
];
/** They only sign authorizations; that, too, uses their nonces. */
export const delegators = Array.from({ length: 20 }, (_, i) => privateKeyToAccount(keccak256(toHex(`delegator ${i}`))));

const source = readFileSync(fileURLToPath(new URL('Menagerie.sol', import.meta.url)), 'utf8');
const compiled = JSON.parse(
  solc.compile(
    JSON.stringify({
      language: 'Solidity',
      sources: { 'Menagerie.sol': { content: source } },
      settings: {
        evmVersion: 'osaka',
        optimizer: { enabled: true, runs: 200 },
        outputSelection: { '*': { '*': ['abi', 'evm.bytecode.object'] } },
      },
    }),
  ),
);
export const { abi, evm } = compiled.contracts['Menagerie.sol'].Menagerie;
export const menagerie = `0x${evm.bytecode.object}`;
export const token = artifact('Token');

export const nonces = new Map([...senders, ...delegators].map(({ address }) => [address, 0]));
/** Contracts that can be called: [address, abi]. */
export const contracts = [];
/** Accounts that transactions go to. */
export const accounts = new Set([...senders, ...delegators].map(({ address }) => address));

/** A signed creation by the first sender, whose contract is one that can be called from then on. */
export async function deploy(data, abi) {
  const sender = senders[0];
  const nonce = nonces.get(sender.address);
  nonces.set(sender.address, nonce + 1);
  const address = getContractAddress({ from: sender.address, nonce: BigInt(nonce) });
  contracts.push([address, abi]);
  accounts.add(address);
  return sender.signTransaction({
    type: 'eip1559',
    chainId: CHAIN_ID,
    nonce,
    data,
    gas: 5_000_000n,
    maxFeePerGas: parseGwei('100'),
    maxPriorityFeePerGas: 1n,
  });
}

/** Code of random operations on random numbers, most of which do something: it ends, fails, or runs out of gas. */
function randomCode() {
  const parts = [];
  const push = (value) => {
    const hex = toHex(value).slice(2);
    const even = hex.length % 2 ? `0${hex}` : hex;
    parts.push(`${(0x5f + even.length / 2).toString(16)}${even}`);
  };
  for (let i = 0; i < 8; i++) push(word());
  const operations = [
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
    0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x20, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x3b, 0x3c,
    0x3d, 0x3e, 0x3f, 0x41, 0x42, 0x43, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x58, 0x59,
    0x5a, 0x5b, 0x5c, 0x5d, 0x5e, 0x80, 0x81, 0x82, 0x83, 0x90, 0x91, 0x92, 0x93, 0xa0, 0xa1, 0xa2, 0xf1, 0xf2, 0xf4, 0xfa,
  ];
  for (let i = below(60); i > 0; i--) {
    // Small numbers between them, else every offset is out of range; calls go to small addresses: precompiles and nothing.
    if (chance(0.5)) push(BigInt(below(0x60)));
    const operation = one(operations);
    if ([0xf1, 0xf2, 0xf4, 0xfa].includes(operation))
      for (const n of [64, 32, 64, 0, 0, below(20), 50_000]) push(BigInt(n));
    parts.push(operation.toString(16).padStart(2, '0'));
  }
  if (chance(0.5)) parts.push('60205ff3'); // return one word
  if (chance(0.1)) parts.push('fe');
  return `0x${parts.join('')}`;
}

/** Input for a precompile, often a right one. */
function precompileCall() {
  const hex = (n) => pad(numberToHex(n), { size: 32 });
  const G1 = [1n, 2n].map(hex);
  const input = {
    1: () => concatHex([keccak256('0x01'), hex(27n), bytes(32), bytes(32)]),
    2: () => bytes(below(300)),
    3: () => bytes(below(300)),
    4: () => bytes(below(300)),
    5: () => concatHex([hex(BigInt(below(40))), hex(BigInt(below(40))), hex(BigInt(below(40))), bytes(120)]),
    6: () => concatHex([...G1, ...G1]),
    7: () => concatHex([...G1, hex(word())]),
    8: () => bytes(192 * below(2)),
    9: () => concatHex([pad(numberToHex(below(20)), { size: 4 }), bytes(208), `0x0${below(3)}`]),
    10: () => bytes(192),
    11: () => pad('0x', { size: 256 }),
    12: () => bytes(160 * (1 + below(2))),
    15: () => pad('0x', { size: 384 }),
    16: () => bytes(64),
    17: () => bytes(128),
    256: () => bytes(160),
  };
  const address = Number(one(Object.keys(input)));
  return [pad(numberToHex(address), { size: 20 }), chance(0.1) ? bytes(below(400)) : input[address]()];
}

const fresh = () => pad(toHex(below(2 ** 31) + 2 ** 32), { size: 20 });
const anyone = () => (chance(0.3) ? fresh() : one([...accounts]));

const call = (functionName, ...args) => encodeFunctionData({ abi, functionName, args });
/** A call of one of the menagerie's functions. */
const tricks = {
  write: () => call('write', word(), chance(0.4) ? 0n : word()),
  clear: () => call('clear', BigInt(below(64)), BigInt(below(64))),
  push: () => call('push', bytes(below(200))),
  log: () => call('log', BigInt(below(10)), bytes(below(100))),
  log_: () => call('log', word() % 2n ** 255n, bytes(below(1000))),
  fail: () => call('fail', BigInt(below(9))),
  precompile: () => {
    const [address, data] = precompileCall();
    return call('relay', BigInt(below(8)), address, 0n, 200_000n, data);
  },
  relay: () =>
    call(
      'relay',
      BigInt(below(8)),
      chance(0.6) ? one(contracts)[0] : anyone(),
      BigInt(below(3)),
      BigInt(below(300_000)),
      trick(),
    ),
  spawn: () => call('spawn', chance(0.5) ? randomCode() : '0x60fe5f5360015ff3', BigInt(below(2)), BigInt(below(20))),
  die: () => call('die', anyone()),
  bornToDie: () => call('bornToDie', anyone()),
  around: () => call('around'),
  look: () => call('look', anyone()),
  transient_: () => call('transient_', word() % 2n ** 255n, word()),
  copy: () => call('copy', word(), word(), word()),
  zeros: () => call('zeros', word()),
};
let depth = 0;
function trick() {
  depth += 1;
  const name = depth > 3 ? 'write' : one(Object.keys(tricks));
  const data = tricks[name]();
  depth -= 1;
  return data;
}

/** What a transaction does: `to`, `data`, `value`, `gas`. */
const deeds = {
  transfer: () => ({ to: anyone(), value: word() % 1_000_000n, gas: chance(0.5) ? 21_000n : 100_000n }),
  create: () => ({ data: randomCode(), value: BigInt(below(3)), gas: BigInt(60_000 + below(400_000)) }),
  deploy: () => ({
    data: chance(0.5) ? menagerie : encodeDeployData({ ...token, args: [10n ** 6n] }),
    gas: BigInt(100_000 + below(3_000_000)),
  }),
  tokens: () => ({
    to: contracts[1][0],
    gas: 100_000n,
    data: encodeFunctionData({ abi: token.abi, functionName: 'transfer', args: [anyone(), BigInt(below(2000))] }),
  }),
  trick: () => ({ to: contracts[0][0], data: trick(), value: BigInt(below(3)), gas: BigInt(30_000 + below(600_000)) }),
  delegated: () => ({ to: one(delegators).address, data: trick(), gas: BigInt(40_000 + below(400_000)) }),
  noise: () => ({ to: one(contracts)[0], data: bytes(below(100)), gas: BigInt(30_000 + below(100_000)) }),
};
const weights = { transfer: 3, create: 4, deploy: 1, tokens: 3, trick: 10, delegated: 2, noise: 1 };
const drawn = Object.entries(weights).flatMap(([name, weight]) => Array(weight).fill(deeds[name]));

const list = () =>
  Array.from({ length: below(4) }, () => ({
    address: anyone(),
    storageKeys: Array.from({ length: below(4) }, () => pad(numberToHex(below(64)), { size: 32 })),
  }));

async function authorization() {
  const signer = one(delegators);
  const nonce = nonces.get(signer.address);
  const right = chance(0.8);
  const chainId = chance(0.3) ? 0 : chance(0.1) ? 1 : CHAIN_ID;
  const address = chance(0.2) ? `0x${'0'.repeat(40)}` : chance(0.7) ? contracts[0][0] : anyone();
  // Those who have used their nonces up differently are wrong from then on, which is one of the cases.
  if (right && chainId !== 1) nonces.set(signer.address, nonce + 1);
  return signer.signAuthorization({ contractAddress: address, chainId, nonce: right ? nonce : nonce + 1 + below(2) });
}

/** A signed one. */
export async function randomTransaction() {
  const sender = one(senders);
  const nonce = nonces.get(sender.address);
  nonces.set(sender.address, nonce + 1);
  const deed = one(drawn)();
  const kind = below(4);
  const fees = { maxFeePerGas: parseGwei('200'), maxPriorityFeePerGas: BigInt(below(3_000_000_000)) };
  const gasPrice = parseGwei('200') + BigInt(below(1_000_000_000));
  const base = { chainId: CHAIN_ID, nonce, ...deed };
  // Enough for the intrinsic gas and for EIP-7623's floor, else it would be refused and leave a gap in the nonces.
  base.gas += BigInt(deed.data ? 40 * hexToBytes(deed.data).length : 0) + (deed.to ? 0n : 60_000n);
  if (kind === 0) return sender.signTransaction({ type: 'legacy', ...base, gasPrice });
  const accessList = list();
  base.gas += BigInt(accessList.reduce((sum, { storageKeys }) => sum + 2_400 + 1_900 * storageKeys.length, 0));
  if (kind === 1) return sender.signTransaction({ type: 'eip2930', ...base, gasPrice, accessList });
  if (kind === 2 || !deed.to) return sender.signTransaction({ type: 'eip1559', ...base, ...fees, accessList });
  const authorizationList = await Promise.all(Array.from({ length: 1 + below(3) }, authorization));
  base.gas += 25_000n * BigInt(authorizationList.length);
  return sender.signTransaction({ type: 'eip7702', ...base, ...fees, accessList, authorizationList });
}
