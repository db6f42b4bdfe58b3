/**
 * Manifests: what is written reads the same, and every wrong one is refused with the VM's name and
 * the reason.
 */
import { randomUUID } from 'node:crypto';
import t from 'tap';
import {
  formatManifest,
  type Manifest,
  macsOf,
  parseManifest,
} from '../../src/vm/store/manifest.js';

const first = randomUUID();
const second = randomUUID();
const delta = (digit: string) => digit.repeat(32);

const snapshot = (id: string, name: string, node: number, parent: string | null) => ({
  id,
  name,
  node,
  created: '2026-01-02T03:04:05.678Z',
  parent,
  consistency: 'consistent',
  vcpus: 1,
  memory: 1024,
  nics: [{ mode: 'nat' as const, mac: `52:54:00:00:00:${node}` }],
  disks: [
    {
      name: 'disk0',
      node: node + 1,
      size: 4096,
      allocation: 'dynamic' as const,
      delta: delta(String(node % 10)),
    },
  ],
});

const manifest: Manifest = {
  version: 1,
  id: randomUUID(),
  number: 7,
  created: '2026-01-02T03:04:05.678Z',
  vcpus: 2,
  memory: 1 << 30,
  nics: [{ mode: 'bridged', mac: '52:54:00:00:00:17', network: 'br0' }],
  disks: [{ name: 'disk0', node: 16, size: 4096, allocation: 'static', head: delta('a') }],
  snapshots: [snapshot(first, 'first', 17, null), snapshot(second, 'second', 19, first)],
  current: second,
  nextNode: 21,
  origin: {
    vm: 'gold',
    vmId: randomUUID(),
    snapshot: 's',
    snapshotId: randomUUID(),
    lineage: [randomUUID()],
  },
};

t.test('what is written reads the same', async (t) => {
  t.same(parseManifest('web', formatManifest(manifest)), manifest);
  t.same(macsOf(manifest), ['52:54:00:00:00:17', '52:54:00:00:00:19'], 'each address once');
});

type Json = Record<string, unknown>;

/** A copy of the manifest with one thing wrong. */
function spoil(change: (copy: Json & { disks: Json[]; snapshots: Json[] }) => void): string {
  const copy = structuredClone(manifest) as unknown as Parameters<typeof change>[0];
  change(copy);
  return JSON.stringify(copy);
}

const wrong: readonly [what: string, text: string, reason: RegExp][] = [
  ['empty', '', /is not JSON/],
  ['cut short', formatManifest(manifest).slice(0, 200), /is not JSON/],
  ['binary', 'x\0\n\n'.repeat(100), /is not JSON \([^\n]{1,100}\)$/],
  ['no object', '[]', /is invalid/],
  ['version as text', spoil((m) => (m.version = '1')), /version/],
  ['a field too many', spoil((m) => (m.extra = 1)), /extra/],
  ['a field too few', spoil((m) => delete m.nextNode), /nextNode/],
  ['a bad disk name', spoil((m) => (m.disks[0]!.name = '../x')), /disks.0.name/],
  ['a bad size', spoil((m) => (m.disks[0]!.size = 100)), /disks.0.size/],
  ['a bad delta id', spoil((m) => (m.disks[0]!.head = 'x')), /disks.0.head/],
  ['a reserved node', spoil((m) => (m.disks[0]!.node = 2)), /disks.0.node/],
  ['number 0', spoil((m) => (m.number = 0)), /number/],
  ['a node twice', spoil((m) => (m.disks[0]!.node = 17)), /a node is used twice/],
  ['nextNode too small', spoil((m) => (m.nextNode = 20)), /nextNode was given out/],
  ['an unknown current', spoil((m) => (m.current = randomUUID())), /current is no snapshot/],
  ['an unknown parent', spoil((m) => (m.snapshots[0]!.parent = randomUUID())), /unknown parent/],
  ['a cycle', spoil((m) => (m.snapshots[0]!.parent = second)), /is its own ancestor/],
  [
    'one name twice',
    spoil((m) => (m.snapshots[0]!.name = 'second')),
    /two snapshots have one name/,
  ],
  ['one id twice', spoil((m) => (m.snapshots[0]!.id = second)), /two snapshots have one id/],
  ['a head that is sealed', spoil((m) => (m.disks[0]!.head = delta('7'))), /a head is the delta/],
  ['a disk twice', spoil((m) => m.disks.push({ ...m.disks[0], node: 18.5 })), /invalid/],
];

t.test('wrong ones', async (t) => {
  for (const [what, text, reason] of wrong) {
    t.throws(() => parseManifest('web', text), { code: 'damaged', message: reason }, what);
    t.throws(() => parseManifest('web', text), { message: /^VM "web": its manifest/ }, 'named');
  }
});

t.test('a newer version is not damage: nobody may repair it', async (t) => {
  const text = spoil((m) => (m.version = 2));
  const message = /^VM "web": its manifest has version 2, this layerdisk knows 1/;
  t.throws(() => parseManifest('web', text), { code: 'not-supported', message });
});
