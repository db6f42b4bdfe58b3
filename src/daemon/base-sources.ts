/**
 * What the VM side needs of the formats: describing a base at import, telling whether it changed
 * since.
 */
import { realpathSync } from 'node:fs';
import { sep } from 'node:path';
import { describeBase } from '../formats/base.js';
import { type BaseFingerprint, filesOf, findChange } from '../formats/fingerprint.js';
import { isMountedFrom, loopsOn } from '../host/loop-devices.js';
import { mountOf, readMounts } from '../host/mountinfo.js';
import { BaseRecords, type BaseSources } from '../vm/store/base-records.js';
import type { VmStore } from '../vm/store/vm-store.js';
import type { Logger } from './logger.js';

/**
 * @param mountpoint where disks are exposed, without links: to look that up would be a request that
 * the thread which asks has to answer.
 */
export function baseRecords(
  store: VmStore,
  log: Logger,
  mountpoint: () => string | undefined,
): BaseRecords {
  return new BaseRecords(store, formatSources(log, mountpoint));
}

function formatSources(log: Logger, mountpoint: () => string | undefined): BaseSources {
  return {
    describeBase(path, options) {
      const described = describeBase(path, options);
      for (const warning of described.warnings) log.warn(warning);
      return described;
    },
    findChange: (fingerprint) => findChange(fingerprint as BaseFingerprint),
    filesOf: (fingerprint) => filesOf(fingerprint as BaseFingerprint),
    diskUnder: (path) => diskUnder(path, mountpoint()),
  };
}

/**
 * I/O threads read bases themselves. One that lies in a disk of ours is read through a loop device
 * and our own mount: once every thread waits for it, none is left to answer.
 */
function diskUnder(path: string, mountpoint: string | undefined): string | undefined {
  const mount = mountOf(realpathSync(path), readMounts());
  if (mount === undefined || mountpoint === undefined) return undefined;
  const exposed = mountpoint + sep;
  const loops = loopsOn((file) => file.startsWith(exposed));
  return loops.find((each) => isMountedFrom(mount, each))?.file;
}
