/** The method `snapshot.diff`: which blocks of disks differ, a part at a time. */
import { type Handlers, MAX_DIFF_EXTENTS } from '../../control/protocol.js';
import type { VmService } from '../../vm/vm-service.js';
import { workOf } from './requests.js';

export function diffHandlers(service: Pick<VmService, 'diff'>): Pick<Handlers, 'snapshot.diff'> {
  return {
    'snapshot.diff': ({ limit = MAX_DIFF_EXTENTS, ...request }, context) =>
      service.diff({ ...request, limit }, workOf(`comparing ${request.vm}`, context)),
  };
}
