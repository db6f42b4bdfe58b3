/** `export` of machine files: another hypervisor on the exposed disks of a VM. */
import { resolve } from 'node:path';
import { DiskError } from '../../common/errors.js';
import { shellWord } from '../../common/shell-word.js';
import type { MachineFileKind } from '../../control/protocol.js';
import { parseName, parseTarget } from '../arguments.js';
import { plain } from '../output.js';
import type { Session } from '../session.js';

/** Option -> kind of file. */
const KINDS = {
  'libvirt-xml': 'libvirt-xml',
  vbox: 'vbox',
  vmx: 'vmx',
  'vmdk-descriptor': 'vmdk',
} as const satisfies Readonly<Record<string, MachineFileKind>>;

type KindOption = keyof typeof KINDS;

export type MachineArguments = {
  readonly target: string;
  readonly file?: string | undefined;
  readonly disk?: string | undefined;
  readonly force?: boolean | undefined;
} & { readonly [K in KindOption]?: string | undefined };

/** What is said of a copy does not go with a file that points at the disk itself. */
const OF_COPIES = ['format', 'subformat', 'allocation', 'differencing', 'ova'];

/** Which of these options was given; undefined for an export that copies. */
export function machineOption(args: MachineArguments): KindOption | undefined {
  const given = (Object.keys(KINDS) as KindOption[]).filter((name) => args[name] !== undefined);
  if (given.length < 2) return given[0];
  throw new DiskError('usage', `export: --${given[0]} and --${given[1]} exclude each other`, {
    hint: 'write one after the other',
  });
}

export async function exportMachine(
  session: Session,
  args: MachineArguments,
  option: KindOption,
): Promise<void> {
  const kind = KINDS[option];
  const place = args[option] ?? '';
  checkArguments(args, option);
  const force = args.force === true ? { force: true } : {};
  const disk = args.disk === undefined ? {} : { disk: parseName(args.disk, '--disk') };
  const { vm } = parseTarget(args.target);
  // Only the domain is one text; the other kinds have files beside them.
  const path = place === '-' && kind === 'libvirt-xml' ? {} : { path: resolve(place) };
  const result = await session.call('export.machine', { vm, kind, ...disk, ...path, ...force });
  const { text } = result;
  if (text !== undefined && !session.json) {
    process.stdout.write(text);
    for (const note of result.notes) session.stderr.line(`note: ${plain(note)}`);
    return;
  }
  session.show(result, {
    names: () => result.files,
    human: () => [
      ...result.files.map((file) => `wrote ${plain(file)}`),
      ...result.notes.map((note) => `note: ${plain(note)}`),
      `note: as long as it is in use there, do not run, mount or attach ${vm} here`,
    ],
  });
}

function checkArguments(args: MachineArguments, option: KindOption): void {
  const { file, target } = args;
  if (file !== undefined) {
    throw new DiskError('usage', `export: --${option} names the file itself, not "${file}"`, {
      hint: `layerdisk export ${target} --${option} ${shellWord(file)}`,
    });
  }
  const given = OF_COPIES.find((name) => Object.hasOwn(args, name) && Reflect.get(args, name));
  if (given !== undefined) {
    throw new DiskError('usage', `export: --${given} does not go with --${option}`, {
      hint: `--${option} writes no copy: it points at the disk itself`,
    });
  }
  if (args.disk !== undefined && option !== 'vmdk-descriptor') {
    throw new DiskError('usage', `export: --disk does not go with --${option}`, {
      hint: 'a machine has all its disks; for one disk: --vmdk-descriptor FILE.vmdk',
    });
  }
  if (target.includes('@')) {
    throw new DiskError('usage', `export: ${target} is a snapshot, which nothing can run on`, {
      hint: `make a VM of it first: layerdisk clone ${target} NEW --linked`,
    });
  }
}
