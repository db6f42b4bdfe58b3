/** Exports: what one disk shows at one instant, or what was changed on its base, as an image. */
import { realpath } from 'node:fs/promises';
import { dirname, relative, sep } from 'node:path';
import { DiskError } from '../../common/errors.js';
import type { BaseSpec } from '../../engine/base.js';
import type { DeltaId } from '../../engine/delta-id.js';
import { shareSpace } from '../../storage/free-space.js';
import type { MemberPlace, WrittenMember } from '../../storage/output-member.js';
import { type VmContext, type Work, withVm } from '../context.js';
import { findSnapshot } from '../snapshot-tree.js';
import { sealLocked } from '../snapshots.js';
import type { Manifest } from '../store/manifest.js';
import { settlePlace } from './export-place.js';

export interface ExportRequest {
  readonly vm: string;
  /** Default: the present state. */
  readonly snapshot?: string;
  readonly disk: string;
  /** Absolute. */
  readonly path: string;
  readonly format: string;
  readonly subformat: string;
  /** Only what was changed, as a child of the image that the disk stands on. */
  readonly differencing: boolean;
  /** Whether a file that is there already may be replaced. */
  readonly overwrite: boolean;
}

/** What the format side is asked to do, on a background thread. */
export interface ExportJob {
  /** Handle of an open volume that is sealed. */
  readonly volume: number;
  /** Absolute, free of links. */
  readonly path: string;
  readonly format: string;
  readonly subformat: string;
  readonly overwrite: boolean;
  /** Whether its space is taken from the store's file system. */
  readonly inStoreSpace: boolean;
  /** `fileId`s of files that are never replaced. */
  readonly spared: readonly string[];
  /** Given for a differencing image. */
  readonly parent?: ParentSpec;
  /** Given for a member of an archive: then `path` is its name beside that. */
  readonly within?: MemberPlace;
}

export interface ParentSpec {
  readonly base: BaseSpec;
  /** What the child calls it. */
  readonly name: string;
}

export interface ExportOutcome {
  /** Absolute. */
  readonly files: readonly string[];
  /** Bytes of the host that they take. */
  readonly storedSize: number;
  /** Of a member of an archive. */
  readonly member?: WrittenMember;
}

/** Writes an image from a volume; injected where rooms are wired together. */
export type RunExport = (
  job: ExportJob,
  hooks: { readonly signal?: AbortSignal; readonly onProgress: (doneBytes: number) => void },
) => Promise<ExportOutcome>;

/** What an export needs besides the store. */
export interface ExportTools {
  readonly run: RunExport;
  readonly ownFolders: readonly string[];
}

/**
 * The VM is locked only for the instant that is exported; its deltas are pinned meanwhile, and it
 * goes on writing.
 * @throws DiskError `exists`, `not-found`, `usage`, `interrupted`, and what the formats say.
 */
export async function exportDisk(
  context: VmContext,
  request: ExportRequest,
  tools: ExportTools,
  work: Work,
): Promise<ExportOutcome> {
  const { bases, engine, pins } = context;
  const { overwrite, format, subformat } = request;
  // What replaces nothing needs no list of what must not be replaced.
  const spared = overwrite ? await bases.fileIds() : new Set<string>();
  const { ownFolders } = tools;
  const path = await settlePlace(request.path, { overwrite, ownFolders, spared });
  const { top, parent } = await sealDisk(context, request, path);
  try {
    const volume = await engine.volumes.acquire(top, { writable: false });
    try {
      const facts = parent === undefined ? undefined : context.chains.facts(top);
      const total = facts?.bytes ?? volume.allocatedSize;
      const inStoreSpace = shareSpace(dirname(path), context.store.layout.root);
      const job = { volume: volume.handle, path, format, subformat, overwrite, inStoreSpace };
      context.room.look();
      return await tools.run(
        { ...job, spared: [...spared], ...(parent === undefined ? {} : { parent }) },
        {
          ...(work.signal === undefined ? {} : { signal: work.signal }),
          onProgress: (done) => work.onProgress?.(Math.min(done, total), total),
        },
      );
    } finally {
      engine.volumes.release(volume);
    }
  } finally {
    pins.deltas.unpin(top);
  }
}

interface SealedDisk {
  /** Pinned. */
  readonly top: DeltaId;
  readonly parent: ParentSpec | undefined;
}

/** Finds the disk and stops its present state in time. */
function sealDisk(context: VmContext, request: ExportRequest, path: string): Promise<SealedDisk> {
  return withVm(context, request.vm, async (entry) => {
    const before = context.store.loadEntry(entry);
    const top = topOf(before, entry.name, request);
    const parent = request.differencing ? await parentOf(context, request, top, path) : undefined;
    context.pins.deltas.pin(top);
    try {
      if (request.snapshot === undefined) {
        const what = `export "${entry.name}"`;
        // From the reserve: it may be on its way out of a full store.
        await sealLocked(context, entry, { what, fromReserve: true });
      }
    } catch (error) {
      context.pins.deltas.unpin(top);
      throw error;
    }
    return { top, parent };
  });
}

function topOf(manifest: Manifest, vm: string, { snapshot, disk }: ExportRequest): DeltaId {
  if (snapshot !== undefined) {
    const found = findSnapshot(vm, manifest, snapshot).disks.find(({ name }) => name === disk);
    if (found !== undefined) return found.delta;
  } else {
    const found = manifest.disks.find(({ name }) => name === disk);
    if (found !== undefined) return found.head;
  }
  throw new DiskError('not-found', `"${vm}" has no disk "${disk}"`);
}

/** The image that the disk was imported from, as it was. */
async function parentOf(
  { chains, bases }: VmContext,
  { vm, disk }: ExportRequest,
  top: DeltaId,
  path: string,
): Promise<ParentSpec> {
  const id = chains.facts(top).base;
  if (id === undefined) {
    throw new DiskError('usage', `${vm}/${disk} stands on no imported image, so it has no parent`, {
      hint: 'export all of it: leave --differencing out',
    });
  }
  const base = await bases.resolve(id);
  const image = base.images[0]?.path ?? '';
  return { base, name: nameFrom(dirname(path), await realpath(image)) };
}

/** Relative where both lie in one tree, which then may move; absolute elsewhere. */
function nameFrom(folder: string, path: string): string {
  const tree = (place: string) => place.split(sep, 2)[1];
  return tree(folder) === tree(path) ? relative(folder, path) : path;
}
