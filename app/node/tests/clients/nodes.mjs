// Starts a Penstock chain and anvil beside each other, for the scripts that compare the two.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { foundry } from './common.mjs';

const PROGRAM =
  process.env.PENSTOCK_PROGRAM || fileURLToPath(new URL('../../../../target/release/penstock', import.meta.url));

/** A folder that is gone at the end. */
export const folder = mkdtempSync(join(tmpdir(), 'penstock-anvil-'));
const children = new Set();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

const freePort = () =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

/** Asks `url`: `ask(method, ...params)` once, failing on an error; `ask.all([[method, ...params], …])` in batches. */
export function client(url) {
  const post = async (body) => {
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return response.json();
  };
  const envelope = ([method, ...params], id) => ({ jsonrpc: '2.0', id, method, params });
  const ask = async (...request) => {
    const { error, result } = await post(envelope(request, 1));
    if (error) throw Object.assign(new Error(`${request[0]}: ${error.message}`), error);
    return result;
  };
  ask.all = async (requests) => {
    const answers = [];
    // Batches that both take.
    for (let at = 0; at < requests.length; at += 200) {
      const part = await post(requests.slice(at, at + 200).map(envelope));
      if (!Array.isArray(part)) throw new Error(`a batch was answered with ${JSON.stringify(part)}`);
      answers.push(...part.sort((a, b) => a.id - b.id));
    }
    return answers;
  };
  return ask;
}

/** A running node: its `url` and `pid`, a client `ask`, and `stop`. */
async function start(name, program, args, port) {
  const child = spawn(program, args, {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, PENSTOCK_HOME: folder },
  });
  children.add(child);
  let said = '';
  child.stderr.on('data', (data) => {
    said = (said + data).slice(-4000);
  });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const url = `http://127.0.0.1:${port}`;
  const ask = client(url);
  for (let tries = 0; ; tries++) {
    if (await ask('eth_chainId').catch(() => null)) break;
    if (tries === 300 || child.exitCode !== null) throw new Error(`${name} did not start:\n${said}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const stop = async () => {
    child.kill('SIGTERM');
    await ended;
    children.delete(child);
  };
  return { url, pid: child.pid, ask, stop };
}

export async function startPenstock(...args) {
  const port = await freePort();
  return start('penstock', PROGRAM, ['dev', '--quiet', '--rpc-listen', `127.0.0.1:${port}`, ...args], port);
}

export async function startAnvil(...args) {
  const port = await freePort();
  return start('anvil', foundry('anvil'), ['--port', String(port), '--quiet', ...args], port);
}
