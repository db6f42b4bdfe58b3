/**
 * A daemon in small for tests: serves disks through one transport until told to stop.
 *
 * Usage: node serve-disks.mjs CONFIG, where CONFIG is JSON:
 * {kind, mountpoint, disks, threads?, writeback?, allowOther?, adopt?}.
 * Then one JSON object a line: on stdin {"do": ACTION, ...} with an ACTION of `actions` below, on
 * stdout one answer each; the first line is {"ready": true} or {"error": ...}, and
 * {"ended": WHY} comes when it is over. It ends when stdin does.
 */
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Worker } from 'node:worker_threads';
import { createKernelTransport } from '../../dist/modules/transport/kernel/channel.js';
import { DiskNamespace } from './disk-namespace.mjs';
import { COUNTERS, FileDevice } from './file-device.mjs';

const config = JSON.parse(process.argv[2]);
const counters = new Int32Array(new SharedArrayBuffer(4 * COUNTERS.length));
const namespace = new DiskNamespace(config.disks);
const events = [];
const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

const threads = {
  start(setup, receive) {
    const worker = new Worker(new URL('./io-thread.mjs', import.meta.url), {
      workerData: { setup, disks: config.disks, counters },
      execArgv: [],
    });
    const ended = new Promise((resolve) => {
      worker.on('message', (message) => {
        if (message.type === 'end') resolve(message.end);
        else receive(message);
      });
      worker.on('error', (error) => events.push({ level: 'error', message: String(error) }));
      worker.on('exit', () => resolve('failed'));
    });
    return { ended };
  },
};

async function createTransport() {
  const { kind, mountpoint, allowOther = true, writeback = false } = config;
  const onEvent = (event) => events.push(event);
  if (kind === 'kernel') {
    const threadCount = config.threads ?? 2;
    return createKernelTransport({
      mountpoint,
      namespace,
      threads,
      threadCount,
      allowOther,
      writeback,
      onEvent,
      ...(config.adopt === undefined ? {} : { adopt: config.adopt }),
    });
  }
  const { createNativeTransport } = await import('../../dist/modules/transport/native-channel.js');
  const devices = config.disks.map((spec) => new FileDevice(spec, counters));
  const deviceOf = (handle) => devices[handle];
  return createNativeTransport({ mountpoint, namespace, deviceOf, allowOther, onEvent });
}

function failure(error) {
  return { error: { code: error.code, message: error.message, hint: error.hint } };
}

const transport = await createTransport();

const actions = {
  stop: async () => transport.stop(),
  force: async () => transport.stop({ force: true }),
  holders: () => transport.holders(),
  counters: () => ({
    ...Object.fromEntries(COUNTERS.map((name, index) => [name, Atomics.load(counters, index)])),
    opens: namespace.opens,
    releases: namespace.releases,
  }),
  events: () => events,
  /** Keeps the main thread from doing anything until a file is there, or the test has failed. */
  block: ({ until }) => {
    const nothing = new Int32Array(new SharedArrayBuffer(4));
    for (let round = 0; round < 2000 && !existsSync(until); round += 1) {
      Atomics.wait(nothing, 0, 0, 5);
    }
  },
  invalidate: ({ node }) => transport.invalidate(node),
  invalidateEntry: ({ parent, name }) => transport.invalidateEntry(parent, name),
};

try {
  await transport.start();
  say({ ready: true, mountpoint: transport.mountpoint });
} catch (error) {
  say(failure(error));
  process.exit(1);
}

const lines = createInterface({ input: process.stdin });
lines.on('line', async (line) => {
  const request = JSON.parse(line);
  try {
    say({ result: (await actions[request.do](request)) ?? null });
  } catch (error) {
    say(failure(error));
  }
});
let ended = false;
lines.on('close', () => {
  // Whoever started us is gone: leave nothing behind.
  if (!ended) void transport.stop({ force: true });
});
void transport.ended.then((why) => {
  ended = true;
  say({ ended: why, counters: actions.counters() });
  lines.close();
  process.exitCode = 0;
});
