/** What a switch of heads holds of the volumes that it finds open. Main thread only. */
import type { DeltaFiles } from '../delta/delta-files.js';
import type { DeltaId } from '../delta-id.js';
import type { HeadSwitch } from '../engine.js';
import { type ChainTools, walkChain } from './chain-loader.js';
import type { OpenEntry, OpenSwitch } from './head-switch.js';
import type { OpenBases } from './open-bases.js';

export interface SwitchHolder {
  readonly tools: ChainTools;
  readonly bases: OpenBases;
  readonly byTop: ReadonlyMap<DeltaId, OpenEntry>;
  readonly flush: (entry: OpenEntry) => Promise<void>;
  readonly release: (entry: OpenEntry) => void;
}

/** Whether the new head stands on the old one, which is sealed then; else it is a restore. */
export function isSnapshot(files: DeltaFiles, { from, to }: HeadSwitch): boolean {
  const { below } = files.readHeader(to).current;
  return below.kind === 'delta' && below.id === from;
}

/** The switches whose volume is open, kept from closing; restores hold the base they move to. */
export async function holdSwitches(
  { tools, bases, byTop, flush, release }: SwitchHolder,
  switches: readonly HeadSwitch[],
): Promise<OpenSwitch[]> {
  const held = switches.flatMap((change) => {
    const entry = byTop.get(change.from);
    return entry === undefined ? [] : [{ change, entry }];
  });
  // All before the first is waited for: the caller has decided which of them are closed.
  for (const { entry } of held) {
    entry.users += 1;
    clearTimeout(entry.rest);
  }
  const open: OpenSwitch[] = [];
  try {
    for (const { change, entry } of held) {
      const snapshot = isSnapshot(tools.files, change);
      const chain = snapshot ? [] : walkChain(tools, change.to);
      open.push({ ...change, entry, snapshot, base: await bases.useUnder(chain) });
      // What a restore leaves need not be kept.
      if (snapshot) await flush(entry);
    }
    return open;
  } catch (error) {
    for (const { base } of open) if (base !== undefined) bases.release(base.spec.id);
    for (const { entry } of held) release(entry);
    throw error;
  }
}
