// What the JavaScript client tests share: the environment, artifacts, samples, decimals, checks.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const setting = (name, otherwise) => process.env[name] || otherwise;
const repository = (path) => fileURLToPath(new URL(`../../../../${path}`, import.meta.url));

export const RPC = setting('PENSTOCK_RPC', 'http://127.0.0.1:8545');
export const WS = setting('PENSTOCK_WS', RPC.replace(/^http/, 'ws'));
const CONTRACTS = setting('PENSTOCK_CONTRACTS', repository('app/contracts/out'));
const MODELS = setting('PENSTOCK_MODELS', repository('inference/models'));
export const CLIENTS = setting('PENSTOCK_CLIENTS', repository('target/test-clients'));

/** Loads a package from where `scripts/contracts --install` put it, which import would not search. */
export const require = createRequire(`${CLIENTS}/`);

export const CHAIN_ID = 7483;
/** The first account of the mnemonic `test test ... junk`. */
export const KEY = '0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80';
export const PRECOMPILE = '0x00000000000000000000000000000000000000F4';
/** What clients of model-calling contracts send: enough for every call here, and no estimate is asked for. */
export const MODEL_GAS = 30_000_000n;

/** anvil, cast or forge themselves: npm's wrappers around them lose the exit status. */
export function foundry(name) {
  const packages = join(CLIENTS, 'node_modules/@foundry-rs');
  const native = readdirSync(packages).find((entry) => entry.startsWith(`${name}-`));
  assert.ok(native, `no ${name} for this machine in ${packages}`);
  return join(packages, native, 'bin', name);
}

/** Runs a program; what it wrote. The error of one that fails has its `stdout` and `stderr`. */
export const run = (file, args, options = {}) => new Promise((resolve, reject) => {
  const settings = { maxBuffer: 1 << 28, timeout: 120_000, ...options };
  execFile(file, args, settings, (error, stdout, stderr) => {
    if (error) reject(Object.assign(error, { stdout, stderr, message: `${error.message}\n${stdout}` }));
    else resolve(stdout.trim());
  }).stdin.end();
});

/** The {abi, bytecode} of a contract. */
export const artifact = (name) => JSON.parse(readFileSync(join(CONTRACTS, `${name}.json`), 'utf8'));

/** What onnxruntime answered: the samples of batch 1 of `penstock/NAME`. */
export function samples(name) {
  const { samples } = JSON.parse(readFileSync(join(MODELS, name, 'samples.json'), 'utf8'));
  return samples.filter(({ inputs }) => Object.values(inputs).every(({ shape }) => shape[0] === 1));
}

/** A finite JavaScript number as Number {value, decimals}, by its shortest decimal form. */
export function toDecimal(number) {
  const [mantissa, exponent = '0'] = String(number).split('e');
  const [whole, fraction = ''] = mantissa.split('.');
  return { value: BigInt(whole + fraction), decimals: BigInt(fraction.length) - BigInt(exponent) };
}

/** Number {value, decimals} as the nearest JavaScript number. */
export const fromDecimal = ({ value, decimals }) => Number(`${value}e${-decimals}`);

/** Fails unless `numbers` are the `expected` ones within 1e-4, relative above 1. */
export function assertClose(numbers, expected) {
  const actual = numbers.map(fromDecimal);
  assert.equal(actual.length, expected.length, 'count of numbers');
  actual.forEach((number, i) => {
    const allowed = 1e-4 * Math.max(1, Math.abs(expected[i]));
    assert.ok(Math.abs(number - expected[i]) <= allowed, `number ${i} is ${number}, onnxruntime says ${expected[i]}`);
  });
}

/** One JSON-RPC request without any client's interpretation: {result} or {error: {code, message, data}}. */
export async function rpc(method, ...params) {
  const response = await fetch(RPC, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
  });
  return response.json();
}

/** As `rpc`, failing on an error. */
export async function result(method, ...params) {
  const { error, result } = await rpc(method, ...params);
  assert.equal(error, undefined, `${method} answered ${JSON.stringify(error)}`);
  return result;
}

/** The promise's value, or an error that says what did not come within `seconds`. */
export async function within(seconds, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come within ${seconds} s`)), seconds * 1000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Runs one check and prints a line for it; the first that fails ends the program. */
export async function check(whatHolds, body) {
  try {
    const value = await body();
    console.log(`ok - ${whatHolds}`);
    return value;
  } catch (error) {
    console.log(`not ok - ${whatHolds}`);
    console.error(`not ok - ${whatHolds}\n${error?.stack ?? error}`);
    process.exit(1);
  }
}
