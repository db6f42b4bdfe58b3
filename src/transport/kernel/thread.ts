/**
 * The loop of one I/O thread: take a request from the kernel, serve it, write one reply. What
 * needs the namespace is forwarded to the main thread, which replies by itself: this loop waits
 * for nobody but the kernel and the disks.
 *
 * INVARIANT: every request that wants a reply gets exactly one, from here or from whoever it
 * was forwarded to: a write that waits for room, too.
 * INVARIANT: nothing thrown while serving leaves the loop, and READ and WRITE allocate nothing.
 */
import { constants as fsConstants } from 'node:fs';
import { constants } from 'node:os';
import { DiskError, errnoName } from '../../common/errors.js';
import type { BlockDevice } from '../../engine/block-device.js';
import { readNext, writeNext } from '../../storage/positioned-io.js';
import { errnoOf } from '../errno.js';
import { fallocateDevice, readDevice, seekDevice, writeDevice } from '../operations.js';
import { messageBuffer } from './aligned-buffer.js';
import { type HoldWords, takeHold } from './hold-budget.js';
import { type InitOptions, writeInitReply } from './init.js';
import { type ChannelMessage, forwardedRequest, number64, word64 } from './messages.js';
import {
  FALLOCATE_LENGTH,
  FALLOCATE_MODE,
  HANDLE_DEVICE,
  HANDLE_KIND,
  HIGH_HALF,
  IN_HANDLE,
  IN_OFFSET,
  IN_OPCODE,
  IN_PID,
  IN_UNIQUE,
  INIT_OUT_BYTES,
  LSEEK_OUT_BYTES,
  LSEEK_WHENCE,
  MAX_REQUEST_BYTES,
  OPCODE,
  OUT_BODY,
  OUT_ERROR,
  OUT_HEADER_BYTES,
  OUT_LENGTH,
  OUT_UNIQUE,
  READ_SIZE,
  WRITE_FLAGS,
  WRITE_HEADER_BYTES,
  WRITE_OUT_BYTES,
  WRITE_SIZE,
} from './protocol.js';
import { TroubleReporter } from './trouble.js';

/**
 * What a channel thread is told by the main side; plain data, so that it can be a worker's
 * `workerData`.
 */
export interface ChannelThreadSetup extends InitOptions {
  /** The open /dev/fuse descriptor, shared by the whole process. */
  readonly fd: number;
  readonly threadIndex: number;
  /** Two words of shared memory: the `unique` of the request being served, 0 for none. */
  readonly current: Uint32Array;
  /** How many writes may wait for room. */
  readonly hold: HoldWords;
}

export interface ChannelThread extends ChannelThreadSetup {
  /** Finds an open disk on this thread. @throws DiskError EBADF or EIO when it cannot be had. */
  deviceOf(handle: number): BlockDevice;
  /** Hands a message to the main thread: `parentPort.postMessage`. */
  forward(message: ChannelMessage): void;
}

/** Why the loop ended: the mount is gone, or reading requests failed. */
export type ThreadEnd = 'unmounted' | 'failed';

/** Errors of the read that mean "ask again": the request was interrupted before we took it. */
const TRY_AGAIN = new Set(['ENOENT', 'EINTR', 'EAGAIN']);

/** Refused: the namespace changes through the control socket only. */
const CHANGES_NAMESPACE = new Set<number>([
  OPCODE.SYMLINK,
  OPCODE.MKNOD,
  OPCODE.MKDIR,
  OPCODE.UNLINK,
  OPCODE.RMDIR,
  OPCODE.RENAME,
  OPCODE.RENAME2,
  OPCODE.LINK,
  OPCODE.CREATE,
]);

/**
 * Flags of the writing file. After a synchronous write through its page cache the kernel sends an
 * FSYNC; after one past it (O_DIRECT) it sends nothing and leaves durability to us.
 */
const DIRECT_AND_SYNC = fsConstants.O_DIRECT | fsConstants.O_DSYNC;

/** Serves requests on the calling thread until the mount is gone; blocks it all that time. */
export function serveKernelChannel(thread: ChannelThread): ThreadEnd {
  return new RequestLoop(thread).run();
}

