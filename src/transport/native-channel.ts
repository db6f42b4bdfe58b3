/**
 * The fuse-native channel: the portable transport, for where the kernel channel cannot run. The
 * only file that imports fuse-native; what that cannot do is in
 * native-notes/fuse-native-binding.md.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type Fuse from 'fuse-native';
import { DiskError } from '../common/errors.js';
import type { BlockDevice } from '../engine/block-device.js';
import { readMounts, topMountAt } from '../host/mountinfo.js';
import { preloadLibrary } from '../storage/libc.js';
import { HolderSearch, inUse } from './holders.js';
import {
  MOUNT_SOURCE,
  type Mount,
  mountState,
  prepareMountpoint,
  SUBTYPE,
  unmountKernelChannel,
} from './mount.js';
import type { Namespace } from './namespace.js';
import { NativeOperations } from './native-operations.js';
import type { Holder, StopOptions, Transport, TransportEnd, TransportEvent } from './transport.js';

export interface NativeTransportOptions {
  readonly mountpoint: string;
  readonly namespace: Namespace;
  /** Finds an open disk on the main thread. */
  deviceOf(handle: number): BlockDevice;
  readonly allowOther: boolean;
  readonly onEvent?: (event: TransportEvent) => void;
}

/** libfuse 2 writes 4 KiB at a time unless told otherwise, and 128 KiB at most. */
const WRITE_OPTIONS = 'big_writes,max_write=131072';
/** The binding does not say when its mount has gone: look. */
const WATCH_INTERVAL_MS = 1000;

export function createNativeTransport(options: NativeTransportOptions): Transport {
  return new NativeTransport(options);
}

class NativeTransport implements Transport {
  readonly kind = 'fuse-native';
  readonly ended: Promise<TransportEnd>;
  readonly #options: NativeTransportOptions;
  readonly #search = new HolderSearch();
  readonly #operations: NativeOperations;
  #fuse: Fuse | undefined;
  #mount: Mount | undefined;
  #mountpoint: string;
  #watch: NodeJS.Timeout | undefined;
  #resolveEnded: (end: TransportEnd) => void = () => {};

  constructor(options: NativeTransportOptions) {
    this.#options = options;
    this.#mountpoint = options.mountpoint;
    this.#operations = new NativeOperations(
      options.namespace,
      (handle) => options.deviceOf(handle),
      (operation, error) => this.#failed(operation, error),
    );
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  get mountpoint(): string {
    return this.#mountpoint;
  }

  async start(): Promise<void> {
    const { mountpoint, allowOther } = this.#options;
    this.#mountpoint = await prepareMountpoint(mountpoint, allowOther);
    const FuseClass = await loadBinding();
    const fuse = new FuseClass(this.#mountpoint, this.#operations.callbacks(), {
      allowOther: this.#options.allowOther,
      defaultPermissions: true,
      fsname: process.platform === 'linux' ? `${MOUNT_SOURCE},${WRITE_OPTIONS}` : MOUNT_SOURCE,
      subtype: SUBTYPE,
      timeout: false,
    });
    await settled((done) => fuse.mount(done)).catch((error: unknown) => {
      throw new DiskError('failed', `${this.#mountpoint}: fuse-native cannot mount`, {
        hint: 'see the message of libfuse above; try --transport kernel',
        cause: error,
      });
    });
    this.#fuse = fuse;
    this.#mount = findMount(this.#mountpoint);
    if (this.#mount !== undefined) {
      this.#watch = setInterval(() => this.#lookForMount(), WATCH_INTERVAL_MS);
      this.#watch.unref();
    }
  }

  /**
   * The kernel drops a file's pages when it is opened, and believes attributes for a second:
   * nothing to do.
   */
  async invalidate(): Promise<void> {}

  async invalidateEntry(): Promise<void> {}

  async holders(): Promise<readonly Holder[]> {
    return this.#mount === undefined ? [] : this.#search.find(this.#mountpoint, this.#mount.device);
  }

  async stop(options: StopOptions = {}): Promise<void> {
    if (this.#fuse === undefined) return;
    if (this.#mount !== undefined) {
      const unmounted = await unmountKernelChannel(this.#mount, options.force === true);
      if (!unmounted) throw inUse(this.#mountpoint, await this.holders());
    }
    await this.#finish('stopped');
  }

  async #lookForMount(): Promise<void> {
    if (this.#mount !== undefined && mountState(this.#mount) === 'gone') {
      await this.#finish('unmounted');
    }
  }

  async #finish(end: TransportEnd): Promise<void> {
    const fuse = this.#fuse;
    if (fuse === undefined) return;
    this.#fuse = undefined;
    clearInterval(this.#watch);
    await settled((done) => fuse.unmount(done)).catch((error: unknown) => {
      const message = `${this.#mountpoint}: ${String(error)}`;
      this.#options.onEvent?.({ level: 'warning', message });
    });
    await this.#operations.releaseAll();
    this.#resolveEnded(end);
  }

  #failed(operation: string, error: unknown): void {
    if (error instanceof DiskError) return; // Told to the caller by its errno.
    const stack = error instanceof Error ? error.stack : undefined;
    this.#options.onEvent?.({
      level: 'error',
      message: `request ${operation}: ${String(error)}`,
      ...(stack === undefined ? {} : { stack }),
    });
  }
}

/** The class of the binding, loaded only when it is wanted: it brings native code. */
async function loadBinding(): Promise<typeof Fuse> {
  let binding: typeof Fuse;
  try {
    preloadLibfuse();
    binding = (await import('fuse-native')).default;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new DiskError('not-supported', `fuse-native cannot be loaded on this machine: ${why}`, {
      hint: 'use --transport kernel',
      cause: error,
    });
  }
  if (process.platform === 'linux') {
    // Its own way is a lazy unmount of whatever lies on top at the path; ours has been done
    // when this is called.
    binding.unmount = (_mountpoint, done) => done(null);
  }
  return binding;
}

/**
 * The binding asks for libfuse.so.2 by name only and brings a copy beside itself, which the
 * loader does not find: load that first, for libfuse 2 is not installed everywhere.
 */
function preloadLibfuse(): void {
  if (process.platform !== 'linux') return;
  const root = dirname(createRequire(import.meta.url).resolve('fuse-native'));
  const bundled = join(root, 'prebuilds', `linux-${process.arch}`, 'libfuse.so');
  if (existsSync(bundled)) preloadLibrary(bundled);
}

function settled(start: (done: (error: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    start((error) => (error === null || error === undefined ? resolve() : reject(error)));
  });
}

/** Our mount, as far as the host tells of mounts. libfuse keeps the descriptor to itself. */
function findMount(mountpoint: string): Mount | undefined {
  const entry = topMountAt(mountpoint, readMounts());
  if (entry === undefined) return undefined;
  const unprivileged = process.geteuid?.() !== 0;
  return { fd: -1, mountpoint, id: entry.id, device: entry.device, unprivileged };
}
