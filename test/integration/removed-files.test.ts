/**
 * Files of the store that somebody deleted by hand, while the daemon is stopped and while it runs:
 * the thing is named, everything else goes on, and nothing is made worse.
 */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { CheckView, CompactView } from '../../src/control/protocol.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import {
  checkContents,
  checkSaid,
  digestsOf,
  makeGoldStore,
  onCopy,
  refusalOf,
} from '../support/gold-store.js';
import { cannotServe } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { runProgram, tool } from '../support/run-program.js';

const skip = cannotServe();

interface Manifest {
  readonly disks: readonly { readonly head: string }[];
  readonly snapshots: readonly { readonly disks: readonly { readonly delta: string }[] }[];
}

/** Which file of a VM goes, and what is to be found then. */
interface Loss {
  readonly files: (manifest: Manifest, vm: string) => readonly string[];
  /** The part that `check` names; undefined where nothing is lost. */
  readonly part?: string;
  /** Whether the present disk can be read after a start without it. */
  readonly readable?: boolean;
}

const head = ({ disks }: Manifest): string => `deltas/${disks[0]!.head}`;
const below = ({ snapshots }: Manifest): string => `deltas/${snapshots[0]!.disks[0]!.delta}`;

const LOSSES: Readonly<Record<string, Loss>> = {
  data: { files: (manifest) => [`${head(manifest)}.1.data`], part: 'data' },
  tuples: { files: (manifest) => [`${head(manifest)}.tuples`], part: 'tuples' },
  'data-below': { files: (manifest) => [`${below(manifest)}.1.data`], part: 'data' },
  'tuples-below': { files: (manifest) => [`${below(manifest)}.tuples`], part: 'tuples' },
  sums: { files: (manifest) => [`${below(manifest)}.sums`], readable: true },
  manifest: { files: (_, vm) => [`vms/${vm}.json`], part: 'manifest' },
  copy: { files: (_, vm) => [`vms/${vm}.json.copy`], readable: true },
};

function lossesIn(store: string): [vm: string, loss: Loss, files: readonly string[]][] {
  return Object.entries(LOSSES).map(([vm, loss]) => {
    const manifest = JSON.parse(readFileSync(join(store, 'vms', `${vm}.json`), 'utf8')) as Manifest;
    return [vm, loss, loss.files(manifest, vm).map((file) => join(store, file))];
  });
}

/** A store with a VM for each loss, and one that loses nothing. */
async function makeStore(t: Test): Promise<TestDaemon> {
  const daemon = await startDaemon(t);
  for (const vm of [...Object.keys(LOSSES), 'whole']) {
    await daemon.ok('create', vm, '--disk', '1M');
    const write = (size: string) =>
      tool('sh', [
        '-c',
        `yes ${vm} | head -c ${size} | dd of="$0" conv=notrunc,fsync status=none`,
        daemon.rawFile(vm),
      ]);
    await write('256k');
    await daemon.ok('snapshot', 'take', `${vm}@one`);
    await write('64k');
  }
  await daemon.ok('check', '--repair');
  return daemon;
}

async function checkNamed(t: Test, daemon: TestDaemon): Promise<void> {
  const check = await daemon.quick(['check', '--json']);
  t.equal(check.code, EXIT.damaged);
  const { findings } = check.json<CheckView>();
  for (const [vm, { part }] of Object.entries(LOSSES)) {
    const found = findings.filter((each) => each.vm === vm).map((each) => each.part);
    t.same([...new Set(found)], part === undefined ? [] : [part], `check names ${vm}`);
  }
  t.notOk(findings.some(({ vm }) => vm === 'whole'));
}

async function checkWhole(t: Test, daemon: TestDaemon): Promise<void> {
  t.match(readFileSync(daemon.rawFile('whole')).toString('latin1', 0, 12), /^whole\nwhole\n$/);
  await daemon.ok('snapshot', 'take', 'whole@more');
  await daemon.ok('snapshot', 'delete', 'whole@more');
  const collected = await daemon.quick(['gc', '--json']);
  t.ok([EXIT.ok, EXIT.damaged].includes(collected.code as 0 | 7), collected.stderr);
}

