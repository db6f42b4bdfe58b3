/**
 * What becomes of the current state when a snapshot is restored: said by an option, or asked for.
 */
import { createInterface } from 'node:readline';
import { DiskError } from '../common/errors.js';
import { parseName, parseSnapshot } from './arguments.js';
import type { Session } from './session.js';

export interface RestoreArguments {
  readonly snapshot?: string | undefined;
  /** An empty text: the option without a name. A list: given more than once. */
  readonly 'save-current'?: string | readonly string[] | undefined;
  readonly discard?: boolean | undefined;
}

export type Fate = { readonly saveCurrent: string | true } | { readonly discard: true };

interface Choice {
  readonly target: { readonly vm: string; readonly snapshot: string };
  readonly fate: Fate;
}

const HINT = 'layerdisk snapshot restore VM@SNAPSHOT (--save-current [NAME] | --discard)';

/**
 * @throws DiskError `usage` for options that contradict, or when nobody can be asked; `interrupted`
 * for "cancel".
 */
export async function chooseFate(session: Session, args: RestoreArguments): Promise<Choice> {
  let { snapshot, 'save-current': save } = args;
  if (Array.isArray(save)) throw refuse('--save-current is given more than once');
  if (snapshot === undefined && typeof save === 'string' && save.includes('@')) {
    // `--save-current web@x`: no snapshot is named with an @, so this is the positional.
    snapshot = save;
    save = '';
  }
  if (snapshot === undefined) throw refuse('snapshot restore: which snapshot?');
  const target = parseSnapshot(snapshot);
  if (args.discard === true && save !== undefined) {
    throw refuse('--save-current and --discard exclude each other');
  }
  if (args.discard === true) return { target, fate: { discard: true } };
  if (save === '') return { target, fate: { saveCurrent: true } };
  if (typeof save === 'string') {
    return { target, fate: { saveCurrent: parseName(save, '--save-current') } };
  }
  if (!session.canAsk) {
    throw refuse('restoring loses the current state: give --save-current [NAME] or --discard');
  }
  return { target, fate: await ask(target.vm) };
}

function refuse(message: string): DiskError {
  return new DiskError('usage', message, { hint: HINT });
}

/** Asks until there is an answer. The question goes to stderr: stdout is for results. */
async function ask(vm: string): Promise<Fate> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  terminal.on('SIGINT', () => terminal.close());
  terminal.setPrompt(
    `Restoring loses the current state of ${vm}. ` +
      '[s]ave it as a snapshot first, [d]iscard it, [c]ancel? ',
  );
  terminal.prompt();
  try {
    // Iterating keeps lines that were typed ahead; asking line by line would lose them.
    for await (const line of terminal) {
      const word = line.trim().toLowerCase();
      if (word === 's' || word === 'save') return { saveCurrent: true };
      if (word === 'd' || word === 'discard') return { discard: true };
      if (word === 'c' || word === 'cancel') break;
      terminal.prompt();
    }
  } finally {
    terminal.close();
  }
  throw new DiskError('interrupted', `nothing was changed: ${vm} was not restored`);
}