class RequestLoop {
  readonly #thread: ChannelThread;
  readonly #fd: number;
  readonly #trouble: TroubleReporter;
  /** The data of a WRITE begins at a page start. */
  readonly #request = messageBuffer(MAX_REQUEST_BYTES + WRITE_HEADER_BYTES, WRITE_HEADER_BYTES);
  /** The data of a READ reply begins at a page start. */
  readonly #reply = messageBuffer(MAX_REQUEST_BYTES + OUT_HEADER_BYTES, OUT_HEADER_BYTES);
  readonly #in = this.#request.words;
  readonly #out = this.#reply.words;

  constructor(thread: ChannelThread) {
    this.#thread = thread;
    this.#fd = thread.fd;
    this.#trouble = new TroubleReporter(thread.threadIndex, (message) => thread.forward(message));
    // Memory that is there already: a request that the kernel cannot copy into it, because the
    // process is being killed, is refused with EIO instead of being sent again.
    this.#request.bytes.fill(0);
  }

  run(): ThreadEnd {
    const { bytes } = this.#request;
    const { current } = this.#thread;
    for (;;) {
      try {
        readNext(this.#fd, bytes, bytes.length);
      } catch (error) {
        const name = errnoName(error) ?? '';
        if (name === 'ENODEV' || name === 'ECONNABORTED') return 'unmounted';
        if (TRY_AGAIN.has(name)) continue;
        this.#trouble.report(0, error);
        return 'failed';
      }
      current[0] = this.#in[IN_UNIQUE] ?? 0;
      current[1] = this.#in[IN_UNIQUE + 1] ?? 0;
      try {
        this.#serve();
      } catch (error) {
        this.#refuse(error);
      }
      current[0] = 0;
      current[1] = 0;
    }
  }

  #serve(): void {
    switch (this.#in[IN_OPCODE]) {
      case OPCODE.READ:
        if (this.#handleKind() === HANDLE_DEVICE) this.#read();
        else this.#forward();
        return;
      case OPCODE.WRITE:
        this.#write();
        return;
      case OPCODE.FSYNC:
        this.#device().flush();
        this.#answer(0);
        return;
      case OPCODE.FALLOCATE:
        this.#fallocate();
        return;
      case OPCODE.LSEEK:
        this.#seek();
        return;
      case OPCODE.FORGET:
      case OPCODE.BATCH_FORGET:
      case OPCODE.NOTIFY_REPLY:
        return; // No reply is wanted; node numbers live as long as the mount: nothing to count.
      case OPCODE.INIT:
        this.#init();
        return;
      case OPCODE.DESTROY:
        this.#answer(0);
        return;
      default:
        this.#forward();
    }
  }

  #handleKind(): number {
    return (this.#in[IN_HANDLE + 1] ?? 0) & HANDLE_KIND;
  }

  #device(): BlockDevice {
    const handle = this.#in[IN_HANDLE] ?? 0;
    if (this.#handleKind() !== HANDLE_DEVICE) {
      throw new DiskError('usage', 'a data operation on what is no disk', { errno: 'EBADF' });
    }
    return this.#thread.deviceOf(handle);
  }

