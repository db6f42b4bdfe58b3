/**
 * Checking a store while it is in use: manifests, delta files, bases, and what nobody refers to.
 * Only `repair` changes anything, and only what can be done without guessing: a damaged copy from
 * an intact one, missing checksums, leaks into the trash.
 */
import { relative } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { DiskError } from '../../common/errors.js';
import type { DeltaId } from '../../engine/delta-id.js';
import type { DeltaFinding, StoreHealth } from '../../engine/engine.js';
import type { VmContext, Work } from '../context.js';
import { checkManifests } from './check-manifests.js';
import { MemoryCheck } from './check-memory.js';
import { checkStoreFiles } from './check-store-files.js';
import { type Label, labelsOf, nameLabel, Viewers } from './check-viewers.js';
import type { GarbageCollector } from './garbage.js';

/** Findings in one answer; more are only counted. */
const MOST_FINDINGS = 500;
/** Names in one finding. */
const MOST_NAMES = 100;
/** Headers read between two turns of the event loop. */
const BATCH = 64;

export interface CheckRequest {
  readonly vm?: string;
  readonly deep: boolean;
  readonly repair: boolean;
}

export interface Finding {
  readonly kind: 'damage' | 'leak';
  readonly part: 'manifest' | 'header' | 'tuples' | 'data' | 'sums' | 'base' | 'memory' | 'file';
  readonly message: string;
  /** In the store, where it lies there. */
  readonly file: string;
  /** Bytes of that file. */
  readonly offset?: number;
  readonly length?: number;
  readonly vm?: string;
  readonly disk?: string;
  readonly delta?: DeltaId;
  /** 4 KiB blocks of the disk. */
  readonly block?: number;
  readonly blocks?: number;
  /** `VM/DISK` and `VM@SNAPSHOT/DISK`. */
  readonly seenBy: readonly string[];
  readonly seenByMore: number;
  readonly repaired: boolean;
  /** What to do. */
  readonly remedy: string;
}

export interface CheckOutcome {
  readonly vms: number;
  readonly deltas: number;
  readonly bytesRead: number;
  /** Sealed deltas without checksums. */
  readonly notSummed: number;
  readonly findings: readonly Finding[];
  readonly more: number;
  readonly damaged: number;
  readonly leaks: number;
  readonly repaired: number;
}

const REMEDIES: Readonly<Record<DeltaFinding['part'], string>> = {
  header: 'restore this file from a backup of the store',
  tuples: 'restore this file from a backup of the store, or restore an older snapshot',
  data: 'restore this file from a backup of the store, or write these blocks anew in those disks',
  sums: 'if you trust the data, remove this file: its checksums are computed anew',
};

function remedyOf({ part, block, hint }: DeltaFinding): string {
  if (hint !== undefined) return hint;
  // A file that is gone or too short: no single block can be written anew.
  return REMEDIES[part === 'data' && block === undefined ? 'header' : part];
}

/** One check; findings gather in it. */
export class StoreCheck {
  readonly #context: VmContext;
  readonly #garbage: GarbageCollector;
  readonly #request: CheckRequest;
  readonly #work: Work;
  readonly #health: StoreHealth;
  readonly #findings: Finding[] = [];
  #counts = { more: 0, damaged: 0, leaks: 0, repaired: 0 };
  #labels: Label[] = [];
  readonly #below = new Map<DeltaId, DeltaId | undefined>();
  readonly #bases = new Map<DeltaId, string>();
  #pinned: DeltaId[] = [];
  readonly #memory: MemoryCheck;

  /** @throws DiskError `not-supported` with an engine that cannot check. */
  constructor(context: VmContext, garbage: GarbageCollector, request: CheckRequest, work: Work) {
    const { health } = context.engine;
    if (health === undefined) throw new DiskError('not-supported', 'this engine cannot check');
    this.#context = context;
    this.#garbage = garbage;
    this.#request = request;
    this.#work = work;
    this.#health = health;
    this.#memory = new MemoryCheck(context);
  }

