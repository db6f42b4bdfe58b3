/**
 * What is typed on the command line, turned into parameters; what cannot be is refused with its
 * option's name.
 */
import { DiskError } from '../common/errors.js';
import { checkDiskSize, parseSize } from '../common/units.js';
import {
  type Allocation,
  type DiskKind,
  type DiskKindChange,
  type DiskSpec,
  type HardwareChange,
  NAME_PATTERN,
  NAME_RULE,
  type NicMode,
  type NicSpec,
  type Target,
} from '../control/protocol.js';

const SIZE_HINT = 'give bytes or a unit, for example 512, 10G or 1.5TiB';
/**
 * @param option how the command line has it: `--disk`, with a space, or nothing where none is
 * typed.
 */
const diskHint = (option: string) =>
  `${option}[NAME=]SIZE[,allocation=dynamic|static][,kind=KIND], for example ${option}root=20G`;
export const DISK_KINDS: readonly DiskKind[] = [
  'normal',
  'write-through',
  'immutable',
  'read-only',
];
const NIC_HINT =
  '--nic MODE[,mac=..][,network=..], MODE one of nat, bridged, host-only, internal, none';
const NIC_MODES: readonly NicMode[] = ['nat', 'bridged', 'host-only', 'internal', 'none'];
export const ALLOCATIONS: readonly Allocation[] = ['dynamic', 'static'];

function refuse(message: string, hint: string): DiskError {
  return new DiskError('usage', message, { hint });
}

/** @param what how messages call it: an option, or what the name is for. */
export function parseName(text: string, what: string): string {
  if (NAME_PATTERN.test(text)) return text;
  throw refuse(`${what}: "${text}" is not a name`, `give ${NAME_RULE}`);
}

/**
 * Reads a VM's name where no snapshot can be meant.
 * @param ofSnapshot the command that does to a snapshot what this one does to the VM: whoever names
 *   a snapshot must not be led to lose the VM.
 */
export function parseVm(text: string, ofSnapshot?: string): string {
  const at = text.indexOf('@');
  if (at !== -1) {
    const hint =
      ofSnapshot === undefined
        ? `give the VM alone: ${text.slice(0, at)}`
        : `layerdisk ${ofSnapshot.replace('VM@SNAPSHOT', text)}`;
    throw refuse(`VM: "${text}" names a snapshot`, hint);
  }
  return parseName(text, 'VM');
}

/** Reads `VM` or `VM@SNAPSHOT`. */
export function parseTarget(text: string, disk?: string): Target {
  const at = text.indexOf('@');
  const chosen = disk === undefined ? {} : { disk: parseName(disk, '--disk') };
  if (at === -1) return { vm: parseName(text, 'VM'), ...chosen };
  return { ...parseSnapshot(text), ...chosen };
}

/** Reads `VM@SNAPSHOT`. */
export function parseSnapshot(text: string): { vm: string; snapshot: string } {
  const at = text.indexOf('@');
  if (at === -1) throw refuse(`"${text}" names no snapshot`, `give VM@SNAPSHOT: ${text}@NAME`);
  return {
    vm: parseName(text.slice(0, at), 'VM'),
    snapshot: parseName(text.slice(at + 1), 'snapshot'),
  };
}

/** Reads a size in bytes: a whole number, not negative. */
export function parseSizeOption(text: string, option: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined) throw refuse(`${option}: "${text}" is not a size`, SIZE_HINT);
  if (bytes < 0) throw refuse(`${option}: size "${text}" is negative`, SIZE_HINT);
  if (!Number.isSafeInteger(bytes)) {
    throw refuse(`${option}: size "${text}" is not a whole number of bytes that fits`, SIZE_HINT);
  }
  return bytes;
}

/** Reads a whole number of at least 1. */
export function parseCount(text: string, option: string): number {
  const count = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (count >= 1) return count;
  throw refuse(`${option}: "${text}" is not a whole number from 1`, `${option} 1`);
}

/** Reads one of a few words. */
export function parseChoice<T extends string>(
  text: string,
  option: string,
  choices: readonly T[],
): T {
  const choice = choices.find((one) => one === text);
  if (choice !== undefined) return choice;
  throw refuse(`${option}: unknown value "${text}"`, `give one of ${choices.join(', ')}`);
}

