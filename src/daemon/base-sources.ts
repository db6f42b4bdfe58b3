/**
 * What the VM side needs of the formats: describing a base at import, telling whether it changed
 * since.
 */
import { describeBase } from '../formats/base.js';
import { type BaseFingerprint, filesOf, findChange } from '../formats/fingerprint.js';
import type { BaseSources } from '../vm/base-records.js';
import type { Logger } from './logger.js';

export function formatSources(log: Logger): BaseSources {
  return {
    describeBase(path, options) {
      const { warnings, ...described } = describeBase(path, options);
      for (const warning of warnings) log.warn(warning);
      return described;
    },
    findChange: (fingerprint) => findChange(fingerprint as BaseFingerprint),
    filesOf: (fingerprint) => filesOf(fingerprint as BaseFingerprint),
  };
}
