/** Reads a chain map while another thread changes it: see map-readers.test.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import { ChainMap } from '../../dist/modules/engine/shared/chain-map.js';
import { enterGate, leaveGate } from '../../dist/modules/engine/shared/gate.js';
import { DATA, ZERO } from '../../dist/modules/engine/shared/map-words.js';
import { NodePool } from '../../dist/modules/engine/shared/node-pool.js';
import { PagePool } from '../../dist/modules/engine/shared/page-pool.js';
import {
  THREAD,
  THREAD_WORDS,
  viewSharedMemory,
} from '../../dist/modules/engine/shared/shared-memory.js';

const { memory, place, blocks, spread, firstAddress, thread, stop } = workerData;
const views = viewSharedMemory(memory);
const map = new ChainMap(new NodePool(new PagePool(views)), place);
const at = { volume: 0, thread };
const served = thread * THREAD_WORDS + THREAD.served;
let reads = 0;
let wrong;
// The first look tells the writer that this thread runs.
parentPort.postMessage('reading');
while (Atomics.load(stop, 0) === 0 && wrong === undefined) {
  const block = Math.floor(Math.random() * blocks);
  const limit = Math.min(blocks - block, 1 + Math.floor(Math.random() * 3000));
  enterGate(views.volumeWords, views.threads, at);
  map.find(block, limit);
  leaveGate(views.threads, thread);
  views.threads[served] += 1;
  reads += 1;
  const { kind, address, count } = map;
  const isOwn = kind !== DATA || (address - firstAddress - block) % spread === 0;
  if (kind > DATA || (kind !== DATA && kind > ZERO) || !isOwn || count < 1 || count > limit) {
    wrong = { block, limit, kind, address, count };
  }
}
parentPort.postMessage({ reads, wrong });
