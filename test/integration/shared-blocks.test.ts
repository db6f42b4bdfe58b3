/**
 * Several programs write different sectors of the same new 4 KiB blocks at the same time: each
 * write makes a whole block of its part and what was there, and none may lose another's part.
 */
import t, { type Test } from 'tap';
import { MiB, SECTOR_SIZE } from '../../src/common/units.js';
import { startDaemon, type TestDaemon, TRANSPORTS } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { tool } from '../support/run-program.js';

const SIZE = 2 * MiB;
const WRITERS = 8;

/** Each job writes every eighth sector, past the page cache, and then reads its own again. */
async function checkShared(t: Test, daemon: TestDaemon, name: string) {
  const said = await tool('fio', [
    `--name=${name}`,
    `--filename=${await daemon.ok('path', name)}`,
    ...['--direct=1', '--ioengine=psync', `--bs=${SECTOR_SIZE}`],
    `--rw=write:${(WRITERS - 1) * SECTOR_SIZE}`,
    `--numjobs=${WRITERS}`,
    `--offset_increment=${SECTOR_SIZE}`,
    `--io_size=${SIZE / WRITERS}`,
    `--size=${SIZE - WRITERS * SECTOR_SIZE}`,
    ...['--verify=crc32c', '--verify_fatal=1', '--do_verify=1', '--group_reporting'],
    `--aux-path=${daemon.folder}`,
  ]);
  t.match(said, /err= 0/, 'every sector is as its writer left it');
}

for (const transport of TRANSPORTS) {
  t.test(`over the ${transport} channel`, { skip: cannotServe() }, async (t) => {
    const daemon = await startDaemon(t, { transport });
    await daemon.ok('create', 'vm', '--disk', String(SIZE));
    await checkShared(t, daemon, 'vm');
    await daemon.ok('snapshot', 'take', 'vm@full');
    // Now what was there lies in another delta.
    await checkShared(t, daemon, 'vm');
    await daemon.ok('clone', 'vm@full', 'clone', '--linked');
    await checkShared(t, daemon, 'clone');
  });
}
