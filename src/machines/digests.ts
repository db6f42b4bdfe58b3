/** Checks files against the digests that a manifest says they have. */
import { createHash } from 'node:crypto';
import { DiskError } from '../common/errors.js';
import { MiB } from '../common/units.js';
import { damaged } from '../formats/image-error.js';
import { quoteName } from '../formats/sibling-path.js';
import { HostFile } from '../storage/host-file.js';
import type { StatedDigest } from './machine.js';

/** Some milliseconds of hashing at a time: others on this thread go on in between. */
const CHUNK = MiB;

export interface DigestWork {
  readonly signal?: AbortSignal;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/**
 * Reads all of the files once.
 * @throws DiskError `damaged` naming the file whose content is another; `interrupted`.
 */
export async function verifyDigests(
  digests: readonly StatedDigest[],
  work: DigestWork = {},
): Promise<void> {
  const opened = digests.map((digest) => ({
    digest,
    file: HostFile.open(digest.path, digest.window),
  }));
  try {
    const total = opened.reduce((sum, { file }) => sum + file.size, 0);
    let before = 0;
    for (const { digest, file } of opened) {
      const hex = await hashOf(file, digest.algorithm, work, (done) =>
        work.onProgress?.(before + done, total),
      );
      before += file.size;
      if (hex === digest.hex) continue;
      const what = `${quoteName(digest.name)} is not what the manifest says`;
      throw damaged(digest.path, `${what}: its ${digest.algorithm} is ${hex}`);
    }
  } finally {
    for (const { file } of opened) file.close();
  }
}

async function hashOf(
  file: HostFile,
  algorithm: string,
  { signal }: DigestWork,
  onProgress: (doneBytes: number) => void,
): Promise<string> {
  const hash = createHash(algorithm);
  const buffer = Buffer.alloc(CHUNK);
  for (let at = 0; at < file.size; at += CHUNK) {
    if (signal?.aborted) throw new DiskError('interrupted', 'cancelled; nothing was changed');
    const length = Math.min(CHUNK, file.size - at);
    file.readExact(buffer, 0, length, at);
    hash.update(buffer.subarray(0, length));
    onProgress(at + length);
    await new Promise((resolve) => setImmediate(resolve));
  }
  return hash.digest('hex');
}
