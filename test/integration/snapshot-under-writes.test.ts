/**
 * Snapshots taken while somebody writes hold the state of one instant: a writer puts down 1, 2, 3,
 * ... in order, over two disks, and every snapshot must hold exactly the numbers up to some number.
 */
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { startDaemon, type TestDaemon, TRANSPORTS } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { sectorOf } from '../support/numbered-sectors.mjs';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { cleanEnvironment, runProgram, tool } from '../support/run-program.js';

const LONG = process.env.LAYERDISK_LONG === '1';
const SNAPSHOTS = LONG ? 200 : 20;
/** Of each disk that the writer uses: enough for many blocks, few enough to be written often. */
const SECTORS = 4096;
const DISKS = ['a', 'b'];

/** Starts the writer and waits until it writes; `stop` answers the last number it wrote. */
async function startWriter(t: Test, mode: 'direct' | 'buffered', files: readonly string[]) {
  const script = fileURLToPath(new URL('../support/numbering-writer.mjs', import.meta.url));
  const args = ['-u', 'NODE_OPTIONS', 'node', script, String(SECTORS), mode, ...files];
  const child = spawn('env', args, { env: cleanEnvironment(), stdio: 'pipe' });
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  t.teardown(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  while (!said.includes('writing\n') && child.exitCode === null) await sleep(5);
  return async (): Promise<number> => {
    child.stdin.end();
    t.equal(await ended, 0, `the writer never saw an error: ${said}`);
    return Number(said.split('\n').at(-2));
  };
}

/** The number in each sector of each disk; a torn sector fails the test. */
async function readNumbers(t: Test, paths: readonly string[]): Promise<number[][]> {
  const disks: number[][] = [];
  for (const path of paths) {
    const bytes = await readFile(path);
    const numbers: number[] = [];
    for (let sector = 0; sector < SECTORS; sector += 1) {
      const number = bytes.readUInt32LE(sector * 512);
      const whole = Buffer.alloc(512);
      for (let at = 0; at < 512; at += 4) whole.writeUInt32LE(number, at);
      if (!whole.equals(bytes.subarray(sector * 512, sector * 512 + 512))) {
        t.fail(`${path}: sector ${sector} is torn`);
      }
      numbers.push(number);
    }
    disks.push(numbers);
  }
  return disks;
}

/** Checks that the disks hold the state after some number, and answers that number. */
function checkPrefix(t: Test, disks: readonly number[][], what: string): number {
  let last = 0;
  for (const numbers of disks) for (const number of numbers) last = Math.max(last, number);
  const expected = disks.map(() => Array<number>(SECTORS).fill(0));
  for (let number = 1; number <= last; number += 1) {
    const disk = expected[number % disks.length];
    if (disk !== undefined) disk[sectorOf(number, SECTORS)] = number;
  }
  const wrong: string[] = [];
  disks.forEach((numbers, disk) => {
    numbers.forEach((number, sector) => {
      const due = expected[disk]?.[sector];
      if (number !== due) {
        wrong.push(`disk ${disk}, sector ${sector}: ${number} instead of ${due}`);
      }
    });
  });
  const some = wrong.slice(0, 5);
  t.same(some, [], `${what} holds exactly the numbers up to ${last} (${wrong.length} do not)`);
  return last;
}

async function checkWriter(t: Test, daemon: TestDaemon, mode: 'direct' | 'buffered') {
  const vm = `numbered-${mode}`;
  await daemon.ok('create', vm, ...DISKS.flatMap((disk) => ['--disk', `${disk}=4M`]));
  const heads = DISKS.map((disk) => daemon.rawFile(vm, undefined, disk));
  const stop = await startWriter(t, mode, heads);
  for (let count = 0; count < SNAPSHOTS; count += 1) {
    await daemon.ok('snapshot', 'take', `${vm}@s${count}`);
  }

  // A restore under somebody's hands is refused and changes nothing.
  const refused = await daemon.cli(['snapshot', 'restore', `${vm}@s0`, '--discard']);
  checkRefusal(t, refused, [EXIT.busy], new RegExp(vm));
  const written = await stop();

  const now = checkPrefix(t, await readNumbers(t, heads), 'the current state');
  t.equal(now, written, 'nothing that was acknowledged is lost');
  let before = 0;
  for (let count = 0; count < SNAPSHOTS; count += 1) {
    const files = DISKS.map((disk) => daemon.rawFile(vm, `s${count}`, disk));
    const last = checkPrefix(t, await readNumbers(t, files), `snapshot ${count}`);
    t.ok(last >= before, 'snapshots are in order');
    before = last;
  }
  t.ok(now > before, 'writing went on after the last snapshot');
  await checkRestore(t, daemon, vm, heads);
}

/** The page cache holds the current state: none of it may show after a restore. */
async function checkRestore(t: Test, daemon: TestDaemon, vm: string, heads: readonly string[]) {
  const middle = `s${SNAPSHOTS / 2}`;
  const frozen = DISKS.map((disk) => daemon.rawFile(vm, middle, disk));
  const wanted = await readNumbers(t, frozen);
  const current = await readNumbers(t, heads);
  await daemon.ok('snapshot', 'restore', `${vm}@${middle}`, '--save-current', 'kept');
  t.same(await readNumbers(t, heads), wanted, 'restored to the snapshot, not to a cached page');
  const kept = DISKS.map((disk) => daemon.rawFile(vm, 'kept', disk));
  t.same(await readNumbers(t, kept), current, 'what was current is saved');
  await daemon.ok('snapshot', 'restore', `${vm}@kept`, '--discard');
  t.same(await readNumbers(t, heads), current, 'and comes back');
}

/** fio verifies what it wrote while snapshots come and go under it. */
async function checkFio(t: Test, daemon: TestDaemon) {
  await daemon.ok('create', 'busy', '--disk', '64M');
  const path = await daemon.ok('path', 'busy');
  const options = [
    '--name=busy',
    `--filename=${path}`,
    ...['--rw=randwrite', '--bsrange=512-64k', '--blockalign=512', '--size=16m'],
    ...['--offset_increment=16m', '--numjobs=4', '--group_reporting', '--direct=1'],
    ...['--ioengine=libaio', '--iodepth=4', '--verify=crc32c', '--verify_fatal=1'],
    ...['--fallocate=none', '--overwrite=1', '--output-format=terse', '--loops=2'],
  ];
  let running = true;
  const fio = runProgram('fio', options, { cwd: daemon.folder, timeoutMs: 600_000 }).finally(() => {
    running = false;
  });
  let count = 0;
  for (; running; count += 1) {
    await daemon.ok('snapshot', 'take', `busy@s${count}`);
    if (count >= 3) await daemon.ok('snapshot', 'delete', `busy@s${count - 3}`);
  }
  const result = await fio;
  t.equal(result.code, 0, `fio found no wrong block: ${result.stdout}${result.stderr}`);
  t.comment(`${count} snapshots while fio ran`);
  const last = `s${count - 1}`;
  await daemon.ok('snapshot', 'restore', `busy@${last}`, '--discard');
  t.equal(await tool('cmp', [path, daemon.rawFile('busy', last)]), '');
}

for (const transport of TRANSPORTS) {
  t.test(`over the ${transport} channel`, { skip: cannotServe() }, async (t) => {
    const daemon = await startDaemon(t, { transport });
    await t.test('buffered writes in order', (t) => checkWriter(t, daemon, 'buffered'));
    await t.test('direct writes in order', (t) => checkWriter(t, daemon, 'direct'));
    await t.test('fio', (t) => checkFio(t, daemon));
  });
}
