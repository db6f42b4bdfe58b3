/**
 * Where things lie in a store, and how one is made or recognised.
 *
 *     store.json         what this folder is
 *     numbers.json       VM numbers that were given out
 *     lock               held by the daemon while it runs
 *     headroom           space that only deleting may use
 *     vms/NAME.json      one manifest per VM
 *     vms/NAME.json.copy the same once more, should that one be damaged
 *     bases/ID.json      one record per referenced base image
 *     deltas/            the engine's
 *     memory/ID.state    memory and devices of a guest, as QEMU writes them
 *     trash/             what was removed, until it is deleted
 *     vms-run/NUMBER/    sockets, lock and log of a guest that runs; nothing that must last
 */
import { randomUUID } from 'node:crypto';
import { statSync } from 'node:fs';
import { basename, join } from 'node:path';
import * as z from 'zod';
import { DiskError } from '../../common/errors.js';
import { requireSafeFolder, STORE_SAFETY } from '../../common/safe-folder.js';
import { formatSealed, parseSealed, type SealedJson } from '../../common/sealed-json.js';
import { type DurableFiles, isTemporaryName, replaceFile } from '../../storage/atomic-write.js';
import { makeFolder } from '../../storage/directories.js';
import { hostError } from '../../storage/exact-io.js';
import { listFolder, readText, removeFile } from '../../storage/small-files.js';

const STORE_VERSION = 1;
const FORMAT = 'layerdisk-store';

const storeSchema = z.strictObject({
  format: z.literal(FORMAT),
  version: z.literal(STORE_VERSION),
  id: z.uuid(),
  created: z.iso.datetime(),
});

export type StoreIdentity = Readonly<z.infer<typeof storeSchema>>;

export interface StoreLayout {
  readonly root: string;
  readonly identity: string;
  readonly numbers: string;
  readonly lock: string;
  readonly headroom: string;
  readonly vms: string;
  readonly bases: string;
  readonly deltas: string;
  readonly memory: string;
  readonly trash: string;
  readonly run: string;
}

export function layoutOf(root: string): StoreLayout {
  return {
    root,
    identity: join(root, 'store.json'),
    numbers: join(root, 'numbers.json'),
    lock: join(root, 'lock'),
    headroom: join(root, 'headroom'),
    vms: join(root, 'vms'),
    bases: join(root, 'bases'),
    deltas: join(root, 'deltas'),
    memory: join(root, 'memory'),
    trash: join(root, 'trash'),
    run: join(root, 'vms-run'),
  };
}

export function manifestPath(layout: StoreLayout, vm: string): string {
  return join(layout.vms, `${vm}.json`);
}

/** Never in force: only `check --repair` takes it, when the manifest itself can't be read. */
export function copyPath(layout: StoreLayout, vm: string): string {
  return `${manifestPath(layout, vm)}.copy`;
}

/** Makes the store's folder where it is missing. @throws DiskError where others can change it. */
export async function makeRoot({ root }: StoreLayout): Promise<void> {
  await makeFolder(root);
  requireSafeFolder(root, statSync(root), STORE_SAFETY);
}

/**
 * Reads what the folder says it is, or makes it a store when it says nothing.
 * @throws DiskError `damaged` for a store whose identity is lost, `not-supported` for a newer one.
 */
export async function establish(layout: StoreLayout, files: DurableFiles): Promise<StoreIdentity> {
  const known = readIdentity(layout);
  if (known === undefined) refuseForeignContent(layout);
  else refuseWithoutFolders(layout);
  for (const folder of foldersOf(layout)) await makeFolder(folder);
  if (known !== undefined) return known;
  const identity: StoreIdentity = {
    format: FORMAT,
    version: STORE_VERSION,
    id: randomUUID(),
    created: new Date().toISOString(),
  };
  await writeIdentity(layout, files, identity);
  return identity;
}

/** Says what the store is, as it was known when it was opened. */
export function writeIdentity(
  layout: StoreLayout,
  files: DurableFiles,
  identity: StoreIdentity,
): Promise<void> {
  return replaceFile(files, layout.identity, formatSealed(identity), 'store');
}

/** Removes what replacements that were cut short left behind. Only under the store's lock. */
export function removeTemporaries(layout: StoreLayout): void {
  for (const folder of [layout.root, layout.vms, layout.bases, layout.memory]) {
    for (const name of listFolder(folder) ?? []) {
      if (isTemporaryName(name)) removeFile(join(folder, name), 'store.remove-temporary');
    }
  }
}

function foldersOf(layout: StoreLayout): string[] {
  return [layout.vms, layout.bases, layout.deltas, layout.memory, layout.trash];
}

/** @returns undefined when there is no such file. @throws DiskError as `establish` does. */
export function readIdentity(layout: StoreLayout): StoreIdentity | undefined {
  let text: string | undefined;
  try {
    text = readText(layout.identity);
  } catch (error) {
    throw hostError(`cannot read ${layout.identity}`, error);
  }
  if (text === undefined) return undefined;
  const { json, intact } = parse(text);
  const parsed = storeSchema.safeParse(json);
  if (parsed.success && intact) return parsed.data;
  const newer = z.object({ format: z.literal(FORMAT), version: z.int().min(STORE_VERSION + 1) });
  const claim = newer.safeParse(json);
  if (claim.success && intact) {
    const { version } = claim.data;
    throw new DiskError(
      'not-supported',
      `the store ${layout.root} has version ${version}, this layerdisk knows ${STORE_VERSION}`,
      { hint: 'use the newer layerdisk that made it' },
    );
  }
  if (parsed.success || claim.success) {
    throw new DiskError('damaged', `${layout.identity} does not match its checksum`, {
      hint: 'restore it from a backup; if the change was yours, remove the line "checksum"',
    });
  }
  throw new DiskError('damaged', `${layout.identity} is not the identity of a layerdisk store`, {
    hint: 'restore that file from a backup, or use another folder: --store DIR',
  });
}

function parse(text: string): SealedJson {
  try {
    return parseSealed(text);
  } catch {
    // Not JSON is as wrong as the wrong JSON: the schema refuses undefined.
    return { json: undefined, intact: false };
  }
}

/**
 * A store was made with its folders. An empty one in the place of `vms` would make garbage of every
 * delta.
 */
function refuseWithoutFolders({ root, vms, deltas }: StoreLayout): void {
  for (const folder of [vms, deltas]) {
    if (look(folder) !== undefined) continue;
    throw new DiskError('damaged', `the store ${root} has lost its folder ${basename(folder)}`, {
      hint: `bring ${folder} back from a backup; nothing else was touched`,
    });
  }
}

/** Without store.json, folders of our names that have something in them are not ours to touch. */
function refuseForeignContent(layout: StoreLayout): void {
  for (const folder of foldersOf(layout)) {
    if ((look(folder) ?? []).length === 0) continue;
    throw new DiskError('damaged', `${layout.root} has content, but no store.json`, {
      hint: 'restore store.json from a backup, or use another folder: --store DIR',
    });
  }
}

/** What is wrong with a file of the store that `check --repair` can write again. */
export function goneError(path: string): DiskError {
  return new DiskError('damaged', `${path} is gone`, { hint: 'layerdisk check --repair' });
}

/** @returns undefined when there is no such folder. @throws DiskError for what is no folder. */
function look(folder: string): string[] | undefined {
  try {
    return listFolder(folder);
  } catch (error) {
    const hint = 'see what is in its place: ls -l; bring the folder back';
    throw hostError(`cannot use the folder ${folder}`, error, hint);
  }
}
