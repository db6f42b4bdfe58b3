/** Which daemons wait for a death of the one that serves. */
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { Spares } from '../../src/daemon/spares.js';

class Life {
  ended = false;
  hurried = 0;
  readonly #end = new AbortController();
  readonly over = once(this.#end.signal, 'abort');
  #resolveWarm: (isWarm: boolean) => void = () => undefined;
  readonly warm = new Promise<boolean>((resolve) => {
    this.#resolveWarm = resolve;
  });

  load(): void {
    this.#resolveWarm(true);
  }

  hurryUp(): void {
    this.hurried += 1;
  }

  async discard(): Promise<void> {
    this.ended = true;
    this.#end.abort();
    this.#resolveWarm(false);
    await this.over;
  }
}

/** What was loaded, in order. */
function makeSpares(alertMs?: number) {
  const loaded: Life[] = [];
  const load = (): Life => {
    const life = new Life();
    loaded.push(life);
    return life;
  };
  return { loaded, spares: new Spares(load, alertMs) };
}

t.test('one waits, and the first one is taken first', async (t) => {
  const { loaded, spares } = makeSpares();
  spares.fill();
  spares.fill();
  t.equal(loaded.length, 1);
  t.equal(spares.take(), loaded[0]);
  t.equal(spares.take(), loaded[1], 'without a spare, one is loaded');
});

t.test('one that ends is none', async (t) => {
  const { loaded, spares } = makeSpares();
  spares.fill();
  await loaded[0]?.discard();
  spares.fill();
  t.equal(spares.take(), loaded[1]);
});

t.test('after a death two wait, for a while', async (t) => {
  const { loaded, spares } = makeSpares(50);
  spares.fill();
  spares.alert();
  spares.fill();
  t.equal(loaded.length, 2);
  await loaded[1]?.over;
  t.equal(loaded[0]?.ended, false, 'the first one still waits');
  spares.fill();
  t.equal(loaded.length, 2, 'and is enough');
});

t.test('only after a death the next one hurries', async (t) => {
  const { loaded, spares } = makeSpares();
  spares.fill();
  t.equal(loaded[0]?.hurried, 0);
  spares.alert();
  spares.fill();
  t.same(
    loaded.map(({ hurried }) => hurried),
    [1, 0],
    'of two that load, the one that is needed first',
  );
  spares.take();
  spares.fill();
  t.same(
    loaded.map(({ hurried }) => hurried),
    [1, 1, 0],
  );
  await spares.discard();
});

t.test('renewed, it is another one once that is loaded', async (t) => {
  const { loaded, spares } = makeSpares();
  spares.fill();
  const renewed = spares.renew();
  t.equal(loaded[0]?.ended, false);
  loaded[1]?.load();
  t.equal(await renewed, loaded[1]);
  t.equal(loaded[0]?.ended, true);
  t.equal(spares.take(), loaded[1]);
});

t.test('one that cannot be loaded takes no place', async (t) => {
  const { loaded, spares } = makeSpares();
  spares.fill();
  const renewed = spares.renew();
  await loaded[1]?.discard();
  await renewed;
  t.equal(loaded[0]?.ended, false);
  t.equal(spares.take(), loaded[0]);
});

t.test('a death while another one is loaded', async (t) => {
  const { loaded, spares } = makeSpares();
  spares.fill();
  const renewed = spares.renew();
  t.equal(spares.take(), loaded[0]);
  t.equal(spares.take(), loaded[1]);
  spares.fill();
  loaded[1]?.load();
  await renewed;
  t.same(
    loaded.map(({ ended }) => ended),
    [false, false, false],
    'whoever was put to work is no spare any more',
  );
});

t.test('discarded while another one is loaded, none stays', async (t) => {
  const { loaded, spares } = makeSpares();
  spares.fill();
  const renewed = spares.renew();
  await spares.discard();
  await renewed;
  t.ok(loaded.every(({ ended }) => ended));
  spares.fill();
  t.equal(loaded.length, 3, 'and none is added');
  await spares.discard();
});

t.test('discarded, none waits and nothing is awaited', async (t) => {
  const { loaded, spares } = makeSpares(50);
  spares.alert();
  spares.fill();
  await spares.discard();
  t.same(
    loaded.map(({ ended }) => ended),
    [true, true],
  );
  await sleep(100);
  spares.fill();
  t.equal(loaded.length, 3, 'and there is no alarm any more');
});
