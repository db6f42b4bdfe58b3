/** A migration of QEMU's that is under way: how far it is, and ending it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Qmp } from './qmp.js';

/** QEMU does not answer while it writes the last part. */
export const ANSWER_MS = 600_000;
const POLL_MS = 20;

export interface MigrationState {
  /** Undefined: there never was one. */
  readonly status?: string;
  readonly 'error-desc'?: string;
  /** Bytes. */
  readonly ram?: { readonly total: number; readonly remaining: number };
}

export function hasEnded({ status }: MigrationState): boolean {
  return [undefined, 'none', 'completed', 'failed', 'cancelled'].includes(status);
}

export async function queryMigration(qmp: Qmp): Promise<MigrationState> {
  return (await qmp.execute('query-migrate', undefined, ANSWER_MS)) as MigrationState;
}

/** Ends a migration that is under way; without one it does nothing. */
export async function cancelMigration(qmp: Qmp): Promise<void> {
  while (!hasEnded(await queryMigration(qmp))) {
    await qmp.execute('migrate_cancel');
    await sleep(POLL_MS);
  }
}
