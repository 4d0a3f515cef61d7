// The state root of accounts, as Ethereum defines it: as much of a Merkle Patricia trie as computes it from all of them.

import { require } from './common.mjs';

const { keccak256, toHex, toRlp } = require('viem');

const nibbles = (hex) => [...hex.slice(2)].map((digit) => parseInt(digit, 16));
/** Hex-prefix encoding of a path. */
const path = (part, leaf) => {
  const odd = part.length % 2;
  const flags = (leaf ? 2 : 0) + odd;
  return `0x${[flags, ...(odd ? [] : [0]), ...part].map((nibble) => nibble.toString(16)).join('')}`;
};

/** The node for entries [nibbles, value], sorted and different, from `depth` on. */
function node(entries, depth) {
  if (entries.length === 1) return [path(entries[0][0].slice(depth), true), entries[0][1]];
  const [[first], [last]] = [entries[0], entries.at(-1)];
  let shared = depth;
  while (first[shared] === last[shared]) shared += 1;
  if (shared > depth) return [path(first.slice(depth, shared), false), reference(node(entries, shared))];
  const branch = Array.from({ length: 16 }, (_, nibble) => {
    const below = entries.filter(([key]) => key[depth] === nibble);
    return below.length ? reference(node(below, depth + 1)) : '0x';
  });
  return [...branch, '0x'];
}
/** What the node above holds of one: itself when it is small, else its hash. */
const reference = (node) => {
  const encoded = toRlp(node);
  return encoded.length < 2 + 64 ? node : keccak256(encoded);
};

/** The root for [key, value] pairs, whose keys are hashed. */
function root(pairs) {
  if (pairs.length === 0) return keccak256('0x80');
  const hashed = pairs.map(([key, value]) => [keccak256(key), value]).sort(([a], [b]) => (a < b ? -1 : 1));
  return keccak256(
    toRlp(
      node(
        hashed.map(([key, value]) => [nibbles(key), value]),
        0,
      ),
    ),
  );
}

const scalar = (value) => (BigInt(value) === 0n ? '0x' : toHex(BigInt(value)).replace(/^0x(.(..)*)$/, '0x0$1'));

/** The root for {address: {balance, nonce, code, storage}}, without what EIP-161 does not let exist. */
export function stateRoot(accounts) {
  const pairs = [];
  for (const [address, { balance, nonce, code, storage }] of Object.entries(accounts)) {
    if (BigInt(balance) === 0n && Number(nonce) === 0 && code === '0x') continue;
    const slots = Object.entries(storage).filter(([, value]) => BigInt(value) !== 0n);
    const storageRoot = root(slots.map(([slot, value]) => [slot, toRlp(scalar(value))]));
    pairs.push([address, toRlp([scalar(nonce), scalar(balance), storageRoot, keccak256(code)])]);
  }
  return root(pairs);
}
