/** What is told of an open disk. */
import t from 'tap';
import { BLOCK_SIZE, MiB } from '../../src/common/units.js';
import {
  createSharedMemory,
  VOLUME,
  viewSharedMemory,
} from '../../src/engine/shared/shared-memory.js';
import { describeVolume, VolumeRow } from '../../src/engine/shared/volume-row.js';

t.test('a disk takes no more space than it has, whatever deltas hide of its base', async (t) => {
  const views = viewSharedMemory(createSharedMemory(1));
  const row = new VolumeRow(views, 3);
  row.size = MiB + 512;
  row.baseAllocated = MiB;
  const opened = describeVolume(views, 3);
  t.equal(opened.allocatedSize, MiB);
  row.set(VOLUME.mappedBlocks, 1);
  t.equal(opened.allocatedSize, MiB + BLOCK_SIZE, 'its last block is one, too');
  row.set(VOLUME.mappedBlocks, 200);
  t.equal(opened.allocatedSize, MiB + BLOCK_SIZE);
});
