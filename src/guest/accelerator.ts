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
/** The port of isa-debug-exit: QEMU exits with twice what is written there, plus one. */
const EXIT_PORT = 0xf4;
const PROBE_VALUE = 0x2a;
const PROBE_STATUS = PROBE_VALUE * 2 + 1;

/**
 * @throws DiskError `not-supported` when KVM was asked for and does not work, or QEMU is not
 * installed.
 */
export async function chooseAccelerator(choice: AcceleratorChoice): Promise<ChosenAccelerator> {
  if (choice === 'tcg') return { accelerator: 'tcg' };
  const problem = await kvmProblem();
  if (problem === undefined) return { accelerator: 'kvm' };
  if (choice === 'auto') return { accelerator: 'tcg', reason: problem };
  throw new DiskError('not-supported', `KVM does not work here: ${problem}`, {
    hint: 'run it without: --accel tcg',
  });
}

async function kvmProblem(): Promise<string | undefined> {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch (error) {
    const errno = errnoName(error);
    return errno === 'ENOENT' ? 'there is no /dev/kvm' : `/dev/kvm cannot be opened (${errno})`;
  }
  return probe('kvm');
}

/**
 * Boots a sector that does nothing but end QEMU with a status that nothing else has: through the
 * firmware, so that real and protected mode, port I/O and disk reads have been seen to work.
 * @returns what went wrong; undefined when it booted.
 */
export async function probe(accelerator: Accelerator): Promise<string | undefined> {
  const folder = mkdtempSync(join(tmpdir(), 'layerdisk-probe-'));
  try {
    const image = join(folder, 'sector');
    writeFileSync(image, probeSector());
    return await runProbe(accelerator, image);
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
