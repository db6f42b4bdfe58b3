/** `run` and `stop`: a VM as a guest of QEMU. */
import { DiskError } from '../../common/errors.js';
import type { GuestView, RunPlan, SavedMemoryView } from '../../control/protocol.js';
import type { ChosenAccelerator } from '../../guest/accelerator.js';
import { parseChoice, parseCount, parseVm } from '../arguments.js';
import { defineCommand, type GlobalArgv, OWN_OPTIONS } from '../command.js';
import { onInterrupt } from '../interrupt.js';
import { plain } from '../output.js';
import type { Session } from '../session.js';

const ACCELERATORS = ['auto', 'kvm', 'tcg'] as const;

const vmPositional = (yargs: GlobalArgv) =>
  yargs.positional('vm', { type: 'string', demandOption: true, describe: 'Name of the VM' });

export const runCommand = defineCommand({
  command: 'run <vm>',
  describe: 'Run a VM with QEMU, its serial console on this terminal',
  notes:
    'Ctrl-A X ends it, Ctrl-A C is the monitor of QEMU. With --detach the console is a socket: ' +
    'layerdisk console VM. What follows -- is given to QEMU as it is. After the restore of a ' +
    'snapshot with memory the guest goes on where it was.',
  example: 'layerdisk run web --detach -- -cdrom debian.iso',
  repeatable: ['--'],
  options: (yargs) =>
    vmPositional(yargs)
      .option('detach', {
        group: OWN_OPTIONS,
        type: 'boolean',
        describe: 'Return when the guest runs',
      })
      .option('accel', {
        group: OWN_OPTIONS,
        type: 'string',
        requiresArg: true,
        default: 'auto',
        describe: `What runs the virtual CPUs: ${ACCELERATORS.join(', ')}`,
      })
      .option('discard-memory', {
        group: OWN_OPTIONS,
        type: 'boolean',
        describe: 'Start cold, and give up the memory that a restored snapshot left',
      }),
  run: async (session, args) => {
    const vm = parseVm(args.vm);
    const choice = parseChoice(args.accel, '--accel', ACCELERATORS);
    // yargs puts the words behind `--` there.
    const extra = (args as { '--'?: readonly string[] })['--'] ?? [];
    const discardMemory = args['discard-memory'] === true;
    await runGuest(session, { vm, choice, extra, detach: args.detach === true, discardMemory });
  },
});

interface RunRequest {
  readonly vm: string;
  readonly choice: (typeof ACCELERATORS)[number];
  readonly extra: readonly string[];
  readonly detach: boolean;
  readonly discardMemory: boolean;
}

