// A short look at a Penstock chain through ethers: connect, deploy, send, wait, replace, delegate, read and hear events.
//   scripts/contracts --install && node app/node/tests/clients/ethers.mjs

import assert from 'node:assert/strict';
import {
  CHAIN_ID, KEY, MODEL_GAS, PRECOMPILE, RPC, WS,
  artifact, assertClose, check, require, samples, toDecimal, within,
} from './common.mjs';

const {
  Contract, ContractFactory, Interface, JsonRpcProvider, NonceManager, Wallet, WebSocketProvider,
} = require('ethers');

const provider = new JsonRpcProvider(RPC, undefined, { pollingInterval: 100, cacheTimeout: -1 });
const wallet = new Wallet(KEY, provider);
const signer = new NonceManager(wallet);
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

await check('ethers delegates an account (EIP-7702), and a contract answers in its place', async () => {
  const authority = Wallet.createRandom().connect(provider);
  const address = await probe.getAddress();
  const authorization = await authority.authorize({ address, nonce: 0, chainId: CHAIN_ID });
  const sent = await signer.sendTransaction({ type: 4, to: signer.getAddress(), authorizationList: [authorization] });
  assert.equal((await sent.wait()).type, 4);
  assert.equal(await provider.getCode(authority.address), `0xef0100${address.slice(2).toLowerCase()}`);
  assert.equal(await new Contract(authority.address, artifact('Probe').abi, provider).lastOk(), false);
});

await check('ethers says that a transaction was replaced', async () => {
  const nonce = await provider.getTransactionCount(wallet.address);
  const fees = { gasLimit: 21_000n, maxFeePerGas: 10n ** 10n, maxPriorityFeePerGas: 10n ** 9n };
  const first = await wallet.sendTransaction({ to: PRECOMPILE, nonce: nonce + 1, ...fees, gasLimit: 100_000n });
  const waiting = first.wait(1, 20_000).then(() => null, (error) => error);
  await new Promise((resolve) => setTimeout(resolve, 300));
  const dearer = { maxFeePerGas: 2n * 10n ** 10n, maxPriorityFeePerGas: 2n * 10n ** 9n };
  await wallet.sendTransaction({ to: wallet.address, nonce: nonce + 1, ...fees, ...dearer });
  await wallet.sendTransaction({ to: wallet.address, nonce, ...fees });
  const error = await waiting;
  assert.equal(error?.code, 'TRANSACTION_REPLACED', error?.message);
  assert.equal(error.reason, 'cancelled');
  signer.reset();
});

await check('ethers knows the refusals by its own names', async () => {
  const poor = Wallet.createRandom().connect(provider);
  const spend = { to: wallet.address, value: 1n, gasLimit: 21_000n, maxFeePerGas: 10n ** 10n, maxPriorityFeePerGas: 1n };
  await assert.rejects(poor.sendTransaction(spend), { code: 'INSUFFICIENT_FUNDS' });
  await assert.rejects(wallet.sendTransaction({ ...spend, nonce: 0 }), { code: 'NONCE_EXPIRED' });
  const failing = new Contract(await probe.getAddress(), artifact('Probe').abi, provider);
  await assert.rejects(failing.ask.staticCall('nobody/nothing', ...question.slice(1)), { code: 'CALL_EXCEPTION' });
});

await check('ethers hears events over WebSocket', async () => {
  const socket = new WebSocketProvider(WS);
  // ethers unsubscribes by itself when the event came, and tells nobody: a provider that is gone by then ends the program.
  const send = socket.send.bind(socket);
  const unsubscribed = new Promise((resolve) => {
    socket.send = (method, params) => {
      const sent = send(method, params);
      if (method === 'eth_unsubscribe') sent.then(resolve);
      return sent;
    };
  });
  const heard = new Promise((resolve) => {
    new Contract(probe.target, artifact('Probe').abi, socket).once('Answered', (...values) => resolve(values.at(-1)));
  });
  await new Promise((resolve) => setTimeout(resolve, 300));
  const { hash } = await (await probe.ask(...question, { gasLimit: MODEL_GAS })).wait();
  assert.equal((await within(10, 'the event', heard)).log.transactionHash, hash);
  await within(10, 'the answer to eth_unsubscribe', unsubscribed);
  await socket.destroy();
});

provider.destroy();
