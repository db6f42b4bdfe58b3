/** The options `--vcpus`, `--memory` and `--nic`, which several commands share. */
import type { Argv } from 'yargs';
import { OWN_OPTIONS } from './command.js';

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
