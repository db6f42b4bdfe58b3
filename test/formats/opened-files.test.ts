/**
 * A hostile image opens no file outside its folder: seen from the system calls of a process that
 * looks at it.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { type Corpus, type CorpusImage, openCorpus } from '../support/corpus.js';
import { tool } from '../support/run-program.js';
import { tempFolder } from '../support/temp-folder.js';
import { Tally, triesOr } from '../torture/tally.js';

const PROGRAM = fileURLToPath(new URL('../support/use-image.mjs', import.meta.url));

/** Paths that a process opened, or tried to, once it had begun with the first image. */
async function openedWith(folder: string, files: readonly string[]): Promise<string[]> {
  const trace = join(folder, 'trace');
  const strace = ['-f', '-qq', '-s', '4096', '-e', 'trace=open,openat,openat2', '-o', trace];
  await tool('strace', [...strace, 'node', PROGRAM, '4', '4', ...files]);
  const calls = /open(?:at2?)?\((?:AT_FDCWD, )?"((?:[^"\\]|\\.)*)"/g;
  const all = [...readFileSync(trace, 'utf8').matchAll(calls)].map(([, text = '']) => named(text));
  return all.slice(all.indexOf(files[0] as string));
}

/** A path as it was before strace wrote its bytes: octal numbers, and backslashes. */
function named(text: string): string {
  const bytes = text.replace(/\\(?:([0-7]{1,3})|(.))/g, (_, octal: string, other: string) =>
    octal === undefined ? other : String.fromCharCode(Number.parseInt(octal, 8)),
  );
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

/** What any program of Node reads. */
const USUAL = /^\/(proc|sys)\/|^\/dev\/null$|^\/etc\/localtime$|\.js$/;

/** Those that are neither in a folder of the images nor usual. */
function strangers(opened: readonly string[], files: readonly string[]): string[] {
  const folders = files.map((file) => `${dirname(file)}/`);
  const isIn = (path: string) => folders.some((folder) => `${path}/`.startsWith(folder));
  return opened.filter((path) => !isIn(path) && !USUAL.test(path));
}

/** Images that name a file outside their folder, each in a folder of its own. */
async function hostileImages(folder: string, secret: string): Promise<string[]> {
  const files: string[] = [];
  for (const [index, path] of [secret, '../secret', '/etc/shadow', '/dev/zero'].entries()) {
    const own = join(folder, `image${index}`);
    mkdirSync(own);
    const vmdk = join(own, 'flat.vmdk');
    const lines = ['# Disk DescriptorFile', 'version=1', 'CID=fffffffe', 'parentCID=ffffffff'];
    lines.push('createType="monolithicFlat"', `RW 8 FLAT "${path}" 0`);
    writeFileSync(vmdk, `${lines.join('\n')}\n`);
    const qcow2 = join(own, 'over.qcow2');
    const overlay = ['create', '-q', '-u', '-f', 'qcow2', '-F', 'raw', '-b', path, qcow2, '4096'];
    await tool('qemu-img', overlay);
    files.push(vmdk, qcow2);
  }
  return files;
}

/** Each image is a try: it was looked at, and nothing that is not of the images was opened. */
async function countStrangers(t: Test, folder: string, files: readonly string[]): Promise<void> {
  const tally = new Tally(t);
  const opened = await openedWith(folder, files);
  for (const file of files) {
    tally.judge(file, opened.includes(file) ? undefined : 'was not looked at');
  }
  const outside = strangers(opened, files);
  for (const path of outside) tally.lost(`${path} was opened`);
  tally.print({ 'paths opened': opened.length, strangers: outside.length });
}

t.test('images that name what is not theirs', async (t) => {
  const folder = tempFolder(t);
  const secret = join(folder, 'secret');
  writeFileSync(secret, Buffer.alloc(4096, 's'));
  await countStrangers(t, folder, await hostileImages(folder, secret));
});

t.test('what an image may name is seen', async (t) => {
  const folder = tempFolder(t);
  const base = join(folder, 'base.raw');
  const image = join(folder, 'over.qcow2');
  writeFileSync(base, Buffer.alloc(4096, 'b'));
  await tool('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'base.raw', image]);
  t.ok((await openedWith(folder, [image])).includes(base));
});

/** The malformed ones, which may try anything, come first; the sound ones where time is. */
function chosenOf({ images }: Corpus): CorpusImage[] {
  const isMalformed = ({ files }: CorpusImage) => /^malformed/.test(files[0]?.stored ?? '');
  const malformed = images.filter(isMalformed);
  const others = images.filter((image) => !isMalformed(image));
  return [...malformed, ...others].slice(0, triesOr(malformed.length));
}

t.test('images of the corpus', async (t) => {
  const folder = tempFolder(t);
  const corpus = openCorpus(t, folder);
  if (corpus === undefined) return;
  const files = chosenOf(corpus).map((image) => corpus.unpack(image)[0]);
  t.ok(files.length > 0, `${files.length} images`);
  await countStrangers(t, folder, files);
});
