/**
 * The main thread's half of the kernel channel: answers, from the namespace, the requests that
 * I/O threads forward.
 *
 * INVARIANT: `handle` answers every request exactly once and never throws.
 */
import { constants } from 'node:fs';
import { unreachable } from '../../common/assert.js';
import { DiskError } from '../../common/errors.js';
import { errnoOf } from '../errno.js';
import type { DirectoryEntry, Namespace, NodeId } from '../namespace.js';
import { checkAttributeChange } from '../operations.js';
import type { ForwardedOperation, ForwardedRequest, Word64 } from './messages.js';
import { type OpenDevice, OpenTable, type OpenTableOptions } from './open-table.js';
import { NO_BACKING } from './passthrough.js';
import {
  DIRENT_HEADER_BYTES,
  ENTRY_OUT_BYTES,
  FOPEN_DIRECT_IO,
  FOPEN_KEEP_CACHE,
  FOPEN_PARALLEL_DIRECT_WRITES,
  FOPEN_PASSTHROUGH,
  HANDLE_CONTENT,
  HANDLE_KIND,
} from './protocol.js';
import {
  attrReply,
  entryReply,
  type ListedEntry,
  listingReply,
  openedHandle,
  openReply,
  statfsReply,
} from './replies.js';

type Operation<Name extends ForwardedOperation['op']> = Extract<ForwardedOperation, { op: Name }>;
/** Writes one reply; `errno` is positive, 0 for success. False: nobody wanted it. */
export type Reply = (unique: Word64, errno: number, body?: Buffer) => boolean;

export class RequestHandler {
  readonly #namespace: Namespace;
  readonly #reply: Reply;
  /** Told of every error that is answered, before the answer. */
  readonly #onError: (op: string, error: unknown) => void;
  readonly #open: OpenTable;

  constructor(
    namespace: Namespace,
    reply: Reply,
    onError: (op: string, error: unknown) => void,
    open: OpenTableOptions = {},
  ) {
    this.#namespace = namespace;
    this.#reply = reply;
    this.#onError = onError;
    this.#open = new OpenTable(namespace, open);
  }

  /** Takes over what the daemon before this one had open; no request may be served before. */
  async restore(): Promise<void> {
    for (const failure of await this.#open.restore()) this.#onError('reopen', failure);
  }

  async handle(request: ForwardedRequest): Promise<void> {
    let body: Buffer | undefined;
    let errno = 0;
    try {
      body = await this.#answer(request);
    } catch (error) {
      this.#onError(request.op, error);
      errno = errnoOf(error);
    }
    try {
      const delivered = this.#reply(request.unique, errno, body);
      if (!delivered && body !== undefined) await this.#undo(request, body);
    } catch (error) {
      this.#onError(request.op, error);
    }
  }

  /**
   * An open whose reply nobody took will not be released by the kernel: a resent one is opened
   * anew.
   */
  async #undo(request: ForwardedRequest, reply: Buffer): Promise<void> {
    if (request.op === 'open') await this.#open.release(request.node, openedHandle(reply));
    else if (request.op === 'opendir') this.#open.forgetListing(openedHandle(reply));
  }

  /** How many opens of disks were not released yet. */
  get openDisks(): number {
    return this.#open.openDisks;
  }

  /** Gives back what was still open when the mount went away. */
  async releaseAll(): Promise<void> {
    for (const failure of await this.#open.releaseAll()) this.#onError('release', failure);
  }

  async #answer(request: ForwardedRequest): Promise<Buffer | undefined> {
    switch (request.op) {
      case 'lookup':
        return this.#lookup(request.node, request.name);
      case 'getattr':
        return attrReply(await this.#namespace.getattr(request.node));
      case 'setattr':
        return this.#setattr(request.node, request.pid, request);
      case 'open':
        return this.#openFile(request.node, request);
      case 'opendir':
        return this.#openDirectory(request.node);
      case 'release':
        await this.#open.release(request.node, request.handle);
        return undefined;
      case 'releasedir':
        this.#open.forgetListing(request.handle);
        return undefined;
      case 'readdir':
      case 'readdirplus':
        return this.#list(request.node, request);
      case 'read':
        return this.#readContent(request.node, request);
      case 'statfs':
        return statfsReply(await this.#namespace.statfs());
      default:
        return unreachable(request);
    }
  }

  async #lookup(parent: NodeId, name: string): Promise<Buffer> {
    const attr = await this.#namespace.lookup(parent, name);
    if (attr === undefined) {
      throw new DiskError('not-found', `no file named ${name}`, { errno: 'ENOENT' });
    }
    return entryReply(attr);
  }

  /**
   * The kernel turns open(O_TRUNC) into OPEN and then a SETATTR of size 0 that looks like
   * truncate(path, 0). Disks ignore the former, as block devices do, and refuse the latter: it
   * is told by the OPEN that came before it from the same thread.
   */
  async #setattr(node: NodeId, pid: number, change: Operation<'setattr'>): Promise<Buffer> {
    const attr = await this.#namespace.getattr(node);
    const truncatingOpen = !change.byHandle && this.#open.hasJustOpened(pid, node);
    checkAttributeChange(attr, { ...change, truncatingOpen });
    return attrReply(attr);
  }

