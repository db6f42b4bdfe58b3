/** Files that are no image, or not much of one. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { between, type Expectation, type Kind, type Scene } from './kind.js';

const MAGICS = [
  Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'),
  Buffer.from('KDMV\x01\0\0\0', 'latin1'),
  Buffer.from('COWD\x01\0\0\0', 'latin1'),
  Buffer.from('vhdxfile'),
  Buffer.from('conectix'),
];

function kind(
  name: string,
  expect: Expectation,
  write: (path: string, scene: Scene) => unknown,
): Kind {
  return {
    name,
    expect,
    make(scene) {
      const path = join(scene.folder, 'disk.img');
      const content = write(path, scene);
      return { path, content: Buffer.isBuffer(content) ? content : Buffer.alloc(0) };
    },
  };
}

export const ANY_KINDS: readonly Kind[] = [
  kind('no file', 'refuse', () => {}),
  kind('an empty file', 'refuse', (path) => writeFileSync(path, '')),
  kind('a folder', 'refuse', (path) => {
    mkdirSync(path);
  }),
  kind('a pipe', 'refuse', (path) => {
    execFileSync('mkfifo', [path]);
  }),
  kind('a link to itself', 'refuse', (path) => symlinkSync('disk.img', path)),
  kind('a link to nothing', 'refuse', (path) => symlinkSync('nothing', path)),
  kind('noise', 'ok', (path, { random }) => {
    const bytes = random.bytes(512 * between(random, 1, 2000));
    // Not by chance the beginning of something.
    bytes.fill(0x55, 0, 8);
    writeFileSync(path, bytes);
    return bytes;
  }),
  kind('noise behind a magic', 'refuse', (path, { random }) => {
    const bytes = random.bytes(512 * between(random, 1, 2000));
    random.pick(MAGICS).copy(bytes);
    writeFileSync(path, bytes);
  }),
  kind('a magic alone', 'refuse', (path, { random }) => writeFileSync(path, random.pick(MAGICS))),
];
