/** The log: one JSON object a line, whatever it is given. */
import { PassThrough } from 'node:stream';
import t from 'tap';
import { createLogger } from '../../src/daemon/logger.js';

function lines(stream: PassThrough): { [key: string]: unknown }[] {
  const text = String(stream.read() ?? '');
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}

t.test('lines, levels and fields', async (t) => {
  const stream = new PassThrough();
  const log = createLogger({ stream, fields: { part: 'daemon' } });
  log.debug('not this');
  log.info('hello\nworld', { vm: 'web', bytes: 5 });
  log.error('failed', { error: new TypeError('x') });
  log.warn('odd', { level: 'info', message: 'other', time: 'never' });
  const written = lines(stream);
  t.match(written, [
    { level: 'info', message: 'hello\nworld', part: 'daemon', vm: 'web', bytes: 5 },
    { level: 'error', error: { name: 'TypeError', message: 'x', stack: /logger\.test/ } },
    { level: 'warn', message: 'odd' },
  ]);
  t.same(Object.keys(written[0] ?? {}).slice(0, 3), ['time', 'level', 'message']);
  t.match(written[2]?.time, /^\d{4}-\d\d-\d\dT/, 'fields do not take the place of its own');
});

t.test('nothing that a terminal would obey', async (t) => {
  const stream = new PassThrough();
  const log = createLogger({ stream });
  log.error('a\u009b31mb\u202ec\u001b[2Jd\u007f', { path: '/x\u009b' });
  const text = String(stream.read());
  t.match(text, /^[\x20-\x7e]+\n$/, 'escaped');
  t.match(JSON.parse(text), { message: 'a\u009b31mb\u202ec\u001b[2Jd\u007f', path: '/x\u009b' });
});

t.test('a level of one’s own, and a stream that breaks', async (t) => {
  const stream = new PassThrough();
  const log = createLogger({ stream, level: 'error' });
  log.warn('not this');
  log.error('this');
  t.equal(lines(stream).length, 1);
  stream.emit('error', new Error('EPIPE'));
  log.error('and still no crash');
  t.pass();
});
