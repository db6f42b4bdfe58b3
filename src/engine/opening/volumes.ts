/** Chains that are open, by top delta: who uses them, and the moving of heads. Main thread only. */
import { invariant } from '../../common/assert.js';
import type { DeltaId } from '../delta-id.js';
import type { HeadSwitch, OpenVolume, Volumes } from '../engine.js';
import { closeGates, drain, whileShut } from '../shared/gate.js';
import { RowNumbers } from '../shared/row-numbers.js';
import { describeVolume, VolumeRow } from '../shared/volume-row.js';
import { flushVolumeAsync, settleClosed } from '../volume/durable-switch.js';
import { ChainChanges } from './chain-changes.js';
import {
  type FoundDeltas,
  type LoadedChain,
  loadChain,
  unloadChain,
  walkChain,
} from './chain-loader.js';
import { closeEach, RestingVolumes, withRoom } from './closing.js';
import { type CopyOptions, copyInto } from './copy-into.js';
import { type OpenEntry, switchOpenHeads } from './head-switch.js';
import { MovedHeads } from './moved-heads.js';
import { OpenBases } from './open-bases.js';
import { holdSwitches, isSnapshot } from './open-switches.js';
import { VolumeFlusher } from './volume-flusher.js';
import type { VolumesOptions } from './volumes-options.js';

export class OpenVolumes implements Volumes {
  readonly changes: ChainChanges;
  readonly #options: VolumesOptions;
  readonly #byTop = new Map<DeltaId, OpenEntry>();
  readonly #byHandle = new Map<number, OpenEntry>();
  readonly #opening = new Map<DeltaId, Promise<OpenEntry>>();
  readonly #heads = new MovedHeads();
  readonly #rows = new RowNumbers();
  readonly #bases: OpenBases;
  readonly #flusher: VolumeFlusher;
  readonly #resting: RestingVolumes;

  constructor(options: VolumesOptions) {
    this.#options = options;
    const isInUse = (id: string): boolean =>
      this.#entries.some(({ users, chain }) => users > 0 && chain.base?.id === id);
    this.#bases = new OpenBases({ ...options, isInUse });
    const entries = {
      entries: () => this.#entries,
      holding: (entry: OpenEntry, task: () => Promise<void>) => this.#holding(entry, task),
    };
    this.changes = new ChainChanges({ ...options, ...entries });
    this.#flusher = new VolumeFlusher({ ...options, ...entries });
    const retire = (entry: OpenEntry): Promise<void> => this.#retire(entry);
    this.#resting = new RestingVolumes({ ...options, ...entries, retire });
  }

  startFlushing(): void {
    this.#flusher.start();
    this.#bases.watch();
  }

  get #entries(): OpenEntry[] {
    return [...this.#byHandle.values()];
  }

  /** Runs `task` while the volume stays open; not at all when it has closed. */
  async #holding(entry: OpenEntry, task: () => Promise<void>): Promise<void> {
    if (this.#byHandle.get(entry.index) !== entry) return;
    entry.users += 1;
    clearTimeout(entry.rest);
    try {
      await task();
    } finally {
      entry.users -= 1;
      if (entry.users === 0) this.#resting.begin(entry);
    }
  }

