/** Whether KVM really runs a virtual CPU here, or QEMU must translate every instruction itself. */
import { spawn } from 'node:child_process';
import { accessSync, constants, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DiskError, errnoName } from '../common/errors.js';
import { QEMU } from './command-line.js';
import { qemuMissing } from './launch-errors.js';

export type Accelerator = 'kvm' | 'tcg';
const ACCELERATOR_CHOICES = ['auto', 'kvm', 'tcg'] as const;
export type AcceleratorChoice = (typeof ACCELERATOR_CHOICES)[number];

export interface ChosenAccelerator {
  readonly accelerator: Accelerator;
  /** Why it is not KVM, where that was not asked for. */
  readonly reason?: string;
}

/** A real machine does it in a tenth of this. */
const PROBE_TIMEOUT_MS = 5000;
/**
 * From which on KVM is compared with translation: where a hypervisor imitates it, it is the slower
 * one of both.
 */
const SLOW_MS = 1000;
/** The port of isa-debug-exit: QEMU exits with twice what is written there, plus one. */
const EXIT_PORT = 0xf4;
const PROBE_VALUE = 0x2a;
const PROBE_STATUS = PROBE_VALUE * 2 + 1;

/** How a guest of one sector started. */
export interface Booted {
  /** What went wrong; undefined when it booted. */
  readonly problem: string | undefined;
  /** How long it took. */
  readonly ms: number;
}

/**
 * @param boot what tries an accelerator.
 * @throws DiskError `not-supported` when KVM was asked for and does not work, or QEMU is not
 * installed.
 */
export async function chooseAccelerator(
  choice: AcceleratorChoice,
  boot: (accelerator: Accelerator) => Promise<Booted> = bootSector,
): Promise<ChosenAccelerator> {
  if (choice === 'tcg') return { accelerator: 'tcg' };
  const kvm = await tryKvm(boot);
  if (choice === 'kvm') {
    if (kvm.problem === undefined) return { accelerator: 'kvm' };
    throw new DiskError('not-supported', `KVM does not work here: ${kvm.problem}`, {
      hint: 'run it without: --accel tcg',
    });
  }
  if (kvm.problem !== undefined) return { accelerator: 'tcg', reason: kvm.problem };
  if (kvm.ms < SLOW_MS) return { accelerator: 'kvm' };
  const tcg = await boot('tcg');
  if (tcg.problem !== undefined || tcg.ms > kvm.ms) return { accelerator: 'kvm' };
  const [slow, fast] = [kvm.ms, tcg.ms].map((ms) => `${(ms / 1000).toFixed(1)} s`);
  return { accelerator: 'tcg', reason: `KVM takes ${slow} to start what TCG starts in ${fast}` };
}

async function tryKvm(boot: (accelerator: Accelerator) => Promise<Booted>): Promise<Booted> {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch (error) {
    const errno = errnoName(error);
    const cannot = `/dev/kvm cannot be opened (${errno})`;
    return { problem: errno === 'ENOENT' ? 'there is no /dev/kvm' : cannot, ms: 0 };
  }
  return boot('kvm');
}

/**
 * Boots a sector that does nothing but end QEMU with a status that nothing else has: through the
 * firmware, so that real and protected mode, port I/O and disk reads have been seen to work.
 */
export async function bootSector(accelerator: Accelerator): Promise<Booted> {
  const folder = mkdtempSync(join(tmpdir(), 'layerdisk-probe-'));
  try {
    const image = join(folder, 'sector');
    writeFileSync(image, probeSector());
    const started = performance.now();
    const problem = await runProbe(accelerator, image);
    return { problem, ms: performance.now() - started };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** mov al, VALUE; out PORT, al; hlt; and jump back to the hlt. */
function probeSector(): Buffer {
  const sector = Buffer.alloc(512);
  Buffer.from([0xb0, PROBE_VALUE, 0xe6, EXIT_PORT, 0xf4, 0xeb, 0xfd]).copy(sector);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

function runProbe(accelerator: Accelerator, image: string): Promise<string | undefined> {
  const child = spawn(
    QEMU,
    [
      ...['-machine', `pc,accel=${accelerator}`, '-m', '64M', '-nodefaults', '-no-user-config'],
      ...['-display', 'none', '-cpu', accelerator === 'kvm' ? 'host' : 'max'],
      ...['-device', `isa-debug-exit,iobase=${EXIT_PORT},iosize=1`],
      ...['-drive', `file=${image.replaceAll(',', ',,')},format=raw,if=ide`],
    ],
    { stdio: ['ignore', 'ignore', 'pipe'], timeout: PROBE_TIMEOUT_MS, killSignal: 'SIGKILL' },
  );
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said = `${said}${chunk.toString('utf8')}`.slice(0, 4096);
  });
  return new Promise((resolve, reject) => {
    child.once('error', (error) => reject(qemuMissing(error)));
    child.once('close', (code) => {
      if (code === PROBE_STATUS) resolve(undefined);
      else if (code === null) resolve(`a guest did not start within ${PROBE_TIMEOUT_MS / 1000} s`);
      else resolve(said.split('\n', 1)[0]?.replace(`${QEMU}: `, '') || `QEMU ended with ${code}`);
    });
  });
}
