/**
 * Restores under the eyes of readers: through the page cache, through mappings, through loop
 * devices. Whoever holds the file is never pulled away from under: the restore is refused. Whoever
 * opens it afterwards sees what was restored, and nothing that a cache still held.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { startDaemon, type TestDaemon, TRANSPORTS } from '../support/daemon.js';
import { mapFile } from '../support/memory-map.mjs';
import { cannotServe } from '../support/mount-guard.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { ask } from '../support/takeover.js';
import { startProgram } from '../support/working-program.js';
import { fillSectors, generationsOf } from './sector-stamps.mjs';
import { Tally, triesOr } from './tally.js';

const RESTORES = triesOr(8);
const SECTOR = 512;
const SECTORS = 2048;
const BYTES = SECTORS * SECTOR;
/** One generation each. */
const SNAPSHOTS = [1, 2, 3, 4];
/** Of writes after a restore. */
const LATER = 1000;
const MOST_SECTORS = 256;
const TIMEOUT_MS = 120_000 + RESTORES * 5000;
const READER = new URL('./restore-reader.mjs', import.meta.url);
const RETRY_MS = 3;
const PATIENCE_MS = 60_000;
const VM = 'disk';

type Way = 'cached' | 'mapped' | 'loop' | 'loop, direct';
const WAYS: readonly Way[] = ['cached', 'mapped', 'loop', 'loop, direct'];

class Restores {
  readonly #daemon: TestDaemon;
  readonly #random: Random;
  readonly #path: string;
  /** Generation of each sector. */
  #model = new Uint32Array(SECTORS);
  /** Restores that were refused because somebody read just then. */
  refused = 0;

  constructor(daemon: TestDaemon, random: Random) {
    this.#daemon = daemon;
    this.#random = random;
    this.#path = daemon.rawFile(VM);
  }

