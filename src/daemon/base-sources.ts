/** What the VM side needs of the formats: describing a base at import, telling whether it changed since. */
import { describeBase } from '../formats/base.js';
import { type BaseFingerprint, findChange } from '../formats/fingerprint.js';
import type { BaseSources, DescribedBase } from '../vm/base-records.js';
import type { Logger } from './logger.js';

export function formatSources(log: Logger): BaseSources {
  return {
    async describeBase({ path, format, allowFolders, parent }): Promise<DescribedBase> {
      const { spec, fingerprint, warnings } = describeBase(path, {
        format,
        ...(allowFolders === undefined ? {} : { allowFolders }),
        ...(parent === undefined ? {} : { parent }),
      });
      for (const warning of warnings) log.warn(warning);
      const { images, virtualSize, allocatedSize } = spec;
      // One fingerprint covers all files of all images of the chain.
      return { images, virtualSize, allocatedSize, files: [{ path, fingerprint }] };
    },
    async verifyBase({ fingerprint }) {
      return findChange(fingerprint as BaseFingerprint);
    },
  };
}
