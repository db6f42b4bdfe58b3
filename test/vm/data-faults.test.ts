/**
 * Writes, discards and flushes meet every fault at every call that they make to the host. The
 * writer is told, each sector is old or new, nothing else changes, and after a flush that failed
 * none succeeds until the disk was closed and opened again.
 */
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { sectorBytes } from '../support/crash-model.js';
import { type Fault, type FaultKind, HostFaults } from '../support/host-faults.js';
import { StoreTemplate } from '../support/vm-operations.js';
import { DISK_SIZE, type VmWorld } from '../support/vm-world.js';
import { Tally } from '../torture/tally.js';

const SECTOR = 512;
const KINDS: readonly FaultKind[] = ['EIO', 'ENOSPC', 'EDQUOT', 'short', 'full'];

interface DataOperation {
  readonly name: string;
  readonly vm: string;
  /** Sectors. */
  readonly first: number;
  readonly count: number;
  readonly kind: 'write' | 'discard' | 'flush';
}

/** `web` has half of its disk in a snapshot and a quarter in its head; `fixed` is static. */
async function prepare(world: VmWorld): Promise<void> {
  const fill = (value: number, sectors: number) =>
    sectorBytes(new Array<number>(sectors).fill(value));
  const write = async (vm: string, sectors: number, value: number) => {
    const head = world.manifest(vm).disks[0]!.head;
    await world.engine.write(head, 0, fill(value, sectors));
  };
  await world.create('web');
  await world.import('foreign', fill(5, 64), false);
  await world.service.create('fixed', [
    { name: 'disk0', size: DISK_SIZE, allocation: 'static' as const },
  ]);
  await write('web', 32, 1);
  await world.take('web', 'first');
  await write('web', 16, 2);
  await write('fixed', 16, 3);
}

const operations: readonly DataOperation[] = [
  { name: 'write in place', vm: 'web', first: 3, count: 10, kind: 'write' },
  { name: 'write over a snapshot', vm: 'web', first: 18, count: 9, kind: 'write' },
  { name: 'write of new and old blocks', vm: 'web', first: 2, count: 50, kind: 'write' },
  { name: 'write over a base', vm: 'foreign', first: 1, count: 12, kind: 'write' },
  { name: 'write, static', vm: 'fixed', first: 10, count: 20, kind: 'write' },
  { name: 'discard', vm: 'web', first: 0, count: 64, kind: 'discard' },
  { name: 'discard of parts of blocks', vm: 'web', first: 3, count: 3, kind: 'discard' },
  { name: 'discard over a base', vm: 'foreign', first: 4, count: 30, kind: 'discard' },
  { name: 'flush', vm: 'web', first: 20, count: 9, kind: 'flush' },
];

const host = new HostFaults();
const template = await StoreTemplate.make(prepare);
t.teardown(async () => {
  host.remove();
  await template.remove();
});

async function act(world: VmWorld, operation: DataOperation, value: number): Promise<void> {
  const { vm, first, count, kind } = operation;
  const head = world.manifest(vm).disks[0]!.head;
  const [offset, length] = [first * SECTOR, count * SECTOR];
  if (kind === 'flush') await world.engine.volumes.flush(head);
  else if (kind === 'discard') await world.real.discard(head, offset, length);
  else await world.engine.write(head, offset, sectorBytes(new Array<number>(count).fill(value)));
}

