/**
 * The mount outlives the process that serves it: a new one takes over, and nobody above sees an
 * error.
 */
import { spawn } from 'node:child_process';
import { closeSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { mountKernelChannel, unmountKernelChannel } from '../../src/transport/mount.js';
import { cannotMount, DiskServer, temporaryDirectory } from '../support/disk-server.js';
import { cannotResend } from '../support/takeover.js';

const KILLS = 6;
/** Time for some requests between two kills; nothing depends on how many. */
const PAUSE_MS = 300;

t.test(
  'fio verifies while servers are killed',
  { skip: cannotMount() ?? cannotResend() },
  async (t) => {
    const { path: directory, remove } = temporaryDirectory();
    t.teardown(remove);
    const path = join(directory, 'disk0.img');
    writeFileSync(path, '');
    truncateSync(path, 32 * 1024 * 1024);
    const mountpoint = join(directory, 'mnt');
    const mount = await mountKernelChannel({ mountpoint, allowOther: true, maxRead: 1024 * 1024 });
    t.teardown(async () => {
      await unmountKernelChannel(mount, true);
      closeSync(mount.fd);
    });
    const disks = [{ vm: 'web', name: 'disk0', path }];
    const serve = (takeover: boolean) =>
      DiskServer.start({ kind: 'kernel', mountpoint, disks, adopt: { mount, takeover } });
    let server = await serve(false);
    const fio = spawn('fio', [
      ...[
        '--name=over',
        '--verify_state_save=0',
        `--filename=${join(mountpoint, 'web/disk0.raw')}`,
        '--rw=randwrite',
      ],
      ...['--bsrange=512-64k', '--blockalign=512', '--numjobs=2', '--size=16m'],
      ...['--offset_increment=16m', '--ioengine=psync', '--fsync=16', '--verify=crc32c'],
      ...['--verify_fatal=1', '--verify_backlog=64', '--time_based', '--runtime=4'],
    ]);
    let said = '';
    fio.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    fio.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    const status = new Promise<number | null>((resolve) => fio.on('close', resolve));
    for (let kill = 0; kill < KILLS; kill += 1) {
      await delay(PAUSE_MS);
      server.child.kill('SIGKILL');
      await server.ended;
      server = await serve(true);
    }
    const ended = await status;
    t.equal(ended, 0, 'fio saw no error and every byte as it wrote it');
    if (ended !== 0) t.comment(said);
    await server.ask('stop');
    t.equal((await server.ended)?.ended, 'stopped');
  },
);
