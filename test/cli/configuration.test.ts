/** The configuration file: what it may say, and that a mistake in it is named. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readConfiguration } from '../../src/cli/configuration.js';
import { temporaryFolder } from '../control/socket-fixture.js';

t.test('what it may say', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'config.json');
  t.same(readConfiguration(file), {}, 'no file');
  t.same(readConfiguration(join(file, 'x')), {}, 'no folder');
  const all = {
    store: '/s',
    socket: '/s/c',
    mountpoint: '/m',
    transport: 'kernel',
    threads: 4,
    allowOther: true,
    verifyReads: true,
    reserve: '1G',
    onFull: 'pause',
  };
  writeFileSync(file, JSON.stringify(all));
  t.same(readConfiguration(file), all);
});

t.test('mistakes', async (t) => {
  const file = join(temporaryFolder(t), 'config.json');
  const rows: readonly (readonly [text: string, says: RegExp])[] = [
    ['', /is not a JSON document/],
    ['{"store": "/s",}', /is not a JSON document/],
    ['[]', /is not a JSON object/],
    ['null', /is not a JSON object/],
    ['{"stor": "/s"}', /unknown key "stor"/],
    ['{"__proto__": 1}', /unknown key "__proto__"/],
    ['{"store": ""}', /"store" must be a path/],
    ['{"store": 1}', /"store" must be a path/],
    ['{"transport": "nfs"}', /"transport" must be one of auto, kernel, fuse-native/],
    ['{"threads": 0}', /"threads" must be a whole number from 1/],
    ['{"allowOther": "yes"}', /"allowOther" must be true or false/],
    ['{"reserve": "much"}', /"reserve" must be a size/],
    ['{"reserve": -1}', /"reserve" must be a size/],
    ['{"onFull": "stop"}', /"onFull" must be one of report, pause/],
    ['{"verifyReads": 1}', /"verifyReads" must be true or false/],
  ];
  for (const [text, says] of rows) {
    writeFileSync(file, text);
    t.throws(() => readConfiguration(file), {
      code: 'usage',
      message: new RegExp(`^configuration file ${file}: .*${says.source}`),
    });
  }
  mkdirSync(join(file, '..', 'folder'));
  t.throws(() => readConfiguration(join(file, '..', 'folder')), { code: 'not-permitted' });
});
