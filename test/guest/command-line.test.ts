/** What QEMU is told of a VM, and what a NIC's mode means. */
import t from 'tap';
import { buildCommandLine, type GuestHardware } from '../../src/guest/command-line.js';
import { diskSerial, MAX_SERIAL_LENGTH } from '../../src/guest/disk-serial.js';
import { groupOf, plugNics } from '../../src/guest/networks.js';

const HARDWARE: GuestHardware = {
  name: 'web',
  id: 'e650afad-2127-4db2-aa77-3c32bf794813',
  vcpus: 3,
  memory: 128 * 2 ** 20 + 512,
  disks: [
    {
      ...{ name: 'a', allocation: 'dynamic', kind: 'normal' },
      ...{ path: '/m/web/a,b.raw', serial: 'e650afad212-10' },
    },
    {
      ...{ name: 'b', allocation: 'static', kind: 'read-only' },
      ...{ path: '/m/web/b.raw', serial: 'e650afad212-11' },
    },
  ],
  nics: [
    { mode: 'nat', mac: '52:54:00:00:00:01' },
    { mode: 'none', mac: '52:54:00:00:00:02' },
  ],
};

function build(console: 'terminal' | 'stream' | 'socket', extra: string[] = []): string[] {
  return buildCommandLine({
    hardware: HARDWARE,
    accelerator: 'tcg',
    folder: '/store/vms,run/7',
    console,
    backends: ['user', undefined],
    extra,
  });
}

/** The values of an option, in order. */
function valuesOf(args: readonly string[], option: string): string[] {
  return args.filter((_, index) => args[index - 1] === option);
}

t.test('the command line', async (t) => {
  const args = build('socket', ['-cdrom', 'x.iso']);
  t.same(args.slice(-2), ['-cdrom', 'x.iso'], "the user's own arguments come last");
  t.same(valuesOf(args, '-smp'), ['3']);
  t.same(valuesOf(args, '-m'), ['size=134218240b'], 'memory to the byte');
  t.same(valuesOf(args, '-machine'), ['q35,accel=tcg']);
  t.ok(args.includes('-S'), 'the guest waits until the run folder says that it runs');
  t.same(valuesOf(args, '-qmp'), ['unix:/store/vms,,run/7/qmp,server=on,wait=off']);

  const disks = valuesOf(args, '-blockdev').map((text) => JSON.parse(text));
  t.match(disks, [
    {
      discard: 'unmap',
      'detect-zeroes': 'unmap',
      file: { filename: '/m/web/a,b.raw', aio: 'native', locking: 'on', cache: { direct: true } },
    },
    {
      ...{ discard: 'unmap', 'detect-zeroes': 'off', 'read-only': true },
      file: { filename: '/m/web/b.raw', 'read-only': true },
    },
  ]);
  t.notOk('read-only' in disks[0], 'only what is read-only');
  const devices = valuesOf(args, '-device').filter((text) => text.startsWith('{'));
  t.match(
    devices.map((text) => JSON.parse(text)),
    [
      { driver: 'virtio-blk-pci', serial: 'e650afad212-10', bootindex: 1 },
      { driver: 'virtio-blk-pci', serial: 'e650afad212-11', bootindex: 2 },
      { driver: 'virtio-net-pci', mac: '52:54:00:00:00:01', netdev: 'nic0' },
      { driver: 'virtio-net-pci', mac: '52:54:00:00:00:02', netdev: 'nic1' },
    ],
  );
  t.same(valuesOf(args, '-netdev'), ['user,id=nic0', 'hubport,hubid=1,id=nic1']);
});

t.test('consoles', async (t) => {
  const chardevs = (kind: 'terminal' | 'stream' | 'socket') => valuesOf(build(kind), '-chardev')[0];
  t.equal(chardevs('terminal'), 'stdio,id=console,mux=on,signal=off');
  t.equal(chardevs('stream'), 'stdio,id=console,signal=off', 'no key of a pipe means anything');
  t.match(chardevs('socket'), /^socket,id=console,path=.*\/console,server=on,wait=off$/);
});

t.test('serials', async (t) => {
  const highest = diskSerial(HARDWARE.id, 0xffff_ffff);
  t.equal(highest, 'e650afad212-ffffffff');
  t.equal(highest.length, MAX_SERIAL_LENGTH);
  t.not(diskSerial(HARDWARE.id, 16), diskSerial(HARDWARE.id, 17));
});

t.test('networks', async (t) => {
  t.same(groupOf('store', 'lan'), groupOf('store', 'lan'), 'the same for all members');
  t.notSame(groupOf('store', 'lan'), groupOf('store', 'dmz'));
  t.notSame(groupOf('store', 'lan'), groupOf('other', 'lan'), 'each store has its own');
  t.match(groupOf('store', 'lan').address, /^239(\.\d{1,3}){3}$/);
  const { port } = groupOf('store', 'lan');
  t.ok(port >= 49152 && port <= 65535);

  const mac = '52:54:00:00:00:01';
  const plug = (nic: GuestHardware['nics'][number]) =>
    plugNics({ storeId: 'store', nics: [nic] }).backends[0];
  t.equal(plug({ mode: 'nat', mac }), 'user');
  t.equal(plug({ mode: 'none', mac }), undefined);
  t.match(plug({ mode: 'internal', mac, network: 'lan' }), /^socket,mcast=239\..*127\.0\.0\.1$/);
  t.throws(() => plug({ mode: 'bridged', mac }), { code: 'usage' }, 'a bridge must be named');
  const absent = { mode: 'bridged', mac, network: 'no-such-br' } as const;
  t.throws(() => plug(absent), { code: 'not-supported' });
});