  async #openFile(node: NodeId, request: ForwardedRequest & Operation<'open'>): Promise<Buffer> {
    const { unique, pid, flags } = request;
    const write = (flags & (constants.O_WRONLY | constants.O_RDWR)) !== 0;
    const direct = (flags & constants.O_DIRECT) !== 0;
    const caching = direct ? FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES : FOPEN_KEEP_CACHE;
    const resent = this.#open.resent(request);
    if (resent !== undefined) return deviceReply(resent, caching);
    const opened = await this.#namespace.open(node, { write, direct });
    if (opened.kind === 'content') {
      return openReply(this.#open.addContent(opened.bytes), FOPEN_DIRECT_IO);
    }
    let device: OpenDevice;
    try {
      device = this.#open.addDevice(node, opened, { unique, pid, write });
    } catch (error) {
      await this.#namespace.release(node, opened.handle);
      throw error;
    }
    if (write) this.#open.noteOpen(pid, node);
    return deviceReply(device, caching);
  }

  async #openDirectory(node: NodeId): Promise<Buffer> {
    return openReply(this.#open.addListing(await this.#listing(node)), 0);
  }

  /** The whole directory as it is now; `.` and `..` first, as programs expect. */
  async #listing(node: NodeId): Promise<readonly DirectoryEntry[]> {
    const entries = await this.#namespace.readdir(node);
    const self = { node, kind: 'directory' } as const;
    return [{ ...self, name: '.' }, { ...self, name: '..' }, ...entries];
  }

  /** Position 0 is a fresh look (rewinddir); later positions go on in what was seen then. */
  async #list(
    node: NodeId,
    request: Operation<'readdir' | 'readdirplus' | 'read'>,
  ): Promise<Buffer> {
    const { handle, offset, size } = request;
    const plus = request.op === 'readdirplus';
    let listing = offset === 0 ? undefined : this.#open.listing(handle);
    if (listing === undefined) {
      listing = await this.#listing(node);
      this.#open.replaceListing(handle, listing);
    }
    const rest = listing.slice(offset, offset + mostEntries(size, plus));
    const entries = plus ? await Promise.all(rest.map((entry) => this.#withAttr(entry))) : rest;
    return listingReply(entries, offset, size, plus);
  }

  /** Attributes are a courtesy: without them the kernel asks when it needs them. */
  async #withAttr(entry: DirectoryEntry): Promise<ListedEntry> {
    if (entry.name === '.' || entry.name === '..') return entry;
    try {
      return { ...entry, attr: await this.#namespace.getattr(entry.node) };
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      return entry; // Gone since it was listed: the kernel will find out when it looks the name up.
    }
  }

  async #readContent(node: NodeId, request: Operation<'read' | 'readdir' | 'readdirplus'>) {
    const { handle, offset, size } = request;
    const isContent = (handle.hi & HANDLE_KIND) === HANDLE_CONTENT;
    let bytes = isContent ? this.#open.content(handle) : undefined;
    if (bytes === undefined) {
      // Opened before a takeover: look again.
      const opened = await this.#namespace.open(node, { write: false, direct: false });
      if (opened.kind !== 'content') {
        await this.#namespace.release(node, opened.handle);
        throw new DiskError('usage', 'not a file with content', { errno: 'EBADF' });
      }
      bytes = opened.bytes;
      this.#open.replaceContent(handle, bytes);
    }
    return bytes.subarray(Math.min(offset, bytes.length), Math.min(offset + size, bytes.length));
  }
}

function deviceReply({ handle, backing }: OpenDevice, caching: number): Buffer {
  if (backing === NO_BACKING) return openReply(handle, caching);
  return openReply(handle, FOPEN_PASSTHROUGH, backing);
}

/** No listed entry is smaller than its headers: more than this can't fit into `size` bytes. */
function mostEntries(size: number, plus: boolean): number {
  return Math.ceil(size / (DIRENT_HEADER_BYTES + (plus ? ENTRY_OUT_BYTES : 0)));
}