async function runGuest(session: Session, asked: RunRequest): Promise<void> {
  const { vm, extra, detach, discardMemory } = asked;
  const ask = { vm, ...(discardMemory ? { discardMemory } : {}) };
  const first = await session.call('run', ask);
  const { accelerator, reason } = await prepareRun(first, asked);
  const { RunLock, refuseOtherUser } = await import('../../guest/run-folder.js');
  const { launchGuest } = await import('../../guest/launch.js');
  refuseOtherUser(first.folder, vm);
  const lock = await RunLock.acquire(first.folder, vm);
  try {
    // Asked again under the lock: what changes the VM from now on sees that it runs.
    const plan = await session.call('run', { ...ask, start: true });
    refuseChanged(vm, first, plan);
    warnOfSharedMacs(session, plan);
    const stream = process.stdin.isTTY === true ? 'terminal' : 'stream';
    const { memory } = plan;
    const request = {
      hardware: plan.vm,
      storeId: plan.storeId,
      folder: plan.folder,
      lock,
      accelerator,
      console: detach ? 'socket' : stream,
      extra: memory?.setup.arguments ?? extra,
      ...(memory === undefined ? {} : resuming(session, vm, memory)),
    } as const;
    const guest = await untilInterrupted((signal) => launchGuest({ ...request, signal }));
    lock.release();
    if (memory !== undefined)
      session.stderr.line(`${vm} goes on with the memory of ${memory.from}`);
    const why = reason === undefined ? '' : `: ${reason}`;
    for (const note of guest.notes) session.stderr.line(plain(note));
    if (detach) {
      guest.detach();
      showDetached(session, vm, (await session.call('info', { vm })).guest, why);
      return;
    }
    if (stream === 'terminal') {
      session.stderr.line(`${vm} runs (${accelerator.toUpperCase()}${why}); ctrl-A X ends it`);
    }
    await waitForGuest(vm, guest);
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** QEMU would outlive us, and nobody would know which process it is. */
async function untilInterrupted<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const release = onInterrupt(() => controller.abort());
  try {
    return await work(controller.signal);
  } finally {
    release();
  }
}

/** @throws DiskError when the memory that the guest is to go on with does not fit here. */
async function prepareRun(
  { memory }: RunPlan,
  { choice, extra }: RunRequest,
): Promise<ChosenAccelerator> {
  const { chooseAccelerator } = await import('../../guest/accelerator.js');
  if (memory === undefined) return chooseAccelerator(choice);
  const { acceleratorOf, checkFits } = await import('../../guest/resume.js');
  const chosen = await chooseAccelerator(acceleratorOf(memory, choice));
  await checkFits(memory, extra);
  return chosen;
}

/** What was found to fit must be what is started. */
function refuseChanged(vm: string, first: RunPlan, plan: RunPlan): void {
  if (plan.folder !== first.folder) throw new DiskError('not-found', `VM "${vm}" was replaced`);
  if (plan.memory?.path === first.memory?.path) return;
  throw new DiskError('busy', `VM "${vm}" was just changed by somebody else`, {
    errno: 'EBUSY',
    hint: 'try again in a moment',
  });
}

function resuming(session: Session, vm: string, memory: SavedMemoryView) {
  const onMemoryUsed = async () => {
    await session.call('run.resumed', { vm });
  };
  return { memory, onMemoryUsed };
}

function warnOfSharedMacs(session: Session, { vm }: RunPlan): void {
  for (const { mac, vms } of vm.sharedMacs ?? []) {
    session.stderr.line(`warning: ${vms.join(', ')} has the MAC address ${mac}, too`);
  }
}

interface RunningGuest {
  readonly ended: Promise<number | NodeJS.Signals>;
  kill(signal: NodeJS.Signals): void;
}

async function waitForGuest(vm: string, guest: RunningGuest): Promise<void> {
  let interrupted = false;
  const release = onInterrupt(() => {
    interrupted = true;
    guest.kill('SIGTERM');
  });
  const end = await guest.ended.finally(release);
  if (interrupted) throw new DiskError('interrupted', `the guest of "${vm}" was ended`);
  if (end === 0) return;
  const how = typeof end === 'number' ? `with status ${end}` : `by ${end}`;
  throw new DiskError('failed', `QEMU of VM "${vm}" ended ${how}`);
}

function showDetached(
  session: Session,
  vm: string,
  guest: GuestView | undefined,
  why: string,
): void {
  if (guest === undefined) throw new DiskError('failed', `the guest of "${vm}" ended at once`);
  const result = { vm, ...guest };
  session.show(result, {
    names: () => [vm],
    human: () => [
      `${vm} runs (pid ${guest.pid}, ${guest.accelerator.toUpperCase()}${why})`,
      `console: layerdisk console ${vm}  (socket ${guest.console})`,
    ],
  });
}

export const stopCommand = defineCommand({
  command: 'stop <vm>',
  describe: 'Ask the guest of a VM to power off, and wait until it has',
  notes: '--force ends it at once, as by pulling the plug: what it has not written is lost.',
  example: 'layerdisk stop web --timeout 120',
  options: (yargs) =>
    vmPositional(yargs)
      .option('force', { group: OWN_OPTIONS, type: 'boolean', describe: 'End it at once' })
      .option('timeout', {
        group: OWN_OPTIONS,
        type: 'string',
        requiresArg: true,
        describe: 'Seconds to wait for it (default: 60)',
      }),
  run: async (session, args) => {
    const vm = parseVm(args.vm);
    const { force, timeout } = args;
    const result = await session.call('stop', {
      vm,
      ...(force === true ? { force } : {}),
      ...(timeout === undefined ? {} : { timeoutSeconds: parseCount(timeout, '--timeout') }),
    });
    session.show(result, { names: () => [vm], human: () => [`stopped ${vm}`] });
  },
});
