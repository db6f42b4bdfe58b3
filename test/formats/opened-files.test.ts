/**
 * A hostile image opens no file outside its folder: seen from the system calls of a process that
 * looks at it.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { openCorpus } from '../support/corpus.js';
import { tool } from '../support/run-program.js';
import { tempFolder } from '../support/temp-folder.js';

const PROGRAM = fileURLToPath(new URL('../support/use-image.mjs', import.meta.url));

/** Paths that a process opened, or tried to, once it had begun with the first image. */
async function openedWith(folder: string, files: readonly string[]): Promise<string[]> {
  const trace = join(folder, 'trace');
  const strace = ['-f', '-qq', '-s', '4096', '-e', 'trace=open,openat,openat2', '-o', trace];
  await tool('strace', [...strace, 'node', PROGRAM, '4', '4', ...files]);
  const paths = [...readFileSync(trace, 'utf8').matchAll(/open(?:at2?)?\((?:AT_FDCWD, )?"(.*?)"/g)];
  const all = paths.map(([, path = '']) => path);
  return all.slice(all.indexOf(files[0] as string));
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

async function checkNoStrangers(t: Test, folder: string, files: readonly string[]): Promise<void> {
  const opened = await openedWith(folder, files);
  for (const file of files) t.ok(opened.includes(file), `${file} was looked at`);
  t.same(strangers(opened, files), [], 'nothing outside the folders of the images');
}

t.test('images that name what is not theirs', async (t) => {
  const folder = tempFolder(t);
  const secret = join(folder, 'secret');
  writeFileSync(secret, Buffer.alloc(4096, 's'));
  await checkNoStrangers(t, folder, await hostileImages(folder, secret));
});

t.test('what an image may name is seen', async (t) => {
  const folder = tempFolder(t);
  const base = join(folder, 'base.raw');
  const image = join(folder, 'over.qcow2');
  writeFileSync(base, Buffer.alloc(4096, 'b'));
  await tool('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'base.raw', image]);
  t.ok((await openedWith(folder, [image])).includes(base));
});

t.test('malformed images of the corpus', async (t) => {
  const folder = tempFolder(t);
  const corpus = openCorpus(t, folder);
  if (corpus === undefined) return;
  const malformed = corpus.images.filter(({ files }) => /^malformed/.test(files[0]?.stored ?? ''));
  t.ok(malformed.length > 50, `${malformed.length} images`);
  const files = malformed.map((image) => corpus.unpack(image)[0]);
  await checkNoStrangers(t, folder, files);
});
