/** Answers to the shell: yargs knows commands and options, the daemon knows VMs and snapshots. */
import {
  type ChosenPlaces,
  configFile,
  currentCaller,
  placesFromEnvironment,
  settlePlaces,
} from '../common/places.js';
import type { ControlClient } from '../control/client.js';
import { readConfiguration } from './configuration.js';
import { sortWords } from './words.js';

/** A shell that waits longer than this for a name feels broken, milliseconds. */
const DAEMON_TIMEOUT_MS = 200;

/** Which names a command's first positional takes. */
const WANTED: Readonly<Record<string, 'vm' | 'target'>> = {
  info: 'vm',
  tree: 'vm',
  rename: 'vm',
  delete: 'vm',
  run: 'vm',
  stop: 'vm',
  console: 'vm',
  set: 'vm',
  stats: 'vm',
  check: 'vm',
  compact: 'vm',
  path: 'target',
  map: 'target',
  attach: 'target',
  detach: 'target',
  mount: 'target',
  clone: 'target',
  export: 'target',
  'reset-identity': 'vm',
  'base accept': 'vm',
  'disk add': 'vm',
  'disk remove': 'vm',
  'disk resize': 'vm',
  'snapshot take': 'vm',
  'snapshot list': 'vm',
  'snapshot delete': 'target',
  'snapshot rename': 'target',
  'snapshot restore': 'target',
  'snapshot diff': 'target',
};

/** Commands that name a disk after the VM. */
const DISK_COMMANDS = ['disk remove', 'disk resize'];

/**
 * Names of VMs, disks and snapshots that may stand where the cursor is; none when no daemon answers
 * in time. yargs cannot wait for them itself: with a completion that comes later it goes on and
 * refuses the unfinished command line.
 * @param words the words of the line up to the cursor: the program first, the one to complete last.
 */
export async function completionNames(words: readonly string[]): Promise<string[]> {
  const current = words.at(-1) ?? '';
  const { plain, places } = sortWords(words.slice(1, -1));
  const [first = '', second = ''] = plain;
  const command = WANTED[first] === undefined ? `${first} ${second}` : first;
  const wanted = WANTED[command];
  if (wanted === undefined || current.startsWith('-')) return [];
  const given = plain.slice(command.split(' ').length);
  try {
    return await askNames({ command, wanted, given, current }, places);
  } catch {
    // No daemon, no names: a completion has nowhere to say so.
    return [];
  }
}

interface Asked {
  readonly command: string;
  readonly wanted: 'vm' | 'target';
  /** Words behind the command: positionals, and values of options. */
  readonly given: readonly string[];
  /** The word to complete. */
  readonly current: string;
}

async function askNames(asked: Asked, places: ChosenPlaces): Promise<string[]> {
  const { connect } = await import('../control/client.js');
  const client = await connect(socketFor(places));
  // Closing fails what still waits for an answer.
  const timer = setTimeout(() => client.close(), DAEMON_TIMEOUT_MS);
  try {
    return await collectNames(client, asked);
  } finally {
    clearTimeout(timer);
    client.close();
  }
}

async function collectNames(client: ControlClient, asked: Asked): Promise<string[]> {
  const { command, wanted, given, current } = asked;
  const names = (await client.call('list', {})).map((vm) => vm.name);
  const named = given.map((word) => word.replace(/[@/].*$/s, '')).find((vm) => names.includes(vm));
  if (named !== undefined && DISK_COMMANDS.includes(command)) {
    return (await client.call('info', { vm: named })).disks.map((disk) => disk.name);
  }
  // What comes next is a new name or a file: the shell completes files when there is no answer.
  if (named !== undefined && command !== 'snapshot diff') return [];
  const at = current.indexOf('@');
  if (at !== -1) return await snapshotsOf(client, current.slice(0, at));
  if (wanted === 'vm' || !names.includes(current)) return names;
  // The name is complete: what may follow is a snapshot.
  return [...names, ...(await snapshotsOf(client, current))];
}

async function snapshotsOf(client: ControlClient, vm: string): Promise<string[]> {
  const snapshots = await client.call('snapshot.list', { vm });
  return snapshots.map((snapshot) => `${vm}@${snapshot.name}`);
}

function socketFor(places: ChosenPlaces): string {
  const caller = currentCaller();
  const sources = [places, placesFromEnvironment(caller), readConfiguration(configFile(caller))];
  return settlePlaces(sources, caller).socket;
}
