/** By what a VMDK is known, and by what it knows its parent. */
import { basename } from 'node:path';
import { isUuid, NIL_UUID } from '../../common/uuid.js';
import type { ParentReference } from '../../engine/disk-image.js';
import { parentByUuid } from '../parent-by-uuid.js';
import { NO_PARENT, SPARSE_KINDS, type VmdkDescriptor } from './descriptor.js';

const IMAGE_UUID = /^[ \t]*ddb\.uuid\.image[ \t]*=[ \t]*"([^"\n]*)"/im;

/** VMware tells disks by their CIDs, VirtualBox by UUIDs that it adds. */
export function identityOf(descriptor: VmdkDescriptor): Record<string, string> {
  const { cid, parentCid, values } = descriptor;
  const uuid = uuidIn(values.get('ddb.uuid.image'));
  const modification = uuidIn(values.get('ddb.uuid.modification'));
  const parent = parentUuidOf(descriptor);
  return {
    cid,
    'parent-cid': parentCid,
    ...(uuid === undefined ? {} : { uuid }),
    ...(modification === undefined ? {} : { 'modification-uuid': modification }),
    ...(parent === undefined ? {} : { 'parent-uuid': parent }),
  };
}

export function parentOf(descriptor: VmdkDescriptor): ParentReference | undefined {
  if (descriptor.parentCid !== NO_PARENT) return parentByCid(descriptor);
  return (
    virtualBoxParent(descriptor) ?? (isNamedChild(descriptor) ? parentByCid(descriptor) : undefined)
  );
}

/**
 * A disk whose own CID is the number that means "no parent" is the parent of what QEMU makes on it:
 * the child's hint alone says that there is one. Where nothing of it could show, as with flat
 * extents, a hint is left over.
 */
function isNamedChild({ parentName = '', extents }: VmdkDescriptor): boolean {
  return parentName !== '' && extents.some(({ kind }) => SPARSE_KINDS.has(kind));
}

function parentByCid({ parentCid, parentName }: VmdkDescriptor): ParentReference {
  // Without a name only the user can say which it is; the CID still tells whether it can be.
  const name = parentName?.replaceAll('\\', '/') ?? '';
  return {
    // The bare name too: disks are moved from the folder that an absolute name leads to. The CID
    // tells.
    names: name === '' ? [] : [...new Set([name, basename(name)])],
    isIdentified: true,
    mismatch(parent) {
      const found = parent.info().identity.cid;
      if (parent.format === 'vmdk' && found === parentCid) return undefined;
      const what = parent.format === 'vmdk' ? `has CID ${found}` : `is ${parent.format}`;
      return `the parent must be the VMDK with CID ${parentCid}, ${parent.path} ${what}`;
    },
  };
}

/** VirtualBox writes no CID of a parent into its snapshots, and no name: UUIDs alone. */
function virtualBoxParent(descriptor: VmdkDescriptor): ParentReference | undefined {
  const uuid = parentUuidOf(descriptor);
  if (uuid === undefined) return undefined;
  return parentByUuid({
    uuid,
    modificationUuid: uuidIn(descriptor.values.get('ddb.uuid.parentmodification')) ?? NIL_UUID,
    search: {
      extension: '.vmdk',
      // Whether it is a VMDK at all, and this one, is found when it is opened.
      matches: (bytes) => uuidIn(IMAGE_UUID.exec(bytes.toString('latin1'))?.[1]) === uuid,
    },
  });
}

/** Where the parent's CID tells, VirtualBox's own entry is not needed. */
function parentUuidOf({ parentCid, values }: VmdkDescriptor): string | undefined {
  const uuid = uuidIn(values.get('ddb.uuid.parent'));
  return parentCid !== NO_PARENT || uuid === NIL_UUID ? undefined : uuid;
}

/** As this project writes UUIDs; undefined for what is none. */
function uuidIn(text: string | undefined): string | undefined {
  const uuid = (text ?? '').trim().toLowerCase();
  return isUuid(uuid) ? uuid : undefined;
}
