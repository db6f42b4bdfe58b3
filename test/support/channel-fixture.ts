/** One server with a few disks for the tests that run over both channels. */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import {
  CHANNELS,
  type ChannelKind,
  cannotMount,
  DiskServer,
  type ServerConfig,
  temporaryDirectory,
} from './disk-server.js';

/** Bytes of the main disk: no multiple of a block, to have an end in the middle of one. */
export const DISK_SIZE = 16 * 1024 * 1024 + 3 * 512;

export interface Fixture {
  readonly kind: ChannelKind;
  readonly server: DiskServer;
  /** Temporary directory, removed afterwards. */
  readonly directory: string;
  readonly mountpoint: string;
  /** Through the mount, and the host file behind it. */
  readonly disk: string;
  readonly backing: string;
  readonly snapshot: string;
  /** Path of another disk of the fixture through the mount. */
  path(name: string): string;
}

/** Disks that fail, by name. */
const FAULTS = {
  full: { writeErrno: 'ENOSPC' },
  unreadable: { readErrno: 'EIO' },
  unflushable: { flushErrno: 'EIO' },
  buggy: { bug: true },
} as const;

export async function openFixture(
  test: Test,
  kind: ChannelKind,
  options: Partial<ServerConfig> = {},
): Promise<Fixture> {
  const { path: directory, remove } = temporaryDirectory();
  test.teardown(remove);
  const file = (name: string) => join(directory, `${name}.img`);
  const disks = [
    { vm: 'web', name: 'disk0', path: file('disk0') },
    { vm: 'web', name: 'disk0', path: file('snapshot'), readOnly: true },
    ...Object.entries(FAULTS).map(([name, fault]) => ({
      vm: 'web',
      name,
      path: file(name),
      ...fault,
    })),
  ];
  for (const { path } of disks) {
    writeFileSync(path, '');
    truncateSync(path, path === file('disk0') ? DISK_SIZE : 1024 * 1024);
  }
  const mountpoint = join(directory, 'mnt');
  const server = await DiskServer.start({ kind, mountpoint, disks, ...options });
  test.teardown(() => server.dispose());
  return {
    kind,
    server,
    directory,
    mountpoint,
    disk: join(mountpoint, 'web/disk0.raw'),
    backing: file('disk0'),
    snapshot: join(mountpoint, 'web/snapshots/s1/disk0.raw'),
    path: (name) => join(mountpoint, 'web', `${name}.raw`),
  };
}

/**
 * Runs `body` once for each channel, each with a fixture of its own. `nativeLacks` names what
 * the fuse-native channel can't do: the test is then skipped there, and says so.
 */
export function overBothChannels(
  name: string,
  body: (test: Test, fixture: Fixture) => Promise<void> | void,
  nativeLacks?: string,
): void {
  for (const kind of CHANNELS) {
    const lacking = kind === 'kernel' ? undefined : nativeLacks;
    const skip = cannotMount() ?? (lacking === undefined ? false : `fuse-native has no ${lacking}`);
    t.test(`${name} (${kind})`, { skip }, async (test) => {
      await body(test, await openFixture(test, kind));
    });
  }
}

/** Output of a tool; throws with its complaint when it fails. */
export function run(program: string, ...parameters: string[]): string {
  return execFileSync(program, parameters, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** errno name with which `action` fails, undefined when it does not. */
export function errnoOfCall(action: () => unknown): string | undefined {
  try {
    action();
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
}

/** Opens a file for the time of `body`. */
export function withFile<T>(path: string, flags: string | number, body: (fd: number) => T): T {
  const fd = openSync(path, flags);
  try {
    return body(fd);
  } finally {
    closeSync(fd);
  }
}

/** Up to `length` bytes at `offset`. */
export function readBytes(path: string, offset: number, length: number): Buffer {
  return withFile(path, 'r', (fd) => {
    const target = Buffer.alloc(length);
    return target.subarray(0, readSync(fd, target, 0, length, offset));
  });
}

export function writeBytes(path: string, offset: number, bytes: Buffer): number {
  return withFile(path, 'r+', (fd) => writeSync(fd, bytes, 0, bytes.length, offset));
}
