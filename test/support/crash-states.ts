/** The states of a folder that a power cut at some point of a tape may leave. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { crc32 } from 'node:zlib';
import { foldersOf, type HostTape, type TapeOp } from './host-tape.js';
import type { Random } from './random.js';

const SECTOR = 512;
/** A store's folders are made with it, durably. */
const STORE_FOLDERS = ['vms', 'bases', 'deltas', 'trash'];

/** Names to contents. */
export type FolderState = Map<string, Buffer>;

/** Whether an operation that no sync covers is on the disk, and of a write, which sectors. */
export interface Choice {
  has(op: TapeOp, index: number): boolean;
  hasSector(op: TapeOp, index: number, sector: number): boolean;
}

export class CrashStates {
  readonly #tape: HostTape;

  constructor(tape: HostTape) {
    this.#tape = tape;
  }

  /** Which of the first `length` operations a sync had made durable by then. */
  #durable(length: number): boolean[] {
    const { ops } = this.#tape;
    const files = new Map<number, number>();
    const folders = new Map<string, number>();
    const later = <K>(map: Map<K, number>, key: K, upTo: number) =>
      map.set(key, Math.max(map.get(key) ?? 0, upTo));
    for (const op of ops.slice(0, length)) {
      if (op.kind === 'synced') later(files, op.file, op.upTo);
      if (op.kind === 'folder-synced') later(folders, op.path, op.upTo);
    }
    return ops.slice(0, length).map((op, index) => {
      if (op.kind === 'name' || op.kind === 'unlink') {
        return foldersOf(op).some((folder) => (folders.get(folder) ?? 0) > index);
      }
      return 'file' in op && (files.get(op.file) ?? 0) > index;
    });
  }

  /** The operations before `length` that a power cut there may undo. */
  pending(length: number): number[] {
    const durable = this.#durable(length);
    return [...durable.keys()].filter(
      (index) => !durable[index] && !isSync(this.#tape.ops[index]!),
    );
  }

  /** What is there after a power cut when `length` operations were done. */
  build(length: number, choice: Choice): FolderState {
    const { ops, files, names } = this.#tape;
    const durable = this.#durable(length);
    const contents = new Map<number, Buffer>();
    const entries = new Map(names);
    for (const [index, op] of ops.slice(0, length).entries()) {
      const whole = durable[index] === true;
      if (isSync(op) || !(whole || choice.has(op, index))) continue;
      if (op.kind === 'unlink') entries.delete(op.path);
      else if (op.kind === 'name') {
        if (op.from !== undefined) entries.delete(op.from);
        entries.set(op.path, op.file);
      } else if ('file' in op) {
        const before = contents.get(op.file) ?? Buffer.from(files[op.file]!);
        const keeps = (sector: number) => whole || choice.hasSector(op, index, sector);
        contents.set(op.file, applied(before, op, keeps));
      }
    }
    const state: FolderState = new Map();
    for (const [path, file] of entries) state.set(path, contents.get(file) ?? files[file]!);
    return state;
  }
}

function isSync(op: TapeOp): boolean {
  return op.kind === 'synced' || op.kind === 'folder-synced';
}

function applied(before: Buffer, op: TapeOp, keeps: (sector: number) => boolean): Buffer {
  if (op.kind === 'size') {
    if (!op.cut && op.size <= before.length) return before;
    return resized(before, op.size);
  }
  if (op.kind !== 'write' && op.kind !== 'zero') return before;
  const end = op.kind === 'write' ? op.offset + op.data.length : Math.min(op.end, before.length);
  const kept: { at: number; next: number }[] = [];
  for (let at = op.offset; at < end; ) {
    const sector = Math.floor(at / SECTOR);
    const next = Math.min(end, (sector + 1) * SECTOR);
    if (keeps(sector)) kept.push({ at, next });
    at = next;
  }
  const size = Math.max(before.length, kept.at(-1)?.next ?? 0);
  const bytes = size === before.length ? before : resized(before, size);
  for (const { at, next } of kept) {
    if (op.kind === 'write') op.data.copy(bytes, at, at - op.offset, next - op.offset);
    else bytes.fill(0, at, next);
  }
  return bytes;
}

function resized(bytes: Buffer, size: number): Buffer {
  if (size <= bytes.length) return bytes.subarray(0, size);
  return Buffer.concat([bytes, Buffer.alloc(size - bytes.length)]);
}

const ALL: Choice = { has: () => true, hasSector: () => true };

/** A way that a file system may have: from strict order to none at all. */
export function randomChoice(random: Random, pending: readonly number[]): Choice {
  const chance = random.pick([0, 5, 25, 50, 75, 95, 100]);
  const tearing = random.pick([0, 0, 30]);
  const coin = (percent: number) => random.below(100) < percent;
  const hasSector = () => !coin(tearing);
  switch (random.below(6)) {
    case 0: {
      // In their order, up to some point.
      const last = random.pick([...pending, Number.POSITIVE_INFINITY]);
      return { has: (_op, index) => index <= last, hasSector: () => true };
    }
    case 1: {
      const one = random.pick([...pending, -1]);
      return { has: (_op, index) => index !== one, hasSector };
    }
    case 2: {
      const one = random.pick([...pending, -1]);
      return { has: (_op, index) => index === one, hasSector };
    }
    case 3:
      // Names by a journal in order, contents as they come; or the other way round.
      return { has: (op) => op.kind === 'name' || op.kind === 'unlink' || coin(chance), hasSector };
    case 4:
      return { has: (op) => 'file' in op && op.kind !== 'name' && !coin(100 - chance), hasSector };
    default:
      return chance === 100 ? ALL : { has: () => coin(chance), hasSector };
  }
}

/** The process died and the host did not. */
export const NOTHING_LOST = ALL;

/** The same for equal states, and as good as never for others. */
export function fingerprintOf(state: FolderState): string {
  const parts = [...state].map(([path, bytes]) => `${path} ${bytes.length} ${crc32(bytes)}`);
  return parts.sort().join('\n');
}

/** All files below a folder. */
export function stateOfFolder(root: string): FolderState {
  const state: FolderState = new Map();
  for (const entry of readdirSync(root, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile()) state.set(relative(root, path), readFileSync(path));
  }
  return state;
}

/** Makes a folder hold exactly these files; empty folders stay. */
export function layOut(state: FolderState, root: string): void {
  for (const folder of STORE_FOLDERS) mkdirSync(join(root, folder), { recursive: true });
  for (const path of stateOfFolder(root).keys()) rmSync(join(root, path));
  for (const [path, bytes] of state) writeFileSync(join(root, path), bytes, { mode: 0o600 });
}