  /** @throws DiskError `not-found` for an unknown VM, `interrupted`. */
  async run(): Promise<CheckOutcome> {
    const { deep, repair } = this.#request;
    try {
      const vms = await this.#garbage.quiet(() => this.#gather());
      const deltas = [...this.#below.keys()];
      let checked = await this.#health.check({ deltas, deep }, this.#work);
      if (repair && checked.notSummed.length > 0) {
        await this.#health.sum(this.#work);
        checked = { ...checked, notSummed: [] };
      }
      const viewers = new Viewers(this.#labels, this.#below);
      for (const finding of checked.findings) await this.#addDelta(viewers, finding);
      this.#counts.more += checked.more;
      this.#counts.damaged += checked.more;
      await this.#checkBases(viewers);
      for (const { seenBy, ...problem } of await this.#memory.findProblems(deep)) {
        const kinds = { kind: 'damage', part: 'memory', repaired: false } as const;
        this.#add({ ...kinds, ...problem, ...namesOf(seenBy) });
      }
      if (this.#request.vm === undefined) {
        await this.#checkOwnFiles();
        await this.#checkLeaks();
      }
      const { bytesRead, notSummed } = checked;
      const facts = { vms, deltas: deltas.length, bytesRead, notSummed: notSummed.length };
      return { ...facts, findings: this.#findings, ...this.#counts };
    } finally {
      for (const id of this.#pinned) this.#context.pins.deltas.unpin(id);
      this.#memory.end();
    }
  }

  /** Reads manifests and headers, and pins every delta: none is removed or punched from here on. */
  async #gather(): Promise<number> {
    const { vm, repair } = this.#request;
    const found = await checkManifests(this.#context, { vm, repair });
    for (const { name, problem, file, repaired, remedy } of found.problems) {
      const labels = found.manifests.find((each) => each.name === name);
      const seenBy = labels === undefined ? [] : labelsOf(name, labels.manifest).map(nameLabel);
      this.#add({
        ...{ kind: 'damage', part: 'manifest', message: problem, file, vm: name },
        ...{ repaired, remedy },
        ...namesOf(seenBy.length > 0 ? seenBy : [name]),
      });
    }
    for (const { name, manifest } of found.manifests) this.#memory.add(name, manifest);
    this.#labels = found.manifests.flatMap(({ name, manifest }) => labelsOf(name, manifest));
    let count = 0;
    for (const { top } of this.#labels) {
      for (let id: DeltaId | undefined = top; id !== undefined && !this.#below.has(id); ) {
        count += 1;
        if (count % BATCH === 0) await nextTurn();
        id = this.#visit(id);
      }
    }
    this.#checkLabels();
    return found.manifests.length;
  }

  /** @returns what lies below; undefined at the bottom, and where that can't be known. */
  #visit(id: DeltaId): DeltaId | undefined {
    const { engine, pins } = this.#context;
    pins.deltas.pin(id);
    this.#pinned.push(id);
    let below: DeltaId | undefined;
    try {
      const info = engine.deltas.describe(id);
      if (info.below.kind === 'delta') below = info.below.id;
      if (info.below.kind === 'base') this.#bases.set(id, info.below.id);
    } catch (error) {
      // The check of the delta says what is wrong with it.
      if (!(error instanceof Error)) throw error;
    }
    this.#below.set(id, below);
    return below;
  }

  /** What manifests say of deltas against what those say of themselves. */
  #checkLabels(): void {
    const parents = new Set(this.#below.values());
    const heads = new Map<DeltaId, Label>();
    for (const label of this.#labels) {
      if (label.snapshot !== undefined || label.isStart === true) continue;
      const twin = heads.get(label.top);
      heads.set(label.top, label);
      const what =
        twin !== undefined
          ? `its head is that of ${nameLabel(twin)}, too`
          : parents.has(label.top)
            ? 'another delta stands on its head'
            : undefined;
      if (what !== undefined) this.#addLabel(label, what);
    }
    for (const label of this.#labels) {
      const size = this.#sizeOf(label.top);
      if (size !== undefined && size !== label.size) {
        this.#addLabel(label, `has ${label.size} bytes, but its delta has ${size}`);
      }
    }
  }

  #sizeOf(id: DeltaId): number | undefined {
    try {
      return this.#context.engine.deltas.describe(id).virtualSize;
    } catch {
      // The check of the delta says what is wrong with it.
      return undefined;
    }
  }

