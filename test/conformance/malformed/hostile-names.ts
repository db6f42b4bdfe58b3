/** Names that an image may give for a parent, an extent or a data file, but that are not opened. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { between, type Kind, type Scene, type Specimen } from './kind.js';

interface HostileName {
  readonly title: string;
  /** @param secret a file outside that would do, were it not outside. */
  name(scene: Scene, secret: string): string;
}

const HOSTILE_NAMES: readonly HostileName[] = [
  { title: 'an absolute path', name: (_, secret) => secret },
  {
    title: 'a way up',
    name: ({ outside }, secret) => `../${basename(outside)}/${basename(secret)}`,
  },
  {
    title: 'a way up behind a folder',
    name({ folder, outside }, secret) {
      mkdirSync(join(folder, 'sub'));
      return `sub/../../${basename(outside)}/${basename(secret)}`;
    },
  },
  { title: 'a missing file', name: ({ random }) => `missing-${random.below(1000)}.img` },
  {
    title: 'a link',
    name({ folder }, secret) {
      symlinkSync(secret, join(folder, 'link.img'));
      return 'link.img';
    },
  },
  {
    title: 'a linked folder',
    name({ folder, outside }, secret) {
      symlinkSync(outside, join(folder, 'linked'));
      return `linked/${basename(secret)}`;
    },
  },
  {
    title: 'a link to itself',
    name({ folder }) {
      symlinkSync('round.img', join(folder, 'round.img'));
      return 'round.img';
    },
  },
  {
    title: 'a folder',
    name({ folder }) {
      mkdirSync(join(folder, 'sub'));
      return 'sub';
    },
  },
  {
    title: 'a pipe',
    name({ folder }) {
      execFileSync('mkfifo', [join(folder, 'pipe')]);
      return 'pipe';
    },
  },
  { title: 'a device', name: ({ random }) => random.pick(['/dev/zero', '/dev/full', '/dev/tty']) },
  { title: 'a file of the kernel', name: () => '/proc/self/mem' },
  { title: 'the password file', name: () => '/etc/passwd' },
  {
    title: 'a protocol',
    name: ({ random }, secret) =>
      random.pick([`file:${secret}`, `nbd://127.0.0.1:${between(random, 1, 65535)}/x`]),
  },
  {
    title: 'options of QEMU',
    name: (_, secret) => `json:{"file.driver":"file","file.filename":"${secret}"}`,
  },
  { title: 'a very long name', name: ({ random }) => 'n'.repeat(between(random, 256, 1000)) },
];

/**
 * Images that name each of them.
 * @param what the image says of such a file.
 * @param make gets what makes the name of a file outside that would do.
 */
export function hostileKinds(
  what: string,
  make: (scene: Scene, nameOf: (secret: string) => string) => Specimen,
): Kind[] {
  return HOSTILE_NAMES.map(({ title, name }) => ({
    name: `${what}: ${title}`,
    expect: 'refuse',
    make: (scene) => make(scene, (secret) => name(scene, secret)),
  }));
}
