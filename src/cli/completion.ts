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

/** Which names a command's positionals take. */
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

/**
 * Names of VMs and snapshots that may stand where the cursor is; none when no daemon answers in
 * time. yargs cannot wait for them itself: with a completion that comes later it goes on and
 * refuses the unfinished command line.
 * @param words the words of the line up to the cursor: the program first, the one to complete last.
 */
export async function completionNames(words: readonly string[]): Promise<string[]> {
  const current = words.at(-1) ?? '';
  const { plain, places } = sortWords(words.slice(1, -1));
  const [first = '', second = ''] = plain;
  const wanted = WANTED[first] ?? WANTED[`${first} ${second}`];
  if (wanted === undefined || current.startsWith('-')) return [];
  try {
    return await askNames(wanted, current, places);
  } catch {
    // No daemon, no names: a completion has nowhere to say so.
    return [];
  }
}

async function askNames(
  wanted: 'vm' | 'target',
  current: string,
  places: ChosenPlaces,
): Promise<string[]> {
  const { connect } = await import('../control/client.js');
  const client = await connect(socketFor(places));
  // Closing fails what still waits for an answer.
  const timer = setTimeout(() => client.close(), DAEMON_TIMEOUT_MS);
  try {
    return await collectNames(client, wanted, current);
  } finally {
    clearTimeout(timer);
    client.close();
  }
}

async function collectNames(
  client: ControlClient,
  wanted: 'vm' | 'target',
  current: string,
): Promise<string[]> {
  const at = current.indexOf('@');
  if (at !== -1) {
    const vm = current.slice(0, at);
    const snapshots = await client.call('snapshot.list', { vm });
    return snapshots.map((snapshot) => `${vm}@${snapshot.name}`);
  }
  const names = (await client.call('list', {})).map((vm) => vm.name);
  if (wanted === 'vm' || !names.includes(current)) return names;
  // The name is complete: what may follow is a snapshot.
  const snapshots = await client.call('snapshot.list', { vm: current });
  return [...names, ...snapshots.map((snapshot) => `${current}@${snapshot.name}`)];
}

function socketFor(places: ChosenPlaces): string {
  const caller = currentCaller();
  const sources = [places, placesFromEnvironment(caller), readConfiguration(configFile(caller))];
  return settlePlaces(sources, caller).socket;
}
