/**
 * Writes down what the program tells the host to do with the files of one folder, and says what of
 * it may be on the disk after a power cut.
 *
 * What is promised by a host is little: the bytes and the size of a file are there once a sync of
 * the file has returned, its name once a sync of the folder has. Anything else may be there or not,
 * in any order, each 512-byte sector by itself; a rename is there or it is not.
 */
import { fstatSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from '../../src/storage/libc.js';
import { aroundHostCalls, type HostCall } from './host-faults.js';

/** A file by number: names come and go. Paths are relative to the folder. */
export type TapeOp = { readonly label: string } & (
  | {
      readonly kind: 'write';
      readonly file: number;
      readonly offset: number;
      readonly data: Buffer;
    }
  | { readonly kind: 'zero'; readonly file: number; readonly offset: number; readonly end: number }
  | { readonly kind: 'size'; readonly file: number; readonly size: number; readonly cut: boolean }
  | { readonly kind: 'name'; readonly file: number; readonly path: string; readonly from?: string }
  | { readonly kind: 'unlink'; readonly path: string }
  | { readonly kind: 'synced'; readonly file: number; readonly upTo: number }
  | { readonly kind: 'folder-synced'; readonly path: string; readonly upTo: number }
);

export class HostTape {
  readonly root: string;
  readonly ops: TapeOp[] = [];
  /** What was there when the tape began: all of it durable. */
  readonly files: Buffer[] = [];
  readonly names = new Map<string, number>();
  readonly #byInode = new Map<number, number>();
  readonly #restore: () => void;

  constructor(root: string) {
    this.root = root;
    for (const path of filesBelow(root)) {
      this.names.set(relative(root, path), this.#adopt(statSync(path).ino, readFileSync(path)));
    }
    this.#restore = aroundHostCalls((call, run) => this.#see(call, run));
  }

  /** How much is on the tape. */
  get position(): number {
    return this.ops.length;
  }

  end(): void {
    this.#restore();
  }

  #adopt(inode: number, content: Buffer): number {
    const file = this.files.push(content) - 1;
    this.#byInode.set(inode, file);
    return file;
  }

  #see(call: HostCall, run: () => unknown): unknown {
    const { name, args, label } = call;
    if (name === 'syncLater' || name === 'syncDataLater') {
      return this.#syncLater(Number(args[0]), label, run() as Promise<void>);
    }
    if (name === 'removeTree') {
      const gone = this.#path(String(args[0]));
      const push = () => gone !== undefined && this.ops.push({ kind: 'unlink', path: gone, label });
      return (run() as Promise<void>).then(push);
    }
    const upTo = this.ops.length;
    const result = run();
    this.#record(call, result, upTo);
    return result;
  }

  async #syncLater(fd: number, label: string, done: Promise<void>): Promise<void> {
    const upTo = this.ops.length;
    const synced = this.#syncOf(fd, upTo, label);
    await done;
    if (synced !== undefined) this.ops.push(synced);
  }

  #syncOf(fd: number, upTo: number, label: string): TapeOp | undefined {
    if (fstatSync(fd).isDirectory()) {
      const path = this.#path(readlinkSync(`/proc/self/fd/${fd}`));
      return path === undefined ? undefined : { kind: 'folder-synced', path, upTo, label };
    }
    const file = this.#file(fd);
    return file === undefined ? undefined : { kind: 'synced', file, upTo, label };
  }

  #record({ name, args, label }: HostCall, result: unknown, upTo: number): void {
    if (name === 'create') this.#recordCreate(String(args[0]), Number(result), label);
    else if (name === 'rename' || name === 'link') {
      const [from, path] = [this.#path(String(args[0])), this.#path(String(args[1]))];
      if (path === undefined || from === undefined) return;
      const file = this.#byInode.get(statSync(join(this.root, path)).ino)!;
      const moved = name === 'rename' ? { from } : {};
      this.ops.push({ kind: 'name', file, path, label, ...moved });
    } else if (name === 'unlink') {
      const path = this.#path(String(args[0]));
      if (path !== undefined) this.ops.push({ kind: 'unlink', path, label });
    } else if (name === 'sync' || name === 'syncData') {
      const synced = this.#syncOf(Number(args[0]), upTo, label);
      if (synced !== undefined) this.ops.push(synced);
    } else {
      const file = typeof args[0] === 'number' ? this.#file(args[0]) : undefined;
      if (file !== undefined) this.#recordChange(file, { name, args, label }, result);
    }
  }

  #recordCreate(path: string, fd: number, label: string): void {
    const name = this.#path(path);
    if (name === undefined) return;
    const { ino } = fstatSync(fd);
    const known = this.#file(fd);
    if (known !== undefined && this.names.get(name) === known) {
      this.ops.push({ kind: 'size', file: known, size: 0, cut: true, label });
      return;
    }
    this.ops.push({ kind: 'name', file: this.#adopt(ino, Buffer.alloc(0)), path: name, label });
  }

  #recordChange(file: number, { name, args, label }: HostCall, result: unknown): void {
    if (name === 'write') {
      const start = Number(args[2]);
      const bytes = (args[1] as Buffer).subarray(start, start + Number(result));
      const data = Buffer.from(bytes);
      this.ops.push({ kind: 'write', file, offset: Number(args[4]), data, label });
    } else if (name === 'truncate') {
      this.ops.push({ kind: 'size', file, size: Number(args[1]), cut: true, label });
    } else if (name === 'allocate') {
      const [mode, offset, length] = [Number(args[1]), Number(args[2]), Number(args[3])];
      const end = offset + length;
      if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) !== 0) {
        this.ops.push({ kind: 'zero', file, offset, end, label });
      } else this.ops.push({ kind: 'size', file, size: end, cut: false, label });
    }
  }

  #file(fd: number): number | undefined {
    return this.#byInode.get(fstatSync(fd).ino);
  }

  #path(path: string): string | undefined {
    const inside = relative(this.root, path);
    return inside.startsWith('..') ? undefined : inside;
  }
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}

/** The folders whose sync makes an operation on names durable. */
export function foldersOf(op: TapeOp): string[] {
  if (op.kind === 'unlink') return [dirname(op.path)];
  if (op.kind !== 'name') return [];
  return op.from === undefined ? [dirname(op.path)] : [dirname(op.path), dirname(op.from)];
}