  #read(): void {
    const words = this.#in;
    const device = this.#thread.deviceOf(words[IN_HANDLE] ?? 0);
    const { bytes } = this.#reply;
    const offset = number64(words, IN_OFFSET);
    this.#answer(readDevice(device, bytes, OUT_HEADER_BYTES, offset, words[READ_SIZE] ?? 0));
  }

  #write(): void {
    const words = this.#in;
    const { bytes } = this.#request;
    const offset = number64(words, IN_OFFSET);
    const size = words[WRITE_SIZE] ?? 0;
    const device = this.#device();
    const flush = ((words[WRITE_FLAGS] ?? 0) & DIRECT_AND_SYNC) === DIRECT_AND_SYNC;
    let count: number;
    try {
      count = writeDevice(device, bytes, WRITE_HEADER_BYTES, offset, size);
    } catch (error) {
      if (!(error instanceof DiskError) || !error.passing || !this.#hold(size, flush)) throw error;
      return;
    }
    if (flush) device.flush();
    this.#out[OUT_BODY] = count;
    this.#out[OUT_BODY + 1] = 0;
    this.#answer(WRITE_OUT_BYTES);
  }

  /** Hands a write over to the main thread, to be tried again. @returns whether it may wait. */
  #hold(size: number, flush: boolean): boolean {
    if (!takeHold(this.#thread.hold, size)) return false;
    const words = this.#in;
    const data = new Uint8Array(size);
    data.set(this.#request.bytes.subarray(WRITE_HEADER_BYTES, WRITE_HEADER_BYTES + size));
    this.#thread.forward({
      ...{ type: 'held', unique: word64(words, IN_UNIQUE), handle: words[IN_HANDLE] ?? 0 },
      ...{ offset: number64(words, IN_OFFSET), data, flush, pid: words[IN_PID] ?? 0 },
    });
    return true;
  }

  #fallocate(): void {
    const words = this.#in;
    const offset = number64(words, IN_OFFSET);
    const length = number64(words, FALLOCATE_LENGTH);
    fallocateDevice(this.#device(), words[FALLOCATE_MODE] ?? 0, offset, length);
    this.#answer(0);
  }

  #seek(): void {
    if (this.#thread.writeback) {
      // Dirty pages that we have not seen yet may lie in what we hold for a hole: let the
      // kernel call it all data.
      this.#answer(0, constants.errno.ENOSYS);
      return;
    }
    const words = this.#in;
    const whence = words[LSEEK_WHENCE] ?? 0;
    const found = seekDevice(this.#device(), number64(words, IN_OFFSET), whence);
    this.#out[OUT_BODY] = found % HIGH_HALF;
    this.#out[OUT_BODY + 1] = Math.floor(found / HIGH_HALF);
    this.#answer(LSEEK_OUT_BYTES);
  }

  #init(): void {
    const ready = writeInitReply(this.#in, this.#out.subarray(OUT_BODY), this.#thread);
    this.#answer(INIT_OUT_BYTES);
    this.#thread.forward(ready);
  }

  #forward(): void {
    const request = forwardedRequest(this.#in, this.#request.bytes);
    if (request !== undefined) {
      this.#thread.forward(request);
      return;
    }
    const opcode = this.#in[IN_OPCODE] ?? 0;
    if (CHANGES_NAMESPACE.has(opcode)) this.#answer(0, constants.errno.EPERM);
    else if (opcode === OPCODE.READLINK) this.#answer(0, constants.errno.EINVAL);
    else if (opcode === OPCODE.IOCTL) this.#answer(0, constants.errno.ENOTTY);
    // Flush, access, extended attributes, interrupts, statx, copy_file_range, ...: asked once,
    // then never again.
    else this.#answer(0, constants.errno.ENOSYS);
  }

  /** A failed request: the caller gets the errno, the main thread the story. */
  #refuse(error: unknown): void {
    const opcode = this.#in[IN_OPCODE] ?? 0;
    this.#answer(0, errnoOf(error));
    this.#trouble.report(opcode, error);
  }

  /**
   * Writes the reply whose body of `length` bytes lies in the reply buffer; `errno` is
   * positive, 0 for success.
   */
  #answer(length: number, errno = 0): void {
    const words = this.#out;
    words[OUT_LENGTH] = OUT_HEADER_BYTES + length;
    words[OUT_ERROR] = -errno;
    words[OUT_UNIQUE] = this.#in[IN_UNIQUE] ?? 0;
    words[OUT_UNIQUE + 1] = this.#in[IN_UNIQUE + 1] ?? 0;
    try {
      writeNext(this.#fd, this.#reply.bytes, OUT_HEADER_BYTES + length);
    } catch (error) {
      // ENOENT: the request was given up, or answered by the other of two resent copies;
      // ENODEV: unmounted.
      const name = errnoName(error);
      if (name === 'ENOENT' || name === 'ENODEV') return;
      this.#trouble.report(this.#in[IN_OPCODE] ?? 0, error);
      if (errno === 0) this.#answer(0, constants.errno.EIO);
    }
  }
}
