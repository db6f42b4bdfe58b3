/** Hardware: limits, MAC addresses, what a clone does with them. */
import t from 'tap';
import { changeHardware, cloneNics, type HardwareRequest, MacPool } from '../../src/vm/hardware.js';
import { VmCatalog } from '../../src/vm/store/vm-catalog.js';

const pool = () => new MacPool(new VmCatalog());
const MAC = /^52:54:00(:[0-9a-f]{2}){3}$/;

t.test('what is asked for, completed', async (t) => {
  const claims = pool().claims();
  const made = changeHardware({ vcpus: 4, nics: [{ mode: 'nat' }, { mode: 'none' }] }, claims);
  t.match(made, { vcpus: 4, memory: 1 << 30, nics: [{ mac: MAC }, { mac: MAC }] });
  t.not(made.nics[0]?.mac, made.nics[1]?.mac);
  const kept = changeHardware({ memory: 2 ** 31 }, claims, made);
  t.same(kept, { ...made, memory: 2 ** 31 }, 'what is absent stays');
  const nics = [{ mode: 'bridged', network: 'br0' }] as const;
  t.same(
    changeHardware({ nics }, claims, made).nics,
    [{ mode: 'bridged', network: 'br0', mac: made.nics[0]?.mac }],
    'a NIC keeps the address of its position',
  );
  const chosen = changeHardware({ nics: [{ mode: 'nat', mac: 'AA-bb-CC-00-11-22' }] }, claims);
  t.equal(chosen.nics[0]?.mac, 'aa:bb:cc:00:11:22');
});

const bad: readonly [request: HardwareRequest, code: string, message: RegExp][] = [
  [{ vcpus: 0 }, 'usage', /0 virtual CPUs/],
  [{ vcpus: 1.5 }, 'usage', /1.5 virtual CPUs/],
  [{ vcpus: 100_000 }, 'usage', /100000 virtual CPUs/],
  [{ memory: 0 }, 'usage', /memory of 0 B is/],
  [{ memory: Number.NaN }, 'usage', /memory of NaN/],
  [{ memory: 2 ** 50 }, 'usage', /memory of/],
  [{ nics: [{ mode: 'nat', mac: 'x' }] }, 'usage', /"x" is no MAC address/],
  [{ nics: [{ mode: 'nat', mac: 'y'.repeat(500) }] }, 'usage', /^.{1,80}$/],
  [{ nics: [{ mode: 'nat', mac: '01:00:5e:00:00:01' }] }, 'usage', /single machine/],
  [{ nics: [{ mode: 'nat', mac: 'ff:ff:ff:ff:ff:ff' }] }, 'usage', /single machine/],
  [{ nics: [{ mode: 'nat', mac: '00:00:00:00:00:00' }] }, 'usage', /single machine/],
  [{ nics: [{ mode: 'bridged', network: '-x; rm' }] }, 'usage', /no valid network name/],
  [{ nics: Array.from({ length: 33 }, () => ({ mode: 'nat' as const })) }, 'usage', /33 NICs/],
];

t.test('limits', async (t) => {
  for (const [request, code, message] of bad) {
    t.throws(() => changeHardware(request, pool().claims()), { code, message });
  }
});

t.test('one address, one owner', async (t) => {
  const macs = pool();
  const mac = '52:54:00:12:34:56';
  const twice = {
    nics: [
      { mode: 'nat' as const, mac },
      { mode: 'nat' as const, mac },
    ],
  };
  t.throws(() => changeHardware(twice, pool().claims()), { code: 'usage', message: /two NICs/ });
  const first = macs.claims();
  const second = macs.claims();
  first.choose(mac, undefined);
  t.throws(
    () => second.choose(mac, undefined),
    { code: 'exists' },
    'claimed by a running operation',
  );
  first.release();
  t.equal(second.choose(mac, undefined), mac);
});

t.test('clones', async (t) => {
  const nics = [
    { mode: 'nat' as const, mac: '52:54:00:00:00:01' },
    { mode: 'bridged' as const, mac: '52:54:00:00:00:02', network: 'br0' },
    { mode: 'internal' as const, mac: '52:54:00:00:00:02' },
  ];
  const claims = pool().claims();
  t.same(cloneNics(nics, 'keep', claims), nics);
  const nat = cloneNics(nics, 'keep-nat', claims);
  t.same(nat[0], nics[0]);
  t.match(nat[1], { mode: 'bridged', network: 'br0', mac: MAC });
  t.equal(nat[1]?.mac, nat[2]?.mac, 'one old address, one new address');
  const fresh = cloneNics(nics, 'new', claims);
  for (const [index, nic] of fresh.entries()) t.not(nic.mac, nics[index]?.mac);
});
