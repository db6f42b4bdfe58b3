/** What scripts/test finds, and clears away, when tests leave something behind. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { cleanEnvironment, PROJECT, runProgram, tool } from '../support/run-program.js';
import { tempFolder } from '../support/temp-tree.js';

const SCRIPT = `
set -uo pipefail
. "$1"
run=$2 mark=LAYERDISK_TEST_RUN=$2
note_state
echo noted
read -r _
leftovers
remove_leftovers
echo "then:"
leftovers`;

t.test('nothing left', async (t) => {
  const run = await tempFolder(t, 'run');
  await mkdir(join(run, 't'));
  const args = ['-c', SCRIPT, 'bash', join(PROJECT, 'scripts/leftovers.sh'), run];
  const result = await runProgram('bash', args, { input: '\n' });
  t.match(result, { code: 0, stderr: '', stdout: 'noted\nthen:\n' });
});

const notRoot = process.getuid?.() === 0 ? false : 'only root may mount and make loop devices';

t.test('a mount, a loop device, a process, a file', { skip: notRoot }, async (t) => {
  const run = await tempFolder(t, 'run');
  const folder = join(run, 't', 'with blank');
  await mkdir(folder, { recursive: true });
  const image = join(run, 't', 'image');
  await writeFile(image, Buffer.alloc(1 << 20));

  const args = ['-c', SCRIPT, 'bash', join(PROJECT, 'scripts/leftovers.sh'), run];
  const watcher = spawn('bash', args, { env: cleanEnvironment(), stdio: 'pipe' });
  let said = '';
  watcher.stdout.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  await new Promise((resolve) => watcher.stdout.once('data', resolve));

  await tool('mount', ['-t', 'tmpfs', 'tmpfs', folder]);
  const device = (await tool('losetup', ['--find', '--show', image])).trim();
  const sleeper = spawn('sleep', ['600'], { env: { LAYERDISK_TEST_RUN: run }, stdio: 'ignore' });
  t.teardown(async () => {
    sleeper.kill('SIGKILL');
    // Nothing is left of these when the test passes.
    await runProgram('umount', ['-l', folder]);
    const loop = await runProgram('losetup', ['-n', '-O', 'BACK-FILE', device]);
    if (loop.stdout.trim().startsWith(image)) await runProgram('losetup', ['-d', device]);
  });
  const ended = new Promise((resolve) => sleeper.once('exit', resolve));
  watcher.stdin.end('\n');
  await new Promise((resolve) => watcher.once('close', resolve));
  await ended;

  const [found, after] = said.split('then:\n');
  t.match(found, new RegExp(`^process ${sleeper.pid}: sleep 600`, 'm'));
  t.match(found, new RegExp(`^mount ${run}/t/with\\\\040blank \\(tmpfs\\)$`, 'm'));
  t.match(found, new RegExp(`^loop device ${device} ${image}$`, 'm'));
  t.match(found, new RegExp(`^file ${image}$`, 'm'));
  t.notMatch(after, /process|mount|loop/);
  t.equal(existsSync(join(folder)), true);
});
