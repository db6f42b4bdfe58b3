/** Flushes of a disk, as I/O threads do them and as the main thread does. */
import { rmSync } from 'node:fs';
import t, { type Test } from 'tap';
import { BLOCK_SIZE, MiB } from '../../src/common/units.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import type { Volume } from '../../src/engine/volume/volume.js';
import { ScratchEngine } from '../support/engine.js';
import { aroundHostCalls } from '../support/host-faults.js';

/** Both ways to the same promise; either is what a guest's fsync may meet. */
const WAYS: Readonly<Record<string, (volume: Volume) => Promise<void>>> = {
  'an I/O thread': async (volume) => volume.flush(),
  'the main thread': (volume) => volume.flushAsync(),
};

/** Of one commit, in their order: data, the count of records that rest on it, its durability. */
const COMMIT = ['head.sync-data', 'head.publish', 'head.sync-tuples', 'head.mirror'];

interface Disk {
  readonly scratch: ScratchEngine;
  readonly head: DeltaId;
  readonly volume: Volume;
}

async function openDisk(t: Test): Promise<Disk> {
  const scratch = new ScratchEngine();
  // A disk whose flush failed says so once more when it is closed.
  t.teardown(() => scratch.close().catch(() => rmSync(scratch.folder, { recursive: true })));
  const { deltas, volumes } = scratch.engine;
  const spec = { below: { kind: 'none' }, virtualSize: MiB, allocation: 'dynamic' } as const;
  const head = await deltas.create(spec);
  const { handle } = await volumes.acquire(head, { writable: true });
  return { scratch, head, volume: scratch.volumeOf(handle) };
}

function writeBlock(volume: Volume, block: number, value: number): void {
  volume.write(Buffer.alloc(BLOCK_SIZE, value), 0, block * BLOCK_SIZE, BLOCK_SIZE);
}

/** Writes down the labels of calls that change something; those named in `failing` fail. */
function record(t: Test): { readonly labels: string[]; readonly failing: Set<string> } {
  const [labels, failing] = [[] as string[], new Set<string>()];
  t.teardown(
    aroundHostCalls((call, run) => {
      if (call.name !== 'read') labels.push(call.label);
      if (!failing.has(call.label)) return run();
      const error = Object.assign(new Error('EIO: injected'), { code: 'EIO' });
      if (call.name.endsWith('Later')) return Promise.reject(error);
      throw error;
    }),
  );
  return { labels, failing };
}

for (const [who, flush] of Object.entries(WAYS)) {
  t.test(`what a flush by ${who} makes durable, in which order`, async (t) => {
    const { volume } = await openDisk(t);
    const { labels } = record(t);
    const flushed = async (): Promise<string[]> => {
      labels.length = 0;
      await flush(volume);
      return [...labels];
    };
    writeBlock(volume, 0, 1);
    t.same(await flushed(), COMMIT, 'a new block');
    t.same(await flushed(), [], 'nothing was written since');
    writeBlock(volume, 0, 2);
    t.same(await flushed(), ['head.sync-data'], 'a block that was there');
    volume.discard(0, BLOCK_SIZE);
    t.same(await flushed(), COMMIT, 'a discard');
  });

  for (const label of COMMIT) {
    t.test(`a flush by ${who} that fails at ${label} stays failed`, async (t) => {
      const { scratch, head, volume } = await openDisk(t);
      const { failing } = record(t);
      writeBlock(volume, 0, 1);
      failing.add(label);
      await t.rejects(flush(volume), { code: 'failed', errno: 'EIO' });
      failing.clear();
      const suspect = { errno: 'EIO', message: /an earlier flush of this disk failed/ };
      for (const [next, again] of Object.entries(WAYS)) {
        await t.rejects(again(volume), suspect, `a flush by ${next}`);
      }
      t.throws(() => writeBlock(volume, 1, 1), suspect, 'a write');
      t.ok(scratch.engine.volumes.isSuspect(head));
    });
  }
}
