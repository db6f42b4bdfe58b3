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
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import type { Test } from 'tap';
import { PROJECT } from './run-program.js';

export interface CorpusImage {
  readonly id: string;
  /** Name of the file to open, among `files`. */
  readonly main: string;
  readonly format: string;
  readonly expect: 'ok' | 'refuse' | 'io-error' | 'refuse-or-ok';
  /** What is wrong with it. */
  readonly why?: string;
  /** `stored`: a gzip file, or `ARCHIVE.tar.xz:MEMBER`. */
  readonly files: readonly { readonly name: string; readonly stored: string }[];
  readonly virtual_size?: number;
  /** Of the whole raw content. */
  readonly sha256?: string;
  /** Of every 64 KiB that are not all zero, each behind its number: the manifest's `legend`. */
  readonly nz64k?: string;
  readonly undamaged_sha256?: string;
  /** Damaged [offset, length] where known. */
  readonly bad?: readonly (readonly [number, number])[];
}

export interface Corpus {
  readonly images: readonly CorpusImage[];
  /** Unpacks what an image needs and answers the paths of its files, the main one first. */
  unpack(image: CorpusImage): readonly [string, ...string[]];
}

const HOLE_UNIT = 65_536;

/** Beside the project, or where LAYERDISK_CORPUS says. Undefined where there is none. */
function corpusFolder(): string | undefined {
  const places = [process.env.LAYERDISK_CORPUS ?? '', join(PROJECT, '../shared/corpus')];
  return places.find((place) => existsSync(join(place, 'manifest.json')));
}

/**
 * The corpus, to be unpacked below `folder`; undefined, and a skipped test, where it is not
 * there.
 */
export function openCorpus(t: Pick<Test, 'pass'>, folder: string): Corpus | undefined {
  const root = corpusFolder();
  if (root === undefined) {
    t.pass('the corpus', { skip: 'none at ../shared/corpus nor where LAYERDISK_CORPUS says' });
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
      // Members lie in a folder of each image's own.
      const member = /:(.*)\/[^/]*$/.exec(stored)?.[1];
      const target = join(folder, member ?? join('real', image.id));
      mkdirSync(target, { recursive: true });
      for (const file of member === undefined ? image.files : []) {
        writeWithHoles(join(target, file.name), gunzipSync(readFileSync(join(root, file.stored))));
      }
      const paths = image.files.map(({ name }) => join(target, name));
      const main = join(target, image.main);
      return [main, ...paths.filter((path) => path !== main)];
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
