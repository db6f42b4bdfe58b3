/** The shared corpus of real, crafted and malformed images, unpacked where a test can read it. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import type { Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import type { DiskImage } from '../../src/engine/disk-image.js';
import { openChain } from '../../src/formats/open-chain.js';
import { nonZeroDigest, readChain } from './chain-reader.js';

export interface CorpusImage {
  readonly id: string;
  readonly main: string;
  readonly format: string;
  readonly expect: 'ok' | 'refuse' | 'io-error' | 'refuse-or-ok';
  readonly why?: string;
  readonly files: readonly { readonly name: string; readonly stored: string }[];
  readonly virtual_size?: number;
  readonly sha256?: string;
  readonly nz64k?: string;
  readonly undamaged_sha256?: string;
  /** Damaged ranges, where known: offset and length. */
  readonly bad?: readonly (readonly [number, number])[];
  readonly also?: readonly {
    readonly main: string;
    readonly virtual_size: number;
    readonly nz64k: string;
  }[];
}

const PROJECT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
/** A disk below this is read whole for its digest. */
const WHOLE_SIZE = 64 * 1024 * 1024;
const SECTOR = 512;

/** The corpus' folder, or undefined, with the reason printed. */
export function corpusFolder(t: { comment(text: string): void }): string | undefined {
  const places = [process.env.LAYERDISK_CORPUS, join(PROJECT, '../shared/corpus')];
  const found = places.find(
    (place) => place !== undefined && existsSync(join(place, 'manifest.json')),
  );
  if (found === undefined) t.comment('skipped: no corpus (../shared/corpus or LAYERDISK_CORPUS)');
  return found;
}

export function corpusImages(corpus: string, format: string): CorpusImage[] {
  const manifest = JSON.parse(readFileSync(join(corpus, 'manifest.json'), 'utf8')) as {
    images: CorpusImage[];
  };
  return manifest.images.filter((image) => image.format === format);
}

/** Unpacks an image's files into a folder of its own; answers the main file's path. */
export function unpack(corpus: string, image: CorpusImage, into: string): string {
  const folder = join(into, image.id.replaceAll('/', '-'));
  mkdirSync(folder, { recursive: true });
  for (const { name, stored } of image.files) {
    const target = join(folder, name);
    mkdirSync(dirname(target), { recursive: true });
    const member = /^(.*\.tar\.xz):(.*)$/.exec(stored);
    if (member === null) writeFileSync(target, gunzipSync(readFileSync(join(corpus, stored))));
    else writeFileSync(target, readFileSync(join(into, member[2]!)));
  }
  return join(folder, image.main);
}

/** Unpacks the corpus' archives once; members keep their paths. */
export function unpackArchives(corpus: string, prefix: string, into: string): void {
  for (const archive of ['crafted.tar.xz', 'malformed.tar.xz']) {
    const args = ['-xJf', join(corpus, archive), '-C', into, '--wildcards', `${prefix}*`, 'any-*'];
    try {
      execFileSync('tar', args, { stdio: 'ignore' });
    } catch {
      // tar complains of a pattern that matches nothing; a member that is missing shows when it is
      // read.
    }
  }
}

/** Opens an image of the corpus as its manifest says it must behave. */
export function checkCorpusImage(
  t: Test,
  image: CorpusImage,
  path: string,
  undamaged: () => Buffer,
): void {
  let chain: DiskImage[];
  try {
    chain = openChain(path, { format: image.format });
  } catch (error) {
    checkRefusal(t, image, path, error);
    return;
  }
  try {
    if (image.expect === 'refuse') t.fail(`${image.id} must be refused: ${image.why ?? ''}`);
    else if (image.expect === 'io-error') checkDamage(t, image, chain, undamaged());
    else checkContent(t, image, chain);
  } finally {
    for (const one of chain) one.close();
  }
}

function checkRefusal(t: Test, image: CorpusImage, path: string, error: unknown): void {
  const message = error instanceof Error ? error.message : String(error);
  t.ok(error instanceof DiskError, `${image.id}: ${message}`);
  t.notMatch(message, /\n/, 'one line');
  t.ok(message.includes(path), 'names the file');
  t.not(image.expect, 'ok', `${image.id} may be refused`);
}

function checkContent(t: Test, image: CorpusImage, chain: readonly DiskImage[]): void {
  const size = image.virtual_size ?? chain[0]!.virtualSize;
  t.equal(chain[0]!.virtualSize, size, `${image.id}: virtual size`);
  const sha256 = image.sha256 ?? image.undamaged_sha256;
  if (sha256 !== undefined && size <= WHOLE_SIZE) {
    const hash = createHash('sha256')
      .update(readChain(chain, 0, size))
      .digest('hex');
    t.equal(hash, sha256, `${image.id}: content`);
  }
  if (image.nz64k !== undefined) {
    t.equal(nonZeroDigest(chain).digest, image.nz64k, `${image.id}: blocks that are not zero`);
  }
}

/**
 * Each sector fails with EIO or is right; the ranges known to be bad (there may be more) fail, and
 * something does.
 */
function checkDamage(
  t: Test,
  image: CorpusImage,
  chain: readonly DiskImage[],
  undamaged: Buffer,
): void {
  const wrong: number[] = [];
  let failed = 0;
  for (let at = 0; at < undamaged.length; at += SECTOR) {
    const isBad = image.bad?.some(([start, length]) => at >= start && at < start + length) ?? false;
    try {
      const right = readChain(chain, at, SECTOR).equals(undamaged.subarray(at, at + SECTOR));
      if (!right || isBad) wrong.push(at);
    } catch (error) {
      if (!(error instanceof DiskError) || error.errno !== 'EIO') throw error;
      failed += 1;
    }
  }
  t.strictSame(wrong.slice(0, 10), [], `${image.id}: ${image.why ?? ''}`);
  t.ok(failed > 0, `${failed} sectors cannot be read`);
}
