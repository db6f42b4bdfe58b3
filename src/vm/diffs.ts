/** Differences: which blocks of a VM's disks are not what they were at a snapshot. */
import type { DiffPage, DiffPart, DiffPlace, DiskDiff } from '../common/disk-diff.js';
import { DiskError } from '../common/errors.js';
import type { DeltaId } from '../engine/delta-id.js';
import type { DiffOrder } from '../engine/jobs/diff-volumes.js';
import type { VmContext, Work } from './context.js';
import { findSnapshot } from './snapshot-tree.js';
import type { Manifest } from './store/manifest.js';

export interface DiffRequest {
  readonly vm: string;
  /** A snapshot. */
  readonly from: string;
  /** Default: the present state. */
  readonly to?: string;
  /** Default: all disks. */
  readonly disk?: string;
  /** Where the last answer said that it goes on. */
  readonly next?: DiffPlace;
  /** Most extents in the answer. */
  readonly limit: number;
}

/** Compares two open volumes on a background thread; injected where rooms are wired together. */
export type RunDiff = (order: DiffOrder, work: Work) => Promise<DiffPart>;

/** A disk as one state has it. */
interface Side {
  readonly name: string;
  readonly size: number;
  readonly top: DeltaId;
  readonly writable: boolean;
}

interface Pair {
  readonly disk: string;
  readonly from: Side | undefined;
  readonly to: Side | undefined;
}

/**
 * Changes nothing, and keeps nobody from the VM: what is written to its present state meanwhile is
 * in the answer or not.
 * @throws DiskError `not-found`, `interrupted`, and what reading the disks says.
 */
export async function diffDisks(
  context: VmContext,
  request: DiffRequest,
  run: RunDiff,
  work: Work,
): Promise<DiffPage> {
  const { vm, from, to } = request;
  // Pinned before anything is waited for: what the manifest names cannot go in between.
  const manifest = context.store.load(vm);
  const pairs = pairsOf(vm, manifest, request);
  const tops = pairs.flatMap((pair) => [pair.from, pair.to]).flatMap((side) => side?.top ?? []);
  for (const top of tops) context.pins.deltas.pin(top);
  try {
    const page = await collect(pairs, request, (each, order) => {
      const before = pairs.slice(0, pairs.indexOf(each)).reduce((sum, one) => sum + sizeOf(one), 0);
      const total = pairs.reduce((sum, one) => sum + sizeOf(one), 0);
      const now = { ...each, to: presentSide(context, manifest, each.to) };
      return comparePair(context, now, order, (volumes) =>
        run(volumes, {
          ...(work.signal === undefined ? {} : { signal: work.signal }),
          onProgress: (done) => work.onProgress?.(before + done, total),
        }),
      );
    });
    return { vm, from, ...(to === undefined ? {} : { to }), ...page };
  } finally {
    for (const top of tops) context.pins.deltas.unpin(top);
  }
}

/**
 * The head of a present state may have moved on long ago, while other disks were compared.
 * @param known what it was. One that is gone since is compared as that: it is pinned.
 */
function presentSide(
  { store }: VmContext,
  { id }: Manifest,
  known: Side | undefined,
): Side | undefined {
  if (known?.writable !== true) return known;
  const entry = store.catalog.findById(id);
  const disks = entry === undefined ? [] : store.readEntry(entry).disks;
  const head = disks.find(({ name }) => name === known.name)?.head;
  return head === undefined ? known : { ...known, top: head };
}

type Range = Pick<DiffOrder, 'start' | 'limit'>;

/** Disk after disk, until there are enough extents. */
async function collect(
  pairs: readonly Pair[],
  { next, limit }: DiffRequest,
  compare: (pair: Pair, range: Range) => Promise<DiffPart>,
): Promise<Pick<DiffPage, 'disks' | 'next'>> {
  const disks: DiskDiff[] = [];
  let left = limit;
  const first = next === undefined ? 0 : pairs.findIndex(({ disk }) => disk === next.disk);
  for (const pair of pairs.slice(first)) {
    const { disk } = pair;
    const start = disk === next?.disk ? next.start : 0;
    if (left === 0) return { disks, next: { disk, start } };
    const part = await compare(pair, { start, limit: left });
    disks.push(viewOf(pair, part));
    left -= part.extents.length;
    if (part.next !== undefined) return { disks, next: { disk, start: part.next } };
  }
  return { disks };
}

async function comparePair(
  { engine }: VmContext,
  { from, to }: Pair,
  range: Range,
  run: (order: DiffOrder) => Promise<DiffPart>,
): Promise<DiffPart> {
  if (from === undefined || to === undefined) return { extents: [] };
  const before = await engine.volumes.acquire(from.top, { writable: from.writable });
  try {
    const after = await engine.volumes.acquire(to.top, { writable: to.writable });
    try {
      return await run({ from: before.handle, to: after.handle, ...range });
    } finally {
      engine.volumes.release(after);
    }
  } finally {
    engine.volumes.release(before);
  }
}

function viewOf(pair: Pair, { extents }: DiffPart): DiskDiff {
  const { disk, from, to } = pair;
  const isInBoth = from !== undefined && to !== undefined;
  const changed = extents.reduce((sum, { length }) => sum + length, 0);
  return {
    disk,
    ...(from === undefined ? {} : { fromSize: from.size }),
    ...(to === undefined ? {} : { toSize: to.size }),
    changedBytes: isInBoth ? changed : sizeOf(pair),
    extents,
  };
}

function sizeOf({ from, to }: Pair): number {
  return Math.max(from?.size ?? 0, to?.size ?? 0);
}

/** The disks of the earlier state in its order, then those that only the later one has. */
function pairsOf(vm: string, manifest: Manifest, request: DiffRequest): Pair[] {
  const from = sidesAt(vm, manifest, request.from);
  const to = sidesAt(vm, manifest, request.to);
  const names = [...new Set([...from, ...to].map(({ name }) => name))];
  const named = (sides: readonly Side[], disk: string) => sides.find(({ name }) => name === disk);
  for (const disk of [request.disk, request.next?.disk]) {
    if (disk === undefined || names.includes(disk)) continue;
    throw new DiskError('not-found', `"${vm}" has no disk "${disk}" in either state`, {
      hint: `it has: ${names.join(', ')}`,
    });
  }
  return names
    .filter((disk) => request.disk === undefined || disk === request.disk)
    .map((disk) => ({ disk, from: named(from, disk), to: named(to, disk) }));
}

function sidesAt(vm: string, manifest: Manifest, snapshot: string | undefined): Side[] {
  if (snapshot === undefined) {
    return manifest.disks.map(({ name, size, head }) => ({
      name,
      size,
      top: head,
      writable: true,
    }));
  }
  const { disks } = findSnapshot(vm, manifest, snapshot);
  return disks.map(({ name, size, delta }) => ({ name, size, top: delta, writable: false }));
}
