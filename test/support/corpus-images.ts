/** The shared corpus of disk images, where there is one: its manifest, and its files unpacked. */
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { PROJECT, tool } from './run-program.js';

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
}

/** Beside the project, or where LAYERDISK_CORPUS says. Undefined where there is none. */
export function corpusFolder(): string | undefined {
  const places = [process.env.LAYERDISK_CORPUS ?? '', join(PROJECT, '../shared/corpus')];
  return places.find((place) => existsSync(join(place, 'manifest.json')));
}

export async function corpusImages(corpus: string): Promise<readonly CorpusImage[]> {
  const text = await readFile(join(corpus, 'manifest.json'), 'utf8');
  return (JSON.parse(text) as { images: readonly CorpusImage[] }).images;
}

/** Writes an image's files into `folder` and answers their paths, the one to open first. */
export async function unpackImage(
  corpus: string,
  image: CorpusImage,
  folder: string,
): Promise<readonly string[]> {
  const paths: string[] = [];
  for (const { name, stored } of image.files) {
    const path = join(folder, name);
    await mkdir(dirname(path), { recursive: true });
    const member = /^([^:]+\.tar\.xz):(.*)$/.exec(stored);
    if (member === null) await writeFile(path, gunzipSync(await readFile(join(corpus, stored))));
    else await unpackMember(join(corpus, member[1] ?? ''), member[2] ?? '', path);
    paths.push(path);
  }
  const main = join(folder, image.main);
  return [main, ...paths.filter((path) => path !== main)];
}

/** Members keep their folder's name in the archive; ours may differ. */
async function unpackMember(archive: string, member: string, path: string): Promise<void> {
  const depth = member.split('/').length - 1;
  const args = ['-xJf', archive, '-C', dirname(path), `--strip-components=${depth}`];
  await tool('tar', [...args, '--no-wildcards', member]);
}
