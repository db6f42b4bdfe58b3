/** The method `map`: a part of the map of a disk at a time. */
import { DiskError } from '../../common/errors.js';
import { type Handlers, MAX_MAP_EXTENTS } from '../../control/protocol.js';
import type { LocalEngine } from '../../engine/local-engine.js';
import { resolveTarget } from './targets.js';
import type { ViewSources } from './vm-views.js';

export interface MapSources extends Pick<ViewSources, 'service' | 'mountpoint'> {
  readonly engine: Pick<LocalEngine, 'mapPage'>;
}

export function mapHandlers(sources: MapSources): Pick<Handlers, 'map'> {
  return {
    async map({ start = 0, limit = MAX_MAP_EXTENTS, ...named }) {
      const { vm, disk, snapshot, size, top } = resolveTarget(sources, named);
      if (start > size) {
        throw new DiskError('usage', `${vm}/${disk} ends at ${size}, before ${start}`, {
          hint: 'begin at 0, and go on where the last answer says',
        });
      }
      const writable = snapshot === undefined;
      return sources.engine.mapPage(top, { writable }, { start, limit });
    },
  };
}
