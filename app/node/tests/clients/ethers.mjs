// A short look at a Penstock chain through ethers: connect, deploy, send, wait, read the event.
//   scripts/contracts --install && node app/node/tests/clients/ethers.mjs

import assert from 'node:assert/strict';
import {
  CHAIN_ID, KEY, MODEL_GAS, PRECOMPILE, RPC,
  artifact, assertClose, check, require, samples, toDecimal,
} from './common.mjs';

const { Contract, ContractFactory, Interface, JsonRpcProvider, NonceManager, Wallet } = require('ethers');

const provider = new JsonRpcProvider(RPC, undefined, { pollingInterval: 100, cacheTimeout: -1 });
const signer = new NonceManager(new Wallet(KEY, provider));
const inference = new Interface(artifact('IInference').abi);

await check('ethers connects', async () => {
  assert.equal((await provider.getNetwork()).chainId, BigInt(CHAIN_ID));
  assert.ok((await provider.getBlockNumber()) >= 0);
});

const probe = await check('ethers deploys', async () => {
  const { abi, bytecode } = artifact('Probe');
  const contract = await new ContractFactory(abi, bytecode, signer).deploy();
  await contract.waitForDeployment();
  assert.notEqual(await provider.getCode(await contract.getAddress()), '0x');
  return contract;
});

const [{ inputs, outputs }] = samples('digits-mlp');
const [[name, { values, shape }]] = Object.entries(inputs);
const question = ['penstock/digits-mlp', name, values.map(toDecimal), shape];

const receipt = await check('ethers sends a request and waits for it', async () => {
  const receipt = await (await probe.ask(...question, { gasLimit: MODEL_GAS })).wait();
  assert.equal(receipt.status, 1);
  return receipt;
});

await check('ethers decodes the event of the precompile', async () => {
  const log = receipt.logs.find(({ address }) => address.toLowerCase() === PRECOMPILE.toLowerCase());
  const { name: event, args: [id, request, response] } = inference.parseLog(log);
  assert.equal(event, 'ModelInferenceEvent');
  assert.match(id, /^0x[0-9a-f]{64}$/);
  assert.equal(request.modelCID, 'penstock/digits-mlp');
  assert.equal(response.is_simulation_result, false);
  assertClose(
    response.numbers.flatMap((tensor) => [...tensor.getValue('values')]),
    Object.values(outputs).flatMap((output) => output.values),
  );
});

await check('ethers reads what was committed, and its event through a filter', async () => {
  const stored = await probe.firstNumber();
  const [logged] = await probe.queryFilter(probe.filters.Answered(), receipt.blockNumber, receipt.blockNumber);
  assert.equal(logged.args.getValue('value'), stored.getValue('value'));
  assert.equal(logged.args.simulated, false);
});

await check('ethers calls without sending', async () => {
  const reading = new Contract(await probe.getAddress(), artifact('Probe').abi, provider);
  const output = await reading.ask.staticCall(...question);
  assert.equal(output.numbers.length, Object.keys(outputs).length);
});

provider.destroy();
