/** From `VM[@SNAPSHOT] [--disk NAME]` to the exposed file. */
import { join } from 'node:path';
import { DiskError } from '../../common/errors.js';
import type { Target } from '../../control/protocol.js';
import type { DeltaId } from '../../engine/delta-id.js';
import { exposedPath } from '../../vm/exposure.js';
import { findSnapshot } from '../../vm/snapshot-tree.js';
import type { ViewSources } from './vm-views.js';

/** An exposed file that a request names. */
export interface ResolvedTarget {
  readonly vm: string;
  readonly snapshot: string | undefined;
  readonly disk: string;
  /** What a command needs to name the same disk again: ` --disk NAME`, or nothing. */
  readonly diskOption: string;
  /** Absolute, below the mount point. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** The chain behind it: a head, or the sealed delta of a snapshot. */
  readonly top: DeltaId;
  /** Whether the file can be read only. */
  readonly readOnly: boolean;
}

/**
 * Finds the file that is meant: the disk may be left out when there is one, or one named `disk0`.
 * @throws DiskError `not-found`, or `usage` when it isn't clear which disk.
 */
export function resolveTarget(
  { service, mountpoint }: Pick<ViewSources, 'service' | 'mountpoint'>,
  { vm, snapshot, disk }: Target,
): ResolvedTarget {
  const manifest = service.read(vm);
  const named = snapshot === undefined ? undefined : findSnapshot(vm, manifest, snapshot);
  const disks =
    named === undefined
      ? manifest.disks.map(({ name, size, kind, head }) => ({ name, size, kind, top: head }))
      : named.disks.map(({ name, size, kind, delta }) => ({ name, size, kind, top: delta }));
  const names = disks.map((each) => each.name);
  const owner = snapshot === undefined ? vm : `${vm}@${snapshot}`;
  const found = disk ?? (names.length === 1 ? names[0] : names.find((name) => name === 'disk0'));
  if (found === undefined) {
    throw new DiskError('usage', `"${owner}" has ${names.length} disks: ${names.join(', ')}`, {
      hint: 'say which one: --disk NAME',
    });
  }
  const record = disks.find((each) => each.name === found);
  if (record === undefined) {
    throw new DiskError('not-found', `"${owner}" has no disk "${found}"`, {
      hint: `it has: ${names.join(', ')}`,
    });
  }
  const path = join(mountpoint, exposedPath(vm, snapshot, found));
  const readOnly = snapshot !== undefined || record.kind === 'read-only';
  const diskOption = disk === undefined ? '' : ` --disk ${disk}`;
  return {
    vm,
    snapshot,
    disk: found,
    diskOption,
    path,
    size: record.size,
    top: record.top,
    readOnly,
  };
}
