/**
 * Messages to the kernel that answer no request. They are written on a pool thread, one at a
 * time: the kernel may hold one back until other requests on the same file or directory are
 * done, and those may need the main thread.
 */
import { write } from 'node:fs';
import { errnoName } from '../../common/errors.js';
import type { NodeId } from '../namespace.js';
import {
  NOTIFY_INVAL_ENTRY,
  NOTIFY_INVAL_INODE,
  NOTIFY_RESEND,
  OUT_HEADER_BYTES,
} from './protocol.js';

/**
 * The node or name is not in the kernel's caches, a name is of a directory in use; or the mount
 * is gone.
 */
const NOTHING_TO_DO = new Set(['ENOENT', 'ENOTDIR', 'ENOTEMPTY', 'EBUSY', 'ENODEV', 'ENOTCONN']);

export class Notifier {
  readonly #fd: number;
  #last: Promise<void> = Promise.resolve();

  constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * Drops everything cached about a node: its pages (dirty ones are written first) and
   * attributes.
   */
  invalidateNode(node: NodeId): Promise<void> {
    const message = notification(NOTIFY_INVAL_INODE, 24);
    message.writeUInt32LE(node.lo, OUT_HEADER_BYTES);
    message.writeUInt32LE(node.hi, OUT_HEADER_BYTES + 4);
    // Offset 0, length 0: to the end.
    return this.#send(message);
  }

  /** Drops a name: the next use asks for it again. */
  invalidateEntry(parent: NodeId, name: string): Promise<void> {
    const bytes = Buffer.from(name);
    const message = notification(NOTIFY_INVAL_ENTRY, 16 + bytes.length + 1);
    message.writeUInt32LE(parent.lo, OUT_HEADER_BYTES);
    message.writeUInt32LE(parent.hi, OUT_HEADER_BYTES + 4);
    message.writeUInt32LE(bytes.length, OUT_HEADER_BYTES + 8);
    bytes.copy(message, OUT_HEADER_BYTES + 16);
    return this.#send(message);
  }

  /**
   * Asks for every request again that was handed out and not answered (Linux 6.9, needs
   * HAS_RESEND).
   */
  resend(): Promise<void> {
    return this.#send(notification(NOTIFY_RESEND, 0));
  }

  /** Resolves when every notification so far has been taken. */
  idle(): Promise<void> {
    return this.#last;
  }

  #send(message: Buffer): Promise<void> {
    const sent = this.#last.then(() => writeNotification(this.#fd, message));
    this.#last = sent.catch(() => {}); // The one who asked for it hears of a failure.
    return sent;
  }
}

function notification(code: number, bodyLength: number): Buffer {
  const message = Buffer.alloc(OUT_HEADER_BYTES + bodyLength);
  message.writeUInt32LE(message.length, 0);
  message.writeInt32LE(code, 4);
  return message;
}

function writeNotification(fd: number, message: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    write(fd, message, 0, message.length, null, (error) => {
      if (error === null || NOTHING_TO_DO.has(errnoName(error) ?? '')) resolve();
      else reject(error);
    });
  });
}
