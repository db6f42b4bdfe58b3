/** A guest with as many disks and NICs as a VM may have. */
import t from 'tap';
import type { VmView } from '../../src/control/protocol.js';
import { startDaemon } from '../support/daemon.js';
import { cannotBoot, TestGuest } from '../support/guest.js';

const DISKS = 64;
const NICS = 32;

t.test('64 disks and 32 NICs', { skip: cannotBoot() }, async (t) => {
  const daemon = await startDaemon(t);
  const disks = Array.from({ length: DISKS }, () => ['--disk', '1M']);
  const nics = Array.from({ length: NICS }, () => ['--nic', 'none']);
  // One processor has not enough interrupts for all of them.
  const hardware = ['--memory', '256M', '--vcpus', '2'];
  await daemon.ok('create', 'web', ...disks.flat(), ...nics.flat(), ...hardware);
  const guest = await TestGuest.boot(t, daemon, 'web');
  const vm = await daemon.json<VmView>('info', 'web');

  // vda to vdz, vdaa to vdbl; eth0 to eth31.
  const serials = await guest.ask(
    'for disk in /sys/block/vd? /sys/block/vd??; do cat $disk/serial; echo; done',
  );
  t.same(
    serials.split('\n'),
    vm.disks.map(({ serial }) => serial),
    'the disks in order',
  );
  const macs = await guest.ask('cat /sys/class/net/eth?/address /sys/class/net/eth??/address');
  t.same(
    macs.split('\n'),
    vm.nics.map(({ mac }) => mac),
    'the NICs in order',
  );
  await guest.ask('printf last | dd of=/dev/vdbl bs=512 conv=sync,notrunc oflag=direct');
  t.equal(await guest.ask('head -c 4 /dev/vdbl'), 'last', 'the last one is written to');
});
