/**
 * The corpus of images made by other programs: found, unpacked into a temporary folder, described
 * by its manifest.
 */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';

export interface CorpusImage {
  readonly id: string;
  /** File name of the image to open. */
  readonly main: string;
  readonly format: string;
  readonly expect: 'ok' | 'refuse' | 'io-error' | 'refuse-or-ok';
  readonly files: readonly { readonly name: string; readonly stored: string }[];
  readonly virtual_size?: number;
  readonly sha256?: string;
  readonly nz64k?: string;
  readonly undamaged_sha256?: string;
  /** Damaged [offset, length] where known. */
  readonly bad?: readonly (readonly [number, number])[];
}

export interface Corpus {
  readonly images: readonly CorpusImage[];
  /** Unpacks what an image needs and answers the path of its main file. */
  unpack(image: CorpusImage): string;
}

const PROJECT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const HOLE_UNIT = 65_536;

/**
 * The corpus, to be unpacked below `folder`; undefined (with the reason printed) where it is not
 * there.
 */
export function openCorpus(
  t: { comment(...args: unknown[]): void },
  folder: string,
): Corpus | undefined {
  const root = [join(PROJECT, '../shared/corpus'), process.env.LAYERDISK_CORPUS ?? '']
    .filter((path) => path !== '')
    .find((path) => existsSync(join(path, 'manifest.json')));
  if (root === undefined) {
    t.comment('skipped: no corpus at ../shared/corpus nor where LAYERDISK_CORPUS says');
    return undefined;
  }
  const manifest = JSON.parse(readFileSync(join(root, 'manifest.json'), 'utf8'));
  for (const archive of ['crafted.tar.xz', 'malformed.tar.xz']) {
    execFileSync('tar', ['-xJf', join(root, archive), '-C', folder]);
  }
  return {
    images: manifest.images as CorpusImage[],
    unpack(image) {
      const { stored } = image.files[0]!;
      if (stored.includes(':')) return join(folder, dirname(stored.split(':')[1]!), image.main);
      const target = join(folder, 'real', image.id);
      mkdirSync(target, { recursive: true });
      for (const file of image.files) {
        writeWithHoles(join(target, file.name), gunzipSync(readFileSync(join(root, file.stored))));
      }
      return join(target, image.main);
    },
  };
}

/** Some real images are large and mostly empty. */
function writeWithHoles(path: string, bytes: Buffer): void {
  const fd = openSync(path, 'w');
  const zeroes = Buffer.alloc(HOLE_UNIT);
  for (let at = 0; at < bytes.length; at += HOLE_UNIT) {
    const part = bytes.subarray(at, at + HOLE_UNIT);
    if (!part.equals(zeroes.subarray(0, part.length))) writeSync(fd, part, 0, part.length, at);
  }
  ftruncateSync(fd, bytes.length);
  closeSync(fd);
}
