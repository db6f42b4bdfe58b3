/** Why a file system of a disk was not mounted, and what to do about it. */
import { DiskError } from '../../common/errors.js';
import { type CommandResult, commandError } from '../../host/host-command.js';
import { listPartitions } from '../../host/partitions.js';
import type { ResolvedTarget } from './targets.js';

interface Asked {
  readonly partition: number | undefined;
  readonly readOnly: boolean;
  /** The file system that lies there; empty where none was recognized. */
  readonly type: string;
}

/** What mount(8) says of what the kernel has no driver for. */
const UNKNOWN_TYPE = /unknown filesystem type '([^']*)'/;

export async function mountFailure(
  target: ResolvedTarget,
  result: CommandResult,
  asked: Asked,
): Promise<DiskError> {
  const { message, code } = commandError(`cannot mount ${target.path}`, 'mount', result);
  return new DiskError(code, message, { hint: await hintOf(target, result.complaint, asked) });
}

async function hintOf(target: ResolvedTarget, complaint: string, asked: Asked): Promise<string> {
  const { vm, snapshot, path, diskOption } = target;
  const { partition, readOnly, type } = asked;
  const named = snapshot === undefined ? vm : `${vm}@${snapshot}`;
  const unknown = UNKNOWN_TYPE.exec(complaint)?.[1];
  if (unknown !== undefined && unknown === type) {
    return `the kernel of this host has no ${type}; a module of it may: modprobe ${type}`;
  }
  if (type !== '' && readOnly) {
    const number = partition === undefined ? '' : ` --partition ${partition}`;
    return (
      `if its ${type} must be repaired by writing, which must not happen here, do it in a ` +
      `clone: layerdisk clone ${named} NEW --linked; ` +
      `layerdisk mount NEW DIR${diskOption}${number}`
    );
  }
  const partitions = partition === undefined ? await listPartitions(path) : [];
  if (partitions.length > 0) {
    const numbers = partitions.map((each) => each.number).join(', ');
    return `it has partitions ${numbers}: layerdisk mount ${named} DIR${diskOption} --partition N`;
  }
  if (unknown !== undefined) {
    const attach = `layerdisk attach ${named}${diskOption}`;
    return `what lies there is no file system; for other programs: ${attach}`;
  }
  const making = snapshot === undefined ? ' To repair or make one:' : ' To look:';
  return `is there a file system on it?${making} layerdisk attach ${named}${diskOption}`;
}
