/**
 * The operations of the fuse-native channel: path-based callbacks of the binding, answered from
 * the namespace and from disks, on the main thread. Nothing may throw out of a callback: the
 * caller of the file would wait for ever.
 */
import { constants } from 'node:fs';
import { constants as osConstants } from 'node:os';
import type Fuse from 'fuse-native';
import { DiskError } from '../common/errors.js';
import type { BlockDevice } from '../engine/block-device.js';
import { errnoOf } from './errno.js';
import {
  type Awaitable,
  type Namespace,
  type NodeAttr,
  type OpenedNode,
  ROOT_NODE,
} from './namespace.js';
import {
  type AttributeChange,
  checkAttributeChange,
  readDevice,
  writeDevice,
} from './operations.js';

const STAT_BLOCK = 512;
const IO_BLOCK = 4096;
/** Counts of blocks pass through 32 bits: with this unit file systems up to 4 PiB fit. */
const STATFS_BLOCK = 1024 * 1024;
const NAME_MAX = 255;
/** Handles pass through 31 bits. */
const LARGEST_HANDLE = 0x7fffffff;

interface OpenFile {
  readonly attr: NodeAttr;
  readonly opened: OpenedNode;
  readonly write: boolean;
}

type Report = (operation: string, error: unknown) => void;

export class NativeOperations {
  readonly #namespace: Namespace;
  readonly #deviceOf: (handle: number) => BlockDevice;
  readonly #report: Report;
  readonly #files = new Map<number, OpenFile>();
  #lastHandle = 0;

  constructor(namespace: Namespace, deviceOf: (handle: number) => BlockDevice, report: Report) {
    this.#namespace = namespace;
    this.#deviceOf = deviceOf;
    this.#report = report;
  }