  #addLabel(label: Label, what: string): void {
    const { vm, disk, top } = label;
    this.#add({
      ...{ kind: 'damage', part: 'manifest', file: `vms/${vm}.json`, vm, disk, delta: top },
      ...{ message: `${nameLabel(label)}: ${what}`, repaired: false },
      remedy: 'restore the manifest from a backup of the store',
      ...namesOf([nameLabel(label)]),
    });
  }

  async #addDelta(viewers: Viewers, found: DeltaFinding): Promise<void> {
    const { delta, block, blocks } = found;
    const reaching = viewers.reaching(delta).map(({ label }) => label);
    const seeing =
      block === undefined || blocks === undefined
        ? reaching
        : await viewers.seeing(this.#health, delta, { block, blocks });
    const { remedy: way, file, hint: _, ...rest } = found;
    const owner = seeing[0] ?? reaching[0];
    const isCopy = way === 'copy';
    const repaired = isCopy && this.#request.repair && (await this.#health.repairHeader(delta));
    this.#add({
      ...rest,
      kind: 'damage',
      file: relative(this.#context.store.layout.root, file),
      ...(owner === undefined ? {} : { vm: owner.vm, disk: owner.disk }),
      ...namesOf(seeing.map(nameLabel)),
      repaired,
      remedy: isCopy ? 'layerdisk check --repair' : remedyOf(found),
    });
  }

  async #checkOwnFiles(): Promise<void> {
    const { store } = this.#context;
    for (const { problem, ...rest } of await checkStoreFiles(store, this.#request.repair)) {
      const names = namesOf(store.catalog.list().map(({ name }) => name));
      this.#add({ kind: 'damage', part: 'file', message: problem, ...rest, ...names });
    }
  }

  async #checkBases(viewers: Viewers): Promise<void> {
    const { bases } = this.#context;
    const seen = new Map<string, Label[]>();
    for (const [delta, base] of this.#bases) {
      const labels = viewers.reaching(delta).map(({ label }) => label);
      seen.set(base, [...(seen.get(base) ?? []), ...labels]);
    }
    for (const [base, labels] of seen) {
      try {
        await bases.resolve(base);
      } catch (error) {
        if (!(error instanceof DiskError)) throw error;
        const [owner] = labels;
        this.#add({
          ...{ kind: 'damage', part: 'base', message: error.message, file: `bases/${base}.json` },
          ...(owner === undefined ? {} : { vm: owner.vm, disk: owner.disk }),
          ...namesOf(labels.map(nameLabel)),
          ...{ repaired: false, remedy: error.hint ?? 'bring the old file back' },
        });
      }
    }
  }

  /** Garbage that is about to be collected anyway is none: it has only just become that. */
  async #checkLeaks(): Promise<void> {
    const { repair } = this.#request;
    if (this.#garbage.isDue) return;
    let files: readonly string[];
    try {
      const collected = repair
        ? await this.#garbage.collectIntoTrash()
        : await this.#garbage.collect(true);
      ({ files } = collected);
    } catch (error) {
      // While damage hides what is in use nothing is known to be a leak; that has its findings.
      if (error instanceof DiskError && this.#counts.damaged > 0) return;
      throw error;
    }
    for (const file of files) {
      if (file.startsWith('trash/')) continue;
      this.#add({
        ...{ kind: 'leak', part: 'file', message: 'nothing refers to this file', file },
        ...{ repaired: repair, remedy: 'layerdisk gc', ...namesOf([]) },
      });
    }
  }

  #add(finding: Finding): void {
    if (finding.repaired) this.#counts.repaired += 1;
    else if (finding.kind === 'leak') this.#counts.leaks += 1;
    else this.#counts.damaged += 1;
    if (this.#findings.length < MOST_FINDINGS) this.#findings.push(finding);
    else this.#counts.more += 1;
  }
}

function namesOf(names: readonly string[]): Pick<Finding, 'seenBy' | 'seenByMore'> {
  const unique = [...new Set(names)];
  return {
    seenBy: unique.slice(0, MOST_NAMES),
    seenByMore: Math.max(0, unique.length - MOST_NAMES),
  };
}
