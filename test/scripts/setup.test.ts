/** scripts/setup on made-up machines that lack something. */
import { chmod, copyFile, mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { PROJECT, runProgram } from '../support/run-program.js';
import { tempTree } from '../support/temp-tree.js';

const STUBS: Readonly<Record<string, string>> = {
  // What it "installs" is a link to a program that does nothing.
  'apt-get': `echo "apt-get $*" >>"$LOG"
case "$*" in *install*) [ -z "$OFFLINE" ] && ln -s /bin/true "$BIN/fio" || exit 100 ;; esac`,
  npm: `echo "npm $*" >>"$LOG"
case "$1" in
  ci) mkdir -p node_modules && touch node_modules/.package-lock.json ;;
  run) [ -z "$BROKEN" ] || { echo "error TS2322"; exit 2; }; mkdir -p dist && touch dist/.built ;;
esac`,
  node: 'case "$1" in --version) echo v18.1.0 ;; *) [ -z "$OLD" ] ;; esac',
};

/**
 * A checkout with nothing installed, on a machine that has every program but those in `without`.
 */
async function machine(t: Test, without: readonly string[]) {
  const root = await tempTree(t, {
    'package.json': '{}',
    'package-lock.json': '{}',
    'tsconfig.json': '{}',
    'src/a.ts': '',
    'scripts/bundle.mjs': '',
    'scripts/launcher.cjs': '',
    'bin/x': '',
  });
  const bin = join(root, 'bin');
  await copyFile(join(PROJECT, 'scripts/setup'), join(root, 'scripts/setup'));
  for (const folder of ['/usr/sbin', '/usr/bin']) {
    for (const name of await readdir(folder)) {
      if (name in STUBS || without.includes(name)) continue;
      // The same name in both folders: one is enough.
      await symlink(join(folder, name), join(bin, name)).catch(() => {});
    }
  }
  for (const [name, text] of Object.entries(STUBS)) {
    if (without.includes(name)) continue;
    await writeFile(join(bin, name), `#!/bin/sh\n${text}\n`);
    await chmod(join(bin, name), 0o755);
  }
  const log = join(root, 'log');
  await writeFile(log, '');
  const run = async (env: Record<string, string> = {}) => {
    await writeFile(log, '');
    const result = await runProgram(join(root, 'scripts/setup'), [], {
      env: { PATH: bin, BIN: bin, LOG: log, OFFLINE: '', BROKEN: '', OLD: '', ...env },
    });
    return { ...result, calls: (await runProgram('cat', [log])).stdout };
  };
  return { root, run };
}

const notRoot = process.getuid?.() === 0 ? false : 'needs root: otherwise setup goes through sudo';

t.test('installs, compiles, and then is quiet', { skip: notRoot }, async (t) => {
  const { root, run } = await machine(t, ['fio']);
  const first = await run();
  t.equal(first.code, 0, first.stderr);
  t.match(
    first.stdout,
    /^setup: installing fio\nsetup: installing Node modules\nsetup: compiling\n$/,
  );
  t.match(first.calls, /apt-get .*install .*fio\nnpm ci .*\nnpm run .*build\n$/);
  t.notMatch(first.calls, /update/);

  t.match(await run(), { code: 0, stdout: '', stderr: '', calls: '' });

  await runProgram('touch', ['-d', '+1 second', join(root, 'src/a.ts')]);
  t.match(await run(), { code: 0, stdout: 'setup: compiling\n', calls: /^npm run/ });
});

t.test('modules that are a link are left alone', async (t) => {
  const { root, run } = await machine(t, []);
  await mkdir(join(root, 'elsewhere'));
  await symlink(join(root, 'elsewhere'), join(root, 'node_modules'));
  t.match(await run(), { code: 0, calls: /^npm run/ });
});

t.test('offline it says what to install', { skip: notRoot }, async (t) => {
  const { run } = await machine(t, ['fio', 'qemu-img']);
  const result = await run({ OFFLINE: '1' });
  t.match(result, { code: 1, calls: /install(.|\n)*update/ });
  t.match(result.stderr, /^setup: apt-get could not install: fio qemu-utils\nhint: .*online/m);
});

t.test('without apt-get it names the packages', async (t) => {
  const { run } = await machine(t, ['fio', 'apt-get']);
  const result = await run();
  t.match(result, { code: 1, stderr: /^setup: these packages are missing: fio\nhint: / });
});

t.test('an old Node is refused', async (t) => {
  const { run } = await machine(t, []);
  const result = await run({ OLD: '1' });
  t.match(result, { code: 1, stderr: /^setup: Node\.js v18\.1\.0 is too old\nhint: .*20\.19/ });
});

t.test('sources that do not compile are shown', async (t) => {
  const { run } = await machine(t, []);
  const result = await run({ BROKEN: '1' });
  t.match(result, { code: 1, stderr: /error TS2322\nsetup: the sources do not compile/ });
});
