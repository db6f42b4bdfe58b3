/** What a word that may mean a file or a VM means, and how the file is opened. */
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { DiskError, errnoName } from '../common/errors.js';
import { parseChoice } from './arguments.js';
import { IMAGE_FORMATS } from './shared-options.js';

/** What `parentOptions` gave. */
export interface OpeningArguments {
  readonly format?: string | undefined;
  readonly 'allow-folder'?: readonly string[] | undefined;
  readonly parent?: string | undefined;
}

/** All paths are absolute. */
export interface ImageOpening {
  /** A format's name, or `auto`. */
  readonly format: string;
  /** Folders besides the image's own in which its parents and extents may lie. */
  readonly allowFolders?: readonly string[];
  /** Taken as the parent that the image names. */
  readonly parent?: string;
}

/** The names of these options, for `refuseGiven`. */
export const OPENING_OPTIONS = ['format', 'allow-folder', 'parent'] as const;

/** @throws DiskError `usage` for an unknown format. */
export function imageOpening(args: OpeningArguments): ImageOpening {
  const { format = 'auto', parent } = args;
  const folders = args['allow-folder'];
  return {
    format: parseChoice(format, '--format', IMAGE_FORMATS),
    ...(folders === undefined ? {} : { allowFolders: folders.map((each) => resolve(each)) }),
    ...(parent === undefined ? {} : { parent: resolve(parent) }),
  };
}

/** @throws DiskError `usage` when one of the options was given, which are not for `target`. */
export function refuseGiven<Name extends string>(
  args: { readonly [name in Name]?: unknown },
  options: readonly Name[],
  why: string,
  target: string,
): void {
  const given = options.find((option) => args[option] !== undefined);
  if (given === undefined) return;
  throw new DiskError('usage', `--${given} ${why}, and "${target}" is none`, {
    hint: 'an image file is written with a slash: ./NAME',
  });
}

/** Names of VMs have no slash; a name without one that is a file here is taken for the file. */
export function isFile(text: string): boolean {
  if (text.includes('/')) return true;
  try {
    return statSync(resolve(text), { throwIfNoEntry: false })?.isFile() === true;
  } catch (error) {
    // Links that go round, say: opening it tells why. No file has a name that is too long.
    return errnoName(error) !== 'ENAMETOOLONG';
  }
}

/**
 * An error about a VM whose name somebody may have meant as a file's: says that there is no such
 * file, either.
 */
export function asNoFile(target: string, error: unknown): unknown {
  if (!(error instanceof DiskError)) return error;
  const { code, message, hint } = error;
  const [vm = ''] = target.split('@');
  // What a VM that is there lacks, its base image say, has nothing to do with files here.
  if (code !== 'unreachable' && message !== `there is no VM "${vm}"`) return error;
  return new DiskError(code, `no file "${target}" is here, and ${message}`, {
    ...(hint === undefined ? {} : { hint }),
    cause: error,
  });
}