/** Splits `FIRST[,key=value]...`; keys must be known and come once. */
function parseParts(
  text: string,
  option: string,
  keys: readonly string[],
  hint: string,
): { first: string; values: ReadonlyMap<string, string> } {
  const [first = '', ...rest] = text.split(',');
  const values = new Map<string, string>();
  for (const part of rest) {
    const equals = part.indexOf('=');
    const key = equals === -1 ? part : part.slice(0, equals);
    if (!keys.includes(key)) throw refuse(`${option} ${text}: unknown part "${part}"`, hint);
    if (values.has(key)) throw refuse(`${option} ${text}: "${key}" is given twice`, hint);
    const value = equals === -1 ? '' : part.slice(equals + 1);
    if (value === '') throw refuse(`${option} ${text}: "${key}" has no value`, hint);
    values.set(key, value);
  }
  return { first, values };
}

function parseKind(text: string, option: string): DiskKind {
  if (text === 'shareable') {
    const message = `${option}: shareable is not supported: a disk belongs to one VM`;
    throw new DiskError('not-supported', message, { hint: 'give the other VM a clone of it' });
  }
  return parseChoice(text, option, DISK_KINDS);
}

/** Reads `[NAME=]KIND`. */
export function parseDiskKind(text: string): DiskKindChange {
  const equals = text.indexOf('=');
  const option = `--disk-kind ${text}`;
  const kind = parseKind(text.slice(equals + 1), option);
  return equals === -1 ? { kind } : { disk: parseName(text.slice(0, equals), option), kind };
}

/**
 * Reads `[NAME=]SIZE[,allocation=dynamic|static][,kind=KIND]`.
 * @param option what it is given as; undefined where it is a word of its own.
 */
export function parseDisk(text: string, option?: '--disk'): DiskSpec {
  const what = option ?? 'disk';
  const hint = diskHint(option === undefined ? '' : `${option} `);
  const { first, values } = parseParts(text, what, ['allocation', 'kind'], hint);
  const equals = first.indexOf('=');
  const name = equals === -1 ? undefined : parseName(first.slice(0, equals), `${what} ${text}`);
  const size = parseSizeOption(first.slice(equals + 1), `${what} ${text}`);
  checkDiskSize(size, `${what} ${text}`);
  const allocation = values.get('allocation');
  const known = ALLOCATIONS.find((one) => one === allocation);
  if (allocation !== undefined && known === undefined) {
    throw refuse(`${what} ${text}: allocation is dynamic or static, not "${allocation}"`, hint);
  }
  const kind = values.get('kind');
  return {
    ...(name === undefined ? {} : { name }),
    size,
    ...(known === undefined ? {} : { allocation: known }),
    ...(kind === undefined ? {} : { kind: parseKind(kind, `${what} ${text}`) }),
  };
}

/** Reads every `--disk` of a command; no two may have one name. */
export function parseDisks(texts: readonly string[]): DiskSpec[] {
  const disks = texts.map((text) => parseDisk(text, '--disk'));
  const names = new Set<string>();
  for (const { name } of disks) {
    if (name === undefined) continue;
    if (names.has(name)) throw refuse(`--disk: two disks are named "${name}"`, diskHint('--disk '));
    names.add(name);
  }
  return disks;
}

/** Reads `MODE[,mac=..][,network=..]`; the address comes out in lower case with colons. */
export function parseNic(text: string): NicSpec {
  const { first, values } = parseParts(text, '--nic', ['mac', 'network'], NIC_HINT);
  const mode = NIC_MODES.find((one) => one === first);
  if (mode === undefined) throw refuse(`--nic ${text}: unknown mode "${first}"`, NIC_HINT);
  const mac = values.get('mac');
  const network = values.get('network');
  return {
    mode,
    ...(mac === undefined ? {} : { mac: parseMac(mac, text) }),
    ...(network === undefined ? {} : { network }),
  };
}

function parseMac(mac: string, text: string): string {
  if (!/^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(mac)) {
    throw refuse(`--nic ${text}: "${mac}" is not a MAC address`, 'for example 52:54:00:12:34:56');
  }
  return mac.toLowerCase().replaceAll('-', ':');
}

function parseMemory(text: string): number {
  const bytes = parseSizeOption(text, '--memory');
  if (bytes > 0) return bytes;
  throw refuse('--memory: a VM needs some', SIZE_HINT);
}

/** The hardware options as typed. */
export interface HardwareArguments {
  readonly vcpus?: string | undefined;
  readonly memory?: string | undefined;
  readonly nic?: readonly string[] | undefined;
}

export function parseHardware(args: HardwareArguments): HardwareChange {
  return {
    ...(args.vcpus === undefined ? {} : { vcpus: parseCount(args.vcpus, '--vcpus') }),
    ...(args.memory === undefined ? {} : { memory: parseMemory(args.memory) }),
    ...(args.nic === undefined ? {} : { nics: args.nic.map(parseNic) }),
  };
}