  /** The callbacks to give to the binding. */
  callbacks(): Fuse.Operations {
    const refuse = (...input: unknown[]) => {
      const done = input.at(-1) as Fuse.Done; // The binding's callbacks always end with it.
      done(-osConstants.errno.EPERM);
    };
    return {
      getattr: (path, done) =>
        this.#run('getattr', done, async () => done(0, statOf(await this.#resolve(path)))),
      readdir: (path, done) => this.#run('readdir', done, () => this.#readdir(path, done)),
      statfs: (_path, done) => this.#run('statfs', done, () => this.#statfs(done)),
      open: (path, flags, done) =>
        this.#run('open', done, async () => done(0, await this.#open(path, flags))),
      release: (_path, fd, done) =>
        this.#run('release', done, async () => {
          await this.#release(fd);
          done(0);
        }),
      read: (_path, fd, buffer, length, offset, done) =>
        this.#run('read', done, () => done(this.#read(fd, buffer, length, offset))),
      write: (_path, fd, buffer, length, offset, done) =>
        this.#run('write', done, () =>
          done(writeDevice(this.#device(fd), buffer, 0, offset, length)),
        ),
      fsync: (_path, _dataOnly, fd, done) =>
        this.#run('fsync', done, async () => {
          const device = this.#device(fd);
          if (device.flushAsync === undefined) device.flush();
          else await device.flushAsync();
          done(0);
        }),
      ...this.#attributeCallbacks(),
      create: refuse,
      mknod: refuse,
      mkdir: refuse,
      unlink: refuse,
      rmdir: refuse,
      rename: refuse,
      link: refuse,
      symlink: refuse,
    };
  }

  /** Gives back what is still open; answers nothing: failures are reported. */
  async releaseAll(): Promise<void> {
    for (const fd of [...this.#files.keys()]) {
      try {
        await this.#release(fd);
      } catch (error) {
        this.#report('release', error);
      }
    }
  }

  #attributeCallbacks(): Pick<
    Fuse.Operations,
    'truncate' | 'ftruncate' | 'chmod' | 'chown' | 'utimens'
  > {
    const change = (name: string, path: string, wanted: AttributeChange, done: Fuse.Done) =>
      this.#run(name, done, async () => {
        checkAttributeChange(await this.#resolve(path), wanted);
        done(0);
      });
    return {
      truncate: (path, size, done) =>
        this.#run('truncate', done, async () => {
          const attr = await this.#resolve(path);
          checkAttributeChange(attr, { size, truncatingOpen: this.#isOpenForWriting(attr) });
          done(0);
        }),
      ftruncate: (path, _fd, size, done) => change('ftruncate', path, { size }, done),
      chmod: (path, mode, done) => change('chmod', path, { mode }, done),
      chown: (path, uid, gid, done) => change('chown', path, ownerChange(uid, gid), done),
      utimens: (_path, _atime, _mtime, done) => done(0),
    };
  }

  /** Runs one operation, which calls `done` itself when it succeeds. */
  #run(name: string, done: Fuse.Done, operation: () => Awaitable<void>): void {
    const fail = (error: unknown) => {
      this.#report(name, error);
      done(-errnoOf(error));
    };
    try {
      operation()?.catch(fail);
    } catch (error) {
      fail(error);
    }
  }

  async #resolve(path: string): Promise<NodeAttr> {
    let attr = await this.#namespace.getattr(ROOT_NODE);
    for (const name of path.split('/')) {
      if (name === '') continue;
      const found = await this.#namespace.lookup(attr.node, name);
      if (found === undefined) {
        throw new DiskError('not-found', `${path}: no such file`, { errno: 'ENOENT' });
      }
      attr = found;
    }
    return attr;
  }

  async #readdir(path: string, done: (result: number, names?: string[]) => void): Promise<void> {
    const { node } = await this.#resolve(path);
    const entries = await this.#namespace.readdir(node);
    done(0, ['.', '..', ...entries.map((entry) => entry.name)]);
  }

  async #statfs(done: (result: number, sizes?: Fuse.StatFs) => void): Promise<void> {
    const { total, free } = await this.#namespace.statfs();
    const blocks = Math.ceil(total / STATFS_BLOCK);
    const bfree = Math.floor(free / STATFS_BLOCK);
    const unit = { bsize: STATFS_BLOCK, frsize: STATFS_BLOCK };
    done(0, { ...unit, blocks, bfree, bavail: bfree, namemax: NAME_MAX });
  }

  async #open(path: string, flags: number): Promise<number> {
    const attr = await this.#resolve(path);
    const write = (flags & (constants.O_WRONLY | constants.O_RDWR)) !== 0;
    const opened = await this.#namespace.open(attr.node, { write, direct: false });
    do {
      this.#lastHandle = this.#lastHandle === LARGEST_HANDLE ? 1 : this.#lastHandle + 1;
    } while (this.#files.has(this.#lastHandle));
    this.#files.set(this.#lastHandle, { attr, opened, write });
    return this.#lastHandle;
  }

  async #release(fd: number): Promise<void> {
    const file = this.#file(fd);
    this.#files.delete(fd);
    if (file.opened.kind === 'device') {
      await this.#namespace.release(file.attr.node, file.opened.handle);
    }
  }

  #file(fd: number): OpenFile {
    const file = this.#files.get(fd);
    if (file === undefined) throw new DiskError('usage', `no open file ${fd}`, { errno: 'EBADF' });
    return file;
  }

  #device(fd: number): BlockDevice {
    const { opened } = this.#file(fd);
    if (opened.kind === 'device') return this.#deviceOf(opened.handle);
    throw new DiskError('usage', 'a data operation on what is no disk', { errno: 'EBADF' });
  }

  #read(fd: number, buffer: Buffer, length: number, offset: number): number {
    const { opened } = this.#file(fd);
    if (opened.kind === 'content') return readContent(opened.bytes, buffer, offset, length);
    return readDevice(this.#deviceOf(opened.handle), buffer, 0, offset, length);
  }

  /**
   * The binding does not say who asks: any open for writing makes truncate(path, 0) look like
   * open(O_TRUNC).
   */
  #isOpenForWriting(attr: NodeAttr): boolean {
    const { hi, lo } = attr.node;
    return [...this.#files.values()].some(
      ({ write, attr: { node } }) => write && node.hi === hi && node.lo === lo,
    );
  }
}

/** What was longer when the kernel last looked is asked for past its end. */
function readContent(bytes: Buffer, buffer: Buffer, offset: number, length: number): number {
  return bytes.subarray(Math.min(offset, bytes.length)).copy(buffer, 0, 0, length);
}

/** chown's -1 (here 2^32 - 1): leave it. */
function ownerChange(uid: number, gid: number): AttributeChange {
  const keep = 0xffffffff;
  return { ...(uid === keep ? {} : { uid }), ...(gid === keep ? {} : { gid }) };
}

function statOf(attr: NodeAttr): Fuse.Stat {
  const type = attr.kind === 'directory' ? constants.S_IFDIR : constants.S_IFREG;
  const { size, uid, gid, nlink, mtime } = attr;
  const blocks = Math.ceil(attr.allocatedSize / STAT_BLOCK);
  const times = { atime: mtime, mtime, ctime: mtime };
  return { mode: type | attr.mode, size, uid, gid, nlink, blocks, blksize: IO_BLOCK, ...times };
}
