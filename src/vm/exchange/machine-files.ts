/** Machine files that point at the exposed disks: small texts, written together or not at all. */
import { stat } from 'node:fs/promises';
import { DiskError, errnoName } from '../../common/errors.js';
import { KiB } from '../../common/units.js';
import { failure, OutputFiles } from '../../storage/output-files.js';
import { readText } from '../../storage/small-files.js';
import type { VmContext } from '../context.js';
import { settlePlace } from './export-place.js';

/** A longer file is no text of ours. */
const MAX_OWN_BYTES = 64 * KiB;

export interface MachineFile {
  readonly path: string;
  readonly bytes: Buffer;
}

export interface MachineFilesRequest {
  /** Of the main file; absolute. */
  readonly path: string;
  /** Whether files that are there already may be replaced. */
  readonly overwrite: boolean;
  /** The main file and what lies beside it, from the main one's path without links. */
  readonly build: (path: string) => readonly MachineFile[];
  /** Whether what lies beside the main file under one of these names was written by us. */
  readonly isOurs: (text: string) => boolean;
}

/**
 * @returns the paths, the main one first.
 * @throws DiskError `exists`, `not-found`, `usage` for what is no place for it.
 */
export async function writeMachineFiles(
  context: VmContext,
  request: MachineFilesRequest,
  ownFolders: readonly string[],
): Promise<string[]> {
  const { overwrite } = request;
  const spared = overwrite ? await context.bases.fileIds() : new Set<string>();
  const path = await settlePlace(request.path, { overwrite, ownFolders, spared });
  const files = request.build(path);
  // Only the main file was named by whoever allowed to replace it.
  if (overwrite) {
    for (const file of files) {
      if (file.path !== path) await refuseForeign(file.path, request.isOurs);
    }
  }
  const outputs = new OutputFiles(path, { overwrite, spared });
  try {
    for (const file of files) {
      outputs.create(file.path).write(file.bytes, 0, file.bytes.length, 0);
    }
    outputs.commit();
  } finally {
    outputs.discard();
  }
  return files.map((file) => file.path);
}

async function refuseForeign(path: string, isOurs: (text: string) => boolean): Promise<void> {
  const facts = await stat(path).catch((error: unknown) => {
    if (errnoName(error) === 'ENOENT') return undefined;
    throw failure(path, 'cannot look it up', error);
  });
  if (facts === undefined) return;
  // Nothing else is read: a FIFO has no end, a sparse file may have one that is far away.
  if (facts.isFile() && facts.size <= MAX_OWN_BYTES && isOurs(readText(path) ?? '')) return;
  throw new DiskError('exists', `${path} exists already, and points at no disk of layerdisk`, {
    hint: 'choose another name for the machine file, or move that file away',
  });
}