t.test('removed while the daemon is stopped', { skip }, async (t) => {
  const daemon = await makeStore(t);
  await daemon.stop();
  const losses = lossesIn(daemon.store);
  for (const [, , files] of losses) for (const file of files) rmSync(file);
  const left = digestsOf(join(daemon.store, 'deltas'));
  await daemon.start();
  await checkNamed(t, daemon);
  for (const [vm, { readable = false }] of losses) {
    const read = await runProgram('cat', [daemon.rawFile(vm)]);
    t.equal(read.code === 0, readable, `${vm}: ${read.stderr}`);
    if (!readable && vm !== 'manifest') {
      t.match(read.stderr, /Input\/output error/, `${vm} is there, and cannot be read`);
      t.match(daemon.log, new RegExp(`${vm}/disk0\\.raw cannot be opened: `), 'the log says why');
    }
  }
  await checkWhole(t, daemon);
  t.match(await daemon.ok('list'), /manifest: cannot be used: .*vms\/manifest\.json \(it is gone/);
  checkRefusal(t, await daemon.quick(['info', 'tuples']), [EXIT.damaged], /delta [0-9a-f]{32}/);
  // The collection at the start would have had its time.
  await delay(3000);
  for (const [name, digest] of Object.entries(left)) {
    const path = join(daemon.store, 'deltas', name);
    if (name.endsWith('.data')) t.equal(existsSync(path), true, `${name} ${digest} stays`);
  }
  await daemon.quick(['check', '--repair']);
  t.ok(existsSync(join(daemon.store, 'vms', 'manifest.json')), 'the copy is taken');
  t.equal((await runProgram('cat', [daemon.rawFile('manifest')])).code, 0);
  await daemon.stop();
});

t.test('removed while the daemon runs', { skip }, async (t) => {
  const daemon = await makeStore(t);
  for (const [, , files] of lossesIn(daemon.store)) for (const file of files) rmSync(file);
  for (const name of ['numbers.json', 'store.json', 'lock', 'headroom', 'bases', 'memory']) {
    rmSync(join(daemon.store, name), { recursive: true, force: true });
  }
  await checkNamed(t, daemon);
  for (const vm of ['data', 'tuples']) {
    checkRefusal(t, await daemon.quick(['snapshot', 'take', `${vm}@two`]), [EXIT.damaged], /delta/);
  }
  const pid = (await daemon.cli(['daemon', 'status', '--json'])).json<{ pid: number }>().pid;
  const compacted = await daemon.quick(['compact', 'data-below', '--json']);
  t.match(compacted.json<CompactView>().left.at(-1), /\.1\.data: .* is missing/, 'is named');
  await daemon.ok('snapshot', 'delete', 'data-below@one');
  await checkWhole(t, daemon);
  const status = await daemon.cli(['daemon', 'status', '--json']);
  t.equal(status.json<{ pid: number }>().pid, pid, 'nothing of that ends the daemon');
  await daemon.ok('create', 'new', '--disk', '1M');
  await daemon.quick(['check', '--repair']);
  t.ok(existsSync(join(daemon.store, 'store.json')), 'what the daemon knows is written anew');
  rmSync(daemon.socket);
  // It looks every second.
  for (let tries = 0; !existsSync(daemon.socket) && tries < 600; tries += 1) await delay(50);
  t.match(await daemon.cli(['list', '-q']), { code: 0, stdout: /whole/ }, 'a new socket');
  t.match(daemon.log, /somebody removed .*control\.sock/);
  const refused = await runProgram('rmdir', [daemon.mountpoint]);
  t.not(refused.code, 0, 'a mount point in use stays');
  await daemon.stop();
  rmSync(daemon.mountpoint, { recursive: true });
  await daemon.start();
  await checkWhole(t, daemon);
  t.match(await daemon.ok('list', '-q'), /new/);
});

t.test('folders removed', { skip }, async (t) => {
  const gold = await makeGoldStore(t);
  const daemon = await onCopy(t, gold);
  for (const name of ['vms', 'deltas', 'store.json']) {
    const path = join(daemon.store, name);
    await rename(path, `${daemon.store}.${name}`);
    const before = digestsOf(daemon.store);
    checkSaid(t, await refusalOf(daemon), 'damaged', new RegExp(name));
    t.same(digestsOf(daemon.store), before, 'nothing was touched');
    t.notOk(existsSync(path), 'and nothing was put in its place');
    await rename(`${daemon.store}.${name}`, path);
  }
  for (const name of ['bases', 'memory', 'trash', 'numbers.json', 'lock', 'vms-run', 'headroom']) {
    rmSync(join(daemon.store, name), { recursive: true, force: true });
  }
  await daemon.start();
  await checkContents(t, daemon, gold);
  const folder = join(daemon.store, 'vms');
  await rename(folder, `${daemon.store}.vms`);
  const take = await daemon.cli(['snapshot', 'take', 'web@two']);
  checkRefusal(t, take, [EXIT.failed, EXIT.damaged], /vms\//);
  t.match(take.stderr, /hint: .*(backup|copy)/);
  await checkContents(t, daemon, gold);
  await rename(`${daemon.store}.vms`, folder);
  await daemon.ok('snapshot', 'take', 'web@two');
  await daemon.ok('check');
});

t.test('base images that change', { skip }, async (t) => {
  const daemon = await startDaemon(t);
  const image = join(daemon.folder, 'base.qcow2');
  const kept = join(daemon.folder, 'kept.qcow2');
  await tool('qemu-img', ['create', '-q', '-f', 'qcow2', image, '8M']);
  await tool('qemu-io', ['-c', 'write -q -P 7 0 2M', image]);
  await tool('cp', ['-a', image, kept]);
  await daemon.ok('import', image, 'web');
  await daemon.ok('snapshot', 'take', 'web@one');
  await daemon.ok('create', 'other', '--disk', '1M');
  const raw = daemon.rawFile('web');
  const sound = await readFile(raw);
  const ways: Readonly<Record<string, string>> = {
    'written to': 'printf x | dd of="$0" bs=1 seek=400000 conv=notrunc status=none',
    'replaced by a rename': 'cp "$1" "$0.new"; printf x >> "$0.new"; mv "$0.new" "$0"',
    'cut short': 'truncate -s 200000 "$0"',
    removed: 'rm "$0"',
  };
  for (const [what, script] of Object.entries(ways)) {
    // While the disk rests open, and again after a new start.
    await tool('sh', ['-ec', script, image, kept]);
    for (const when of ['while the daemon runs', 'while it was stopped']) {
      t.match(
        await runProgram('cat', [raw]),
        { code: 1, stderr: /Input\/output/ },
        `${what} ${when}`,
      );
      const check = await daemon.quick(['check', '--json']);
      const [finding] = check.json<CheckView>().findings;
      t.match(finding, { part: 'base', message: /base\.qcow2/ });
      t.same(finding?.seenBy, ['web/disk0', 'web@one/disk0']);
      t.equal((await runProgram('cat', [daemon.rawFile('other')])).code, 0, 'others go on');
      if (when === 'while it was stopped') continue;
      t.match(daemon.log, /web\/disk0\.raw cannot be opened: .*base\.qcow2/);
      t.equal((await runProgram('cat', [daemon.rawFile('web', 'one')])).code, 1);
      t.match(daemon.log, /web\/snapshots\/one\/disk0\.raw cannot be opened: .*base\.qcow2/);
      await daemon.stop();
      await daemon.start();
    }
    await tool('cp', ['-a', kept, image]);
    t.ok((await readFile(raw)).equals(sound), 'the old file back: all is well');
  }
});
