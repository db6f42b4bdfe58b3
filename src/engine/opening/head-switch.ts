/**
 * Moving the heads of open volumes at one instant: the engine's part of snapshot and restore.
 *
 * 1. open what the volumes move to                        (requests go on)
 * 2. take the commit locks: flushes wait from here to 6
 * 3. commit: one rename                                   (requests go on, in the former heads)
 * 4. close the gates, wait until no request is inside     (requests wait: well under a millisecond)
 * 5. switch the rows, open the gates                      (requests go on, in the new heads)
 * 6. make the commit and the former heads durable, release the commit locks
 *
 * If anything up to the commit fails, the volumes are as they were.
 *
 * The commit stands before the instant, so that nobody waits for the host inside the gates. Who
 * looks in between, a process that dies there or the next one after it, finds what was written in
 * between where it was written: below the new heads, where a snapshot's belongs, or in heads that
 * nothing names any more.
 */

import { DiskError } from '../../common/errors.js';
import { together } from '../../common/together.js';
import { hostError } from '../../storage/exact-io.js';
import type { BaseSpec } from '../base.js';
import { recordSeed } from '../delta/delta-layout.js';
import type { HeadSwitch } from '../engine.js';
import { whileShut } from '../shared/gate.js';
import type { RowNumbers } from '../shared/row-numbers.js';
import { type SharedViews, VOLUME, VOLUME_STATIC, VOLUME_WORDS } from '../shared/shared-memory.js';
import { lockMutexAsync, unlockMutex } from '../shared/shared-mutex.js';
import { SlotSpace } from '../shared/slot-space.js';
import { VolumeRow } from '../shared/volume-row.js';
import { suspectError } from '../volume/commit.js';
import { type RetiredHead, sealRetired, syncRetired } from '../volume/durable-switch.js';
import {
  type ChainTools,
  type LoadedChain,
  loadChain,
  unloadChain,
  walkChain,
} from './chain-loader.js';

export interface OpenEntry {
  readonly index: number;
  chain: LoadedChain;
  users: number;
  /** Closes it when nobody uses it for a while. */
  rest: NodeJS.Timeout | undefined;
  /** When a user left last, by `performance.now()`. */
  leftAt: number;
}

export interface OpenSwitch extends HeadSwitch {
  readonly entry: OpenEntry;
  /** `to` lies directly on `from`; else the whole chain is another one. */
  readonly snapshot: boolean;
  /** What the other chain stands on (restore only). */
  readonly base?: { readonly index: number; readonly spec: BaseSpec } | undefined;
}

export interface SwitchTools {
  readonly tools: ChainTools;
  readonly rows: RowNumbers;
}

/** What a volume moves to, opened ahead: a new head on its chain, or another chain. */
type Prepared = {
  readonly change: OpenSwitch;
} & (NewHead | OtherChain);

interface NewHead {
  readonly kind: 'head';
  /** Page for the new head's slot table: nothing may fail inside the gate. */
  readonly slotRoot: number;
  retired?: RetiredHead;
}

interface OtherChain {
  readonly kind: 'chain';
  /** Row that holds it; after the switch, the one that was left behind. */
  readonly row: number;
  chain: LoadedChain;
}

export async function switchOpenHeads(
  switchTools: SwitchTools,
  changes: readonly OpenSwitch[],
  commit: () => void,
  settle: () => Promise<void>,
): Promise<void> {
  const { tools } = switchTools;
  const { views } = tools;
  const rows = changes.map(({ entry }) => entry.index).sort((a, b) => a - b);
  const prepared: Prepared[] = [];
  const undo = (): void => {
    for (const one of prepared) abandon(switchTools, one);
  };
  try {
    for (const change of changes) prepared.push(prepare(switchTools, change));
  } catch (error) {
    undo();
    throw error;
  }
  const commitLock = (index: number): number => index * VOLUME_WORDS + VOLUME.commitLock;
  for (const index of rows) await lockMutexAsync(views.volumeWords, commitLock(index));
  try {
    try {
      if (rows.some((index) => new VolumeRow(views, index).failed)) throw suspectError();
      commit();
    } catch (error) {
      undo();
      throw error;
    }
    whileShut(views, rows, () => {
      for (const one of prepared) switchRow(tools, one);
    });
    try {
      await makeDurable(tools, prepared, settle);
    } finally {
      for (const one of prepared) {
        // Nobody will ask for the head again that was left behind.
        if (one.kind === 'chain') dropChain(switchTools, one);
      }
    }
  } finally {
    for (const index of rows) unlockMutex(views.volumeWords, commitLock(index));
  }
}

