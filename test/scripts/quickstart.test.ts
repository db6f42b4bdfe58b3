/**
 * scripts/quickstart from beginning to end, with its own image, without a file system, and failing.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { cannotServe } from '../support/mount-guard.js';
import { PROJECT, runProgram, tool } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';
import { tempFolder } from '../support/temp-tree.js';

const SCRIPT = join(PROJECT, 'scripts/quickstart');

/** Setting up would compile anew under the feet of the tests that run at the same time. */
async function needsSetup(): Promise<string | false> {
  const built = join(PROJECT, 'dist/.built');
  if (!existsSync(built)) return 'not compiled by npm run build';
  const newer = ['src', 'tsconfig.json', 'package.json', '-newer', built, '-print', '-quit'];
  const found = await tool('find', newer, { cwd: PROJECT });
  return found === '' ? false : 'the compiled program is older than its sources';
}

/** Folders of quickstart that are there now; other people's may come and go. */
async function traces(output: string): Promise<string[]> {
  const own = /layerdisk-quickstart\.\w+/.exec(output)?.[0];
  t.not(own, undefined, 'it names its folder');
  const mounts = await readFile('/proc/self/mounts', 'utf8');
  const loops = await tool('losetup', ['--noheadings', '--raw', '--output', 'BACK-FILE']);
  const processes = (await runProgram('pgrep', ['-af', `/tmp/${own}`])).stdout;
  const left = [...mounts.split('\n'), ...loops.split('\n'), ...processes.split('\n')];
  return [...left, ...(await readdir('/tmp'))].filter((line) => line.includes(own ?? '?'));
}

async function checkRun(t: Test, args: readonly string[], expected: RegExp) {
  const result = await runProgram(SCRIPT, args, { timeoutMs: 300_000 });
  t.equal(result.code, 0, `${result.stdout}${result.stderr}`);
  t.match(result.stdout, expected);
  t.match(result.stdout, /\$ layerdisk snapshot restore demo@before --save-current mistake\n/);
  t.match(result.stdout, /before (\w{64})\nafter {2}\1\n/, 'the image is the same');
  t.match(result.stdout, /Cleaned up[^\n]*\n$/);
  t.same(await traces(result.stdout), [], 'nothing is left');
}

t.test('quickstart', { skip: cannotServe() || (await needsSetup()) }, async (t) => {
  await t.test('on an image of its own', async (t) => {
    await checkRun(t, [], /mounted \/dev\/loop\d+ \(ext4\)[\s\S]*\nfirst note\n/);
  });

  await t.test('on an image without a file system', async (t) => {
    const image = join(await tempFolder(t, 'with blank '), 'disk.img');
    await writeFile(image, stampedPattern(1, 0, 2 * MiB));
    const sha256 = async () =>
      createHash('sha256')
        .update(await readFile(image))
        .digest('hex');
    const before = [await sha256(), (await stat(image)).mtimeMs];
    await checkRun(t, [image], /no file system that can be mounted here[\s\S]*\$ head -c 64/);
    t.same([await sha256(), (await stat(image)).mtimeMs], before);
  });

  await t.test('on what is no image', async (t) => {
    const folder = await tempFolder(t);
    const bad = join(folder, 'odd.img');
    await writeFile(bad, 'seven b');
    for (const [path, sentence] of [
      [join(folder, 'absent'), /quickstart: there is no image .*absent\n$/],
      [folder, /quickstart: .* is not a file\n$/],
      [bad, /quickstart: this step failed: layerdisk import .*odd\.img/],
    ] as const) {
      const result = await runProgram(SCRIPT, [path], { timeoutMs: 300_000 });
      t.not(result.code, 0);
      t.match(result.stderr, sentence);
      if (path === bad) t.same(await traces(result.stdout), [], 'nothing is left');
    }
  });
});
