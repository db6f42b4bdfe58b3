/** The first exchange of a connection: what the kernel offers and what we take of it. */
import type { ReadyMessage } from './messages.js';
import {
  FUSE_MAJOR,
  FUSE_MINOR,
  INIT,
  INIT_IN_FLAGS,
  INIT_IN_FLAGS2,
  INIT_IN_MINOR,
  INIT_IN_READAHEAD,
  INIT_OUT_BYTES,
  INIT2,
  MAX_REQUEST_BYTES,
  MAX_REQUEST_PAGES,
} from './protocol.js';

export interface InitOptions {
  /**
   * Let the kernel keep written data in its page cache until fsync, close or memory pressure.
   * Faster for small buffered writes; see native-notes/kernel-guarantees.md for what it costs.
   */
  readonly writeback: boolean;
  /**
   * Requests that the kernel may have under way on behalf of nobody who waits (read-ahead,
   * async I/O, writeback).
   */
  readonly maxBackground: number;
}

const WANTED =
  INIT.ASYNC_READ |
  INIT.BIG_WRITES |
  INIT.DO_READDIRPLUS |
  INIT.READDIRPLUS_AUTO |
  INIT.ASYNC_DIO |
  INIT.PARALLEL_DIROPS |
  INIT.MAX_PAGES |
  INIT.INIT_EXT;

const WANTED2 = INIT2.DIRECT_IO_ALLOW_MMAP | INIT2.HAS_RESEND;

/** Files that the kernel reads by itself must not lie on a file system that does so, too. */
const STACK_DEPTH = 1;

/** The kernel starts to slow down writers at this share of `maxBackground`. */
const CONGESTION_SHARE = 0.75;

/**
 * Fills `body` (struct fuse_init_out, as words) for the INIT request in `request`.
 * @returns what to tell the main thread.
 */
export function writeInitReply(
  request: Uint32Array,
  body: Uint32Array,
  options: InitOptions,
): ReadyMessage {
  const minor = request[INIT_IN_MINOR] ?? 0;
  const offered = request[INIT_IN_FLAGS] ?? 0;
  const offered2 = (offered & INIT.INIT_EXT) === 0 ? 0 : (request[INIT_IN_FLAGS2] ?? 0);
  const flags = offered & (WANTED | (options.writeback ? INIT.WRITEBACK_CACHE : 0));
  // The kernel does one or the other.
  const flags2 = offered2 & (WANTED2 | (options.writeback ? 0 : INIT2.PASSTHROUGH));
  const congestion = Math.max(1, Math.floor(options.maxBackground * CONGESTION_SHARE));
  body.fill(0, 0, INIT_OUT_BYTES / 4);
  body[0] = FUSE_MAJOR;
  body[1] = Math.min(minor, FUSE_MINOR);
  body[2] = request[INIT_IN_READAHEAD] ?? 0;
  body[3] = flags;
  body[4] = options.maxBackground | (congestion << 16);
  body[5] = MAX_REQUEST_BYTES;
  body[6] = 1; // Time granularity, nanoseconds.
  body[7] = MAX_REQUEST_PAGES;
  body[8] = flags2;
  body[9] = (flags2 & INIT2.PASSTHROUGH) === 0 ? 0 : STACK_DEPTH;
  return { type: 'ready', minor, maxWrite: MAX_REQUEST_BYTES, flags, flags2 };
}
