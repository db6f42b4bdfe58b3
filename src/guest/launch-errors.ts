/** What is said when QEMU cannot be started. */
import { readFileSync } from 'node:fs';
import { DiskError, errnoName } from '../common/errors.js';
import { type GuestHardware, QEMU } from './command-line.js';
import { type RunFolder, runFiles } from './run-folder.js';

export function qemuMissing(error: unknown): DiskError {
  const errno = errnoName(error) ?? 'EIO';
  if (errno === 'ENOENT') {
    return new DiskError('not-supported', 'QEMU (qemu-system-x86_64) is not installed here', {
      hint: 'install it: apt-get install qemu-system-x86',
      cause: error,
    });
  }
  return new DiskError('failed', `cannot start qemu-system-x86_64 (${errno})`, { cause: error });
}

interface FailedStart {
  readonly folder: RunFolder;
  readonly hardware: GuestHardware;
}

/** The last thing that QEMU said is why. */
export function startFailed({ folder, hardware }: FailedStart): DiskError {
  const { log } = runFiles(folder);
  const lines = readFileSync(log, 'utf8').trim().split('\n');
  const said = (lines.at(-1) ?? '').replace(`${QEMU}: `, '');
  const fewer = possibleVcpus(said);
  const remedy = fewer === undefined ? '' : `layerdisk set ${hardware.name} --vcpus ${fewer}; `;
  return new DiskError('failed', `QEMU did not start the guest: ${said || 'it said nothing'}`, {
    hint: `${remedy}all that it said: ${log}`,
  });
}

/** How many virtual CPUs QEMU could do, where too many are why it did not start. */
function possibleVcpus(said: string): string | undefined {
  // Processors beyond these need an x2APIC, which not every QEMU has without KVM.
  if (/X2APIC/.test(said)) return '255';
  return /max CPUs supported by machine .* is (\d+)/.exec(said)?.[1];
}
