/**
 * Every operation meets every fault at every call that it makes to the host: EIO, ENOSPC, EDQUOT, a
 * short write, a full disk; once, and from then on. Whatever it says, the store holds the state
 * before or the state after, all that was acknowledged can be read, now and by the next daemon, and
 * nothing is left behind.
 *
 * LAYERDISK_TRIES=n: n of a hundred tries, 100 for every kind at every call. LAYERDISK_SEED chooses
 * which.
 */
import { readdirSync } from 'node:fs';
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { type Fault, type FaultKind, HostFaults } from '../support/host-faults.js';
import { createRandom, newSeed } from '../support/random.js';
import {
  type Operation,
  operations,
  prepareOperations,
  StoreTemplate,
  stateOf,
} from '../support/vm-operations.js';
import type { VmWorld } from '../support/vm-world.js';
import { Tally, triesOr } from '../torture/tally.js';

const KINDS: readonly FaultKind[] = ['EIO', 'ENOSPC', 'EDQUOT', 'short', 'full'];
/** Of a hundred tries, how many are made. */
const SHARE = triesOr(6);

const seed = newSeed();
const random = createRandom(seed);
const template = await StoreTemplate.make(prepareOperations);
const host = new HostFaults();
t.teardown(async () => {
  host.remove();
  await template.remove();
});

interface Outcome {
  readonly state: string;
  readonly labels: readonly string[];
}

async function outcomeOf(act: Operation['act']): Promise<Outcome> {
  const world = await template.open();
  try {
    host.record();
    await act(world);
    const labels = [...host.labels];
    return { state: await stateOf(world), labels };
  } finally {
    await world.destroy();
  }
}

/** What is wrong after an operation met a fault; nothing is what is wanted. */
async function tryFault(
  world: VmWorld,
  { act }: Operation,
  fault: Fault,
  allowed: { readonly atFailure: ReadonlySet<string>; readonly after: string },
): Promise<string | undefined> {
  host.arm(fault);
  const failure: unknown = await act(world).then(
    () => undefined,
    (error: unknown) => error ?? 'nothing thrown',
  );
  const failed = [...host.failed];
  host.record();
  if (failure !== undefined) {
    const problem = badError(failure, fault.kind);
    if (problem !== undefined) return problem;
  }
  if (world.hooks.frozen.size > 0) return 'something stands still';
  const state = await stateOf(world);
  if (failure === undefined && state !== allowed.after) return `done, but not so: ${state}`;
  if (!allowed.atFailure.has(state)) return `neither before nor after: ${state}`;
  const written = await writeOn(world, failed);
  if (written !== undefined) return written;
  const before = await stateOf(world);
  await world.restart();
  if ((await stateOf(world)) !== before) return 'not the same after a restart';
  await world.service.collectGarbage(false);
  await world.service.collectGarbage(false);
  const { files } = await world.service.collectGarbage(true);
  if (files.length > 0) return `left behind: ${files}`;
  if ((await stateOf(world)) !== before) return 'not the same after the collection';
  // A copy of a header may be half written; the other one stands, and a repair puts it right.
  await world.service.check({ deep: true, repair: true });
  const check = await world.service.check({ deep: true, repair: false });
  if (check.findings.length > 0) return `check: ${JSON.stringify(check.findings)}`;
  return undefined;
}

/** The error must be one for people, and say what the host said. */
function badError(failure: unknown, kind: FaultKind): string | undefined {
  if (!(failure instanceof DiskError)) return `not a DiskError: ${stackOf(failure)}`;
  const wanted = kind === 'full' ? 'ENOSPC' : kind;
  if (failure.errno !== wanted) return `errno ${failure.errno}: ${stackOf(failure)}`;
  if (/injected|\n/.test(failure.message)) return `raw message: ${failure.message}`;
  return undefined;
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** Every disk takes a write and a flush; only a disk whose sync failed may refuse the flush. */
async function writeOn(world: VmWorld, failed: readonly string[]): Promise<string | undefined> {
  const syncFailed = failed.some((label) => /sync|publish|mirror|seal|settle/.test(label));
  for (const { name } of world.service.list()) {
    for (const disk of world.manifest(name).disks) {
      world.model.set(`${name}/${disk.name}`, Buffer.alloc(65536));
      try {
        await world.write(name, 512, 512, disk.name);
        await world.engine.volumes.flush(disk.head);
      } catch (error) {
        if (!syncFailed || !(error instanceof DiskError) || error.errno !== 'EIO') {
          return `${name}/${disk.name} after the failure: ${stackOf(error)}`;
        }
      }
    }
  }
  return undefined;
}

function faultsOf(calls: number): Fault[] {
  const faults: Fault[] = [];
  for (let at = 0; at < calls; at += 1) {
    for (const kind of KINDS) {
      for (const onwards of [false, true]) {
        if (random.below(100) < SHARE) faults.push({ kind, at, onwards });
      }
    }
  }
  return faults;
}

const openFiles = () => readdirSync('/proc/self/fd').length;

async function failEverywhere(t: Test, operation: Operation): Promise<void> {
  const before = await outcomeOf(async () => undefined);
  const after = await outcomeOf(operation.act);
  const between = operation.between === undefined ? [] : [await outcomeOf(operation.between)];
  const states = [before, after, ...between].map(({ state }) => state);
  const allowed = { atFailure: new Set(states), after: after.state };
  const files = openFiles();
  const tally = new Tally(t);
  for (const fault of faultsOf(after.labels.length)) {
    const world = await template.open();
    const problem = await tryFault(world, operation, fault, allowed).catch(stackOf);
    host.record();
    await world.destroy();
    const { kind, at, onwards } = fault;
    tally.judge(`${kind} at call ${at}, ${after.labels[at]}${onwards ? ' and on' : ''}`, problem);
  }
  t.equal(openFiles(), files, 'no descriptor is left open');
  t.comment(`${after.labels.length} calls`);
  tally.print();
  tries += tally.tries;
}

t.comment(`LAYERDISK_SEED=${seed}`);
let tries = 0;
for (const operation of operations) {
  t.test(operation.name, (t) => failEverywhere(t, operation));
}
t.test('all of them', async (t) => {
  t.ok(tries > 0);
});
