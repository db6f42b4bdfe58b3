/** How VirtualBox's differencing images know their parents again: by UUIDs, and by no path. */
import { NIL_UUID } from '../common/uuid.js';
import type { DiskImage, ParentReference, ParentSearch } from '../engine/disk-image.js';

export interface ParentUuids {
  readonly uuid: string;
  /** What the parent's last modification had as UUID when the child was made; nil: unknown. */
  readonly modificationUuid: string;
  readonly search: ParentSearch;
}

/**
 * The reference that open-chain follows. VirtualBox keeps the path in the machine's .vbox file, but
 * names the files of snapshots after their UUID. It puts VDIs on disks of other formats, too.
 */
export function parentByUuid({ uuid, modificationUuid, search }: ParentUuids): ParentReference {
  return {
    names: [`{${uuid}}${search.extension}`, `${uuid}${search.extension}`],
    mismatch(parent) {
      const found = parent.info().identity.uuid;
      if (found === uuid) return undefined;
      const what = found === undefined ? `is ${parent.format} without one` : `has UUID ${found}`;
      return `the parent must be the disk with UUID ${uuid}, ${parent.path} ${what}`;
    },
    warning: (parent) => warningOf(parent, modificationUuid),
    search,
    isInRegistry: true,
  };
}

function warningOf(parent: DiskImage, expected: string): string | undefined {
  const found = parent.info().identity['modification-uuid'];
  if (expected === NIL_UUID || found === undefined || found === expected) return undefined;
  return (
    `${parent.path} was written to since its child was made ` +
    `(modification UUID ${found}, the child says ${expected})`
  );
}
