/**
 * A store that runs full, and is freed again: writers fill it until each is refused, the daemon is
 * killed now and then at that moment, and all that was acknowledged is there; then room is made, by
 * one way or another, and the next write is taken.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { KiB, MiB } from '../../src/common/units.js';
import { ControlSocket } from '../support/control-socket.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe, scratchFileSystem } from '../support/mount-guard.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { ReferenceDisk } from '../support/reference-disk.js';
import { runProgram, tool } from '../support/run-program.js';
import { STAMP_BYTES, stampedPattern } from '../support/stamped-pattern.js';
import { tempFolder } from '../support/temp-tree.js';
import { Tally, triesOr } from './tally.js';

const ROUNDS = triesOr(4);
const STORE_SIZE = 32 * MiB;
const DISK_SIZE = 48 * MiB;
const WRITERS = 3;
const REGION = DISK_SIZE / WRITERS;
const PATIENCE_MS = 60_000;
/** Who refuses: the daemon, or the host. */
const RESERVES = { 'with a reserve': [], 'without one': ['--reserve', '0'] } as const;

/** The daemon, the disk, and what must be on it. */
class FullStore {
  /** How long the next write took to be taken, and what had made room. */
  readonly waits: { readonly ms: number; readonly after: string }[] = [];
  readonly #daemon: TestDaemon;
  readonly #path: string;
  readonly #random: Random;
  readonly #hasReserve: boolean;
  /** A file beside the store. */
  readonly #filler: string;
  readonly #model = new ReferenceDisk(DISK_SIZE);
  /** What refused writes may have left in a sector since it was last written or looked at. */
  readonly #doubtful = new Map<number, Buffer[]>();
  #generation = 0;
  #hasBallast = false;
  #hasSnapshot = false;

  constructor(daemon: TestDaemon, path: string, random: Random, hasReserve: boolean) {
    this.#hasReserve = hasReserve;
    this.#filler = join(daemon.store, '..', 'filler');
    this.#daemon = daemon;
    this.#path = path;
    this.#random = random;
  }

