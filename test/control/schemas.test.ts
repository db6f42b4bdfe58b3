/** Parameters that do not fit are refused by name before any handler sees them. */
import t from 'tap';
import { DiskError } from '../../src/common/errors.js';
import type { MethodName } from '../../src/control/protocol.js';
import { checkParams } from '../../src/control/schemas.js';

const GOOD: readonly (readonly [MethodName, object])[] = [
  ['daemon.status', {}],
  ['create', { vm: 'web', disks: [] }],
  [
    'create',
    {
      vm: 'a.b_c-9',
      disks: [{ name: 'root', size: 512, allocation: 'static' }, { size: 64 * 2 ** 40 }],
      vcpus: 1,
      memory: 2 ** 31,
      nics: [{ mode: 'nat', mac: '52:54:00:00:00:01', network: 'br0' }],
    },
  ],
  ['import', { files: ['/a b', '/ü'], vm: 'web', format: 'auto', copy: true, parent: '/p' }],
  ['tree', {}],
  ['tree', { vm: 'web' }],
  ['path', { vm: 'web', snapshot: 's', disk: 'd' }],
  ['detach', { device: '/dev/loop0' }],
  ['detach', { target: { vm: 'web' } }],
  ['mount', { vm: 'web', directory: '/mnt', partition: 1, readOnly: false }],
  ['snapshot.take', { vm: 'web', snapshot: 's', message: 'line\nline' }],
  ['snapshot.restore', { vm: 'web', snapshot: 's', discard: true }],
  ['snapshot.restore', { vm: 'web', snapshot: 's', saveCurrent: true }],
  ['snapshot.restore', { vm: 'web', snapshot: 's', saveCurrent: 'name' }],
  ['clone', { vm: 'web', name: 'copy', mode: 'full', mac: 'keep-nat', vcpus: 3 }],
  ['export', { vm: 'web', path: '/x.vdi', format: 'vdi', subformat: 'static', force: true }],
  ['check', { vm: 'web', deep: true, repair: false }],
  ['compact', { vm: 'web' }],
  ['gc', { dryRun: true }],
  ['map', { vm: 'web', snapshot: 's', disk: 'd', start: 4096, limit: 1000 }],
  ['snapshot.diff', { vm: 'web', from: 'a' }],
  [
    'snapshot.diff',
    { vm: 'web', from: 'a', to: 'b', disk: 'd', next: { disk: 'd', start: 4096 }, limit: 4000 },
  ],
];

const BAD: readonly (readonly [MethodName, unknown, RegExp])[] = [
  ['list', { extra: 1 }, /^list: .*"extra"/],
  ['list', JSON.parse('{"__proto__":1}'), /__proto__/],
  ['map', { vm: 'web', start: -1 }, /^map: "start": /],
  ['map', { vm: 'web', limit: 1001 }, /^map: "limit": /],
  ['snapshot.diff', { vm: 'web' }, /^snapshot\.diff: "from": /],
  ['snapshot.diff', { vm: 'web', from: 'a', to: '' }, /"to": must be a name/],
  ['snapshot.diff', { vm: 'web', from: 'a', next: { disk: 'd' } }, /"next\.start"/],
  ['snapshot.diff', { vm: 'web', from: 'a', limit: 4001 }, /"limit"/],
  ['info', {}, /^info: "vm": /],
  ['info', { vm: 5 }, /^info: "vm": /],
  ['info', { vm: '' }, /must be a name/],
  ['info', { vm: '../etc' }, /must be a name/],
  ['info', { vm: '.hidden' }, /must be a name/],
  ['info', { vm: 'web\n' }, /must be a name/],
  ['info', { vm: 'x'.repeat(65) }, /must be a name/],
  ['info', { vm: 'wéb' }, /must be a name/],
  ['info', null, /^info: /],
  ['info', [], /^info: /],
  ['create', { vm: 'web' }, /^create: "disks": /],
  ['create', { vm: 'web', disks: [{ size: '10G' }] }, /"disks.0.size"/],
  ['create', { vm: 'web', disks: [{ size: 1.5 }] }, /"disks.0.size"/],
  ['create', { vm: 'web', disks: [{ size: -512 }] }, /"disks.0.size"/],
  ['create', { vm: 'web', disks: [{ size: 2 ** 60 }] }, /"disks.0.size"/],
  ['create', { vm: 'web', disks: [{ size: 512, alocation: 'x' }] }, /"alocation"/],
  ['create', { vm: 'web', disks: Array(300).fill({ size: 512 }) }, /"disks"/],
  ['create', { vm: 'web', disks: [], vcpus: 0 }, /"vcpus"/],
  ['create', { vm: 'web', disks: [], nics: [{ mode: 'wifi' }] }, /"nics.0.mode"/],
  ['import', { files: [], vm: 'web' }, /"files"/],
  ['import', { files: ['relative'], vm: 'web' }, /"files.0": must be an absolute path/],
  ['import', { files: ['/a\0b'], vm: 'web' }, /NUL/],
  ['import', { files: [`/${'x'.repeat(5000)}`], vm: 'web' }, /longer than a path/],
  [
    'snapshot.take',
    { vm: 'web', snapshot: 'a', message: 'x'.repeat(5000) },
    /"message": is longer than 4096/,
  ],
  ['import', { files: ['/a'], vm: 'web', format: 'iso' }, /"format"/],
  ['detach', {}, /exactly one of "target" and "device"/],
  ['detach', { device: '/dev/loop0', target: { vm: 'web' } }, /exactly one/],
  ['mount', { vm: 'web', directory: '/mnt', partition: 0 }, /"partition"/],
  ['snapshot.take', { vm: 'web', snapshot: 's', message: 'x'.repeat(5000) }, /"message"/],
  ['snapshot.restore', { vm: 'web', snapshot: 's' }, /exactly one of "saveCurrent"/],
  ['snapshot.restore', { vm: 'web', snapshot: 's', saveCurrent: true, discard: true }, /exactly/],
  ['snapshot.restore', { vm: 'web', snapshot: 's', saveCurrent: false }, /exactly one/],
  ['clone', { vm: 'web', name: 'copy', mode: 'half' }, /"mode"/],
  ['export', { vm: 'web', path: 'x.vdi', format: 'vdi' }, /"path"/],
  ['export', { vm: 'web', path: '/x.iso', format: 'iso' }, /"format"/],
  ['check', { deep: 1 }, /"deep"/],
  ['gc', { dryRun: 'yes' }, /"dryRun"/],
];

t.test('what fits comes out as it went in', async (t) => {
  for (const [method, params] of GOOD) t.same(checkParams(method, params), params, method);
});

t.test('what does not fit is a usage error of one short line', async (t) => {
  for (const [method, params, message] of BAD) {
    try {
      checkParams(method, params);
      t.fail(`${method} accepted ${JSON.stringify(params)}`);
    } catch (error) {
      t.ok(error instanceof DiskError && error.code === 'usage', String(error));
      t.match(String(error), new RegExp(message.source.replace(/^\^/, '')));
    }
  }
});

t.test('a hostile key does not flood the message', async (t) => {
  try {
    checkParams('list', { [`\u001b[2J${'k'.repeat(100_000)}`]: 1 });
    t.fail('accepted');
  } catch (error) {
    t.ok(error instanceof DiskError && error.message.length < 600);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be in it
    t.notMatch(String(error), /[\u0000-\u001f]/);
  }
});
