/**
 * An engine that keeps deltas as plain bytes in memory: simple enough to be right by reading it.
 */
import { readFileSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { invariant } from '../../src/common/assert.js';
import { DiskError } from '../../src/common/errors.js';
import { BLOCK_SIZE } from '../../src/common/units.js';
import type { BaseSpec } from '../../src/engine/base.js';
import { type DeltaId, newDeltaId } from '../../src/engine/delta-id.js';
import type {
  CopyProgress,
  DeltaInfo,
  DeltaSpec,
  Deltas,
  HeadSwitch,
  OpenVolume,
  Volumes,
} from '../../src/engine/engine.js';
import { Faults } from './faults.js';
import type { TestEngine } from './vm-world.js';

interface FakeDelta {
  readonly spec: DeltaSpec;
  readonly blocks: Map<number, Buffer>;
  /** No write may come any more. */
  sealed: boolean;
}

/**
 * INVARIANT (checked): a delta with something on it, or switched away from, is never written again.
 */
export class FakeEngine implements TestEngine {
  readonly deltas: Deltas;
  readonly volumes: Volumes;
  readonly faults: Faults;
  readonly #resolveBase: (id: string) => Promise<BaseSpec>;
  readonly #all = new Map<DeltaId, FakeDelta>();
  readonly #open = new Map<DeltaId, { users: number; volume: OpenVolume }>();
  readonly #bases = new Map<string, Buffer>();
  #nextHandle = 1;
  /** Runs between the pieces of a copy, for tests that change things meanwhile. */
  onCopyPiece: () => Promise<void> = async () => undefined;

  constructor(resolveBase: (id: string) => Promise<BaseSpec>, faults = new Faults()) {
    this.#resolveBase = resolveBase;
    this.faults = faults;
    this.deltas = this.#makeDeltas();
    this.volumes = this.#makeVolumes();
  }

  /** Ids of all deltas, for tests that look for leftovers. */
  ids(): DeltaId[] {
    return [...this.#all.keys()];
  }

  isSealed(id: DeltaId): boolean {
    return this.#get(id).sealed;
  }

  /** Writes to a head as a guest would. */
  async write(head: DeltaId, offset: number, data: Buffer): Promise<void> {
    await this.openBases(head);
    const delta = this.#get(head);
    invariant(!delta.sealed, `a sealed delta ${head} was written to`);
    for (let done = 0; done < data.length; ) {
      const block = Math.floor((offset + done) / BLOCK_SIZE);
      const within = (offset + done) % BLOCK_SIZE;
      const length = Math.min(BLOCK_SIZE - within, data.length - done);
      const bytes = Buffer.from(this.#readBlock(head, block));
      data.copy(bytes, within, done, done + length);
      delta.blocks.set(block, bytes);
      done += length;
    }
  }

  async zero(head: DeltaId, offset: number, length: number): Promise<void> {
    this.faults.reach('volume.zero');
    await this.write(head, offset, Buffer.alloc(length));
  }

  /** Everything that is visible under a delta. */
  async readAll(top: DeltaId): Promise<Buffer> {
    await this.openBases(top);
    const { virtualSize } = this.#get(top).spec;
    const count = Math.ceil(virtualSize / BLOCK_SIZE);
    const blocks = Array.from({ length: count }, (_, block) => this.#readBlock(top, block));
    return Buffer.concat(blocks).subarray(0, virtualSize);
  }

  async restart(): Promise<void> {
    this.#open.clear();
  }

  async close(): Promise<void> {
    this.#open.clear();
  }

  /** Opens the bases below a delta, which checks them. */
  async openBases(top: DeltaId): Promise<void> {
    for (let id = top; ; ) {
      const { below } = this.#get(id).spec;
      if (below.kind === 'delta') {
        id = below.id;
        continue;
      }
      if (below.kind === 'none') return;
      const spec = await this.#resolveBase(below.id);
      this.#bases.set(below.id, readFileSync(spec.images[0]?.path ?? ''));
      return;
    }
  }

  #readBlock(top: DeltaId, block: number): Buffer {
    for (let id = top; ; ) {
      const { spec, blocks } = this.#get(id);
      const found = blocks.get(block);
      if (found !== undefined) return found;
      if (spec.below.kind === 'none') return Buffer.alloc(BLOCK_SIZE);
      if (spec.below.kind === 'base') return this.#readBaseBlock(spec.below.id, block);
      id = spec.below.id;
    }
  }

  #readBaseBlock(id: string, block: number): Buffer {
    const content = this.#bases.get(id);
    invariant(content !== undefined, 'the base was not opened');
    const bytes = Buffer.alloc(BLOCK_SIZE);
    content.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE).copy(bytes);
    return bytes;
  }

  #get(id: DeltaId): FakeDelta {
    const found = this.#all.get(id);
    if (found !== undefined) return found;
    throw new DiskError('not-found', `there is no delta ${id}`, { errno: 'EIO' });
  }

  #makeDeltas(): Deltas {
    return {
      create: async (spec, id = newDeltaId()) => {
        this.faults.reach('delta.create');
        await nextTurn();
        invariant(spec.allocation === 'dynamic' || spec.below.kind === 'none', 'static on a delta');
        if (spec.below.kind === 'delta') this.#get(spec.below.id);
        this.#all.set(id, { spec, blocks: new Map(), sealed: false });
        return id;
      },
      describe: (id): DeltaInfo => {
        const { spec, blocks } = this.#get(id);
        return { ...spec, id, storedSize: blocks.size * BLOCK_SIZE };
      },
      isUntouched: (id) => this.#get(id).blocks.size === 0,
      list: async () => this.ids(),
      discard: async (ids) => {
        this.faults.reach('delta.discard');
        for (const id of ids) this.#all.delete(id);
      },
      collect: async (referenced, dryRun) => {
        this.faults.reach('delta.collect');
        const unused = this.ids().filter((id) => !referenced.has(id));
        const gone = unused.filter((id) => !this.#open.has(id));
        for (const id of referenced) invariant(this.#all.has(id), 'a delta in use is gone');
        const bytes = gone.reduce((sum, id) => sum + this.deltas.describe(id).storedSize, 0);
        await nextTurn();
        if (!dryRun) for (const id of gone) this.#all.delete(id);
        return { files: gone.map((id) => `deltas/${id}`), bytes };
      },
    };
  }

  #makeVolumes(): Volumes {
    return {
      acquire: async (top, { writable }) => {
        this.faults.reach('volume.acquire');
        await this.openBases(top);
        const { spec, sealed } = this.#get(top);
        invariant(!(writable && sealed), 'a sealed delta was opened for writing');
        const known = this.#open.get(top);
        if (known !== undefined) {
          known.users += 1;
          return known.volume;
        }
        const volume = {
          handle: this.#nextHandle++,
          size: spec.virtualSize,
          readOnly: !writable,
          allocatedSize: 0,
        };
        this.#open.set(top, { users: 1, volume });
        return volume;
      },
      release: ({ handle }) => {
        const found = [...this.#open].find(([, each]) => each.volume.handle === handle);
        invariant(found !== undefined, 'released more often than acquired');
        const [top, known] = found;
        known.users -= 1;
        if (known.users === 0) this.#open.delete(top);
      },
      isOpen: (top) => this.#open.has(top),
      close: async (top) => {
        this.faults.reach('volume.close');
        if (this.#open.has(top)) throw new DiskError('busy', 'the disk is in use');
      },
      closeOn: async () => this.faults.reach('volume.close-on'),
      switchHeads: (switches, commit, settle) => this.#switchHeads(switches, commit, settle),
      flush: async () => this.faults.reach('volume.flush'),
      copy: (source, target, options) => this.#copy(source, target, options),
    };
  }

  async #switchHeads(
    switches: readonly HeadSwitch[],
    commit: () => void,
    settle: () => Promise<void> = async () => undefined,
  ): Promise<void> {
    this.faults.reach('volume.switch');
    await nextTurn();
    for (const { from, to } of switches) {
      invariant(!this.#get(from).sealed, 'a head is sealed already');
      const written = [...this.#get(to).blocks.values()];
      invariant(!written.some(hasData), 'the new head is not empty');
    }
    commit();
    for (const { from, to } of switches) {
      this.#get(from).sealed = true;
      const open = this.#open.get(from);
      if (open === undefined) continue;
      this.#open.delete(from);
      this.#open.set(to, open);
    }
    await settle();
    this.faults.reach('volume.switched');
  }

  async #copy(
    source: DeltaId,
    target: DeltaId,
    options: { signal?: AbortSignal; onProgress?: (progress: CopyProgress) => void },
  ): Promise<void> {
    await this.openBases(source);
    const { spec, blocks } = this.#get(target);
    invariant(spec.below.kind === 'none' && blocks.size === 0, 'a copy goes into a fresh delta');
    const totalBytes = this.#get(source).spec.virtualSize;
    for (let block = 0; block * BLOCK_SIZE < totalBytes; block += 1) {
      this.faults.reach('volume.copy');
      await this.onCopyPiece();
      await nextTurn();
      if (options.signal?.aborted) throw new DiskError('interrupted', 'the copy was cancelled');
      const bytes = this.#readBlock(source, block);
      if (hasData(bytes)) blocks.set(block, Buffer.from(bytes));
      const doneBytes = Math.min((block + 1) * BLOCK_SIZE, totalBytes);
      options.onProgress?.({ doneBytes, totalBytes });
    }
  }
}

function hasData(bytes: Buffer): boolean {
  return bytes.some((byte) => byte !== 0);
}