  /** @returns what is wrong. */
  async round(): Promise<string | undefined> {
    await this.#build();
    await this.#fill();
    const isKilled = this.#random.below(4) === 0;
    if (isKilled) process.kill(this.#daemon.servingPid, 'SIGKILL');
    const full = await this.#compare();
    if (full !== undefined) return `full: ${full}`;
    const way = await this.#free();
    const begun = performance.now();
    const stuck = await this.#writeOnceThereIsRoom(begun + PATIENCE_MS);
    const waitMs = Math.ceil(performance.now() - begun);
    this.waits.push({ ms: waitMs, after: isKilled ? `${way} by the next daemon` : way });
    return stuck ?? (await this.#compare());
  }

  /** Things that can be deleted later, where there is room for them. */
  async #build(): Promise<void> {
    const random = this.#random;
    // Without a reserve not even a discard may find room for its record: somebody else makes some.
    if (!this.#hasReserve) await runProgram('fallocate', ['-l', '2M', this.#filler]);
    if (!this.#hasBallast && random.below(2) === 0) {
      const disks = [{ size: 6 * MiB, allocation: 'static' }];
      this.#hasBallast = await this.#may('create', { vm: 'ballast', disks });
    }
    if (!this.#hasSnapshot && random.below(2) === 0) {
      this.#hasSnapshot = await this.#may('snapshot.take', { vm: 'vm', snapshot: 'kept' });
    }
  }

  /** @returns whether it was done; refused for lack of space otherwise. */
  async #may(method: string, params: object): Promise<boolean> {
    const client = await this.#connect();
    try {
      await client.call(method, params);
      return true;
    } catch (error) {
      if (/no space|ENOSPC|needs .* in the store's file system/.test(String(error))) return false;
      throw error;
    } finally {
      client.destroy();
    }
  }

  /** The daemon may have been killed a moment ago. */
  async #connect(): Promise<ControlSocket> {
    const end = performance.now() + PATIENCE_MS;
    for (;;) {
      try {
        return await ControlSocket.connect(this.#daemon.socket);
      } catch (error) {
        if (performance.now() > end) throw error;
        await sleep(20);
      }
    }
  }

  async #fill(): Promise<void> {
    const file = await open(this.#path, 'r+');
    try {
      const regions = Array.from({ length: WRITERS }, (_, index) => index * REGION);
      await Promise.all(regions.map((start) => this.#fillRegion(file, start)));
    } finally {
      await file.close();
    }
  }

  /** Writes here and there, then one after the other, until it is refused. */
  async #fillRegion(file: FileHandle, start: number): Promise<void> {
    const random = this.#random;
    for (let count = 0; count < 40; count += 1) {
      const length = STAMP_BYTES * (1 + random.below(256));
      const offset = start + STAMP_BYTES * random.below((REGION - length) / STAMP_BYTES);
      if (!(await this.#write(file, offset, length))) return;
    }
    for (let offset = start; offset < start + REGION; offset += 256 * KiB) {
      if (!(await this.#write(file, offset, 256 * KiB))) return;
    }
  }

  /** @returns whether it was acknowledged; refused otherwise. */
  async #write(file: FileHandle, offset: number, length: number): Promise<boolean> {
    this.#generation += 1;
    const data = stampedPattern(this.#generation, offset, length);
    try {
      const { bytesWritten } = await file.write(data, 0, length, offset);
      this.#note(offset, data.subarray(0, bytesWritten));
      if (bytesWritten === length) return true;
      this.#doubt(offset + bytesWritten, data.subarray(bytesWritten));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
      this.#doubt(offset, data);
    }
    return false;
  }

  #note(offset: number, data: Buffer): void {
    this.#model.write(offset, data);
    for (let at = 0; at < data.length; at += STAMP_BYTES) this.#doubtful.delete(offset + at);
  }

  #doubt(offset: number, data: Buffer): void {
    for (let at = 0; at < data.length; at += STAMP_BYTES) {
      const before = this.#doubtful.get(offset + at) ?? [];
      this.#doubtful.set(offset + at, [...before, data.subarray(at, at + STAMP_BYTES)]);
    }
  }

  /** What the daemon holds, past the page cache. @returns what is wrong. */
  async #compare(): Promise<string | undefined> {
    const file = await open(this.#path, constants.O_RDONLY | constants.O_DIRECT);
    try {
      const bytes = Buffer.alloc(4 * MiB);
      for (let start = 0; start < DISK_SIZE; start += bytes.length) {
        const { bytesRead } = await file.read(bytes, 0, bytes.length, start);
        if (bytesRead !== bytes.length) return `${bytesRead} bytes read at ${start}`;
        for (let at = 0; at < bytes.length; at += STAMP_BYTES) {
          const sector = bytes.subarray(at, at + STAMP_BYTES);
          const place = start + at;
          if (this.#model.read(place, STAMP_BYTES).equals(sector)) continue;
          const isNew = this.#doubtful.get(place)?.some((one) => one.equals(sector)) === true;
          if (!isNew) return `sector at ${place} is lost`;
          // From now on it must stay so.
          this.#model.write(place, sector);
        }
      }
      this.#doubtful.clear();
      return undefined;
    } finally {
      await file.close();
    }
  }

  /** @returns how. */
  async #free(): Promise<string> {
    if (!this.#hasReserve) await rm(this.#filler, { force: true });
    if (this.#hasBallast && this.#random.below(2) === 0) {
      this.#hasBallast = !(await this.#do('delete', { vm: 'ballast' }));
      if (!this.#hasBallast) return 'a VM was deleted';
    }
    if (this.#hasSnapshot) {
      this.#hasSnapshot = !(await this.#do('snapshot.delete', { vm: 'vm', snapshot: 'kept' }));
      if (this.#random.below(2) === 0) await this.#do('gc', {});
    }
    // Discards what the last writes hid: all of a region, so that there is room for sure.
    const start = REGION * this.#random.below(WRITERS);
    await tool('fallocate', ['-p', '-o', String(start), '-l', String(REGION), this.#path]);
    this.#model.discard(start, REGION);
    return 'a discard';
  }

  /** With a reserve a delete is never refused; without one there may be no byte for a manifest. */
  async #do(method: string, params: object): Promise<boolean> {
    const done = await this.#may(method, params);
    if (!done && this.#hasReserve) throw new Error(`${method} was refused`);
    return done;
  }

  async #writeOnceThereIsRoom(end: number): Promise<string | undefined> {
    const file = await open(this.#path, 'r+');
    try {
      for (;;) {
        const offset = STAMP_BYTES * this.#random.below((DISK_SIZE - 64 * KiB) / STAMP_BYTES);
        if (await this.#write(file, offset, 64 * KiB)) break;
        if (performance.now() > end) return 'writers never went on';
        await sleep(5);
      }
      await file.sync();
      return undefined;
    } finally {
      await file.close();
    }
  }
}

async function start(t: Test, args: readonly string[]): Promise<TestDaemon> {
  const on = await scratchFileSystem(t, await tempFolder(t, 'full'), STORE_SIZE);
  return await startDaemon(t, { store: join(on, 'store'), supervise: true, args });
}

for (const [name, args] of Object.entries(RESERVES)) {
  t.test(`full and freed again, ${name}`, { skip: cannotServe() }, async (t) => {
    const seed = newSeed();
    t.comment(`LAYERDISK_SEED=${seed}`);
    const tally = new Tally(t);
    const daemon = await start(t, args);
    await daemon.ok('create', 'vm', '--disk', String(DISK_SIZE));
    const path = await daemon.ok('path', 'vm');
    const store = new FullStore(daemon, path, createRandom(seed), args.length === 0);
    for (let round = 0; round < ROUNDS / 2 && tally.losses === 0; round += 1) {
      tally.judge(`round ${round}`, await store.round().catch(String));
    }
    await daemon.ok('gc');
    t.match(await daemon.json('check'), { damaged: 0 });
    const waits = store.waits.sort((a, b) => a.ms - b.ms);
    const longest = waits.at(-1);
    t.comment(`the longest wait: ${longest?.ms} ms after ${longest?.after}`);
    const median = waits[Math.floor(waits.length / 2)]?.ms ?? 0;
    const overSecond = waits.filter(({ ms }) => ms > 1000).length;
    const facts = { 'median wait (ms)': median, 'over 1 s': overSecond };
    tally.print({ store: name, ...facts, 'longest (ms)': longest?.ms ?? 0 });
  });
}
