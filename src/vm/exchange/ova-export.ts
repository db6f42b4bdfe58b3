/** A whole VM as an OVA: all its disks at one instant, with its hardware. */
import { dirname, join } from 'node:path';
import { invariant } from '../../common/assert.js';
import { diskMemberNames, writeOva } from '../../machines/write-ova.js';
import { shareSpace } from '../../storage/free-space.js';
import { OutputFiles } from '../../storage/output-files.js';
import type { MemberPlace, WrittenMember } from '../../storage/output-member.js';
import { describeFile } from '../../storage/small-files.js';
import { checkNotCancelled } from '../clones.js';
import { type VmContext, type Work, withVm } from '../context.js';
import { findSnapshot } from '../snapshot-tree.js';
import { sealLocked } from '../snapshots.js';
import { type Hardware, hardwareOf } from '../store/manifest.js';
import { settlePlace } from './export-place.js';
import type { ExportOutcome, ExportTools } from './exports.js';

export interface OvaRequest {
  readonly vm: string;
  /** Default: the present state. */
  readonly snapshot?: string;
  /** Absolute. */
  readonly path: string;
  /** Whether a file that is there already may be replaced. */
  readonly overwrite: boolean;
}

interface SealedVm {
  readonly hardware: Hardware;
  /** Pinned. */
  readonly disks: readonly { readonly name: string; readonly size: number; readonly top: string }[];
}

/**
 * Each disk is written where it is to lie in the archive, so that takes no more room than it has in
 * the end.
 * @throws DiskError `exists`, `not-found`, `usage`, `interrupted`, and what the formats say.
 */
export async function exportOva(
  context: VmContext,
  request: OvaRequest,
  tools: ExportTools,
  work: Work,
): Promise<ExportOutcome> {
  const { vm, overwrite } = request;
  const spared = overwrite ? await context.bases.fileIds() : new Set<string>();
  const { ownFolders } = tools;
  const path = await settlePlace(request.path, { overwrite, ownFolders, spared });
  const outputs = new OutputFiles(path, { overwrite, spared });
  // From here on its deltas are pinned.
  const { hardware, disks } = await sealVm(context, request);
  try {
    const output = outputs.create(path);
    const { temporaryPath } = output;
    const members = diskMemberNames(
      vm,
      disks.map(({ name }) => name),
    );
    const parts = disks.map(({ size, top }, index) => {
      const member = members[index] ?? '';
      const place = join(dirname(path), member);
      const write = (start: number) => {
        const within = { archive: path, temporaryPath, start };
        return writePart(context, { path: place, top, within }, tools, work);
      };
      return { name: member, capacity: size, write };
    });
    await writeOva(output, { name: vm, ...hardware, disks: parts });
    checkNotCancelled(work);
    outputs.commit();
  } finally {
    for (const { top } of disks) context.pins.deltas.unpin(top);
    outputs.discard();
  }
  const stored = (await describeFile(path))?.storedSize ?? 0;
  return { files: outputs.paths, storedSize: stored };
}

/** All disks of one instant; the present state is stopped in time for it. */
function sealVm(context: VmContext, { vm, snapshot }: OvaRequest): Promise<SealedVm> {
  return withVm(context, vm, async (entry) => {
    const before = context.store.loadEntry(entry);
    const named = snapshot === undefined ? undefined : findSnapshot(vm, before, snapshot);
    const disks =
      named?.disks.map(({ name, size, delta }) => ({ name, size, top: delta })) ??
      before.disks.map(({ name, size, head }) => ({ name, size, top: head }));
    for (const { top } of disks) context.pins.deltas.pin(top);
    try {
      const what = `export "${vm}"`;
      // From the reserve: it may be on its way out of a full store.
      if (named === undefined) await sealLocked(context, entry, { what, fromReserve: true });
    } catch (error) {
      for (const { top } of disks) context.pins.deltas.unpin(top);
      throw error;
    }
    return { hardware: hardwareOf(named ?? before), disks };
  });
}

interface OvaPart {
  /** Its own name, beside the archive. */
  readonly path: string;
  readonly top: string;
  readonly within: MemberPlace;
}

async function writePart(
  { engine, store, room }: VmContext,
  { path, top, within }: OvaPart,
  tools: ExportTools,
  { signal, onProgress }: Work,
): Promise<WrittenMember> {
  const volume = await engine.volumes.acquire(top, { writable: false });
  try {
    const total = volume.allocatedSize;
    const inStoreSpace = shareSpace(dirname(path), store.layout.root);
    const form = { format: 'vmdk', subformat: 'streamOptimized' };
    const shape = { path, ...form, overwrite: false, inStoreSpace };
    room.look();
    const { member } = await tools.run(
      { volume: volume.handle, ...shape, spared: [], within },
      {
        ...(signal === undefined ? {} : { signal }),
        onProgress: (done) => onProgress?.(Math.min(done, total), total),
      },
    );
    invariant(member !== undefined, `${path} was written into an archive`);
    return member;
  } finally {
    engine.volumes.release(volume);
  }
}
