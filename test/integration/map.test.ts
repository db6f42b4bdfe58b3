/** `map` of VMs: with snapshots over bases of every format, the bytes lie where the map says. */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, readSync, realpathSync, writeSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { MapExtent, MapPage } from '../../src/common/extent-map.js';
import { MiB } from '../../src/common/units.js';
import { ControlSocket } from '../support/control-socket.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { stampedModel } from '../support/disk-model.js';
import { modelSource } from '../support/image-sources.js';
import { cannotServe } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { stampedPattern } from '../support/stamped-pattern.js';
import { qemuImg } from '../support/tools.js';
import { writeTestImage } from '../support/written-image.js';

const SIZE = 6 * MiB + 512;
const MODEL = stampedModel({ size: SIZE, unitSize: 64 * 1024, pattern: 'duudddu', salt: 1 });
/** QEMU's name of a format, and what it is asked for. */
const BASES = [
  ['vdi', 'vdi', []],
  ['vhd', 'vpc', ['-o', 'subformat=dynamic,force_size=on']],
  ['vhdx', 'vhdx', []],
  ['qcow2', 'qcow2', []],
] as const;

interface World {
  readonly daemon: TestDaemon;
  readonly client: ControlSocket;
}

t.test('every extent of a VM with snapshots', { skip: cannotServe() }, async (t) => {
  const qemu = qemuImg(t);
  const daemon = await startDaemon(t);
  const client = await ControlSocket.connect(daemon.socket);
  t.teardown(() => client.destroy());
  const folder = join(daemon.folder, 'images');
  await mkdir(folder);
  for (const subformat of ['monolithicSparse', 'twoGbMaxExtentFlat', 'streamOptimized']) {
    const path = join(folder, `${subformat}.vmdk`);
    await writeTestImage({ format: 'vmdk', subformat }, path, modelSource([MODEL]));
    await checkVm(t, { daemon, client }, subformat, path);
  }
  const raw = join(folder, 'base.raw');
  await writeTestImage({ format: 'raw', subformat: 'raw' }, raw, modelSource([MODEL]));
  await checkVm(t, { daemon, client }, 'raw', raw);
  if (qemu === undefined) return;
  for (const [format, name, options] of BASES) {
    const path = join(folder, `base.${format}`);
    const given = ['-f', 'raw', '-O', name, ...options];
    execFileSync(qemu, ['convert', ...given, raw, path]);
    await checkVm(t, { daemon, client }, format, path);
  }
});

/** A VM on `base` with two snapshots; each state of it is mapped and read back. */
async function checkVm(t: Test, world: World, vm: string, base: string): Promise<void> {
  const { daemon, client } = world;
  await client.call('import', { files: [base], vm });
  write(daemon, vm, 1, 100_000, 30_000);
  await client.call('snapshot.take', { vm, snapshot: 'one' });
  write(daemon, vm, 2, 110_000, 5_000);
  write(daemon, vm, 2, 2 * MiB, 70_000);
  await client.call('snapshot.take', { vm, snapshot: 'two' });
  write(daemon, vm, 3, SIZE - 512, 512);
  await checkState(t, world, { vm, snapshot: 'one' }, { base, leastLayers: 2 });
  await checkState(t, world, { vm }, { base, leastLayers: 4 });
}

function write(daemon: TestDaemon, vm: string, salt: number, offset: number, length: number) {
  const fd = openSync(daemon.rawFile(vm), 'rs+');
  writeSync(fd, stampedPattern(salt, offset, length), 0, length, offset);
  closeSync(fd);
}

async function checkState(
  t: Test,
  { daemon, client }: World,
  state: State,
  { base, leastLayers }: { base: string; leastLayers: number },
): Promise<void> {
  const target = `${state.vm}@${state.snapshot ?? 'now'}`;
  const extents = await mapOf(client, state);
  const content = readFileSync(daemon.rawFile(state.vm, state.snapshot));
  let at = 0;
  const wrong: unknown[] = [];
  const layers = new Set<string>();
  for (const extent of extents) {
    const { start, length, layer, data, zero } = extent;
    const bytes = content.subarray(start, start + length);
    const stored = bytesAt(extent);
    const right = data ? stored === undefined || stored.equals(bytes) : isZero(bytes);
    if (start !== at || !right || data === zero) wrong.push(extent);
    if (data && layer !== undefined) layers.add(layer);
    at += length;
  }
  t.equal(at, content.length, `${target}: the map covers the disk`);
  t.strictSame(wrong, [], `${target}: every extent holds what it says`);
  t.ok(layers.size >= leastLayers, `${target}: ${layers.size} layers answer`);
  t.ok(layers.has(realpathSync(base)), `${target}: the base is one of them`);
}

type State = { vm: string; snapshot?: string };

/** The whole map: an answer ends early when it takes long. */
async function mapOf(client: ControlSocket, state: State): Promise<MapExtent[]> {
  const extents: MapExtent[] = [];
  for (let start: number | undefined = 0; start !== undefined; ) {
    const page: MapPage = await client.call<MapPage>('map', { ...state, start });
    extents.push(...page.extents);
    start = page.next;
  }
  return extents;
}

function isZero(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0);
}

function bytesAt({ file, offset, length }: MapExtent): Buffer | undefined {
  if (file === undefined || offset === undefined) return undefined;
  const bytes = Buffer.alloc(length);
  const fd = openSync(file, 'r');
  readSync(fd, bytes, 0, length, offset);
  closeSync(fd);
  return bytes;
}

t.test('pages, an empty disk, and refusals', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  await daemon.ok('create', 'web', '--disk', 'a=1M', '--disk', 'b=64T');
  const [all, ...more] = await daemon.json<MapExtent[]>('map', 'web', '--disk', 'b');
  t.strictSame(more, [], '64 TiB of nothing are one extent');
  t.match(all, { start: 0, length: 64 * 1024 ** 4, depth: 0, present: false, zero: true });
  const fd = openSync(daemon.rawFile('web', undefined, 'a'), 'rs+');
  for (let at = 0; at < MiB; at += 8192) writeSync(fd, stampedPattern(1, at, 512), 0, 512, at);
  closeSync(fd);
  const whole = await daemon.json<MapExtent[]>('map', 'web', '--disk', 'a');
  t.equal(whole.length, 256, 'every other block');
  const client = await ControlSocket.connect(daemon.socket);
  t.teardown(() => client.destroy());
  const paged: MapExtent[] = [];
  for (let start: number | undefined = 0; start !== undefined; ) {
    const request = { vm: 'web', disk: 'a', start, limit: 7 };
    const page: { extents: MapExtent[]; next?: number } = await client.call('map', request);
    t.ok(page.extents.length <= 7, `a page of ${page.extents.length}`);
    paged.push(...page.extents);
    start = page.next;
  }
  t.strictSame(paged, whole, 'pages give the same');
  const past = { vm: 'web', disk: 'a', start: MiB + 1 };
  await t.rejects(client.call('map', past), /ends at 1048576/);
  checkRefusal(t, await daemon.cli(['map', 'nobody']), [EXIT.notFound], /nobody/);
  checkRefusal(t, await daemon.cli(['map', 'web']), [EXIT.usage], /has 2 disks/);
  checkRefusal(t, await daemon.cli(['map', 'web@gone']), [EXIT.notFound], /gone/);
});
