/** Finds the files that a machine file names, under the rules for names found inside images. */
import { dirname, resolve } from 'node:path';
import { DiskError } from '../common/errors.js';
import { quoteName, resolveSibling } from '../formats/sibling-path.js';
import { realFolder } from '../storage/host-path.js';
import type {
  DiskDraft,
  FileDraft,
  Machine,
  MachineDisk,
  MachineImage,
  MachineSnapshot,
} from './machine.js';

/** Where a file lies on the host. */
export type Place = Pick<MachineImage, 'path' | 'window'>;

/** @throws DiskError when there is no such file, or it must not be used. */
export type FindFile = (names: readonly string[]) => Place;

/**
 * Finds files in or below the folder of the machine file, or in one that the user allowed.
 */
export function filesBeside(path: string, allowFolders: readonly string[]): FindFile {
  return (names) => {
    let failure: DiskError | undefined;
    for (const name of names) {
      try {
        return { path: resolveSibling(path, name, allowFolders) };
      } catch (error) {
        if (!(error instanceof DiskError)) throw error;
        // That a file is there but not to be used is more than that one is missing.
        if (failure === undefined || failure.code === 'not-found') {
          failure = withHint(path, name, error);
        }
      }
    }
    throw failure ?? new DiskError('damaged', `${path}: refers to a file without a name`);
  };
}

function withHint(path: string, name: string, error: DiskError): DiskError {
  if (error.code === 'not-found') {
    return new DiskError('not-found', error.message, {
      errno: 'ENOENT',
      hint: `put the file beside ${path}, or say where it may lie: --allow-folder DIR`,
    });
  }
  // With an errno it is the host that refuses, and no option helps.
  if (error.code !== 'not-permitted' || error.errno !== undefined || name.includes(':')) {
    return error;
  }
  const target = resolve(dirname(path), name);
  return new DiskError('not-permitted', error.message.replace('of the image', 'of the machine'), {
    hint: `if you trust this file with what lies there, say so: --allow-folder ${folderOf(target)}`,
  });
}

/** The folder that the file is really in: the one that must be allowed. */
function folderOf(path: string): string {
  try {
    return realFolder(path);
  } catch (error) {
    // It was there a moment ago.
    if (error instanceof DiskError) return dirname(path);
    throw error;
  }
}

/**
 * Two datastores may hold a disk of the same bare name: where only one of them was copied here, it
 * must not stand for both.
 */
function refuseOneForTwo(disks: readonly DiskDraft[], place: (file: FileDraft) => Place): void {
  const byPath = new Map<string, readonly string[]>();
  for (const file of disks.flatMap(({ files }) => files)) {
    const { path, window } = place(file);
    if (window !== undefined) continue;
    const other = byPath.get(path) ?? file.names;
    byPath.set(path, other);
    if (other[0] === file.names[0] || other.at(-1) !== file.names.at(-1)) continue;
    const both = [other, file.names].map((names) => quoteName(names[0] ?? '')).join(' and ');
    throw new DiskError('not-found', `${path}: only this one file was found for ${both}`, {
      errno: 'ENOENT',
      hint: 'give the other file another name, in the machine file, too, and put it beside it',
    });
  }
}

/** The machine with all its disks found. @throws DiskError naming the first that is not. */
export function locateDisks(draft: Machine<DiskDraft>, findFile: FindFile): Machine<MachineDisk> {
  const found = new Map<FileDraft, Place>();
  const place = (file: FileDraft): Place => {
    const known = found.get(file) ?? findFile(file.names);
    found.set(file, known);
    return known;
  };
  const locate = ({ files, size, ...rest }: DiskDraft): MachineDisk => {
    const [top, ...below] = files;
    if (top === undefined) return { ...rest, ...(size === undefined ? {} : { size }) };
    const image: MachineImage = {
      ...place(top),
      format: top.format,
      parents: below.map((file) => place(file).path),
      ...(below.length === 0 ? {} : { parentFormats: below.map(({ format }) => format) }),
    };
    return { ...rest, image };
  };
  for (const { disks } of [draft, ...draft.snapshots]) refuseOneForTwo(disks, place);
  const snapshots: MachineSnapshot<MachineDisk>[] = draft.snapshots.map((snapshot) => ({
    ...snapshot,
    disks: snapshot.disks.map(locate),
  }));
  return { ...draft, disks: draft.disks.map(locate), snapshots };
}