function prepare({ tools, rows }: SwitchTools, change: OpenSwitch): Prepared {
  if (!change.snapshot) {
    const headers = walkChain(tools, change.to);
    const row = rows.take();
    const options = {
      writable: true,
      base: change.base?.spec,
      baseIndex: change.base?.index ?? 0,
    };
    try {
      return { kind: 'chain', change, row, chain: loadChain(tools, row, headers, options) };
    } catch (error) {
      rows.give(row);
      throw error;
    }
  }
  const header = tools.files.readHeader(change.to).current;
  if (header.virtualSize !== new VolumeRow(tools.views, change.entry.index).size) throw inUse();
  const delta = tools.table.use(header);
  try {
    tools.table.load(delta, 'head', () => {});
    return { kind: 'head', change, slotRoot: tools.nodes.pages.allocate() };
  } catch (error) {
    tools.table.release(change.to);
    throw error;
  }
}

/** For what can only be done to a disk that is closed. */
export function inUse(): DiskError {
  return new DiskError('busy', 'the disk is being read or written', {
    errno: 'EBUSY',
    hint: 'try again when whoever does so has ended',
  });
}

function abandon(switchTools: SwitchTools, prepared: Prepared): void {
  if (prepared.kind === 'chain') {
    dropChain(switchTools, prepared);
    return;
  }
  const { tools } = switchTools;
  tools.table.release(prepared.change.to);
  tools.nodes.pages.release(prepared.slotRoot);
}

function dropChain({ tools, rows }: SwitchTools, { row, chain }: OtherChain): void {
  unloadChain(tools, row, chain);
  rows.give(row);
}

/** Inside the gate: the volume's row moves on. Cannot fail. */
function switchRow(tools: ChainTools, one: Prepared): void {
  const { views, table } = tools;
  const { entry, to } = one.change;
  const row = new VolumeRow(views, entry.index);
  const former = entry.chain;
  if (one.kind === 'chain') {
    swapRows(views, entry.index, one.row);
    entry.chain = one.chain;
    one.chain = former;
  } else {
    one.retired = {
      dataFd: row.headDataFd,
      tuplesFd: row.headTuplesFd,
      recordCount: row.get(VOLUME.recordCount),
      mappedBlocks: row.get(VOLUME.mappedBlocks),
    };
    row.set(VOLUME.head, table.get(to)!.index);
    row.set(VOLUME.recordCount, 0);
    row.set(VOLUME.committedCount, 0);
    row.set(VOLUME.nextSlot, 0);
    row.set(VOLUME.recordSeed, recordSeed(to));
    row.set(VOLUME.flags, row.get(VOLUME.flags) & ~VOLUME_STATIC);
    new SlotSpace(views.volumes, tools.nodes.pages, entry.index).resetHead(one.slotRoot);
    entry.chain = { ...former, deltas: [to, ...former.deltas] };
  }
}

/** Fields that belong to the row itself, whatever chain is in it. */
const OWN_FIELDS: ReadonlySet<number> = new Set([
  VOLUME.incarnation,
  VOLUME.gate,
  VOLUME.logLock,
  VOLUME.commitLock,
  VOLUME.rangeLock,
]);

function swapRows(views: SharedViews, a: number, b: number): void {
  const words = views.volumes;
  for (let field = 0; field < VOLUME_WORDS; field += 1) {
    if (OWN_FIELDS.has(field)) continue;
    const kept = words[a * VOLUME_WORDS + field]!;
    words[a * VOLUME_WORDS + field] = words[b * VOLUME_WORDS + field]!;
    words[b * VOLUME_WORDS + field] = kept;
  }
  for (const index of [a, b]) Atomics.add(words, index * VOLUME_WORDS + VOLUME.incarnation, 1);
}

/** Nothing is acknowledged as flushed before this is done: the commit locks are held. */
async function makeDurable(
  tools: ChainTools,
  prepared: readonly Prepared[],
  settle: () => Promise<void>,
): Promise<void> {
  const { views, table } = tools;
  const retiredOf = (one: Prepared): RetiredHead | undefined =>
    one.kind === 'head' ? one.retired : undefined;
  const heads = prepared.flatMap((one) => retiredOf(one) ?? []);
  try {
    await together([settle(), ...heads.map(syncRetired)]);
    // Not before the commit is durable: a head that is still one must not be marked sealed.
    await together(heads.map(sealRetired));
    for (const one of prepared) {
      const delta = table.get(one.change.from);
      if (retiredOf(one) !== undefined && delta !== undefined) table.closeTuples(delta);
    }
  } catch (error) {
    for (const { change } of prepared) new VolumeRow(views, change.entry.index).markFailed();
    throw hostError('cannot make what the disks held durable', error);
  }
  // Writes into the new heads since the gates opened are not flushed yet.
  for (const { change } of prepared) new VolumeRow(views, change.entry.index).markDirty();
}
