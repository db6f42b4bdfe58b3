/** Completion for bash: yargs knows commands and options, the daemon knows VMs and snapshots. */
import {
  configFile,
  currentCaller,
  placesFromEnvironment,
  settlePlaces,
} from '../common/places.js';
import type { ControlClient } from '../control/client.js';
import { defineCommand } from './command.js';
import { readConfiguration } from './configuration.js';

/** A shell that waits longer than this for a name feels broken, milliseconds. */
const DAEMON_TIMEOUT_MS = 200;

/**
 * The shell's side. bash cuts words at `@`, so the words are taken from the line itself, and what stands before
 * the last `@` is taken off the answers again.
 */
const BASH_SCRIPT = `# bash completion for layerdisk
# Install: layerdisk completion > /etc/bash_completion.d/layerdisk
#      or: source <(layerdisk completion)
_layerdisk_completions() {
  local line="\${COMP_LINE:0:COMP_POINT}" words current answers
  read -ra words <<<"$line"
  [[ "$line" == *[[:space:]] ]] && words+=("")
  current="\${words[\${#words[@]}-1]}"
  mapfile -t answers < <("\${words[0]}" --get-yargs-completions "\${words[@]}" 2>/dev/null)
  mapfile -t COMPREPLY < <(compgen -W "\${answers[*]}" -- "$current")
  if [[ "$current" == *@* && "$COMP_WORDBREAKS" == *@* ]]; then
    COMPREPLY=("\${COMPREPLY[@]#"\${current%@*}@"}")
  fi
}
complete -o bashdefault -o default -F _layerdisk_completions layerdisk
`;

export const completionCommand = defineCommand({
  command: 'completion',
  describe: 'Print the completion script for bash',
  notes: 'In zsh: autoload -U bashcompinit && bashcompinit first.',
  example: 'source <(layerdisk completion)',
  options: (yargs) => yargs,
  run: async (session) => {
    const script = BASH_SCRIPT.trimEnd();
    session.show({ bash: script }, { names: () => [script], human: () => [script] });
  },
});

/** Which names a command's positionals take. */
const WANTED: Readonly<Record<string, 'vm' | 'target'>> = {
  info: 'vm',
  tree: 'vm',
  rename: 'vm',
  delete: 'vm',
  set: 'vm',
  stats: 'vm',
  path: 'target',
  attach: 'target',
  detach: 'target',
  mount: 'target',
  clone: 'target',
  'base accept': 'vm',
  'snapshot take': 'vm',
  'snapshot list': 'vm',
  'snapshot delete': 'target',
  'snapshot rename': 'target',
  'snapshot restore': 'target',
};

/** What yargs knows of the words typed so far. */
interface TypedWords {
  readonly _: readonly (string | number)[];
  readonly [option: string]: unknown;
}

/** Called by yargs for `--get-yargs-completions`: its own answers and then ours. */
export async function completions(
  current: string,
  typed: TypedWords,
  completionFilter: (onCompleted: (error: Error | null, answers?: string[]) => unknown) => unknown,
  done: (answers: string[]) => unknown,
): Promise<void> {
  const names = current.startsWith('-') ? [] : await namesFor(current, typed);
  completionFilter((_error, answers) => done([...(answers ?? []), ...names]));
}

async function namesFor(current: string, typed: TypedWords): Promise<string[]> {
  const words = typed._.map(String);
  // The words may begin with the program's own name.
  const start = words[0] !== undefined && /(^|\/)layerdisk$/.test(words[0]) ? 1 : 0;
  const [first = '', second = ''] = words.slice(start);
  const wanted = WANTED[first] ?? WANTED[`${first} ${second}`];
  if (wanted === undefined) return [];
  try {
    return await askNames(wanted, current, typed);
  } catch {
    // No daemon, no names: a completion has nowhere to say so.
    return [];
  }
}

async function askNames(
  wanted: 'vm' | 'target',
  current: string,
  typed: TypedWords,
): Promise<string[]> {
  const { connect } = await import('../control/client.js');
  const client = await connect(socketFor(typed));
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

function socketFor(typed: TypedWords): string {
  const caller = currentCaller();
  const { store, socket } = typed;
  const flags = {
    ...(typeof store === 'string' ? { store } : {}),
    ...(typeof socket === 'string' ? { socket } : {}),
  };
  const sources = [flags, placesFromEnvironment(caller), readConfiguration(configFile(caller))];
  return settlePlaces(sources, caller).socket;
}
