// Compiles src/ with the pinned solc and writes one OUT/NAME.json a contract. Called by scripts/contracts:
//   node compile.mjs NODE_MODULES_PARENT OUT

import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const [, , modules, out] = process.argv;
const here = dirname(fileURLToPath(import.meta.url));
const solc = createRequire(`${resolve(modules)}/`)('solc');

const files = readdirSync(join(here, 'src'), { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name.endsWith('.sol'))
  .map((entry) => relative(here, join(entry.parentPath ?? entry.path, entry.name)))
  .sort();

const output = JSON.parse(
  solc.compile(
    JSON.stringify({
      language: 'Solidity',
      sources: Object.fromEntries(files.map((file) => [file, { content: readFileSync(join(here, file), 'utf8') }])),
      settings: {
        evmVersion: 'prague',
        optimizer: { enabled: true, runs: 200 },
        // Without it the optimizer inlines the decoder of ModelOutput and fails with "Stack too deep".
        viaIR: true,
        // No hash of the sources at the end of the code: a changed comment leaves the bytecode alone.
        metadata: { bytecodeHash: 'none' },
        outputSelection: { '*': { '*': ['abi', 'evm.bytecode.object', 'evm.deployedBytecode.object'] } },
      },
    }),
  ),
);

const complaints = output.errors ?? [];
for (const { formattedMessage } of complaints) console.error(formattedMessage);
if (complaints.length > 0) process.exit(1);

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
for (const file of files) {
  for (const [contractName, { abi, evm }] of Object.entries(output.contracts[file] ?? {})) {
    const artifact = {
      contractName,
      abi,
      bytecode: `0x${evm.bytecode.object}`,
      deployedBytecode: `0x${evm.deployedBytecode.object}`,
    };
    writeFileSync(join(out, `${contractName}.json`), `${JSON.stringify(artifact, null, 2)}\n`);
  }
}
