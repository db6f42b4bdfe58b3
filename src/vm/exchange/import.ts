/** VMs from foreign images: referenced in place and never written, or copied. */
import { randomUUID } from 'node:crypto';
import { sep } from 'node:path';
import { DiskError } from '../../common/errors.js';
import { checkDiskSize } from '../../common/units.js';
import { resolveLinks } from '../../storage/small-files.js';
import { checkNotCancelled, copyDisks, newManifest } from '../clones.js';
import { type VmContext, type Work, withNewName } from '../context.js';
import { nameDisks } from '../create.js';
import { changeHardware, type HardwareRequest } from '../hardware.js';
import { Preparation } from '../preparation.js';
import { requireRoom } from '../room.js';
import type { BaseRequest, DescribedBase } from '../store/base-records.js';
import { type DiskRecord, NODE } from '../store/manifest.js';
import { checkName } from '../store/names.js';

export interface ImportRequest {
  readonly vm: string;
  /** Each becomes a disk. */
  readonly images: readonly BaseRequest[];
  readonly copy: boolean;
  readonly hardware: HardwareRequest;
  /** Folders that no image may lie in: the store and what the daemon itself exposes. */
  readonly ownFolders: readonly string[];
}

interface ImportedDisk {
  readonly request: BaseRequest;
  readonly described: DescribedBase;
  readonly name: string;
}

/**
 * @returns findings that are no errors, one line each.
 * @throws DiskError `usage`, `exists`, and whatever is wrong with an image, by name.
 */
export async function importVm(
  context: VmContext,
  request: ImportRequest,
  work: Work,
): Promise<string[]> {
  const warnings: string[] = [];
  checkName('VM', request.vm);
  const names = nameDisks(request.images.map(() => undefined));
  await withNewName(context, request.vm, () =>
    Preparation.run(context, async (preparation) => {
      const hardware = changeHardware(request.hardware, preparation.macs);
      const imported: ImportedDisk[] = [];
      for (const [index, image] of request.images.entries()) {
        await refuseOwnFile(image.path, request.ownFolders);
        const described = await context.bases.describe(image, !request.copy);
        checkDiskSize(described.spec.virtualSize, image.path);
        warnings.push(...(described.warnings ?? []));
        imported.push({ request: image, described, name: names[index] ?? '' });
      }
      checkNotCancelled(work);
      requireRoom(context.room, { what: `import "${request.vm}"`, deltas: 2 * imported.length });
      const vmId = randomUUID();
      const referenced = await referenceBases(preparation, vmId, imported);
      const disks = request.copy
        ? await copyFromBases(context, preparation, referenced, work)
        : referenced.disks;
      const manifest = { ...(await newManifest(context, hardware, disks, undefined)), id: vmId };
      await preparation.commit(await context.store.prepareNew(request.vm, manifest));
    }),
  );
  context.hooks.namesChanged(request.vm);
  return warnings;
}

interface Referenced {
  readonly disks: readonly DiskRecord[];
  readonly bases: readonly string[];
}

/** A record for each base, and an empty delta on it. */
async function referenceBases(
  preparation: Preparation,
  vmId: string,
  imported: readonly ImportedDisk[],
): Promise<Referenced> {
  const disks: DiskRecord[] = [];
  const bases: string[] = [];
  for (const [index, { request, described, name }] of imported.entries()) {
    const size = described.spec.virtualSize;
    const { id } = await preparation.createBase(vmId, request, described);
    bases.push(id);
    const head = await preparation.createDelta({
      below: { kind: 'base', id },
      virtualSize: size,
      allocation: 'dynamic',
    });
    disks.push({ name, node: NODE.first + index, size, allocation: 'dynamic', head });
  }
  return { disks, bases };
}

/** Copies what the references show, and drops them. */
async function copyFromBases(
  context: VmContext,
  preparation: Preparation,
  { disks, bases }: Referenced,
  work: Work,
): Promise<DiskRecord[]> {
  const copied: DiskRecord[] = [];
  for (const disk of disks) {
    const head = await preparation.createDelta({
      below: { kind: 'none' },
      virtualSize: disk.size,
      allocation: 'dynamic',
    });
    copied.push({ ...disk, head });
  }
  const copies = disks.map((disk, index) => ({
    source: disk.head,
    target: copied[index]?.head ?? '',
  }));
  await copyDisks(context, copies, work);
  await preparation.discard(
    disks.map((disk) => disk.head),
    bases,
  );
  return copied;
}

/** An exposed disk as a base of another would be served through itself, and changes besides. */
export async function refuseOwnFile(path: string, ownFolders: readonly string[]): Promise<void> {
  const isOwn = (file: string) => ownFolders.some((folder) => file.startsWith(folder + sep));
  // By name first: a look at the daemon's own mount is for its I/O threads to answer.
  const own = isOwn(path) || isOwn(await resolveLinks(path));
  if (!own) return;
  throw new DiskError('usage', `${path} belongs to layerdisk itself`, {
    hint: 'to copy a VM use: layerdisk clone VM NEW',
  });
}
