// Deploys and asks a model with `forge script --broadcast`, and creates a contract with `forge create`.
//   scripts/contracts --install && node app/node/tests/clients/forge.mjs
// One line a check; ends at the first that fails.

import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CHAIN_ID, KEY, RPC, artifact, check, foundry, require, result, run } from './common.mjs';

const { decodeFunctionResult, encodeFunctionData } = require('viem');

const FROM = '0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266';
const beside = (path) => fileURLToPath(new URL(path, import.meta.url));

const project = mkdtempSync(join(tmpdir(), 'penstock-forge-'));
process.on('exit', () => rmSync(project, { recursive: true, force: true }));
cpSync(beside('forge'), project, { recursive: true });
// No more of them than the script needs: all are compiled.
for (const file of ['IInference.sol', 'Requests.sol', 'examples/Advisor.sol', 'test/Token.sol'])
  cpSync(beside(`../../../contracts/src/${file}`), join(project, 'src', file));
// forge wants a compiler that is a program; npm has it as JavaScript.
const solc = join(project, 'solc');
writeFileSync(
  solc,
  `#!${process.execPath}
const solc = require(${JSON.stringify(require.resolve('solc'))});
if (process.argv[2] === '--version') console.log('Version: ' + solc.version());
else process.stdout.write(solc.compile(require('node:fs').readFileSync(0, 'utf8')));
`,
  { mode: 0o755 },
);

const forge = (...args) =>
  run(foundry('forge'), args, {
    cwd: project,
    timeout: 300_000,
    env: { ...process.env, FOUNDRY_SOLC: solc, HOME: project },
  });

/** The answer of a contract's function, decoded. */
async function read(name, address, functionName, args) {
  const { abi } = artifact(name);
  const data = await result('eth_call', { to: address, data: encodeFunctionData({ abi, functionName, args }) }, 'latest');
  return decodeFunctionResult({ abi, functionName, data });
}

await check('forge script deploys, sends and asks a model', async () => {
  // Its second run of the transactions is in its own EVM, too, without the answer that the first was told.
  await forge(
    'script',
    'script/Ask.s.sol',
    '--broadcast',
    '--skip-simulation',
    '--private-key',
    KEY,
    '--slow',
    '--rpc-url',
    RPC,
  );
  const log = join(project, `broadcast/Ask.s.sol/${CHAIN_ID}/run-latest.json`);
  const { transactions, receipts } = JSON.parse(readFileSync(log, 'utf8'));
  assert.deepEqual(
    receipts.map(({ status }) => status),
    ['0x1', '0x1', '0x1', '0x1'],
  );
  const [token, advisor] = ['Token', 'Advisor'].map(
    (name) =>
      transactions.find(({ transactionType, contractName }) => transactionType === 'CREATE' && contractName === name)
        .contractAddress,
  );
  assert.equal(await read('Token', token, 'balanceOf', ['0x0000000000000000000000000000000000c0ffee']), 5n);
  assert.deepEqual(await read('Advisor', advisor, 'answerOf', [FROM]), [17n, 0n]); // 4 + 2 * 5 + 3
});

await check('forge create deploys', async () => {
  const output = await forge(
    'create',
    'src/test/Token.sol:Token',
    '--broadcast',
    '--json',
    '--rpc-url',
    RPC,
    '--private-key',
    KEY,
    '--constructor-args',
    '77',
  );
  const { deployedTo } = JSON.parse(output.slice(output.indexOf('{')));
  assert.equal(await read('Token', deployedTo, 'balanceOf', [FROM]), 77n);
});
