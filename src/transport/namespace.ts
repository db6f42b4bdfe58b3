/**
 * The contract between a transport and whoever decides which directories and files exist.
 *
 * All calls are made on the main thread and may answer at once or later. Errors are
 * `DiskError`s; their `errno` is what the caller of the file sees. Nothing here may do
 * synchronous I/O on the mount itself.
 */

/**
 * A node as two unsigned 32-bit halves of its inode number: the VM's number, and the node
 * within the VM.
 */
export interface NodeId {
  readonly hi: number;
  readonly lo: number;
}

/** The root directory. */
export const ROOT_NODE: NodeId = { hi: 0, lo: 1 };

export type NodeKind = 'directory' | 'file';

export interface NodeAttr {
  /** INVARIANT: never given to another file or directory while the mount stands; 0:0 is no node. */
  readonly node: NodeId;
  readonly kind: NodeKind;
  /** Bytes. */
  readonly size: number;
  /** Bytes that really take space: `st_blocks`. */
  readonly allocatedSize: number;
  /** Permission bits only (0o600). */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Milliseconds since 1970. */
  readonly mtime: number;
  readonly nlink: number;
}

/** One name in a directory; `.` and `..` are the transport's business. */
export interface DirectoryEntry {
  readonly name: string;
  readonly node: NodeId;
  readonly kind: NodeKind;
}

export interface OpenIntent {
  readonly write: boolean;
  /** O_DIRECT: past the page cache. */
  readonly direct: boolean;
}

/**
 * What an opened file is: a disk that I/O threads find by `handle` (unsigned 32 bits; several
 * opens may share one), or bytes as they are at this moment. `flatFile`: as long as the disk is
 * open its bytes are those of this file, which may be read instead.
 */
export type OpenedNode =
  | { readonly kind: 'device'; readonly handle: number; readonly flatFile?: string }
  | { readonly kind: 'content'; readonly bytes: Buffer };

/** What `statfs` shows, bytes. */
export interface FileSystemSizes {
  readonly total: number;
  readonly free: number;
}

export type Awaitable<T> = T | Promise<T>;

export interface Namespace {
  /**
   * @returns undefined when the directory has no such name.
   * @throws DiskError as `getattr`, of the directory.
   */
  lookup(parent: NodeId, name: string): Awaitable<NodeAttr | undefined>;
  /**
   * @throws DiskError `not-found` with errno ESTALE for a node that is no more (the kernel then
   * looks its name up anew).
   */
  getattr(node: NodeId): Awaitable<NodeAttr>;
  readdir(node: NodeId): Awaitable<readonly DirectoryEntry[]>;
  /** @throws DiskError with errno EROFS when `write` is asked of what is read-only. */
  open(node: NodeId, intent: OpenIntent): Awaitable<OpenedNode>;
  /** Told of all nodes that `reopen` is about to be asked for. Never fails: `reopen` tells. */
  beforeReopen?(nodes: readonly NodeId[]): Awaitable<void>;
  /**
   * Opens a disk again under the handle that an earlier daemon gave for it.
   * @throws DiskError when it cannot be had: requests for `handle` then fail on every thread.
   */
  reopen(node: NodeId, handle: number): Awaitable<void>;
  /**
   * Called exactly once for every `device` that `open` gave and every success of `reopen`, at the
   * latest when the transport ends.
   */
  release(node: NodeId, handle: number): Awaitable<void>;
  statfs(): Awaitable<FileSystemSizes>;
}
