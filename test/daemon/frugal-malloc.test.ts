/** Large blocks are mappings of their own, so that they go back to the host when they are freed. */
import { existsSync } from 'node:fs';
import t from 'tap';
import { PROJECT, runProgram } from '../support/run-program.js';

/** glibc's dynamic loader; other C libraries have no such options. */
const skip = existsSync('/lib64/ld-linux-x86-64.so.2') ? false : 'needs glibc';

/**
 * Frees some blocks of 4 MiB, which has glibc take larger ones from its arenas, and says where in
 * their page 20 blocks of 1 MiB begin: a mapping begins with malloc's own 16 bytes.
 */
const PROGRAM = `
  const { addressOf } = await import('./dist/modules/storage/libc.js');
  const { makeMallocFrugal } = await import('./dist/modules/daemon/frugal-malloc.js');
  if (process.argv[1] === 'frugal') makeMallocFrugal();
  const blocks = (count, size) => Array.from({ length: count }, () => Buffer.allocUnsafeSlow(size));
  let first = blocks(4, 4 << 20);
  first = undefined;
  for (let round = 0; round < 5; round += 1) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const places = blocks(20, 1 << 20).map((block) => addressOf(block) % 4096n);
  console.log(places.filter((place) => place === 16n).length);`;

async function ownMappings(...words: string[]): Promise<number> {
  const node = ['--expose-gc', '--input-type=module', '--eval', PROGRAM, ...words];
  const options = { cwd: PROJECT, env: { NODE_OPTIONS: undefined } };
  const { stdout, stderr } = await runProgram('node', node, options);
  if (stderr !== '') throw new Error(stderr);
  return Number(stdout);
}

t.test('blocks of a MiB', { skip }, async (t) => {
  t.equal(await ownMappings('frugal'), 20);
  t.ok((await ownMappings()) < 10, 'which glibc does not do by itself');
});
