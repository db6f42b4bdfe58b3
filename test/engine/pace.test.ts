/** The pace of long jobs: who is seen to be served, and when a job ends early. */
import t from 'tap';
import { Pace, servedByOthers } from '../../src/engine/jobs/pace.js';
import { ScratchEngine } from '../support/engine.js';

const SIZE = 1024 * 1024;

t.test('reads and writes of other threads are seen, and of no others', async (t) => {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  const { volumes, deltas, context } = scratch.engine;
  const below = { kind: 'none' } as const;
  const delta = await deltas.create({ below, virtualSize: SIZE, allocation: 'dynamic' });
  const open = await volumes.acquire(delta, { writable: true });
  const volume = scratch.volumeOf(open.handle);
  const { views, thread } = context;
  const seen = () => servedByOthers(views, thread + 1);
  const before = seen();
  volume.write(Buffer.alloc(512, 1), 0, 0, 512);
  t.equal(seen(), before + 1, 'a write');
  volume.read(Buffer.alloc(512), 0, 0, 512);
  t.equal(seen(), before + 2, 'a read');
  volume.flush();
  t.equal(seen(), before + 2, 'what is asked for by timers of our own is nobody being served');
  t.equal(servedByOthers(views, thread), 0, 'one does not see oneself');
  volumes.release(open);
});

t.test('a job rests for most of the time while others are served', async (t) => {
  let requests = 0;
  const pace = new Pace({ served: () => (requests += 500) });
  let worked = 0;
  const start = performance.now();
  for (let stretch = 0; stretch < 5; stretch += 1) {
    const begun = performance.now();
    while (performance.now() - begun < 3);
    worked += performance.now() - begun;
    await pace.rest();
  }
  // Rests are capped, so that a machine that is busy itself makes the share larger at most.
  const rests = performance.now() - start - worked;
  t.ok(rests > 5 * 40, `rested for ${Math.round(rests)} ms of stretches of 3 ms`);
});

t.test('a cancelled job ends at its next rest', async (t) => {
  const signal = { aborted: false };
  const pace = new Pace({ signal });
  await pace.rest();
  signal.aborted = true;
  await t.rejects(pace.rest(), { code: 'interrupted' });
});
