/** `snapshot diff` over a real mount: exactly the bytes in which the raw files differ. */
import { closeSync, constants, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { DiffExtent, DiffPage } from '../../src/common/disk-diff.js';
import { MiB } from '../../src/common/units.js';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate } from '../../src/storage/libc.js';
import { ControlSocket } from '../support/control-socket.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { differentBlocks } from '../support/different-blocks.js';
import { writeVmwareMachine } from '../support/machine-writer.js';
import { cannotServe } from '../support/mount-guard.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { stampedPattern } from '../support/stamped-pattern.js';

const SIZE = 4 * MiB + 512;
const STEPS = 150;
const PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

function write(file: string, offset: number, bytes: Buffer): void {
  const fd = openSync(file, constants.O_RDWR | constants.O_SYNC);
  writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
}

function discard(file: string, offset: number, length: number): void {
  const fd = openSync(file, constants.O_RDWR);
  fallocate(fd, PUNCH, offset, length);
  closeSync(fd);
}

/** A VM of one disk on a base, worked on at random. */
class Worked {
  readonly daemon: TestDaemon;
  readonly client: ControlSocket;
  readonly snapshots: string[] = [];
  readonly #random: Random;
  #made = 0;

  constructor(daemon: TestDaemon, client: ControlSocket, random: Random) {
    this.daemon = daemon;
    this.client = client;
    this.#random = random;
  }

