/**
 * Files that the kernel reads by itself (FUSE_PASSTHROUGH, Linux 6.9): no request for their bytes
 * comes here. Each is registered with the connection under a number that outlives this process.
 *
 * INVARIANT: while a node is open, all its opens are answered with the same number, or all with
 * none: the kernel refuses anything else.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { errnoName } from '../../common/errors.js';
import { ioctlBuffer } from '../../storage/libc.js';
import type { NodeId } from '../namespace.js';

/** _IOW(229, 1, struct fuse_backing_map { int32 fd; uint32 flags; uint64 padding }). */
const FUSE_DEV_IOC_BACKING_OPEN = 0x4010e501;
/** _IOW(229, 2, uint32_t). */
const FUSE_DEV_IOC_BACKING_CLOSE = 0x4004e502;
const BACKING_MAP_BYTES = 16;
/** What an open that the kernel does not serve by itself has for a number. */
export const NO_BACKING = 0;
/** A handle log has room for numbers up to here. */
const MOST_BACKING = 2 ** 24 - 1;

interface Backed {
  users: number;
  readonly backing: number;
}

export class Passthrough {
  readonly #fd: number;
  readonly #onRefused: (why: string) => void;
  readonly #nodes = new Map<string, Backed>();
  #allowed = false;

  /**
   * @param fd of the connection.
   * @param onRefused told once, when the kernel takes no file: then it asks for everything.
   */
  constructor(fd: number, onRefused: (why: string) => void) {
    this.#fd = fd;
    this.#onRefused = onRefused;
  }

  /** The kernel and we agreed on it when the mount was made. */
  allow(): void {
    this.#allowed = true;
  }

  /**
   * One more open of a node.
   * @param file what holds its bytes; undefined where the kernel has to ask for them.
   * @returns the number to answer with.
   */
  open(node: NodeId, file: string | undefined): number {
    const backing = this.#nodes.get(keyOf(node))?.backing ?? this.#register(file);
    this.inherit(node, backing);
    return backing;
  }

  /** An open that was answered by the daemon before this one. */
  inherit(node: NodeId, backing: number): void {
    const known = this.#nodes.get(keyOf(node));
    if (known === undefined) this.#nodes.set(keyOf(node), { users: 1, backing });
    else known.users += 1;
  }

  /** One open of a node less. */
  release(node: NodeId): void {
    const known = this.#nodes.get(keyOf(node));
    if (known === undefined) return;
    known.users -= 1;
    if (known.users > 0) return;
    this.#nodes.delete(keyOf(node));
    if (known.backing !== NO_BACKING) this.#forget(known.backing);
  }

  #register(file: string | undefined): number {
    if (file === undefined || !this.#allowed) return NO_BACKING;
    let fd = -1;
    try {
      fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
      const map = Buffer.alloc(BACKING_MAP_BYTES);
      map.writeInt32LE(fd, 0);
      const backing = ioctlBuffer(this.#fd, FUSE_DEV_IOC_BACKING_OPEN, map);
      if (backing <= MOST_BACKING) return backing;
      this.#forget(backing);
    } catch (error) {
      // What cannot be read will be seen, and said, by the thread that reads it.
      this.#refused(error);
    } finally {
      if (fd >= 0) closeSync(fd);
    }
    return NO_BACKING;
  }

  /** Rights and kernel stay what they are: the next file would not be taken, either. */
  #refused(error: unknown): void {
    const why = errnoName(error);
    if (why !== 'EPERM' && why !== 'EOPNOTSUPP' && why !== 'ENOTTY' && why !== 'EINVAL') return;
    this.#allowed = false;
    this.#onRefused(why);
  }

  #forget(backing: number): void {
    const number = Buffer.alloc(4);
    number.writeUInt32LE(backing, 0);
    try {
      ioctlBuffer(this.#fd, FUSE_DEV_IOC_BACKING_CLOSE, number);
    } catch (error) {
      // The mount is gone, and all numbers with it; else this one goes when the mount does.
      if (errnoName(error) === undefined) throw error;
    }
  }
}

function keyOf({ hi, lo }: NodeId): string {
  return `${hi}:${lo}`;
}
