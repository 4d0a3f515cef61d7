// hardhat.mjs copies this folder and contracts to a temporary one, and sets the environment.
import { defineConfig } from 'hardhat/config';

export default defineConfig({
  solidity: {
    version: '0.8.37',
    path: process.env.SOLC,
    settings: { evmVersion: 'prague', optimizer: { enabled: true, runs: 200 }, viaIR: true },
  },
  networks: {
    penstock: { type: 'http', chainType: 'l1', url: process.env.PENSTOCK_RPC, chainId: 7483, accounts: [process.env.KEY] },
  },
});
