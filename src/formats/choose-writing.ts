/** From what a user asks for to a format that can be written and one of its subformats. */
import { DiskError } from '../common/errors.js';
import type { FormatName } from './image-format.js';
import type { ImageWriting } from './image-writer.js';
import { writingOf } from './registry.js';

export interface WritingWishes {
  readonly format: FormatName;
  readonly subformat?: string;
  /** `static`: all space is taken at once. */
  readonly allocation?: 'dynamic' | 'static';
  readonly differencing?: boolean;
}

export interface WritingChoice {
  readonly writing: ImageWriting;
  readonly subformat: string;
}

/** The subformat of each format that takes all its space at once. */
const STATIC_SUBFORMATS: Readonly<Partial<Record<FormatName, string>>> = {
  raw: 'static',
  vdi: 'static',
  vmdk: 'monolithicFlat',
  vhd: 'fixed',
  vhdx: 'fixed',
};

/** Whether an image of that shape takes as much space as its disk has bytes, whatever is on it. */
export function takesAllSpace(format: string, subformat: string): boolean {
  if (subformat === 'twoGbMaxExtentFlat') return true;
  return Object.entries(STATIC_SUBFORMATS).some(
    ([name, fixed]) => name === format && fixed === subformat,
  );
}

/** @throws DiskError `not-supported` or `usage`, naming what does not go together. */
export function chooseWriting(wishes: WritingWishes): WritingChoice {
  const { format, differencing = false } = wishes;
  const writing = writingOf(format);
  if (writing === undefined) {
    throw new DiskError('not-supported', `${format} images cannot be written, only read`, {
      hint: 'choose another format: --format qcow2',
    });
  }
  const possible = differencing ? writing.differencing : writing.subformats;
  const [byDefault] = possible;
  if (byDefault === undefined) {
    throw new DiskError('not-supported', `${format} images cannot be differencing images`, {
      hint: 'leave --differencing out, or choose another format: --format qcow2',
    });
  }
  const subformat = wishes.subformat ?? staticOf(wishes) ?? byDefault;
  checkSubformat(wishes, subformat, possible);
  return { writing, subformat };
}

function staticOf({ format, allocation, differencing }: WritingWishes): string | undefined {
  if (allocation !== 'static') return undefined;
  if (differencing === true) {
    throw new DiskError('usage', 'a differencing image takes space as it needs it, never at once', {
      hint: 'leave --allocation static or --differencing out',
    });
  }
  const subformat = STATIC_SUBFORMATS[format];
  if (subformat !== undefined) return subformat;
  throw new DiskError('not-supported', `${format} images cannot take all their space at once`, {
    hint: `leave --allocation static out, or choose ${Object.keys(STATIC_SUBFORMATS).join(', ')}`,
  });
}

function checkSubformat(
  { format, allocation, differencing }: WritingWishes,
  subformat: string,
  possible: readonly string[],
): void {
  if (!possible.includes(subformat)) {
    const kind = differencing === true ? 'differencing subformat' : 'subformat';
    throw new DiskError('usage', `${format} has no ${kind} ${JSON.stringify(subformat)}`, {
      hint: `it has ${possible.join(', ')}`,
    });
  }
  if (allocation === undefined) return;
  const isStatic = subformat === STATIC_SUBFORMATS[format];
  if (isStatic === (allocation === 'static')) return;
  throw new DiskError('usage', `${format} ${subformat} is not ${allocation}`, {
    hint: 'give the subformat or the allocation, not both',
  });
}