  async acquire(top: DeltaId, options: { readonly writable: boolean }): Promise<OpenVolume> {
    const present = (): DeltaId => (options.writable ? this.#heads.follow(top) : top);
    await this.#bases.verify(this.#byTop.get(present())?.chain.base);
    let entry: OpenEntry;
    do {
      entry = await this.#entryAtRest(present, options.writable);
      // Others may have needed the room meanwhile.
    } while (this.#byHandle.get(entry.index) !== entry);
    invariant(entry.chain.writable || !options.writable, `head ${top} was opened as a snapshot`);
    entry.users += 1;
    clearTimeout(entry.rest);
    return describeVolume(this.#options.tools.views, entry.index);
  }

  /**
   * A closed disk whose head moves is opened afterwards, as what it is then: the switch has decided
   * by what it found. One that is open moves with its users.
   */
  async #entryAtRest(present: () => DeltaId, writable: boolean): Promise<OpenEntry> {
    for (;;) {
      const top = present();
      const isThere = this.#byTop.has(top) || this.#opening.has(top);
      const moving = isThere ? undefined : this.#heads.moving(top);
      // In the same step as the look: a switch that begins right after it finds it being opened.
      if (moving === undefined) return await this.#entry(top, writable);
      await moving;
    }
  }

  /**
   * Opens a chain in the row that an earlier process had it in, whose number the transport's users
   * still hold; on failure the row answers errors to them and is given to nobody else.
   */
  async reopen(
    top: DeltaId,
    options: { readonly writable: boolean; readonly row: number },
  ): Promise<void> {
    const { writable, row } = options;
    let entry = this.#byTop.get(top);
    if (entry === undefined) {
      const { views, table } = this.#options.tools;
      const suspect = views.suspects.has(row);
      this.#rows.claim(row);
      // What that one had open is open again, whatever is left then.
      const over = table.reserve.lift();
      entry = await this.#open(top, writable, row).finally(over);
      if (suspect) new VolumeRow(views, row).markFailed();
    }
    invariant(entry.index === row, `volume ${row} is open as ${entry.index}`);
    entry.users += 1;
    clearTimeout(entry.rest);
  }

  /** Sets the row of an open file aside whose disk is gone. */
  abandonRow(row: number): void {
    this.#rows.claim(row);
  }

  async #entry(top: DeltaId, writable: boolean): Promise<OpenEntry> {
    const open = this.#byTop.get(top);
    if (open !== undefined) return open;
    let opening = this.#opening.get(top);
    if (opening === undefined) {
      const open = (): Promise<OpenEntry> => this.#open(top, writable);
      opening = withRoom(open, () => this.#resting.closeAll());
      this.#opening.set(top, opening);
      const done = (): unknown => this.#opening.delete(top);
      opening.then(done, done);
    }
    return await opening;
  }

  async #open(top: DeltaId, writable: boolean, claimed?: number): Promise<OpenEntry> {
    const { tools } = this.#options;
    const found: FoundDeltas = new Map();
    let headers = walkChain(tools, top, found);
    const base = await this.#bases.useUnder(headers);
    let index = claimed;
    let chain: LoadedChain;
    try {
      // Walked again: a row of the chain may have been merged while the base was looked at.
      if (base !== undefined) headers = walkChain(tools, top, found);
      if (index === undefined) {
        index = this.#rows.take();
        tools.views.suspects.clear(index);
      }
      chain = loadChain(tools, index, headers, {
        writable,
        base: base?.spec,
        baseIndex: base?.index ?? 0,
        found,
      });
    } catch (error) {
      if (claimed === undefined && index !== undefined) this.#rows.give(index);
      if (base !== undefined) this.#bases.release(base.spec.id);
      throw error;
    }
    const entry: OpenEntry = { index, chain, users: 0, rest: undefined, leftAt: performance.now() };
    this.#byTop.set(top, entry);
    this.#byHandle.set(index, entry);
    this.#options.onOpen(index);
    this.#resting.begin(entry);
    return entry;
  }

  release(volume: Pick<OpenVolume, 'handle'>): void {
    const entry = this.#byHandle.get(volume.handle);
    invariant(entry !== undefined && entry.users > 0, `volume ${volume.handle} is not in use`);
    entry.users -= 1;
    entry.leftAt = performance.now();
    if (entry.users === 0) this.#resting.begin(entry);
  }

  /** Flushes and closes a volume that nobody uses. */
  async #retire(entry: OpenEntry): Promise<void> {
    const { tools } = this.#options;
    const row = new VolumeRow(tools.views, entry.index);
    try {
      if (entry.chain.writable) await flushVolumeAsync(tools.views, row);
    } finally {
      // Somebody may have come back, or a switch may have begun, while the flush ran.
      if (entry.users === 0 && this.#byHandle.get(entry.index) === entry) this.#close(entry);
    }
  }

  #close(entry: OpenEntry): void {
    clearTimeout(entry.rest);
    const { tools } = this.#options;
    this.#byTop.delete(entry.chain.deltas[0]!);
    this.#byHandle.delete(entry.index);
    closeGates(tools.views.volumeWords, [entry.index]);
    drain(tools.views.threads, [entry.index]);
    try {
      unloadChain(tools, entry.index, entry.chain);
    } finally {
      this.#rows.give(entry.index);
      if (entry.chain.base !== undefined) this.#bases.release(entry.chain.base.id);
    }
  }