/** @returns what is wrong, undefined for nothing. */
async function tryFault(
  world: VmWorld,
  operation: DataOperation,
  fault: Fault,
): Promise<{ problem?: string | undefined; reached: boolean }> {
  const { vm, kind } = operation;
  const head = world.manifest(vm).disks[0]!.head;
  // Something to flush, and a disk that is open.
  await act(world, { ...operation, kind: 'write', first: 0, count: 1 }, 7);
  if (kind === 'flush') await act(world, { ...operation, kind: 'write' }, 8);
  const before = await world.engine.readAll(head, true);
  host.arm(fault);
  const failure: unknown = await act(world, operation, 9).then(
    () => undefined,
    (error: unknown) => error ?? 'nothing thrown',
  );
  const reached = host.failed.length > 0;
  host.record();
  const problem =
    badError(failure, fault.kind) ??
    judge(operation, before, await world.engine.readAll(head, true), failure !== undefined) ??
    (await flushes(world, operation, kind === 'flush' && failure !== undefined));
  if (problem !== undefined) return { problem, reached };
  // The snapshot has moved the head.
  const now = world.manifest(vm).disks[0]!.head;
  const shown = await world.engine.readAll(now, true);
  await world.restart();
  if (!(await world.engine.readAll(now, true)).equals(shown)) {
    return { problem: 'other content after a restart', reached };
  }
  await world.engine.volumes.flush(now);
  return { reached };
}

function badError(failure: unknown, kind: FaultKind): string | undefined {
  if (failure === undefined) return undefined;
  if (!(failure instanceof DiskError)) return `not a DiskError: ${(failure as Error).stack}`;
  const wanted = kind === 'full' ? 'ENOSPC' : kind;
  return failure.errno === wanted ? undefined : `errno ${failure.errno}: ${failure.message}`;
}

/** Done: all of it is new. Failed: each sector old or new. The rest is as before. */
function judge(
  { first, count, kind }: DataOperation,
  before: Buffer,
  found: Buffer,
  failed: boolean,
): string | undefined {
  const fresh = sectorBytes([kind === 'discard' ? 0 : 9]);
  for (let sector = 0; sector < before.length / SECTOR; sector += 1) {
    const range = [sector * SECTOR, (sector + 1) * SECTOR] as const;
    const bytes = found.subarray(...range);
    const inside = kind !== 'flush' && sector >= first && sector < first + count;
    const isOld = bytes.equals(before.subarray(...range));
    const isNew = bytes.equals(fresh);
    if (inside ? isNew || (failed && isOld) : isOld) continue;
    return `sector ${sector} is ${isOld ? 'old' : 'neither old nor new'}`;
  }
  return undefined;
}

/** After a failed flush, every flush, write and snapshot fails; else they succeed. */
async function flushes(
  world: VmWorld,
  operation: DataOperation,
  suspect: boolean,
): Promise<string | undefined> {
  const flush = { ...operation, kind: 'flush' } as const;
  const outcomes: string[] = [];
  const note = (promise: Promise<unknown>) =>
    promise.then(
      () => outcomes.push('ok'),
      (error: unknown) => outcomes.push(error instanceof DiskError ? `${error.errno}` : 'raw'),
    );
  await note(act(world, flush, 0));
  await note(act(world, { ...operation, kind: 'write', first: 63, count: 1 }, 6));
  await note(act(world, flush, 0));
  await note(world.service.takeSnapshot(operation.vm, { name: 'later' }));
  const wanted = suspect ? 'EIO,EIO,EIO,EIO' : 'ok,ok,ok,ok';
  return outcomes.join() === wanted ? undefined : `flush, write, flush, snapshot: ${outcomes}`;
}

async function failEverywhere(t: Test, operation: DataOperation): Promise<void> {
  const tally = new Tally(t);
  for (const kind of KINDS) {
    for (const onwards of [false, true]) {
      for (let at = 0, reached = true; reached; at += 1) {
        const world = await template.open();
        const outcome = await tryFault(world, operation, { kind, at, onwards }).catch(
          (error: Error) => ({ problem: String(error.stack), reached: false }),
        );
        host.record();
        await world.destroy();
        // A short write is no fault for a call that moves nothing.
        reached = outcome.reached || (kind === 'short' || kind === 'full' ? at < 8 : false);
        tally.judge(`${kind} at call ${at}${onwards ? ' and on' : ''}`, outcome.problem);
      }
    }
  }
  tally.print();
  tries += tally.tries;
}

let tries = 0;
for (const operation of operations) {
  t.test(operation.name, (t) => failEverywhere(t, operation));
}
t.test('all of them', async (t) => {
  t.ok(tries > operations.length * KINDS.length);
});
