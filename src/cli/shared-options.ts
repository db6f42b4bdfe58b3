/** Positionals and options that several commands share. */
import type { Argv } from 'yargs';
import type { FormatName } from '../control/protocol.js';
import { type GlobalArgv, OWN_OPTIONS } from './command.js';

/** What `--format` of a new file may be. */
export const WRITTEN_FORMATS: readonly FormatName[] = [
  'raw',
  'vdi',
  'vmdk',
  'vhd',
  'vhdx',
  'qcow2',
];
/** What `--format` of an existing file may be. */
export const IMAGE_FORMATS: readonly (FormatName | 'auto')[] = ['auto', ...WRITTEN_FORMATS];

/** `--vcpus`, `--memory` and `--nic`. */
export function hardwareOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('vcpus', {
      group: OWN_OPTIONS,
      type: 'string',
      requiresArg: true,
      describe: 'Virtual CPUs',
    })
    .option('memory', {
      group: OWN_OPTIONS,
      type: 'string',
      requiresArg: true,
      describe: 'Memory, for example 2G',
    })
    .option('nic', {
      group: OWN_OPTIONS,
      type: 'string',
      array: true,
      requiresArg: true,
      describe: 'Network card: nat|bridged|host-only|internal|none[,mac=..][,network=..]',
    });
}

/** `--format`, `--allow-folder` and `--parent`: how image files are opened. */
export function parentOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('format', {
      group: OWN_OPTIONS,
      type: 'string',
      requiresArg: true,
      describe: `Format of the image: ${IMAGE_FORMATS.join(', ')}`,
    })
    .option('allow-folder', {
      group: OWN_OPTIONS,
      type: 'string',
      array: true,
      requiresArg: true,
      describe: 'Folder in which parents may lie',
    })
    .option('parent', {
      group: OWN_OPTIONS,
      type: 'string',
      requiresArg: true,
      describe: 'Take this file as the parent that the image names',
    });
}

/** The positional `VM[@SNAP]` and `--disk`, for a command on one disk. */
export function targetOptions(yargs: GlobalArgv) {
  return yargs
    .positional('target', { type: 'string', demandOption: true, describe: 'VM or VM@SNAPSHOT' })
    .option('disk', {
      group: OWN_OPTIONS,
      type: 'string',
      requiresArg: true,
      describe: 'Which disk, where there are several',
    });
}