  async close(top: DeltaId): Promise<void> {
    await this.#opening.get(top);
    const next = () => this.#byTop.get(top);
    await closeEach(next, (entry) => this.#retire(entry));
  }

  async closeOn(base: string): Promise<void> {
    await Promise.allSettled(this.#opening.values());
    const next = () => this.#entries.find(({ chain }) => chain.base?.id === base);
    await closeEach(next, (entry) => this.#retire(entry));
  }

  isOpen(top: DeltaId): boolean {
    return (this.#byTop.get(top)?.users ?? 0) > 0;
  }

  /** The open volume on top of `top`, if there is one. */
  describe(top: DeltaId): OpenVolume | undefined {
    const entry = this.#byTop.get(top);
    return entry === undefined ? undefined : describeVolume(this.#options.tools.views, entry.index);
  }

  /** What a volume that is open consists of. */
  chainOf(volume: Pick<OpenVolume, 'handle'>): LoadedChain {
    return this.#byHandle.get(volume.handle)!.chain;
  }

  get openCount(): number {
    return this.#byTop.size;
  }

  /** Whether a flush failed of a disk that has this delta in its chain. */
  isSuspect(id: DeltaId): boolean {
    const { views } = this.#options.tools;
    return this.#entries.some(
      ({ index, chain }) => new VolumeRow(views, index).failed && chain.deltas.includes(id),
    );
  }

  /** Returns when nobody reads any longer what the maps named before. */
  settleReaders(): void {
    whileShut(this.#options.tools.views, [...this.#byHandle.keys()], () => {});
  }

  /** Rows ever used. */
  get rowsUsed(): number {
    return this.#rows.used;
  }

  async flush(top: DeltaId): Promise<void> {
    const entry = this.#byTop.get(this.#heads.follow(top));
    if (entry === undefined) settleClosed(this.#options.tools.files, top, false);
    else await this.flushHandle(entry.index);
  }

  /** For a transport on the main thread: the flush of a handle without blocking. */
  async flushHandle(handle: number): Promise<void> {
    const { views } = this.#options.tools;
    const row = new VolumeRow(views, handle);
    if (!row.readOnly) await flushVolumeAsync(views, row);
  }

  async switchHeads(
    switches: readonly HeadSwitch[],
    commit: () => void,
    settle: () => Promise<void> = async () => {},
  ): Promise<void> {
    const over = this.#heads.begin(switches.flatMap(({ from, to }) => [from, to]));
    try {
      for (const { from } of switches) await this.#opening.get(from);
      await this.#switchHeads(switches, commit, settle);
    } finally {
      over();
    }
  }

  /** None of them is being opened, and none that is closed will be. */
  async #switchHeads(
    switches: readonly HeadSwitch[],
    commit: () => void,
    settle: () => Promise<void>,
  ): Promise<void> {
    const { tools } = this.#options;
    const closed = switches.filter(({ from }) => !this.#byTop.has(from));
    const sealed = closed.filter((each) => isSnapshot(tools.files, each));
    for (const { from } of sealed) settleClosed(tools.files, from, false);
    const open = await holdSwitches(
      {
        ...{ tools, bases: this.#bases, byTop: this.#byTop },
        flush: ({ index }) => this.flushHandle(index),
        release: ({ index }) => this.release({ handle: index }),
      },
      switches,
    );
    const bases = new Map(open.map(({ entry }) => [entry, entry.chain.base?.id]));
    let moved = false;
    try {
      await switchOpenHeads(
        { tools, rows: this.#rows },
        open,
        () => {
          commit();
          this.#rename(switches);
          moved = true;
        },
        settle,
      );
      for (const { entry } of open) {
        const row = new VolumeRow(tools.views, entry.index);
        if (!row.failed) tools.views.suspects.clear(entry.index);
      }
      for (const { from } of sealed) settleClosed(tools.files, from, true);
      this.#options.onSealed();
    } finally {
      for (const { entry, snapshot, base } of open) {
        const dropped = moved ? bases.get(entry) : base?.spec.id;
        if (!snapshot && dropped !== undefined) this.#bases.release(dropped);
        this.release({ handle: entry.index });
      }
    }
  }

  /** Right after the commit point, in the same tick: whoever asks from here on means `to`. */
  #rename(switches: readonly HeadSwitch[]): void {
    for (const { from, to } of switches) {
      const entry = this.#byTop.get(from);
      if (entry !== undefined) {
        this.#byTop.delete(from);
        this.#byTop.set(to, entry);
      }
      this.#heads.moved(from, to);
    }
  }

  async copy(source: DeltaId, target: DeltaId, options: CopyOptions): Promise<void> {
    await copyInto(this, this.#options.runCopy, { source, target }, options);
  }

  /** Closes a volume at once that nobody uses any more. */
  closeIdle({ handle }: Pick<OpenVolume, 'handle'>): void {
    const entry = this.#byHandle.get(handle);
    if (entry?.users === 0) this.#close(entry);
  }

  /**
   * Makes everything durable and lets no request in any more, for good: those that wait are served
   * by the process after this one.
   */
  async quiesce(): Promise<void> {
    await this.#flusher.stop();
    await this.#flusher.flushAll();
    const { volumeWords, threads } = this.#options.tools.views;
    const rows = [...this.#byHandle.keys()];
    closeGates(volumeWords, rows);
    drain(threads, rows);
  }

  /**
   * Flushes and closes everything: the daemon ends. No request may be under way.
   * @throws the first error, when all the others are closed.
   */
  async closeAll(): Promise<void> {
    await this.#flusher.stop();
    await this.#bases.unwatch();
    const problems: unknown[] = [];
    for (const entry of this.#entries) {
      clearTimeout(entry.rest);
      entry.users = 0;
      await this.#retire(entry).catch((error: unknown) => problems.push(error));
    }
    if (problems.length > 0) throw problems[0];
  }
}