  get #file(): string {
    return this.daemon.rawFile('web');
  }

  async step(): Promise<void> {
    const random = this.#random;
    const dice = random.below(100);
    if (dice < 55) return this.#change();
    if (dice < 75 || this.snapshots.length === 0) return this.take();
    if (dice < 85) {
      const [gone = ''] = this.snapshots.splice(random.below(this.snapshots.length), 1);
      await this.client.call('snapshot.delete', { vm: 'web', snapshot: gone });
    } else if (dice < 95) {
      const snapshot = random.pick(this.snapshots);
      await this.client.call('snapshot.restore', { vm: 'web', snapshot, discard: true });
    } else {
      await this.client.call('gc', {});
    }
  }

  async take(): Promise<void> {
    this.#made += 1;
    const snapshot = `s${this.#made}`;
    await this.client.call('snapshot.take', { vm: 'web', snapshot });
    this.snapshots.push(snapshot);
  }

  #change(): void {
    const random = this.#random;
    const offset = random.below(SIZE - 1);
    const length = 1 + random.below(Math.min(100_000, SIZE - offset) - 1);
    const dice = random.below(5);
    if (dice === 0) discard(this.#file, offset, length);
    else if (dice === 1) write(this.#file, offset, Buffer.alloc(length));
    else if (dice === 2) {
      // The same again: in another place, and no difference.
      const bytes = readFileSync(this.#file).subarray(offset, offset + length);
      write(this.#file, offset, bytes);
    } else write(this.#file, offset, stampedPattern(random.below(1000), offset, length));
  }

  /** Compares any two states, in parts of any size. */
  async check(t: Test): Promise<void> {
    const random = this.#random;
    const from = random.pick(this.snapshots);
    const to = random.below(3) === 0 ? undefined : random.pick(this.snapshots);
    const [before, after] = [from, to].map((name) =>
      readFileSync(this.daemon.rawFile('web', name)),
    );
    const expected = differentBlocks(before!, after!);
    const limit = random.below(2) === 0 ? 4000 : 1 + random.below(20);
    t.strictSame(await this.#diff(from, to, limit), expected, `${from} to ${to ?? 'now'}`);
  }

  async #diff(from: string, to: string | undefined, limit: number): Promise<DiffExtent[]> {
    const extents: DiffExtent[] = [];
    const request = { vm: 'web', from, limit, ...(to === undefined ? {} : { to }) };
    let page = await this.client.call<DiffPage>('snapshot.diff', request);
    for (;;) {
      extents.push(...(page.disks[0]?.extents ?? []));
      const { next } = page;
      if (next === undefined) return extents;
      page = await this.client.call<DiffPage>('snapshot.diff', { ...request, next });
    }
  }
}

t.test('random work: as the raw files differ', { skip: cannotServe() }, async (t) => {
  const random = createRandom(newSeed());
  t.comment(`seed ${random.seed}`);
  const daemon = await startDaemon(t);
  const client = await ControlSocket.connect(daemon.socket);
  t.teardown(() => client.destroy());
  const image = join(daemon.folder, 'base.raw');
  writeFileSync(image, stampedPattern(1, 0, 3 * MiB));
  writeFileSync(image, Buffer.alloc(SIZE - 3 * MiB), { flag: 'a' });
  await client.call('import', { files: [image], vm: 'web', format: 'raw' });
  const worked = new Worked(daemon, client, random);
  await worked.take();
  for (let step = 0; step < STEPS && t.passing(); step += 1) {
    await worked.step();
    if (worked.snapshots.length > 0) await worked.check(t);
  }
});

t.test(
  'across restores and merges, as the command shows it',
  { skip: cannotServe() },
  async (t) => {
    const daemon = await startDaemon(t);
    await daemon.ok('create', 'web', '--disk', 'a=1M', '--disk', 'b=64T');
    const file = daemon.rawFile('web', undefined, 'a');
    write(file, 0, stampedPattern(1, 0, 65536));
    await daemon.ok('snapshot', 'take', 'web@one');
    for (let round = 0; round < 12; round += 1) {
      write(file, round * 4096, stampedPattern(round + 2, round * 4096, 4096));
      await daemon.ok('snapshot', 'take', `web@row${round}`);
    }
    discard(file, 8192, 4096);
    // As it was at first.
    write(file, 4096, stampedPattern(1, 4096, 4096));
    await daemon.ok('snapshot', 'take', 'web@two');
    for (let round = 0; round < 12; round += 1)
      await daemon.ok('snapshot', 'delete', `web@row${round}`);
    await daemon.ok('gc');
    await daemon.ok('snapshot', 'restore', 'web@one', '--discard');
    write(file, 0, stampedPattern(2, 0, 4096));
    const data = (start: number, length: number) => ({ start, length, zero: false });
    const sizes = { fromSize: MiB, toSize: MiB };
    const b = { disk: 'b', fromSize: 64 * 1024 ** 4, toSize: 64 * 1024 ** 4, extents: [] };
    const two = [data(0, 4096), { start: 8192, length: 4096, zero: true }, data(12288, 36864)];
    t.strictSame(await daemon.json('snapshot', 'diff', 'web@one', 'web@two'), {
      ...{ vm: 'web', from: 'one', to: 'two' },
      disks: [
        { disk: 'a', ...sizes, extents: two, changedBytes: 45056 },
        { ...b, changedBytes: 0 },
      ],
    });
    // In another delta, but the same bytes as at "two".
    const now = [data(8192, 40960)];
    t.strictSame(await daemon.json('snapshot', 'diff', 'web@two', 'web', '--disk', 'a'), {
      ...{ vm: 'web', from: 'two' },
      disks: [{ disk: 'a', ...sizes, extents: now, changedBytes: 40960 }],
    });
    t.equal(await daemon.ok('snapshot', 'diff', 'web@one', '-q'), 'a');
    t.match(await daemon.ok('snapshot', 'diff', 'web@one'), /^a: 4 KiB of 1 MiB in 1 range$/m);
    const gone = await daemon.cli(['snapshot', 'diff', 'web@one', 'web@gone']);
    checkRefusal(t, gone, [EXIT.notFound], /no snapshot "gone"/);
    const nobody = await daemon.cli(['snapshot', 'diff', 'nobody@one']);
    checkRefusal(t, nobody, [EXIT.notFound], /nobody/);
    const disk = await daemon.cli(['snapshot', 'diff', 'web@one', '--disk', 'c']);
    checkRefusal(t, disk, [EXIT.notFound], /no disk "c"/);
  },
);

t.test(
  'a machine whose snapshots lie on images of their own',
  { skip: cannotServe() },
  async (t) => {
    const daemon = await startDaemon(t);
    const { path } = writeVmwareMachine(join(daemon.folder, 'machine'));
    await daemon.ok('import', path, 'web');
    const names = (await daemon.json<{ name: string }[]>('snapshot', 'list', 'web')).map(
      ({ name }) => name,
    );
    t.ok(names.length > 2, names.join(', '));
    let differed = 0;
    for (const from of names) {
      for (const to of [...names, undefined]) {
        const target = to === undefined ? 'web' : `web@${to}`;
        const { disks } = await daemon.json<DiffPage>('snapshot', 'diff', `web@${from}`, target);
        for (const { disk, extents } of disks) {
          const [before, after] = [from, to].map((name) =>
            readFileSync(daemon.rawFile('web', name, disk)),
          );
          t.strictSame(extents, differentBlocks(before!, after!), `${disk}, ${from} to ${target}`);
          differed += extents.length;
        }
      }
    }
    t.ok(differed > 0);
  },
);
