/** `info FILE`: what an image is, what it stands on, and whether all of that is there. */
import { mkdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { KiB, MiB } from '../../src/common/units.js';
import { EXIT } from '../support/refusal.js';
import { tool } from '../support/run-program.js';
import { tempFolder } from '../support/temp-folder.js';
import { runCli } from './run-cli.js';

/** Three images on each other, the second one in a folder below, with data in the lowest. */
async function makeChain(t: Test) {
  const folder = await tempFolder(t);
  const [bottom, middle, top] = [
    join(folder, 'below/bottom.raw'),
    join(folder, 'below/middle.qcow2'),
    join(folder, 'top.qcow2'),
  ];
  await mkdir(dirname(bottom));
  await tool('truncate', ['-s', `${MiB}`, bottom]);
  const create = (path: string, below: string, format: string, size: number) =>
    tool('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', below, '-F', format, path, `${size}`]);
  await create(middle, 'bottom.raw', 'raw', 2 * MiB);
  await create(top, 'below/middle.qcow2', 'qcow2', 3 * MiB);
  await tool('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 64k 64k', top]);
  return { folder, bottom, middle, top };
}

async function info(path: string, ...options: string[]) {
  const result = await runCli(['info', path, ...options, '--json']);
  t.match(result, { code: 0, stderr: '' });
  return JSON.parse(result.stdout);
}

t.test('an image with all that it stands on', async (t) => {
  const { bottom, middle, top } = await makeChain(t);
  const { size, blocks } = await stat(top);
  t.match(await info(top), {
    path: top,
    format: 'qcow2',
    subformat: /version 3/,
    virtualSize: 3 * MiB,
    allocatedSize: 64 * KiB,
    unitSize: 64 * KiB,
    fileSize: size,
    storedSize: blocks * 512,
    files: [top],
    parent: { names: ['below/middle.qcow2'], format: 'qcow2' },
    chain: [
      { path: top, format: 'qcow2', virtualSize: 3 * MiB },
      { path: middle, format: 'qcow2', virtualSize: 2 * MiB },
      { path: bottom, format: 'raw', virtualSize: MiB },
    ],
    notes: [],
    health: 'sound',
  });
  const told = (await runCli(['info', top])).stdout;
  t.match(told, /^stands on: +\S+middle\.qcow2, qcow2, 2 MiB/m);
  t.match(told, /^stands on: +\S+bottom\.raw, raw, 1 MiB/m);
  t.match(told, /^health: +sound$/m);
  const alone = await info(bottom);
  t.match(alone, { format: 'raw', fileSize: MiB, health: 'sound' });
  t.notOk('chain' in alone, 'it stands on nothing');
});

t.test('what it stands on is gone, elsewhere, or another', async (t) => {
  const { folder, bottom, top } = await makeChain(t);
  const bytes = await readFile(top);
  const moved = join(folder, 'moved.raw');
  await rename(bottom, moved);
  const missing = await info(top);
  t.match(missing, {
    virtualSize: 3 * MiB,
    health: 'incomplete',
    problem: { message: /parent is missing; tried .*below\/bottom\.raw/, hint: /--parent FILE/ },
  });
  t.notOk('chain' in missing);
  t.match(
    (await runCli(['info', top])).stdout,
    /^problem: .*middle\.qcow2: its parent is missing/m,
  );
  const found = await info(top, '--parent', moved);
  t.match(found, { health: 'noted', notes: [/moved\.raw is taken as the parent/] });
  t.equal(found.chain.at(-1).path, moved);

  await rename(moved, bottom);
  const needless = await runCli(['info', top, '--parent', bottom, '--json']);
  t.equal(needless.code, EXIT.usage);
  t.match(JSON.parse(needless.stdout || needless.stderr), {
    error: { message: /needs .* as parent/ },
  });
  await rm(join(folder, 'below/middle.qcow2'));
  await tool('qemu-img', ['create', '-q', '-f', 'vdi', join(folder, 'below/middle.qcow2'), '2M']);
  t.match(await info(top), {
    health: 'incomplete',
    problem: { message: /its parent must be qcow2: .* is vdi/ },
  });
  t.ok(bytes.equals(await readFile(top)), 'nothing was written');
});

t.test('options for files are none for VMs', async (t) => {
  for (const option of ['--format', '--parent', '--allow-folder']) {
    const result = await runCli(['info', 'web', option, 'raw']);
    const stderr = new RegExp(
      `^layerdisk: ${option} is for image files, and "web" is none\nhint: `,
    );
    t.match(result, { code: EXIT.usage, stdout: '', stderr });
  }
});
