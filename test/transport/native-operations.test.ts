/** Callbacks of the fuse-native channel, asked as libfuse asks them. */
import { promisify } from 'node:util';
import t from 'tap';
import type { Namespace } from '../../src/transport/namespace.js';
import { NativeOperations } from '../../src/transport/native-operations.js';

t.test('a configuration that was longer a moment ago is read past its end', async (t) => {
  const namespace = {
    getattr: () => ({ node: { hi: 0, lo: 1 } }),
    lookup: () => ({ node: { hi: 1, lo: 2 } }),
    open: () => ({ kind: 'content', bytes: Buffer.from('short') }),
  } as unknown as Namespace;
  const noDisk = (): never => t.fail('no disk is read') as never;
  const problems: unknown[] = [];
  const operations = new NativeOperations(namespace, noDisk, (_, error) => problems.push(error));
  const { open, read } = operations.callbacks();
  const fd = (await promisify(open!)('/vm.json', 0)) as number;
  const readAt = (offset: number, buffer: Buffer): Promise<number> =>
    new Promise((done) => read!('/vm.json', fd, buffer, buffer.length, offset, done));
  t.equal(await readAt(8192, Buffer.alloc(4096)), 0, 'where nothing is any more');
  const end = Buffer.alloc(4096);
  t.equal(await readAt(2, end), 3);
  t.equal(end.toString('utf8', 0, 3), 'ort');
  t.equal(await readAt(1, Buffer.alloc(2)), 2, 'no more than is asked for');
  t.same(problems, []);
});
