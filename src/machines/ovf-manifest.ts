/** The manifest of an OVF (`.mf`): a digest for each file, as `SHA256(disk.vmdk)= 1234...`. */
import { damaged } from '../formats/image-error.js';
import { quoteName } from '../formats/sibling-path.js';
import type { StatedDigest } from './machine.js';

export type ManifestEntry = Pick<StatedDigest, 'algorithm' | 'hex'>;

const LENGTHS = { sha1: 40, sha256: 64, sha512: 128 } as const;

/** @returns digests by the name of the file. @throws DiskError `damaged`. */
export function readManifest(path: string, text: string): Map<string, ManifestEntry> {
  const entries = new Map<string, ManifestEntry>();
  for (const line of text.split(/\r?\n/)) {
    if (line.trim() === '') continue;
    const match = /^(SHA1|SHA256|SHA512)\s*\((.*)\)\s*=\s*([0-9a-f]+)\s*$/i.exec(line);
    const algorithm = match?.[1]?.toLowerCase() as keyof typeof LENGTHS | undefined;
    const hex = match?.[3]?.toLowerCase() ?? '';
    if (algorithm === undefined || hex.length !== LENGTHS[algorithm]) {
      throw damaged(path, `has a line that is no digest: ${quoteName(line)}`);
    }
    entries.set(match?.[2] ?? '', { algorithm, hex });
  }
  return entries;
}
