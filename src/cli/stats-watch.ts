/** What the daemon does now: its counters again and again, with what became of them in between. */
import { setTimeout as delay } from 'node:timers/promises';
import { DiskError } from '../common/errors.js';
import type { IoStats, Params, StatsView } from '../control/protocol.js';
import { onInterrupt } from './interrupt.js';
import type { Session } from './session.js';

const INTERVAL_MS = 1000;

/** Per second, since the time before. */
export type IoRates = IoStats;

type VmStats = NonNullable<StatsView['vms']>[number];

/** Counters, and what they grew by a second; without that the first time. */
export interface WatchedStats extends StatsView {
  readonly perSecond?: IoRates;
  readonly vms?: readonly (VmStats & { readonly perSecond?: IoRates })[];
}

/** Shows the counters every second. @throws DiskError `interrupted` in the end, others before. */
export async function watchStats(
  session: Session,
  params: Params<'stats'>,
  show: (stats: WatchedStats) => void,
): Promise<never> {
  const end = new AbortController();
  const ended = new Promise((done) => end.signal.addEventListener('abort', done));
  const release = onInterrupt(() => end.abort());
  try {
    for (let before: StatsView | undefined; ; ) {
      const next = delay(INTERVAL_MS, undefined, { signal: end.signal });
      // Looked at below; a call that fails meanwhile is what is to be told.
      next.catch(() => undefined);
      const now = await session.call('stats', params);
      show(withRates(now, before));
      before = now;
      const drained = session.stdout.drained();
      if (drained !== undefined) await Promise.race([drained, ended]);
      await next;
    }
  } catch (error) {
    if (!end.signal.aborted) throw error;
    throw new DiskError('interrupted', 'stats: no longer watched');
  } finally {
    end.abort();
    release();
  }
}

/** What the counters grew by, per second of the daemon's own clock. */
export function withRates(now: StatsView, before: StatsView | undefined): WatchedStats {
  const seconds = now.uptimeSeconds - (before?.uptimeSeconds ?? Number.POSITIVE_INFINITY);
  // Another daemon serves since: its counters have begun anew.
  if (before === undefined || seconds <= 0) return now;
  const { vms } = now;
  const rated = vms?.map((one) => {
    const last = before.vms?.find(({ disk }) => disk === one.disk);
    return last === undefined ? one : { ...one, perSecond: ratesOf(one.io, last.io, seconds) };
  });
  return {
    ...now,
    perSecond: ratesOf(now.io, before.io, seconds),
    ...(rated === undefined ? {} : { vms: rated }),
  };
}

function ratesOf(now: IoStats, before: IoStats, seconds: number): IoRates {
  const rate = (field: keyof IoStats): number => {
    // The counters of a disk that was closed and opened again have begun anew.
    const since = now[field] < before[field] ? 0 : before[field];
    return Math.round((now[field] - since) / seconds);
  };
  return {
    reads: rate('reads'),
    readBytes: rate('readBytes'),
    writes: rate('writes'),
    writtenBytes: rate('writtenBytes'),
    flushes: rate('flushes'),
    discards: rate('discards'),
  };
}
