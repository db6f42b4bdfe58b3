/** Loop devices and mounts that a test makes, and that are gone when it ends, however it ends. */
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Test } from 'tap';
import { PROJECT, runProgram, tool } from './run-program.js';

/** Why this machine or user cannot mount; false where it can. For a test's `skip`. */
export function cannotMount(): string | false {
  if (process.getuid?.() !== 0) return 'only root may mount and make loop devices';
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
  } catch {
    return 'there is no /dev/fuse to open';
  }
  if (!existsSync('/dev/loop-control')) return 'this kernel has no loop devices';
  return false;
}

/** Why the compiled program cannot be tested; false where it can. */
export function cannotServe(): string | false {
  const built = join(PROJECT, 'dist/daemon/main.js');
  return cannotMount() || (existsSync(built) ? false : 'not compiled yet: npm run build');
}

/** Mount points at or below `folder`, deepest first. Reads a list: never touches the mounts. */
export function mountsBelow(folder: string): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => (line.split(' ')[1] ?? '').replace(/\\040/g, ' '))
    .filter((path) => path === folder || path.startsWith(`${folder}/`))
    .sort()
    .reverse();
}

/** Loop devices whose file lies below `folder`. */
export async function loopDevicesBelow(folder: string): Promise<string[]> {
  const listed = await tool('losetup', ['--noheadings', '--raw', '--output', 'NAME,BACK-FILE']);
  return listed
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, file = '']) => file.startsWith(`${folder}/`))
    .map(([device = '']) => device);
}

/** Takes away every mount and loop device below `folder`, served or not, in the right order. */
export async function releaseBelow(folder: string): Promise<void> {
  const devices = await loopDevicesBelow(folder);
  // Mounts of the devices first, then the devices, then the file system their files are in.
  const sources = readFileSync('/proc/self/mounts', 'utf8').split('\n');
  for (const line of sources.reverse()) {
    const [source = '', path = ''] = line.split(' ');
    if (devices.some((device) => source === device || source.startsWith(`${device}p`))) {
      await runProgram('umount', ['-l', path.replace(/\\040/g, ' ')]);
    }
  }
  for (const device of devices) await runProgram('losetup', ['-d', device]);
  for (const path of mountsBelow(folder)) await runProgram('umount', ['-l', path]);
}

/** A loop device on `file`, detached when `t` ends. */
export async function loopDevice(
  t: Test,
  file: string,
  options: readonly string[] = [],
): Promise<string> {
  const device = (await tool('losetup', ['--find', '--show', ...options, file])).trim();
  t.teardown(() => runProgram('losetup', ['-d', device]));
  return device;
}

/**
 * Mounts `source` on the folder `on` (made if need be), unmounted when `t` ends unless done before.
 */
export async function mountOn(
  t: Test,
  source: string,
  on: string,
  options: readonly string[] = [],
): Promise<void> {
  await mkdir(on, { recursive: true });
  await tool('mount', [...options, source, on]);
  t.teardown(async () => {
    if (mountsBelow(on).length > 0) await runProgram('umount', ['-l', on]);
  });
}

/** A small file system of its own in `folder`, for stores that must run full. */
export async function scratchFileSystem(
  t: Test,
  folder: string,
  sizeBytes: number,
): Promise<string> {
  await mkdir(folder, { recursive: true });
  const image = join(folder, 'file-system.img');
  const on = join(folder, 'file-system');
  await tool('truncate', ['-s', String(sizeBytes), image]);
  await tool('mkfs.ext4', ['-q', '-F', '-m', '0', image]);
  await mountOn(t, await loopDevice(t, image), on);
  return on;
}