  async prepare(): Promise<void> {
    await ask(this.#daemon, 'create', { vm: VM, disks: [{ size: BYTES }] });
    for (const generation of SNAPSHOTS) {
      await this.#write(generation, 0, SECTORS);
      await ask(this.#daemon, 'snapshot.take', { vm: VM, snapshot: `s${generation}` });
    }
  }

  /** @returns what was stale, if anything was. */
  async one(index: number): Promise<string | undefined> {
    const first = this.#random.below(SECTORS);
    const most = Math.min(MOST_SECTORS, SECTORS - first);
    // Not synced: it waits in the page cache for a restore that throws it away.
    await this.#write(LATER + index, first, 1 + this.#random.below(most));
    const generation = this.#random.pick(SNAPSHOTS);
    for (const way of WAYS) {
      const wrong = await this.#look(way, generation);
      if (wrong !== undefined) return `before, ${wrong}`;
    }
    await this.#restore(generation);
    this.#model.fill(generation);
    for (const way of this.#shuffled()) {
      const wrong = await this.#look(way);
      if (wrong !== undefined) return `after, ${wrong}`;
    }
    const frozen = await readFile(this.#daemon.rawFile(VM, `s${generation}`));
    const whole = frozen.equals(fillSectors(generation, 0, SECTORS));
    return whole ? undefined : `s${generation} has changed`;
  }

  #shuffled(): Way[] {
    const ways = [...WAYS];
    const order: Way[] = [];
    while (ways.length > 0) order.push(...ways.splice(this.#random.below(ways.length), 1));
    return order;
  }

  async #write(generation: number, first: number, count: number): Promise<void> {
    const file = await open(this.#path, 'r+');
    try {
      await file.write(fillSectors(generation, first, count), 0, count * SECTOR, first * SECTOR);
    } finally {
      await file.close();
    }
    this.#model.fill(generation, first, first + count);
  }

  /** Reads all of it one way, and, when told a generation, tries to restore that meanwhile. */
  async #look(way: Way, generation?: number): Promise<string | undefined> {
    const looks: string[] = [];
    await this.#hold(way, async (read) => {
      looks.push(this.#judge(await read()));
      // One in four, so that most restores find their caches as a reader left them.
      if (generation === undefined || this.#random.below(4) > 0) return;
      if (await this.#tryRestore(generation)) looks.push('it was restored while it was held');
      looks.push(this.#judge(await read()));
    });
    const wrong = looks.find((look) => look !== '');
    return wrong === undefined ? undefined : `${way}: ${wrong}`;
  }

  #judge(bytes: Buffer): string {
    const found = generationsOf(bytes);
    const at = found.findIndex((generation, sector) => generation !== this.#model[sector]);
    return at < 0 ? '' : `sector ${at} is of ${found[at]}, not ${this.#model[at]}`;
  }

  async #hold(way: Way, use: (read: () => Promise<Buffer>) => Promise<void>): Promise<void> {
    if (way === 'cached' || way === 'mapped') {
      const file = await open(this.#path, 'r');
      return await (way === 'cached' ? holdCached(file, use) : holdMapped(file, use));
    }
    const directIo = way === 'loop, direct';
    const { device } = await ask(this.#daemon, 'attach', { vm: VM, readOnly: true, directIo });
    try {
      // A device's own cache goes with its last user; O_DIRECT is not needed to see the file.
      await use(() => readFile(device, { flag: constants.O_RDONLY }));
    } finally {
      await ask(this.#daemon, 'detach', { device });
    }
  }

  async #restore(generation: number): Promise<void> {
    const end = performance.now() + PATIENCE_MS;
    while (!(await this.#tryRestore(generation))) {
      if (performance.now() > end) throw new Error('no instant without a reader in a minute');
      this.refused += 1;
      await sleep(RETRY_MS);
    }
  }

  /** @returns whether it was done: not while somebody has the file open. */
  async #tryRestore(generation: number): Promise<boolean> {
    const params = { vm: VM, snapshot: `s${generation}`, discard: true };
    try {
      await ask(this.#daemon, 'snapshot.restore', params);
      return true;
    } catch (error) {
      if (error instanceof DiskError && error.code === 'busy') return false;
      throw error;
    }
  }
}

async function holdCached(
  file: FileHandle,
  use: (read: () => Promise<Buffer>) => Promise<void>,
): Promise<void> {
  try {
    await use(async () => {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(BYTES), 0, BYTES, 0);
      return buffer.subarray(0, bytesRead);
    });
  } finally {
    await file.close();
  }
}

/** The mapping alone keeps the file open. */
async function holdMapped(
  file: FileHandle,
  use: (read: () => Promise<Buffer>) => Promise<void>,
): Promise<void> {
  const map = mapFile(file.fd, BYTES);
  try {
    await file.close();
    await use(async () => map.read());
  } finally {
    map.unmap();
  }
}

async function checkRestores(t: Test, daemon: TestDaemon, seed: number, count: number) {
  const tally = new Tally(t);
  const restores = new Restores(daemon, createRandom(seed));
  await restores.prepare();
  const readers = [];
  for (const mode of ['cached', 'mapped']) {
    readers.push(await startProgram(t, READER, [daemon.rawFile(VM), String(BYTES), mode]));
  }
  for (let index = 0; index < count; index += 1) {
    tally.judge(`seed ${seed}, restore ${index}`, await restores.one(index));
  }
  const seen: string[] = [];
  for (const reader of readers) seen.push(await reader.stop());
  tally.print({ refused: restores.refused, 'readers saw': seen.join(' and ') });
}

for (const transport of TRANSPORTS) {
  const options = { skip: cannotServe(), timeout: TIMEOUT_MS };
  t.test(`over the ${transport} channel`, options, async (t) => {
    const seed = newSeed();
    t.comment(`LAYERDISK_SEED=${seed}`);
    const daemon = await startDaemon(t, { transport });
    await checkRestores(t, daemon, seed, Math.ceil(RESTORES / TRANSPORTS.length));
  });
}
